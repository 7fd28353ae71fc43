//! Requests for a reload: where they are left, whoever makes them, and how they are answered. However many come before one begins,
//! it is one.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

/// What came of a reload: what is in force now, or what is wrong, for people.
pub type Reloaded = Result<String, String>;

/// Where reloads are asked for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ReloadRequests(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    made: Notify,
    to_answer: Mutex<Vec<oneshot::Sender<Reloaded>>>,
}

impl ReloadRequests {
    /// Asks for a reload, and waits for no answer.
    pub fn ask(&self) {
        self.0.made.notify_one();
    }

    /// Asks for a reload, and returns what came of it; `None` where the process is on its way out.
    pub async fn answered(&self) -> Option<Reloaded> {
        let (to_answer, answer) = oneshot::channel();
        self.0.to_answer.lock().unwrap_or_else(PoisonError::into_inner).push(to_answer);
        self.ask();
        answer.await.ok()
    }

    /// Returns when there is a request.
    pub async fn made(&self) {
        self.0.made.notified().await;
    }

    /// Those who wait for an answer, each of which is for the reload that begins now.
    #[must_use]
    pub fn take(&self) -> Vec<oneshot::Sender<Reloaded>> {
        mem::take(&mut *self.0.to_answer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
