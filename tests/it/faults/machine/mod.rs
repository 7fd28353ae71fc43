//! Faults 71 to 98: disks, clocks, files, signals and limits of this machine.
//!
//! `disk_faults` and `damage` test more faults of the database.

mod clocks;
mod configuration;
mod directories;
mod limits;
mod signals;
mod watchdog;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::disk_faults::skipped;
use crate::process::{Process, eventually, json};

/// strace attached to a process to delay or fail its system calls. Dropping it detaches.
struct Tracer(Child);

impl Tracer {
    /// Attaches to all threads. `None` if strace is missing or may not attach.
    fn on(process: &Process, arguments: &[&str]) -> Option<Self> {
        Self::attach(process, &[&["-f"], arguments].concat(), &format!("/proc/{}/task", process.pid()))
    }

    /// Attaches to the main thread only.
    fn on_first_thread(process: &Process, arguments: &[&str]) -> Option<Self> {
        Self::attach(process, arguments, &format!("/proc/{0}/task/{0}", process.pid()))
    }

    /// `threads` is the /proc directory of one thread or of all.
    fn attach(process: &Process, arguments: &[&str], threads: &str) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-p", &process.pid().to_string()]).args(arguments);
        let Ok(child) = command.stderr(Stdio::null()).spawn() else { return skipped("no strace") };
        let mut tracer = Self(child);
        let status = |directory: &Path| fs::read_to_string(directory.join("status")).ok();
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
        // Fails if strace has ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The number of polls that the simulator received.
fn polls(simulator: std::net::SocketAddr) -> u64 {
    let calls = &json(simulator, "/-/calls")["GetReferenceImportJob"];
    calls.as_object().expect("counts").values().filter_map(serde_json::Value::as_u64).sum()
}

/// Sets the path of the database.
fn with_database(config: &str, database: &Path) -> String {
    config.replace("refwatch.db", database.to_str().expect("text"))
}

/// Sets a timeout and backoff of at most one second.
fn with_short_backoff(config: &str) -> String {
    config.replace("[poll]\n", "[poll]\ntimeout = \"1s\"\nbackoff_initial = \"200ms\"\nbackoff_max = \"1s\"\n")
}
