//! Signal handlers: SIGTERM and SIGINT stop the process, SIGHUP reloads the configuration.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit status after a second SIGTERM or SIGINT.
const FORCED_EXIT: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    Stop,
    Reload,
}

pub struct Signals(signal_hook_tokio::Signals);

impl Signals {
    /// Installs the handlers. Call it first, because SIGHUP ends a process without a handler. A second SIGTERM or SIGINT ends the
    /// process at once, also during a commit. SQLite's journal keeps the database intact.
    ///
    /// # Errors
    /// The system rejects a handler.
    pub fn install() -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, FORCED_EXIT, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&stopping))?;
        }
        signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP]).map(Self)
    }

    /// Waits for the next signal. Pending signals of one kind are merged. Cancel safe.
    pub async fn next(&mut self) -> SignalAction {
        match self.0.next().await {
            Some(SIGHUP) => SignalAction::Reload,
            // The stream is never closed, so it never returns `None`.
            Some(_) | None => SignalAction::Stop,
        }
    }
}
