//! The daemon: starts all components, runs the main loop, and stops the components in order.
//!
//! The main loop owns the running configuration and the supervisor. It handles one event at a time and never accesses a file.
//! `config_watcher` loads the configuration files, `reload` applies configurations, `maintenance` does periodic work.

pub mod config_watcher;
mod host_names;
mod maintenance;
mod preflight;
mod reload;
pub mod signals;
pub mod systemd;

pub use preflight::{Checked, PreflightError, preflight, read_at_start};

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{io, thread};

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Config, DatabaseConfig, HttpConfig, Loaded, LoadedFiles, Problems};
use crate::database::{self, Database, DatabaseReader, FileError, WriterError};
use crate::healthomics::AwsFactory;
use crate::http::server::{Access, Limits};
use crate::http::{self, AppState, Renderer, control};
use crate::instruments::Instruments;
use crate::logging::{Log, LogLevel};
use crate::metrics::Metrics;
use crate::notify::{HttpTransport, SinkContext, Sinks};
use crate::reload::ReloadRequests;
use crate::state::SharedState;
use crate::tasks::context::TaskContext;
use crate::tasks::supervisor::{Supervisor, SupervisorError};
use config_watcher::{ConfigWatcher, Loader};
use maintenance::{Maintenance, publish_certificate};
use reload::publish_config;
use signals::SignalAction;
use systemd::status_line;

/// The timeout for closing the database. Together with the timeout for the tasks, a stop takes less than 5 s.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The delay between two attempts to open the database.
const OPEN_RETRY_DELAY: Duration = Duration::from_secs(2);

/// The extension of systemd's start timeout after each attempt. It covers the delay and the next attempt.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Threads for blocking work that are started with the daemon, because the system may refuse to start others later. With these alone,
/// four pages, a scrape, a name look-up, a password check and the check of the configuration files can run at the same time.
const BLOCKING_THREADS_MIN: usize = 8;

pub struct Daemon {
    /// The result of the last load, applied or not. `None`: the next load is applied even if the files have not changed.
    last_load: Option<Result<Loaded, Problems>>,
    /// Whether the main file of the running configuration has only comments and blank lines.
    runs_blank: bool,
    log_level: LogLevel,
    config_watcher: ConfigWatcher,
    requests: ReloadRequests,
    address: SocketAddr,
    context: TaskContext,
    supervisor: Supervisor,
    sinks: Sinks,
    maintenance: Maintenance,
    server: JoinSet<()>,
    server_stop: CancellationToken,
}

/// Why the daemon cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot start a thread: {0}: raise the limit of tasks (TasksMax= of the unit, or ulimit -u)")]
    Threads(io::Error),
    #[error(transparent)]
    Open(#[from] FileError),
    #[error("cannot listen on {address} (http.listen): {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The configuration cannot be applied, or the writer of the database has stopped.
    #[error(transparent)]
    Apply(#[from] SupervisorError),
    /// An internal error, such as two metrics with the same name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    #[error("internal error while reading files: {0}")]
    LoaderPanicked(#[from] JoinError),
    #[error("internal error: the HTTP server has stopped")]
    ServerStopped,
}

impl Daemon {
    /// Runs [`preflight()`], then starts the listener, the database and the watches, in this order. AWS need not be reachable. If
    /// opening the database fails with a transient error, such as a full disk, the daemon retries, and `/-/ready` returns 503 with
    /// the error.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn start(mut loaded: Loaded, load_config: Loader, log: Log) -> Result<Self, DaemonError> {
        let files = std::mem::take(&mut loaded.files);
        let Loaded { config, problems, is_blank, .. } = loaded.clone();
        let (clock, shared, instruments) = (Clock::system(), SharedState::default(), Instruments::new()?);
        publish_files(&shared, &files, &config.database);
        let main_file = files.patterns.first().cloned().unwrap_or_default();
        let Checked { tls, readable_secret_warnings } = preflight(&config, main_file).await?;
        publish_certificate(&shared, tls.as_deref());
        let address = config.http.listen;
        let listen_error = |error| DaemonError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let access = Access { tls: tls.clone(), users: config.http.users.clone() };
        warn_about_access(&config.http, &readable_secret_warnings);
        let state = AppState {
            shared: shared.clone(),
            metrics: Arc::new(Metrics::new(shared.clone(), &instruments, clock.now().wall)),
            instruments: instruments.clone(),
            database: DatabaseReader::new(&config.database.path),
            renderer: Renderer::default(),
            clock,
            host_names: tls.is_none().then(|| host_names::allowed(&config.http, address)),
            external_path: host_names::external_path(&config.http),
        };
        let (mut server, server_stop) = (JoinSet::new(), CancellationToken::new());
        server.spawn(http::server::serve(listener, access, state.clone(), Limits::default(), server_stop.clone()));
        let database = open_database(&config.database, &shared, &instruments, clock).await?;
        shared.set_database_health(database.health());
        let context = TaskContext { clock, database, shared, instruments };
        let mut sinks = new_sinks(context.clone(), &config.http);
        let (control, (requests, queue)) = (control::socket_path(&config.database.path), ReloadRequests::new());
        match control::bind(&control) {
            Ok(listener) => drop(server.spawn(control::serve(
                listener,
                state,
                requests.clone(),
                sinks.commands(),
                server_stop.clone(),
            ))),
            Err(error) => warn!(event = "control_socket_failed", %error,
                "cannot listen on {}; `refwatch reload` will fail", control.display()),
        }
        let mut supervisor = Supervisor::new(context.clone(), Arc::new(AwsFactory::new(clock)), fastrand::u64(..));
        start_tasks(&mut supervisor, &mut sinks, &config, &context).await?;
        publish_config(&context, &config, &problems);
        let mut config_watcher = ConfigWatcher::new(load_config, files, queue, clock);
        if !problems.is_empty() {
            config_watcher.retry();
        }
        let log_level = log.level();
        let maintenance = Maintenance::new(context.clone(), log, tls, config.database.retention);
        Ok(Self {
            last_load: Some(Ok(loaded)),
            runs_blank: is_blank,
            log_level,
            config_watcher,
            requests,
            address,
            context,
            supervisor,
            sinks,
            maintenance,
            server,
            server_stop,
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn shared(&self) -> &SharedState {
        &self.context.shared
    }

    /// Runs until `next_action` returns [`SignalAction::Stop`], then stops: pending commits are completed, polls are cancelled.
    /// `next_action` must be cancel safe.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn run(mut self, mut next_action: impl AsyncFnMut() -> SignalAction) -> Result<(), DaemonError> {
        // Signals are handled concurrently with the main loop, so a stop does not wait for a reload that a slow disk delays.
        let requests = self.requests.clone();
        let stop = async {
            while next_action().await == SignalAction::Reload {
                requests.send();
            }
        };
        let result = tokio::select! {
            biased;
            () = stop => Ok(()),
            result = self.run_main_loop() => result,
        };
        self.stop().await;
        result
    }

    async fn run_main_loop(&mut self) -> Result<(), DaemonError> {
        systemd::ready(&status_line(&self.context.shared, self.context.clock.now()));
        let list = &self.supervisor.config().watch_list;
        info!(event = "started", address = %self.address, jobs = list.jobs.len(), stores = list.store_count(),
            version = env!("CARGO_PKG_VERSION"), "watching");
        loop {
            tokio::select! {
                biased;
                load = self.config_watcher.next() => self.handle_load(load?).await?,
                Some(_) = self.server.join_next() => return Err(DaemonError::ServerStopped),
                error = self.maintenance.run() => return Err(SupervisorError::Fatal(error).into()),
                event = self.supervisor.next_event() => self.supervisor.handle_event(event).await?,
            }
        }
    }

    async fn stop(mut self) {
        systemd::stopping();
        info!(event = "stopping", "stopping: pending commits are completed, polls are cancelled");
        self.context.shared.update_daemon(|daemon| daemon.stopping = true);
        self.server_stop.cancel();
        // Errors are ignored, because a socket without a listener also rejects connections.
        drop(control::remove(&control::socket_path(&self.supervisor.config().database.path)));
        let server = async { while self.server.join_next().await.is_some() {} };
        tokio::join!(self.supervisor.stop(), self.sinks.stop(), server);
        if tokio::time::timeout(CLOSE_TIMEOUT, self.context.database.close()).await.is_err() {
            warn!(event = "database_not_closed", "the next start checks the file; no published transition is lost");
        }
    }
}

fn warn_about_access(http: &HttpConfig, readable_secret_warnings: &[String]) {
    if let Some(warning) = http.exposure_warning() {
        warn!(event = "listener_exposed", "{warning}");
    }
    for warning in readable_secret_warnings {
        warn!(event = "secret_readable", "{warning}");
    }
}

fn new_sinks(context: TaskContext, http: &HttpConfig) -> Sinks {
    let TaskContext { clock, database, shared, instruments } = context;
    let transport = Arc::new(HttpTransport { clock, file_permits: Mutex::default() });
    let external_url = http.external_url.clone();
    Sinks::new(SinkContext { clock, database, transport, shared, instruments, external_url }, fastrand::u64(..))
}

/// Starts the tasks of jobs, stores and sinks. Waits while the database fails.
async fn start_tasks(
    supervisor: &mut Supervisor,
    sinks: &mut Sinks,
    config: &Config,
    context: &TaskContext,
) -> Result<(), SupervisorError> {
    let TaskContext { clock, shared, instruments, .. } = context;
    while let Err(error) = supervisor.apply(config).await {
        match error {
            SupervisorError::Unreadable(error @ (WriterError::Sqlite(_) | WriterError::Reopen(_))) => {
                wait_for_database(&error, shared, instruments, *clock).await;
            }
            error => return Err(error),
        }
    }
    while let Err(error) = sinks.apply(&config.sinks).await {
        if matches!(error, WriterError::Stopped) {
            return Err(SupervisorError::Fatal(error));
        }
        wait_for_database(&error, shared, instruments, *clock).await;
    }
    if shared.daemon().database_error.is_some() {
        info!(event = "database_recovered", "the database can be written again");
        shared.update_daemon(|daemon| daemon.database_error = None);
    }
    Ok(())
}

/// Opens the database, again and again after transient errors. Creates its directory only if it is the default one of the user.
async fn open_database(
    config: &DatabaseConfig,
    shared: &SharedState,
    instruments: &Instruments,
    clock: Clock,
) -> Result<Database, DaemonError> {
    loop {
        let (config, counters) = (config.clone(), instruments.clone());
        let open = move || {
            if let Some(directory) = config.path.parent().filter(|_| config.is_in_user_directory()) {
                database::create_directory(directory)?;
            }
            Database::open(&config.path, &counters)
        };
        match spawn_blocking(open).await? {
            Err(error) if error.is_retried() => wait_for_database(&error, shared, instruments, clock).await,
            opened => return Ok(opened?),
        }
    }
}

/// Starts `BLOCKING_THREADS_MIN` threads, or fewer if the system refuses. The runtime keeps them, so later tasks find a thread.
///
/// # Errors
/// The system starts no thread.
pub fn start_blocking_threads() -> io::Result<()> {
    // tokio panics if it cannot start its first thread. An error of `join` is a panic, and this thread has none.
    drop(thread::Builder::new().spawn(|| ())?.join());
    let lock = Arc::new(Mutex::new(()));
    // As long as all threads wait for this lock, none is idle, and each task starts another thread.
    let _held = lock.lock();
    for _ in 0..BLOCKING_THREADS_MIN {
        let lock = Arc::clone(&lock);
        drop(spawn_blocking(move || drop(lock.lock())));
    }
    Ok(())
}

/// Commands identify the daemon of their configuration by these paths.
fn publish_files(shared: &SharedState, files: &LoadedFiles, database: &DatabaseConfig) {
    let file = files.patterns.first().cloned().unwrap_or_default();
    // An error means that the working directory is gone.
    let config_file = std::path::absolute(&file).unwrap_or(file);
    shared.update_daemon(|daemon| (daemon.config_file, daemon.database) = (config_file, database.path.clone()));
}

/// Publishes the database error, extends systemd's start timeout, and waits until the next attempt is due.
async fn wait_for_database(error: &dyn Error, shared: &SharedState, instruments: &Instruments, clock: Clock) {
    instruments.database_failures.inc();
    let message = Some(error.to_string());
    if shared.daemon().database_error != message {
        warn!(event = "database_failed", error = %error, "cannot write to the database; polling is paused");
        shared.update_daemon(|daemon| daemon.database_error = message);
    }
    systemd::extend_start_timeout(&format!("not ready: database error: {error}"), OPEN_TIMEOUT);
    clock.sleep(OPEN_RETRY_DELAY).await;
}

#[cfg(test)]
mod tests;
