//! The daemon, put together: build, run, stop.

pub mod config_watcher;
mod reader;
mod reload;
pub mod signals;
mod status_line;
pub mod systemd;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::watch_list::WatchList;
use crate::config::{Config, Loaded, Problems};
use crate::core::time::{Monotonic, Timestamp};
use crate::database::{CommitError, OpenError, Record, RecordReader};
use crate::healthomics::Aws;
use crate::http::server::{Access, Limits};
use crate::http::tls::{Tls, TlsError};
use crate::http::{self, AppState, control};
use crate::instruments::Instruments;
use crate::logging::Log;
use crate::metrics::Metrics;
use crate::reload::ReloadRequests;
use crate::state::StatusBoard;
use crate::tasks::job_watcher::Workplace;
use crate::tasks::supervisor::{ApplyError, Supervisor};
use reader::Reader;
pub use reader::Source;
use reload::{LEFT_OUT, any, publish_config};
use signals::Asked;
use status_line::status_line;

/// How often the daemon looks after itself: status line, watchdog, counters. A shorter watchdog makes it more often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long closing the record may take, after the tasks have had theirs: together they stay under the 5 s that a stop takes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// How long after a failed try a record in trouble is opened again.
const OPEN_RETRY: Duration = Duration::from_secs(2);

/// How long systemd is asked to be patient, at each try: longer than a try and the pause after it.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// How often rows past `record.keep` are removed.
const PRUNE_EVERY: Duration = Duration::from_hours(24);

/// A daemon whose configuration, record and listener stand.
#[derive(Debug)]
pub struct Daemon {
    /// What is in force.
    config: Config,
    /// What was read last, in force or not.
    read: Option<Result<Loaded, Problems>>,
    requests: ReloadRequests,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    workplace: Workplace,
    supervisor: Supervisor,
    server: JoinSet<()>,
    /// What is looked after beside the main loop; one task of a kind at most.
    chores: JoinSet<Result<(), CommitError>>,
    server_stop: CancellationToken,
    log: Log,
}

/// Why the daemon could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The record cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The listener cannot be set up.
    #[error("http.listen: {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
    /// The listener's TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration cannot be put in force, or the record is gone.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A fault of ours: two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A fault of ours: reading the configuration panicked.
    #[error("reading the configuration: {0}")]
    Reading(#[from] tokio::task::JoinError),
    /// A fault of ours: the HTTP server ended.
    #[error("the HTTP server has ended")]
    ServerGone,
}

impl Daemon {
    /// Brings everything up: the listener, the record, then the watches. AWS need not be reachable. A record in trouble that may pass,
    /// as on a full disk, is waited for, and what serves says so.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn start(loaded: Loaded, log: Log) -> Result<Self, DaemonError> {
        let Loaded { config, problems, .. } = loaded.clone();
        let (clock, board, instruments) = (Clock::system(), StatusBoard::default(), Instruments::new()?);
        let mut chores = JoinSet::new();
        chores.spawn_blocking(|| {
            Aws::read_authorities();
            Ok(())
        });
        let address = config.http.listen;
        let listen_error = |error| DaemonError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let tls = config.http.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let access = Access { tls: tls.clone(), users: config.http.users.clone() };
        if let Some(exposed) = config.http.exposed() {
            warn!(event = "exposed", "{exposed}");
        }
        let state = AppState {
            board: board.clone(),
            metrics: Arc::new(Metrics::new(board.clone(), &instruments, clock.now().wall)?),
            instruments: instruments.clone(),
            record: RecordReader::new(&config.record.path),
            clock,
            host_names: tls.is_none().then(|| host_names(address)),
        };
        let (mut server, server_stop) = (JoinSet::new(), CancellationToken::new());
        let serving = http::server::serve(listener, access, state.clone(), Limits::default(), server_stop.clone());
        server.spawn(serving);
        let record = loop {
            match Record::open(&config.record.path, &instruments) {
                Err(error) if error.may_pass() => {
                    let trouble = CommitError::Reopen(Arc::new(error));
                    wait_for_record(&trouble, &board, &instruments, clock).await;
                }
                opened => break opened?,
            }
        };
        let (control, requests) = (control::path(&config.record.path), ReloadRequests::default());
        match control::bind(&control) {
            Ok(listener) => drop(server.spawn(control::serve(listener, state, requests.clone(), server_stop.clone()))),
            Err(error) => warn!(event = "no_control_socket", %error,
                "refwatch reload cannot ask this process: {}", control.display()),
        }
        board.set_database_health(record.health());
        let workplace = Workplace { clock, record, board, instruments };
        let mut supervisor = Supervisor::new(workplace.clone(), Arc::new(Aws::new(clock)), fastrand::u64(..));
        while let Err(error) = supervisor.apply(&config).await {
            // Nothing was taken up so far.
            let ApplyError::Record(trouble @ (CommitError::Sqlite(_) | CommitError::Reopen(_))) = error else {
                return Err(error.into());
            };
            wait_for_record(&trouble, &workplace.board, &workplace.instruments, clock).await;
        }
        if workplace.board.daemon().record_error.is_some() {
            info!(event = "record_recovered", "the record can be written again");
            workplace.board.update_daemon(|daemon| daemon.record_error = None);
        }
        publish_config(&workplace, &config, &problems, LEFT_OUT);
        let read = Some(Ok(loaded));
        Ok(Self { config, read, requests, address, tls, workplace, supervisor, server, chores, server_stop, log })
    }

    /// Where the listener is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The latest published state.
    #[must_use]
    pub fn board(&self) -> &StatusBoard {
        &self.workplace.board
    }

    /// Runs until told to stop, then stops: commits that are under way end, polls are dropped. `asked` must be safe to drop
    /// and call again; `source` is where the configuration is read anew.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn run(mut self, asked: impl AsyncFnMut() -> Asked, source: impl Source) -> Result<(), DaemonError> {
        // Beside everything else: a stop must not wait for a reload that a disk keeps waiting.
        let requests = self.requests.clone();
        let end = tokio::select! {
            biased;
            () = told_to_stop(asked, &requests) => Ok(()),
            end = self.work(source) => end,
        };
        self.stop().await;
        end
    }

    /// Works until something makes it impossible.
    async fn work(&mut self, source: impl Source) -> Result<(), DaemonError> {
        let clock = self.workplace.clock;
        systemd::ready(&status_line(&self.workplace.board, clock.now()));
        let WatchList { jobs, stores } = &self.config.watch_list;
        info!(event = "started", address = %self.address, jobs = jobs.len(), stores = any(stores.len()),
            version = env!("CARGO_PKG_VERSION"), "watching");
        let look_every = systemd::watchdog_interval().map_or(LOOK_EVERY, |interval| interval.min(LOOK_EVERY));
        let mut next_look = clock.now().monotonic + look_every;
        let mut next_prune = clock.now().monotonic;
        let mut reader = Reader::new(source, clock, self.requests.clone());
        loop {
            tokio::select! {
                biased;
                reading = reader.next() => {
                    self.take_up(reading?).await?;
                    if self.read.is_none() {
                        reader.forget();
                    }
                }
                Some(_) = self.server.join_next() => return Err(DaemonError::ServerGone),
                Some(Ok(done)) = self.chores.join_next() => done.map_err(ApplyError::Lost)?,
                () = clock.sleep_until(next_look) => {
                    self.look_after_itself(&mut next_prune);
                    next_look = clock.now().monotonic + look_every;
                }
                event = self.supervisor.next_event() => self.supervisor.handle_event(event).await?,
            }
        }
    }

    async fn stop(mut self) {
        systemd::stopping();
        info!(event = "stopping", "stopping: commits under way are finished, polls are dropped");
        self.workplace.board.update_daemon(|daemon| daemon.stopping = true);
        self.server_stop.cancel();
        // One that stays says that nobody is there, just as well.
        drop(fs::remove_file(control::path(&self.config.record.path)));
        let server = async { while self.server.join_next().await.is_some() {} };
        tokio::join!(self.supervisor.stop(), server);
        if tokio::time::timeout(CLOSE_PATIENCE, self.workplace.record.close()).await.is_err() {
            warn!(event = "record_not_closed", "nothing that was announced is lost; the next start completes the file");
        }
    }

    /// Looks after itself, in a task beside: a record that does not answer must not keep the main loop waiting. systemd hears of
    /// progress when the main loop got here, a task of the runtime ran, and the record answered it.
    fn look_after_itself(&mut self, next_prune: &mut Monotonic) {
        let workplace = self.workplace.clone();
        let now = workplace.clock.now();
        let dropped = &workplace.instruments.log_lines_dropped;
        dropped.inc_by(self.log.lines_dropped().saturating_sub(dropped.get()));
        systemd::status(&status_line(&workplace.board, now));
        if !self.chores.is_empty() {
            return;
        }
        let prune = (now.monotonic >= *next_prune).then(|| {
            *next_prune = now.monotonic + PRUNE_EVERY;
            // A time before all times keeps everything.
            let before = now.wall.checked_sub(self.config.record.keep).unwrap_or(Timestamp::MIN);
            (before, workplace.board.watches().iter().map(|watch| watch.id.clone()).collect())
        });
        if let Some(tls) = self.tls.clone() {
            self.chores.spawn_blocking(move || {
                tls.refresh();
                Ok(())
            });
        }
        self.chores.spawn(async move {
            let record = &workplace.record;
            let stands = record.check().await;
            // An answer is progress, be it that the disk is full.
            systemd::alive();
            if let Err(CommitError::WriterGone) = stands {
                return stands;
            }
            if let Some((before, watched)) = prune.filter(|_| stands.is_ok())
                && let Err(error) = record.delete_ended_before(before, watched).await
            {
                warn!(event = "prune_failed", %error, "rows past record.keep stay until tomorrow");
            }
            Ok(())
        });
    }
}

/// Returns when the process is to stop. Until then it hands on that a reload is asked for.
async fn told_to_stop(mut asked: impl AsyncFnMut() -> Asked, requests: &ReloadRequests) {
    while asked().await == Asked::Reload {
        requests.ask();
    }
}

/// Publishes why the database cannot be used at the start, and waits before the next attempt.
async fn wait_for_record(trouble: &CommitError, board: &StatusBoard, instruments: &Instruments, clock: Clock) {
    instruments.record_failures.inc();
    let error = Some(trouble.to_string());
    if board.daemon().record_error != error {
        warn!(event = "record_failed", error, "cannot write to the record; polling is paused");
        board.update_daemon(|daemon| daemon.record_error = error);
    }
    systemd::waiting(&format!("not ready: the record: {trouble}"), OPEN_PATIENCE);
    clock.sleep(OPEN_RETRY).await;
}

/// The names that the listener may be called by, beside IP addresses and `localhost`. From elsewhere, people and Prometheus
/// use the machine's.
fn host_names(listen: SocketAddr) -> Arc<[String]> {
    if listen.ip().is_loopback() {
        return [].into();
    }
    [rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()].into()
}

#[cfg(test)]
mod tests;
