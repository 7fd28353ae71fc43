//! Injects an error or a signal with strace at the nth system call on some files. Each thread has its own count.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

/// Suffixes of the database's path: all of its files.
pub(super) const FILES: &[&str] = &["", "-wal", "-shm", "-journal", ".lock"];

/// A fault to inject, and its time.
#[derive(Clone, Debug)]
pub(super) struct Injection {
    /// Comma-separated system calls.
    pub(super) calls: &'static str,
    /// Suffixes of the database's path: the affected files.
    pub(super) files: &'static [&'static str],
    /// In strace's syntax: `signal=KILL`, `error=EIO`.
    pub(super) action: &'static str,
    /// Counted from 1.
    pub(super) nth: u64,
    /// Whether all later calls are affected as well.
    pub(super) permanent: bool,
}

/// Whether strace is installed and may trace.
pub(super) fn is_usable() -> bool {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

impl Injection {
    /// strace for the files of `database`. It writes the affected calls to `log`.
    fn strace(&self, database: &Path, log: &Path) -> Command {
        let Self { calls, files, action, nth, permanent } = self;
        let on = if *permanent { "+" } else { "" };
        let mut strace = Command::new("strace");
        // On SIGTERM strace detaches, and the traced process continues.
        strace.args(["-f", "-qq", "-y", "-s", "0", "-I", "waiting", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:{action}:when={nth}{on}")]).arg("-o").arg(log);
        for suffix in *files {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            strace.arg("-P").arg(PathBuf::from(path));
        }
        strace
    }

    /// Runs `command` under strace. With `-D` the process keeps its parent; strace is a detached grandchild.
    pub(super) fn at_start_of(&self, command: &Command, database: &Path, log: &Path) -> Command {
        let mut strace = self.strace(database, log);
        strace.arg("-D").arg(command.get_program()).args(command.get_args()).env_clear().stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            strace.env(name, value.unwrap_or_default());
        }
        strace
    }

    /// strace for a running process.
    pub(super) fn on(&self, pid: u32, database: &Path, log: &Path) -> Command {
        let mut strace = self.strace(database, log);
        strace.arg("-p").arg(pid.to_string()).stdin(Stdio::null());
        strace
    }
}

/// The tracer of a process, if any.
pub(super) fn tracer(pid: u32) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    Pid::from_raw(tracer.trim().parse().ok()?)
}

/// Detaches strace; the process continues.
pub(super) fn detach(pid: u32) {
    if let Some(tracer) = tracer(pid) {
        rustix::process::kill_process(tracer, Signal::TERM).expect("strace runs");
    }
}
