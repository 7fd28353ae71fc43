//! The daemon: builds all parts, runs the main loop, and stops in order.
//!
//! The main loop owns the running configuration and the supervisor. It handles events one at a time and never waits for a file
//! system. `reload` applies configurations, `maintenance` does periodic work, `config_watcher` loads the files.

pub mod config_watcher;
mod maintenance;
mod reload;
pub mod signals;
pub mod systemd;

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::watch_list::WatchList;
use crate::config::{Config, Loaded, Problems};
use crate::database::{CommitError, Database, DatabaseReader, OpenError};
use crate::healthomics::AwsFactory;
use crate::http::server::{Access, Limits};
use crate::http::tls::{Tls, TlsError};
use crate::http::{self, AppState, control};
use crate::instruments::Instruments;
use crate::logging::Log;
use crate::metrics::Metrics;
use crate::reload::ReloadRequests;
use crate::state::SharedState;
use crate::tasks::job_watcher::TaskContext;
use crate::tasks::supervisor::{ApplyError, Supervisor};
use config_watcher::{ConfigWatcher, Loader};
use maintenance::Maintenance;
use reload::publish_config;
use signals::Asked;
use systemd::status_line;

/// Together with the time that the tasks get, this stays below the 5 s that a stop may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two attempts to open the database.
const OPEN_RETRY: Duration = Duration::from_secs(2);

/// The extension of systemd's start timeout at each attempt. It covers an attempt and the pause after it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A daemon that has a configuration, a database and a listener.
pub struct Daemon {
    /// The running configuration.
    config: Config,
    /// The last load, applied or not; `None` if the next one is new in any case.
    last_load: Option<Result<Loaded, Problems>>,
    config_watcher: ConfigWatcher,
    requests: ReloadRequests,
    address: SocketAddr,
    context: TaskContext,
    supervisor: Supervisor,
    maintenance: Maintenance,
    server: JoinSet<()>,
    server_stop: CancellationToken,
}

/// Why the daemon cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("http.listen: {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration cannot be applied, or the writer of the database has stopped.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// An internal error: two metrics have one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// An internal error: the loader panicked.
    #[error("reading the configuration: {0}")]
    Reading(#[from] tokio::task::JoinError),
    /// An internal error.
    #[error("the HTTP server has ended")]
    ServerGone,
}

impl Daemon {
    /// Starts the listener, then the database, then the watches. AWS need not be reachable. If the database cannot be opened for a
    /// reason that may pass, such as a full disk, it retries and the listener says so.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn start(loaded: Loaded, load_config: Loader, log: Log) -> Result<Self, DaemonError> {
        let Loaded { config, problems, files } = loaded.clone();
        let (clock, board, instruments) = (Clock::system(), SharedState::default(), Instruments::new()?);
        // The first target needs them. Reading them takes a tenth of a second.
        drop(spawn_blocking(AwsFactory::preload_certificates));
        let address = config.http.listen;
        let listen_error = |error| DaemonError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let tls = config.http.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let access = Access { tls: tls.clone(), users: config.http.users.clone() };
        if let Some(exposed) = config.http.exposed() {
            warn!(event = "listener_exposed", "{exposed}");
        }
        let state = AppState {
            board: board.clone(),
            metrics: Arc::new(Metrics::new(board.clone(), &instruments, clock.now().wall)),
            instruments: instruments.clone(),
            database: DatabaseReader::new(&config.database.path),
            clock,
            host_names: tls.is_none().then(|| host_names(address)),
        };
        let (mut server, server_stop) = (JoinSet::new(), CancellationToken::new());
        server.spawn(http::server::serve(listener, access, state.clone(), Limits::default(), server_stop.clone()));
        let database = loop {
            match Database::open(&config.database.path, &instruments) {
                Err(error) if error.is_transient() => wait_for_database(&error, &board, &instruments, clock).await,
                opened => break opened?,
            }
        };
        let (control, (requests, queue)) = (control::path(&config.database.path), ReloadRequests::new());
        match control::bind(&control) {
            Ok(listener) => drop(server.spawn(control::serve(listener, state, requests.clone(), server_stop.clone()))),
            Err(error) => warn!(event = "control_socket_failed", %error,
                "refwatch reload cannot reach this process at {}", control.display()),
        }
        board.set_database_health(database.health());
        let context = TaskContext { clock, database, board: board.clone(), instruments: instruments.clone() };
        let mut supervisor = Supervisor::new(context.clone(), Arc::new(AwsFactory::new(clock)), fastrand::u64(..));
        while let Err(error) = supervisor.apply(&config).await {
            match error {
                ApplyError::Database(error @ (CommitError::Sqlite(_) | CommitError::Reopen(_))) => {
                    wait_for_database(&error, &board, &instruments, clock).await;
                }
                error => return Err(error.into()),
            }
        }
        if board.daemon().database_error.is_some() {
            info!(event = "database_recovered", "the database can be written again");
            board.update_daemon(|daemon| daemon.database_error = None);
        }
        publish_config(&context, &config, &problems);
        let config_watcher = ConfigWatcher::new(load_config, files, queue, clock);
        let maintenance = Maintenance::new(context.clone(), log, tls, config.database.retention);
        Ok(Self {
            config,
            last_load: Some(Ok(loaded)),
            config_watcher,
            requests,
            address,
            context,
            supervisor,
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
    pub fn board(&self) -> &SharedState {
        &self.context.board
    }

    /// Runs until `asked` returns [`Asked::Stop`], then stops: pending commits are completed, polls are dropped. `asked` must be
    /// cancel safe.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn run(mut self, mut asked: impl AsyncFnMut() -> Asked) -> Result<(), DaemonError> {
        // Concurrent with the main loop: a stop does not wait for a reload that a slow disk delays.
        let requests = self.requests.clone();
        let stop = async {
            while asked().await == Asked::Reload {
                requests.ask();
            }
        };
        let end = tokio::select! {
            biased;
            () = stop => Ok(()),
            end = self.run_main_loop() => end,
        };
        self.stop().await;
        end
    }

    async fn run_main_loop(&mut self) -> Result<(), DaemonError> {
        systemd::ready(&status_line(&self.context.board, self.context.clock.now()));
        let WatchList { jobs, stores } = &self.config.watch_list;
        info!(event = "started", address = %self.address, jobs = jobs.len(), stores = stores.len(),
            version = env!("CARGO_PKG_VERSION"), "watching");
        loop {
            tokio::select! {
                biased;
                load = self.config_watcher.next() => self.handle_load(load?).await?,
                Some(_) = self.server.join_next() => return Err(DaemonError::ServerGone),
                error = self.maintenance.run() => return Err(ApplyError::Lost(error).into()),
                event = self.supervisor.next_event() => self.supervisor.handle_event(event).await?,
            }
        }
    }

    async fn stop(mut self) {
        systemd::stopping();
        info!(event = "stopping", "stopping: commits under way are finished, polls are dropped");
        self.context.board.update_daemon(|daemon| daemon.stopping = true);
        self.server_stop.cancel();
        // An error changes nothing: a socket without a listener rejects connections, too.
        drop(fs::remove_file(control::path(&self.config.database.path)));
        let server = async { while self.server.join_next().await.is_some() {} };
        tokio::join!(self.supervisor.stop(), server);
        if tokio::time::timeout(CLOSE_TIMEOUT, self.context.database.close()).await.is_err() {
            warn!(
                event = "database_not_closed",
                "nothing that was announced is lost; the next start completes the file"
            );
        }
    }
}

/// Publishes the database error, asks systemd for more time, and waits until the next attempt is due.
async fn wait_for_database(error: &dyn Error, board: &SharedState, instruments: &Instruments, clock: Clock) {
    instruments.database_failures.inc();
    let message = Some(error.to_string());
    if board.daemon().database_error != message {
        warn!(event = "database_failed", error = %error, "cannot write to the database; polling is paused");
        board.update_daemon(|daemon| daemon.database_error = message);
    }
    systemd::waiting(&format!("not ready: the database: {error}"), OPEN_TIMEOUT);
    clock.sleep(OPEN_RETRY).await;
}

/// The names that clients may use beside IP addresses and `localhost`: the machine's, unless the listener is on loopback.
fn host_names(listen: SocketAddr) -> Arc<[String]> {
    if listen.ip().is_loopback() {
        return [].into();
    }
    [rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()].into()
}

#[cfg(test)]
mod tests;
