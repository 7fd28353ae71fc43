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
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
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

/// The running sinks. Dropping it aborts them.
#[derive(Debug)]
pub struct Sinks {
    context: Arc<SinkContext>,
    seeds: fastrand::Rng,
    running: BTreeMap<Arc<str>, RunningSink>,
    /// Stops all tasks.
    stop: CancellationToken,
    commands: SinkCommands,
}

#[derive(Debug)]
struct RunningSink {
    config: Arc<SinkConfig>,
    task: AbortOnDropHandle<()>,
}

impl Sinks {
    /// `seed` sets the jitter of every sink.
    #[must_use]
    pub fn new(context: SinkContext, seed: u64) -> Self {
        let context = Arc::new(context);
        Self {
            commands: SinkCommands { context: Arc::clone(&context), configs: Arc::default() },
            context,
            seeds: fastrand::Rng::with_seed(seed),
            running: BTreeMap::new(),
            stop: CancellationToken::new(),
        }
    }

    #[must_use]
    pub fn commands(&self) -> SinkCommands {
        self.commands.clone()
    }

    /// Moves from the running sinks to `configs`. Unchanged sinks go on. Requests of other sinks are cancelled: if the sink stays, their
    /// events are sent again, with the same ids.
    ///
    /// # Errors
    /// The database cannot be written, or its writer has stopped. The running sinks stay.
    pub async fn apply(&mut self, configs: &[SinkConfig]) -> Result<(), WriterError> {
        let hashes = configs.iter().map(|config| (Arc::clone(&config.name), config.hash())).collect();
        let now = self.context.clock.now().wall;
        self.context.database.synchronize_sinks(hashes, now).await?;
        let (unchanged, old): (BTreeMap<_, _>, BTreeMap<_, _>) =
            mem::take(&mut self.running).into_iter().partition(|(_, sink)| configs.contains(&sink.config));
        self.running = unchanged;
        for (name, RunningSink { task, .. }) in old {
            // The old task must not select events by its old configuration any more. The error says that it was aborted.
            task.abort();
            drop(task.await);
            if !configs.iter().any(|config| config.name == name) {
                self.context.shared.remove_sink(&name);
                self.context.instruments.remove_sink(&name);
            }
        }
        for config in configs {
            if !self.running.contains_key(&config.name) {
                let sink = self.start(Arc::new(config.clone()));
                self.running.insert(Arc::clone(&config.name), sink);
            }
        }
        let configs = self.running.iter().map(|(name, sink)| (Arc::clone(name), Arc::clone(&sink.config)));
        *self.commands.lock() = configs.collect();
        Ok(())
    }

    fn start(&mut self, config: Arc<SinkConfig>) -> RunningSink {
        self.context.instruments.add_sink(&config.name);
        let (stop, seed) = (self.stop.clone(), self.seeds.u64(..));
        let (context, config_of_task) = (Arc::clone(&self.context), Arc::clone(&config));
        #[expect(clippy::disallowed_methods, reason = "dropping the handle aborts the task")]
        let task = tokio::spawn(run_with_restarts(context, config_of_task, seed, stop));
        RunningSink { config, task: AbortOnDropHandle::new(task) }
    }

    /// Stops every sink. Requests in flight have up to 2 s to end.
    pub async fn stop(self) {
        self.stop.cancel();
        for sink in self.running.into_values() {
            // An error means that the task has panicked.
            drop(sink.task.await);
        }
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

/// Commands of users: test events and replays.
#[derive(Clone, Debug)]
pub struct SinkCommands {
    context: Arc<SinkContext>,
    configs: Arc<Mutex<SinkConfigs>>,
}

type SinkConfigs = BTreeMap<Arc<str>, Arc<SinkConfig>>;

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("there is no sink \"{name}\"{}", configured_sinks(.configured))]
    UnknownSink { name: String, configured: Vec<Arc<str>> },
    #[error("the database: {0}")]
    Database(#[from] WriterError),
    #[error("{0}")]
    NotDelivered(String),
}

fn configured_sinks(names: &[Arc<str>]) -> String {
    match names {
        [] => ": the configuration has no [[notify]]".to_owned(),
        names => format!(": the sinks are {}", names.join(", ")),
    }
}

impl SinkCommands {
    /// Sends a test event, past the queue. Returns the response as text.
    ///
    /// # Errors
    /// There is no such sink, or it did not accept the event.
    pub async fn test(&self, sink: &str) -> Result<String, CommandError> {
        let config = self.config(sink)?;
        let notification = payload::test_notification(config.format, self.context.clock.now().wall);
        let id = notification.id.clone();
        let response = send(&self.context, &config, notification).await.map_err(CommandError::NotDelivered)?;
        match response.status {
            status @ 200..300 => Ok(format!("{sink}: delivered test event {id}: HTTP status {status}")),
            status => Err(CommandError::NotDelivered(format!("{sink}: HTTP status {status}"))),
        }
    }

    /// Sends past events again. Returns their number.
    ///
    /// # Errors
    /// There is no such sink, or the database cannot be written.
    pub async fn replay(&self, sink: &str, replay: ReplayFilter) -> Result<usize, CommandError> {
        let SinkConfig { name, events, .. } = &*self.config(sink)?;
        Ok(self.context.database.replay_deliveries(Arc::clone(name), events.clone(), replay).await?)
    }

    fn config(&self, sink: &str) -> Result<Arc<SinkConfig>, CommandError> {
        let configs = self.lock();
        configs.get(sink).cloned().ok_or_else(|| CommandError::UnknownSink {
            name: sink.to_owned(),
            configured: configs.keys().cloned().collect(),
        })
    }

    // A poisoned lock is still usable: writers only assign the map.
    fn lock(&self) -> MutexGuard<'_, SinkConfigs> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
