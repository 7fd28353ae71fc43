//! Notifications: each sink receives the events that its `[[notify]]` entry selects, from the database, after their commit.
//!
//! [`Sinks`] owns the tasks. [`SinkCommands`] are the commands of users. `sink` is the task of one sink, `payload` makes its bodies,
//! `http` sends them. The queue is in the database, so a crash between a request and its outcome sends the event again, with the
//! same id.

pub mod connection;
mod http;
mod payload;
pub mod secrets;
pub mod signature;
mod sink;
mod transport;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

pub use http::HttpTransport;
pub use sink::SinkContext;
use sink::{SinkTask, send};
pub use transport::{Notification, SinkResponse, Transport};

use crate::config::SinkConfig;
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::database::{ReplayFilter, WriterError};

/// The delay before a sink's task runs again after an internal error.
const RESTART: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };

/// The time of all sinks to stop: requests in flight, then the last step. That of all tasks is the same.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// The running sinks. Dropping it aborts them.
#[derive(Debug)]
pub struct Sinks {
    context: Arc<SinkContext>,
    seeds: fastrand::Rng,
    tasks: BTreeMap<Arc<str>, AbortOnDropHandle<()>>,
    /// The configurations of the running sinks.
    configs: watch::Sender<SinkConfigs>,
    /// Stops all tasks.
    stop: CancellationToken,
}

/// By name.
type SinkConfigs = BTreeMap<Arc<str>, Arc<SinkConfig>>;

impl Sinks {
    /// `seed` sets the jitter of every sink.
    #[must_use]
    pub fn new(context: SinkContext, seed: u64) -> Self {
        Self {
            context: Arc::new(context),
            seeds: fastrand::Rng::with_seed(seed),
            tasks: BTreeMap::new(),
            configs: watch::Sender::default(),
            stop: CancellationToken::new(),
        }
    }

    #[must_use]
    pub fn commands(&self) -> SinkCommands {
        SinkCommands { context: Arc::clone(&self.context), configs: self.configs.subscribe() }
    }

    /// Moves from the running sinks to `configs`. Unchanged sinks go on. Requests of other sinks are cancelled: if the sink stays, their
    /// events are sent again, with the same ids.
    ///
    /// # Errors
    /// The database cannot be written, or its writer has stopped. The running sinks stay.
    pub async fn apply(&mut self, configs: &[SinkConfig]) -> Result<(), WriterError> {
        let new: SinkConfigs =
            configs.iter().map(|config| (Arc::clone(&config.name), Arc::new(config.clone()))).collect();
        let hashes = new.iter().map(|(name, config)| (Arc::clone(name), config.hash())).collect();
        let now = self.context.clock.now().wall;
        self.context.database.synchronize_sinks(hashes, now).await?;
        let old = self.configs.send_replace(new.clone());
        for (name, config) in old {
            if new.get(&name) == Some(&config) {
                continue;
            }
            if let Some(task) = self.tasks.remove(&name) {
                // The old task must not select events by its old configuration any more. The error says that it was aborted.
                task.abort();
                drop(task.await);
            }
            if !new.contains_key(&name) {
                self.context.shared.remove_sink(&name);
                self.context.instruments.remove_sink(&name);
            }
        }
        for (name, config) in new {
            if !self.tasks.contains_key(&name) {
                self.context.instruments.add_sink(&name);
                let (context, seed, stop) = (Arc::clone(&self.context), self.seeds.u64(..), self.stop.clone());
                #[expect(clippy::disallowed_methods, reason = "dropping the handle aborts the task")]
                let task = tokio::spawn(run_with_restarts(context, config, seed, stop));
                self.tasks.insert(name, AbortOnDropHandle::new(task));
            }
        }
        Ok(())
    }

    /// Stops every sink. Requests in flight have up to 2 s to end. A sink that waits for the database is aborted after 4 s.
    pub async fn stop(self) {
        self.stop.cancel();
        // Errors mean that a task has panicked, or that the time is over.
        drop(timeout(STOP_TIMEOUT, join_all(self.tasks.into_values())).await);
    }
}

/// Runs a sink's task. After a panic it starts again, from the database.
async fn run_with_restarts(context: Arc<SinkContext>, config: Arc<SinkConfig>, seed: u64, stop: CancellationToken) {
    let mut backoff = Backoff::new(RESTART);
    let new_task = || SinkTask::new(Arc::clone(&context), Arc::clone(&config), seed);
    while AssertUnwindSafe(new_task().run(&stop)).catch_unwind().await.is_err() {
        context.instruments.task_restarts.inc();
        let (sink, delay) = (&*config.name, backoff.next_delay(0.0));
        error!(event = "task_panicked", sink, "internal error: the task of a sink failed and restarts in {delay:?}");
        stop.run_until_cancelled(context.clock.sleep(delay)).await;
    }
}

/// Commands of users: test events and replays. The error of each is for the user.
#[derive(Clone, Debug)]
pub struct SinkCommands {
    context: Arc<SinkContext>,
    configs: watch::Receiver<SinkConfigs>,
}

impl SinkCommands {
    /// Sends a test event, past the queue. Returns the response as text.
    ///
    /// # Errors
    /// There is no such sink, or it did not accept the event.
    pub async fn test(&self, sink: &str) -> Result<String, String> {
        let config = self.config(sink)?;
        let notification = payload::test_notification(config.format, self.context.clock.now().wall);
        let id = notification.id.clone();
        match send(&self.context, &config, notification).await?.status {
            status @ 200..300 => Ok(format!("{sink}: delivered test event {id}: HTTP status {status}")),
            status => Err(format!("{sink}: HTTP status {status}")),
        }
    }

    /// Queues past events again. Returns their number.
    ///
    /// # Errors
    /// There is no such sink, or the database cannot be written.
    pub async fn replay(&self, sink: &str, replay: ReplayFilter) -> Result<usize, String> {
        let SinkConfig { name, events, .. } = &*self.config(sink)?;
        let queued = self.context.database.replay_deliveries(Arc::clone(name), events.clone(), replay).await;
        queued.map_err(|error| format!("the database: {error}"))
    }

    fn config(&self, sink: &str) -> Result<Arc<SinkConfig>, String> {
        let configs = self.configs.borrow();
        configs.get(sink).cloned().ok_or_else(|| {
            let names: Vec<&str> = configs.keys().map(|name| &**name).collect();
            let names = names.join(", ");
            let sinks = if names.is_empty() { "the configuration has no [[notify]]" } else { "the sinks are " };
            format!("there is no sink \"{sink}\": {sinks}{names}")
        })
    }
}
