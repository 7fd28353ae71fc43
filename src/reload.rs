//! Requests to reload the configuration, from signals and from the control socket to the daemon.
//!
//! All requests that arrive before a load begins share that load.

use tokio::sync::{mpsc, oneshot};

/// Requests that may wait. A further signal is dropped: a load is due already.
const QUEUE_LENGTH: usize = 64;

/// The result of a reload, for people: the running configuration, or the diagnostics.
pub type Reloaded = Result<String, String>;

/// Where the result of one request goes.
pub type ReloadRequest = oneshot::Sender<Reloaded>;

/// The sending half of the queue.
#[derive(Clone, Debug)]
pub struct ReloadRequests(mpsc::Sender<ReloadRequest>);

impl ReloadRequests {
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        (Self(sender), receiver)
    }

    /// Requests a reload without waiting for its result.
    pub fn ask(&self) {
        // An error: the queue is full, so a load is due, or the daemon is stopping.
        drop(self.0.try_send(oneshot::channel().0));
    }

    /// Requests a reload and waits for its result; `None` if the daemon is stopping.
    pub async fn answered(&self) -> Option<Reloaded> {
        let (request, result) = oneshot::channel();
        self.0.send(request).await.ok()?;
        result.await.ok()
    }
}
