//! A process that is measured from outside, as the kernel tells of it under /proc.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdout, Command};

use super::Failure;

/// A running process. Dropping it ends it.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn spawn(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.kill_on_drop(true).spawn()?))
    }

    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Asks it to stop, as systemd does, and waits until it is gone.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let id = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or("it has ended")?;
        kill_process(id, Signal::TERM)?;
        self.0.wait().await?;
        Ok(())
    }

    /// Ends it and waits until it is gone.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        Ok(self.0.kill().await?)
    }

    /// CPU time that its threads have spent. /proc/PID/stat counts whole ticks; this is to the nanosecond, of the threads that
    /// there are.
    pub(super) fn cpu(&self) -> Result<Duration, Failure> {
        let mut spent = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()?))? {
            // One that has just ended is no longer there to be read.
            let schedstat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = schedstat.split_whitespace().next().unwrap_or("0");
            spent += Duration::from_nanos(nanoseconds.parse()?);
        }
        Ok(spent)
    }

    /// Resident memory in MiB, the program's own pages included.
    pub(super) fn resident_mib(&self) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("it has ended")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    fn id(&self) -> Result<u32, Failure> {
        self.0.id().ok_or_else(|| "it has ended".into())
    }
}

/// Connections to `server` that stand, on this machine.
pub(super) fn connections_to(server: SocketAddr) -> Result<usize, Failure> {
    const ESTABLISHED: &str = "01";
    let remote = format!(":{:04X}", server.port());
    let table = fs::read_to_string("/proc/net/tcp")?;
    let stands = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2).is_some_and(|field| field.ends_with(&remote)) && fields.get(3) == Some(&ESTABLISHED)
    };
    Ok(table.lines().skip(1).filter(stands).count())
}
