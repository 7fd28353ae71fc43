//! Faults 71 to 98, and later ones of the same kind: disks, clocks, files, signals and limits of this machine.
//!
//! `disk_faults` and `damage` test more faults of the database.

mod clocks;
mod configuration;
mod directories;
mod files;
mod limits;
mod log_files;
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
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-f", "-p", &process.pid().to_string()]).args(arguments);
        let Ok(child) = command.stderr(Stdio::null()).spawn() else { return skipped("no strace") };
        let mut tracer = Self(child);
        let threads = format!("/proc/{}/task", process.pid());
        let attached = eventually("strace", || {
            if tracer.0.try_wait().expect("a child").is_some() {
                return Some(false);
            }
            let threads = fs::read_dir(&threads).expect("its threads");
            let mut statuses = threads.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
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
