//! Signals: what systemd, a terminal or a person asks of a running process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit status of a process that was told twice to stop.
const FORCED_EXIT: i32 = 1;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM or SIGINT: finish what is under way and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that arrive from the moment this exists.
pub struct Signals(signal_hook_tokio::Signals);

impl Signals {
    /// Installs the handlers; first thing, for until then SIGHUP kills. A second SIGTERM or SIGINT ends the process at once,
    /// whatever it is doing: that is what SQLite's journal is for.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, FORCED_EXIT, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&stopping))?;
        }
        signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP]).map(Self)
    }

    /// The next thing asked for. Signals of one kind that come together are one.
    pub async fn next(&mut self) -> Asked {
        match self.0.next().await {
            Some(SIGHUP) => Asked::Reload,
            // Only a stream that was closed ends, and nobody closes this one.
            Some(_) | None => Asked::Stop,
        }
    }
}
