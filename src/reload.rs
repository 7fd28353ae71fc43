//! The queue of reload requests, from signals and the control socket to the daemon.
//!
//! All requests that arrive before a load begins share that load. This module does not load the configuration.

use tokio::sync::{mpsc, oneshot};

/// The maximum number of queued requests. Further signals are dropped, because a load is due already.
const QUEUE_LENGTH: usize = 64;

/// The result of a reload as text: a summary of the new configuration, or the diagnostics.
pub type ReloadResult = Result<String, String>;

pub type ReloadRequest = oneshot::Sender<ReloadResult>;

#[derive(Clone, Debug)]
pub struct ReloadRequests(mpsc::Sender<ReloadRequest>);

impl ReloadRequests {
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        (Self(sender), receiver)
    }

    /// Requests a reload without waiting for its result.
    pub fn send(&self) {
        // Fails if the queue is full, so a load is due, or if the daemon is stopping.
        drop(self.0.try_send(oneshot::channel().0));
    }

    /// Requests a reload and waits for its result. `None`: the daemon is stopping.
    pub async fn send_and_wait(&self) -> Option<ReloadResult> {
        let (request, result) = oneshot::channel();
        self.0.send(request).await.ok()?;
        result.await.ok()
    }
}
