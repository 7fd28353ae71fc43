//! Faults 71 to 98: this machine: its disks, clocks, files and signals. Those of the database are in `trouble` and `damage` too.

mod clocks;
mod configuration;
mod limits;
mod places;
mod signals;
mod watchdog;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{Process, eventually, json};
use crate::trouble::skipped;

/// `strace` on every thread of a process, and what it does to it. Dropping it lets the process go on.
struct Tracer(Child);

impl Tracer {
    /// `None` where there is no `strace`, or it may not.
    fn on(process: &Process, arguments: &[&str]) -> Option<Self> {
        Self::attach(process, &[&["-f"], arguments].concat(), &format!("/proc/{}/task", process.pid()))
    }

    /// The same for its first thread alone.
    fn on_first_thread(process: &Process, arguments: &[&str]) -> Option<Self> {
        Self::attach(process, arguments, &format!("/proc/{0}/task/{0}", process.pid()))
    }

    /// `threads` is the folder of one thread, or of all.
    fn attach(process: &Process, arguments: &[&str], threads: &str) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-p", &process.pid().to_string()]).args(arguments);
        let Ok(child) = command.stderr(Stdio::null()).spawn() else { return skipped("no strace") };
        let mut tracer = Self(child);
        let status = |folder: &Path| fs::read_to_string(folder.join("status")).ok();
        let attached = eventually("strace", || {
            if tracer.0.try_wait().expect("a child").is_some() {
                return Some(false);
            }
            let one = status(Path::new(threads));
            let all = fs::read_dir(threads).expect("its threads").filter_map(|task| status(&task.ok()?.path()));
            let mut statuses: Box<dyn Iterator<Item = String>> =
                if one.is_some() { Box::new(one.into_iter()) } else { Box::new(all) };
            statuses.all(|status| !status.contains("TracerPid:\t0\n")).then_some(true)
        });
        if attached { Some(tracer) } else { skipped("strace may not attach") }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // An error says that it has ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// How often the simulator was asked for a job.
fn polls(simulator: std::net::SocketAddr) -> u64 {
    let calls = &json(simulator, "/-/calls")["GetReferenceImportJob"];
    calls.as_object().expect("counts").values().filter_map(serde_json::Value::as_u64).sum()
}

/// The configuration, with its database elsewhere.
fn with_record(config: &str, database: &Path) -> String {
    config.replace("refwatch.db", database.to_str().expect("text"))
}

/// Failures that come back soon.
fn impatient(config: &str) -> String {
    config.replace("[poll]\n", "[poll]\ntimeout = \"1s\"\nbackoff_initial = \"200ms\"\nbackoff_max = \"1s\"\n")
}
