//! Notifications: each sink receives the events that its `[[notify]]` entry selects, from the database, after their commit.
//!
//! [`Sinks`] owns the tasks. [`SinkCommands`] are what users ask of them. `sink` is the task of one sink, `payload` makes its bodies,
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::error;

pub use http::HttpTransports;
pub use sink::SinkContext;
use sink::{CLOUD_EVENTS, JSON, SinkTask, event_filter};
pub use transport::{Notification, SendFuture, SinkResponse, Transport, TransportFactory};

use crate::config::{SinkConfig, SinkFormat};
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::database::{ReplayFilter, WriterError};

/// The delay before a sink's task runs again after an internal error.
const RESTART: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };

/// The running sinks.
#[derive(Debug)]
pub struct Sinks {
    context: Arc<SinkContext>,
    transports: Arc<dyn TransportFactory>,
    seeds: fastrand::Rng,
    running: BTreeMap<Arc<str>, RunningSink>,
    tasks: JoinSet<()>,
    commands: SinkCommands,
}

#[derive(Debug)]
struct RunningSink {
    config: Arc<SinkConfig>,
    stop: CancellationToken,
    /// Cancelled once the task has ended.
    ended: CancellationToken,
}

impl Sinks {
    /// `seed` sets the jitter of every sink.
    #[must_use]
    pub fn new(context: SinkContext, transports: Arc<dyn TransportFactory>, seed: u64) -> Self {
        let commands = SinkCommands { context: Arc::new(context), handles: Arc::default() };
        Self {
            context: Arc::clone(&commands.context),
            transports,
            seeds: fastrand::Rng::with_seed(seed),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            commands,
        }
    }

    #[must_use]
    pub fn commands(&self) -> SinkCommands {
        self.commands.clone()
    }

    /// Moves from the running sinks to `configs`. Unchanged sinks go on. Does not wait for the requests of stopped ones.
    ///
    /// # Errors
    /// The database cannot be written, or its writer has stopped. The running sinks stay.
    pub async fn apply(&mut self, configs: &[SinkConfig]) -> Result<(), WriterError> {
        let hashes = configs.iter().map(|config| (Arc::clone(&config.name), config.hash())).collect();
        let now = self.context.clock.now().wall;
        let mut disabled = self.context.database.synchronize_sinks(hashes, now).await?;
        let mut old = std::mem::take(&mut self.running);
        let mut handles = BTreeMap::new();
        for config in configs {
            let (name, old) = (Arc::clone(&config.name), old.remove(&config.name));
            let handle = self.commands.handle(&name);
            let (running, handle) = match (old, handle) {
                (Some(running), Some(handle)) if *running.config == *config => (running, handle),
                (old, _) => self.start(config, old, disabled.remove(&name)),
            };
            self.running.insert(Arc::clone(&name), running);
            handles.insert(name, handle);
        }
        for (name, removed) in old {
            removed.stop.cancel();
            self.context.shared.remove_sink(&name);
            self.context.instruments.remove_sink(&name);
        }
        *self.commands.handles.lock().unwrap_or_else(PoisonError::into_inner) = handles;
        Ok(())
    }

    /// Starts a task, which first waits until the sink's old task has ended.
    fn start(
        &mut self,
        config: &SinkConfig,
        old: Option<RunningSink>,
        disabled_at: Option<crate::core::time::Timestamp>,
    ) -> (RunningSink, SinkHandle) {
        let (config, replayed) = (Arc::new(config.clone()), Arc::new(Notify::new()));
        self.context.instruments.add_sink(&config.name);
        let transport = self.transports.build(&config);
        let context = Arc::clone(&self.context);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let running = RunningSink { config: Arc::clone(&config), stop: stop.clone(), ended: ended.clone() };
        let handle = SinkHandle { config: Arc::clone(&config), transport: Arc::clone(&transport), replayed };
        let (seed, replayed) = (self.seeds.u64(..), Arc::clone(&handle.replayed));
        let guard = ended.drop_guard();
        let old = old.map(|old| {
            old.stop.cancel();
            old.ended
        });
        self.tasks.spawn(async move {
            if let Some(old) = old {
                old.cancelled().await;
            }
            let new_task = || {
                SinkTask::new(
                    Arc::clone(&context),
                    Arc::clone(&config),
                    Arc::clone(&transport),
                    Arc::clone(&replayed),
                    disabled_at,
                    seed,
                )
            };
            run_with_restarts(&context, new_task, &stop, guard).await;
        });
        (running, handle)
    }

    /// Stops every sink. Requests in flight may end for a moment.
    pub async fn stop(mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs a sink's task. After a panic it starts from the database.
async fn run_with_restarts(
    context: &SinkContext,
    new_task: impl Fn() -> SinkTask,
    stop: &CancellationToken,
    _ended: DropGuard,
) {
    let mut backoff = Backoff::new(RESTART);
    while AssertUnwindSafe(new_task().run(stop)).catch_unwind().await.is_err() {
        context.instruments.task_restarts.inc();
        let delay = backoff.next_delay(0.0);
        error!(event = "task_panicked", "internal error: the task of a sink failed and restarts in {delay:?}");
        context.clock.sleep(delay).await;
    }
}

/// Commands of users to the running sinks.
#[derive(Clone, Debug)]
pub struct SinkCommands {
    context: Arc<SinkContext>,
    handles: Arc<Mutex<BTreeMap<Arc<str>, SinkHandle>>>,
}

#[derive(Clone, Debug)]
struct SinkHandle {
    config: Arc<SinkConfig>,
    transport: Arc<dyn Transport>,
    replayed: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("there is no sink \"{name}\"{}", configured_sinks(.known))]
    UnknownSink { name: String, known: Vec<Arc<str>> },
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
    fn handle(&self, sink: &str) -> Option<SinkHandle> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(sink).cloned()
    }

    fn required_handle(&self, sink: &str) -> Result<SinkHandle, CommandError> {
        self.handle(sink).ok_or_else(|| {
            let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
            CommandError::UnknownSink { name: sink.to_owned(), known: handles.keys().cloned().collect() }
        })
    }

    /// Sends a test event, past the queue. Returns the response as text.
    ///
    /// # Errors
    /// There is no such sink, or it did not accept the event.
    pub async fn test(&self, sink: &str) -> Result<String, CommandError> {
        let SinkHandle { config, transport, .. } = self.required_handle(sink)?;
        let clock = self.context.clock;
        let now = clock.now().wall;
        let id = format!("evt_test_{}", now.as_millisecond());
        let (content_type, body) = match config.format {
            SinkFormat::CloudEvents => (
                CLOUD_EVENTS,
                json!({ "specversion": "1.0", "id": id, "source": "/refwatch", "type": "io.refwatch.test.v1",
                    "time": format!("{now:.3}"), "datacontenttype": "application/json", "data": {} }),
            ),
            SinkFormat::Slack => (JSON, json!({ "text": "refwatch: this is a test" })),
        };
        let body = body.to_string().into_bytes();
        let notification = Notification { id: id.clone(), timestamp: now.as_second(), content_type, body };
        let response = tokio::select! {
            biased;
            response = transport.send(notification) => response.map_err(CommandError::NotDelivered)?,
            () = clock.sleep(config.timeout) => {
                let timeout = humantime::format_duration(config.timeout);
                return Err(CommandError::NotDelivered(format!("no response within {timeout}")));
            }
        };
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
        let SinkHandle { config, replayed, .. } = self.required_handle(sink)?;
        let now = self.context.clock.now().wall;
        let filter = event_filter(&config);
        let queued = self.context.database.replay_deliveries(Arc::clone(&config.name), filter, replay, now).await?;
        replayed.notify_one();
        Ok(queued)
    }
}
