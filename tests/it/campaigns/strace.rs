//! strace, which does something to a process at the nth of its system calls on some files. Each thread counts its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

/// What is appended to a database's path to name all of its files.
pub(super) const FILES: &[&str] = &["", "-wal", "-shm", "-journal", ".lock"];

/// What to do, and when.
#[derive(Clone, Debug)]
pub(super) struct Strike {
    /// System calls, with commas between.
    pub(super) calls: &'static str,
    /// What is appended to the database's path to name the files.
    pub(super) files: &'static [&'static str],
    /// As strace says it: `signal=KILL`, `error=EIO`.
    pub(super) act: &'static str,
    /// From 1.
    pub(super) nth: u64,
    /// At every call from that one on.
    pub(super) for_good: bool,
}

/// Whether strace is here, and may do this.
pub(super) fn works() -> bool {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

impl Strike {
    /// strace, about to strike at the files of `database`. What it does to them is written to `log`.
    fn strace(&self, database: &Path, log: &Path) -> Command {
        let Self { calls, files, act, nth, for_good } = self;
        let on = if *for_good { "+" } else { "" };
        let mut strace = Command::new("strace");
        // Told to end, it ends, and what it traces goes on.
        strace.args(["-f", "-qq", "-y", "-s", "0", "-I", "waiting", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:{act}:when={nth}{on}")]).arg("-o").arg(log);
        for suffix in *files {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            strace.arg("-P").arg(PathBuf::from(path));
        }
        strace
    }

    /// `command` as it is, but struck from its start. strace stands beside the process, not between it and whoever starts it.
    pub(super) fn at_start_of(&self, command: &Command, database: &Path, log: &Path) -> Command {
        let mut strace = self.strace(database, log);
        strace.arg("-D").arg(command.get_program()).args(command.get_args()).env_clear().stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            strace.env(name, value.unwrap_or_default());
        }
        strace
    }

    /// strace, about to be laid onto a process that runs.
    pub(super) fn on(&self, pid: u32, database: &Path, log: &Path) -> Command {
        let mut strace = self.strace(database, log);
        strace.arg("-p").arg(pid.to_string()).stdin(Stdio::null());
        strace
    }
}

/// Who traces a process, if anybody does.
pub(super) fn tracer(pid: u32) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    Pid::from_raw(tracer.trim().parse().ok()?)
}

/// Ends the tracing of a process, which goes on.
pub(super) fn detach(pid: u32) {
    if let Some(tracer) = tracer(pid) {
        rustix::process::kill_process(tracer, Signal::TERM).expect("strace runs");
    }
}
