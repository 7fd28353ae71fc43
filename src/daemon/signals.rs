//! Signal handlers. For the daemon SIGTERM and SIGINT stop the process, and SIGHUP reloads the configuration.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

/// The exit status after a second SIGTERM or SIGINT.
const FORCED_EXIT: i32 = 1;

/// A process that a signal has ended has this exit status plus the signal's number in a shell.
const SIGNAL_EXIT: i32 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    Stop,
    Reload,
}

pub struct Signals {
    received: signal_hook_tokio::Signals,
    on_hangup: SignalAction,
}

impl Signals {
    /// Installs the handlers. Call it first, because SIGHUP ends a process without a handler. A second SIGTERM or SIGINT ends the
    /// process at once, also during a commit. SQLite's journal keeps the database intact.
    ///
    /// # Errors
    /// The system rejects a handler.
    pub fn install() -> io::Result<Self> {
        Self::with(&[SIGTERM, SIGINT, SIGHUP], SignalAction::Reload)
    }

    /// As [`Self::install`], but SIGHUP stops the process: its terminal has been closed. Under nohup(1), SIGHUP is still ignored.
    ///
    /// # Errors
    /// The system rejects a handler.
    pub fn install_stop_only() -> io::Result<Self> {
        let signals: &[i32] = if ignores_hangup() { &[SIGTERM, SIGINT] } else { &[SIGTERM, SIGINT, SIGHUP] };
        Self::with(signals, SignalAction::Stop)
    }

    fn with(signals: &[i32], on_hangup: SignalAction) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, FORCED_EXIT, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&stopping))?;
        }
        Ok(Self { received: signal_hook_tokio::Signals::new(signals)?, on_hangup })
    }

    /// Waits for the next signal. Pending signals of one kind are merged. Cancel safe.
    pub async fn next(&mut self) -> SignalAction {
        match self.received.next().await {
            Some(SIGHUP) => self.on_hangup,
            // The stream is never closed, so it never returns `None`.
            Some(_) | None => SignalAction::Stop,
        }
    }
}

/// Makes signals end this process if it is process 1, as in a container. The kernel sends process 1 only signals that have a handler.
/// Every other process keeps the system's default, so that a shell sees which signal ended it.
///
/// # Errors
/// The system rejects a handler.
pub fn end_process_1_on_signals() -> io::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        // The handler itself ends the process, so that a command also ends while it waits for a disk.
        flag::register_conditional_shutdown(signal, SIGNAL_EXIT + signal, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// Whether this process inherited that it ignores SIGHUP. False if /proc is not mounted.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
