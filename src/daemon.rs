//! The daemon, put together: build, run, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::board::{ConfigError, StatusBoard, WatchState};
use crate::clock::Clock;
use crate::config::watch_list::WatchList;
use crate::config::{Config, Loaded, Problems};
use crate::core::job::JobStatus;
use crate::core::time::{Monotonic, Now, Timestamp};
use crate::http::server::Limits;
use crate::http::{self, AppState};
use crate::instruments::Instruments;
use crate::logging::Log;
use crate::metrics::Metrics;
use crate::omics::Aws;
use crate::record::{CommitError, OpenError, Record, RecordReader};
use crate::signals::Asked;
use crate::supervisor::{ApplyError, Supervisor};
use crate::systemd;
use crate::watcher::{Workplace, tell_record};

/// How often the daemon looks after itself: status line, watchdog, counters. A shorter watchdog makes it more often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The least time between two reloads. However many signals ask for one meanwhile, they get one.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// How long closing the record may take, after the tasks have had theirs: together they stay under the 5 s that a stop takes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// How long after a failed try a record in trouble is opened again.
const OPEN_RETRY: Duration = Duration::from_secs(2);

/// How long systemd is asked to be patient, at each try: longer than a try and the pause after it.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// How often rows past `record.keep` are removed.
const PRUNE_EVERY: Duration = Duration::from_hours(24);

/// What is in force where included files have mistakes.
const LEFT_OUT: &str = "files with mistakes were left out, the rest is in force";
const LEFT_OUT_AT_RELOAD: &str =
    "files with mistakes were left out, the rest is in force; what they named before goes on";

/// A daemon whose configuration, record and listener stand.
#[derive(Debug)]
pub struct Daemon {
    /// What is in force.
    config: Config,
    address: SocketAddr,
    workplace: Workplace,
    supervisor: Supervisor,
    server: JoinSet<()>,
    /// What is looked after beside the main loop; one task at most.
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
    /// The configuration cannot be put in force, or the record is gone.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A fault of ours: two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
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
        let Loaded { config, problems } = loaded;
        let (clock, board, instruments) = (Clock::system(), StatusBoard::default(), Instruments::new()?);
        let address = config.http.listen;
        let listen_error = |error| DaemonError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let state = AppState {
            board: board.clone(),
            metrics: Arc::new(Metrics::new(board.clone(), &instruments, clock.now().wall)?),
            instruments: instruments.clone(),
            record: RecordReader::new(&config.record.path),
            clock,
            host_names: host_names(address),
        };
        let (mut server, server_stop) = (JoinSet::new(), CancellationToken::new());
        server.spawn(http::server::serve(listener, state, Limits::default(), server_stop.clone()));
        let record = loop {
            match Record::open(&config.record.path, &instruments) {
                Err(error) if error.may_pass() => {
                    let trouble = CommitError::Reopen(Arc::new(error));
                    wait_for_record(&trouble, &board, &instruments, clock).await;
                }
                opened => break opened?,
            }
        };
        let workplace = Workplace { clock, record, board, instruments };
        let mut supervisor = Supervisor::new(workplace.clone(), Arc::new(Aws::new(clock)), fastrand::u64(..));
        while let Err(error) = supervisor.apply(&config).await {
            // Nothing was taken up so far.
            let ApplyError::Record(trouble @ (CommitError::Sqlite(_) | CommitError::Reopen(_))) = error else {
                return Err(error.into());
            };
            wait_for_record(&trouble, &workplace.board, &workplace.instruments, clock).await;
        }
        tell_record(&workplace.board, None);
        publish_config(&workplace, &config, &problems, LEFT_OUT);
        Ok(Self { config, address, workplace, supervisor, server, chores: JoinSet::new(), server_stop, log })
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
    /// and call again; `load` reads the configuration anew.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn run(
        mut self,
        asked: impl AsyncFnMut() -> Asked,
        load: impl Fn() -> Result<Loaded, Problems>,
    ) -> Result<(), DaemonError> {
        // Beside everything else: a stop must not wait for a reload that a disk keeps waiting.
        let reload = Notify::new();
        let end = tokio::select! {
            biased;
            () = told_to_stop(asked, &reload) => Ok(()),
            end = self.work(&reload, load) => end,
        };
        self.stop().await;
        end
    }

    /// Works until something makes it impossible.
    async fn work(&mut self, reload: &Notify, load: impl Fn() -> Result<Loaded, Problems>) -> Result<(), DaemonError> {
        let clock = self.workplace.clock;
        systemd::ready(&status_line(&self.workplace.board, clock.now()));
        let WatchList { jobs, stores } = &self.config.watch_list;
        info!(event = "started", address = %self.address, jobs = jobs.len(), stores = any(stores.len()),
            version = env!("CARGO_PKG_VERSION"), "watching");
        let look_every = systemd::watchdog_interval().map_or(LOOK_EVERY, |interval| interval.min(LOOK_EVERY));
        let mut next_look = clock.now().monotonic + look_every;
        let mut next_prune = clock.now().monotonic;
        let (mut reload_at, mut next_reload) = (None, clock.now().monotonic);
        loop {
            tokio::select! {
                // In this order: a signal that has come by the time a reload begins asks for that one, and for no other.
                biased;
                () = reload.notified() => reload_at = reload_at.or(Some(next_reload)),
                () = clock.sleep_until(reload_at.unwrap_or(next_reload)), if reload_at.is_some() => {
                    reload_at = None;
                    self.reload(&load).await?;
                    next_reload = clock.now().monotonic + RELOAD_PAUSE;
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
        let server = async { while self.server.join_next().await.is_some() {} };
        tokio::join!(self.supervisor.stop(), server);
        if tokio::time::timeout(CLOSE_PATIENCE, self.workplace.record.close()).await.is_err() {
            warn!(event = "record_not_closed", "nothing that was announced is lost; the next start completes the file");
        }
    }

    /// Reads the configuration anew. What is wrong with it is told, and the one before stays in force.
    async fn reload(&mut self, load: impl Fn() -> Result<Loaded, Problems>) -> Result<(), ApplyError> {
        systemd::reloading();
        let refused = match load() {
            Ok(mut loaded) => {
                if !loaded.problems.is_empty() {
                    loaded.config.keep_of(&self.config);
                }
                match self.put_in_force(loaded).await {
                    Ok(()) => None,
                    Err(error @ ApplyError::Lost(_)) => return Err(error),
                    Err(error) => {
                        error!(event = "config_problem", "{error}");
                        Some((error.to_string(), error.to_string()))
                    }
                }
            }
            Err(problems) => {
                log_problems(&problems);
                Some((problems.summary(), problems.to_string()))
            }
        };
        if let Some((summary, details)) = refused {
            let in_force = "the one before it stays in force";
            error!(event = "reload_failed", "reload refused: {in_force}");
            let error = ConfigError { in_force, summary, details };
            self.workplace.board.update_daemon(|daemon| daemon.config_error = Some(error));
        }
        systemd::ready(&status_line(&self.workplace.board, self.workplace.clock.now()));
        Ok(())
    }

    async fn put_in_force(&mut self, loaded: Loaded) -> Result<(), ApplyError> {
        let Loaded { config, problems } = loaded;
        self.supervisor.apply(&config).await?;
        for table in self.config.needs_restart(&config) {
            warn!(event = "restart_needed", "changes in [{table}] take effect at the next start");
        }
        // These tables stay as the process was started with them.
        let Config { record, http, log, .. } = self.config.clone();
        let config = Config { record, http, log, ..config };
        let WatchList { jobs, stores } = &config.watch_list;
        info!(event = "reloaded", jobs = jobs.len(), stores = any(stores.len()), "the new watch list is in force");
        publish_config(&self.workplace, &config, &problems, LEFT_OUT_AT_RELOAD);
        self.config = config;
        Ok(())
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
        self.chores.spawn(async move {
            let record = &workplace.record;
            let stands = record.check().await;
            // An answer is progress, be it that the disk is full.
            systemd::alive();
            if let Err(CommitError::WriterGone) = stands {
                return stands;
            }
            tell_record(&workplace.board, stands.as_ref().err());
            if let Some((before, watched)) = prune.filter(|_| stands.is_ok())
                && let Err(error) = record.delete_ended_before(before, watched).await
            {
                warn!(event = "prune_failed", %error, "rows past record.keep stay until tomorrow");
            }
            Ok(())
        });
    }
}

/// Returns when the process is to stop. Until then it hands on that a reload is asked for: signals that come before that is
/// seen to are one.
async fn told_to_stop(mut asked: impl AsyncFnMut() -> Asked, reload: &Notify) {
    while asked().await == Asked::Reload {
        reload.notify_one();
    }
}

/// Tells of the trouble that the record is in at the start, and waits for as long as it takes to be worth another try.
async fn wait_for_record(trouble: &CommitError, board: &StatusBoard, instruments: &Instruments, clock: Clock) {
    instruments.record_failures.inc();
    tell_record(board, Some(trouble));
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

/// `problems` are those of included files; where there are any, `in_force` says what is in force all the same.
fn publish_config(workplace: &Workplace, config: &Config, problems: &Problems, in_force: &'static str) {
    let loaded_at = workplace.clock.now().wall;
    log_problems(problems);
    let error = (!problems.is_empty()).then(|| {
        error!(event = "include_failed", "{in_force}");
        ConfigError { in_force, summary: problems.summary(), details: problems.to_string() }
    });
    workplace.board.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(loaded_at);
        daemon.config_error = error;
        daemon.config_in_force = config.in_force();
    });
}

/// One line for each mistake; the picture of it is on the page and in what `refwatch check` prints.
fn log_problems(problems: &Problems) {
    for problem in &problems.0 {
        error!(event = "config_problem", "{}", problem.summary());
    }
}

/// A count, where there is anything to count.
fn any(count: usize) -> Option<usize> {
    Some(count).filter(|count| *count > 0)
}

/// "12 jobs: 3 in progress, 9 finished; last poll 2 s ago", the stores that jobs are found in before that, and what is wrong first.
fn status_line(board: &StatusBoard, now: Now) -> String {
    let (watches, daemon) = (board.watches(), board.daemon());
    let count = |state: fn(&WatchState) -> bool| watches.iter().filter(|watch| state(&watch.state)).count();
    let in_progress = watches.iter().filter(|watch| {
        matches!(watch.state, WatchState::Live)
            && watch.known.as_ref().is_some_and(|known| known.status == JobStatus::InProgress)
    });
    let finished = count(|state| matches!(state, WatchState::Finished));
    let parked = count(|state| matches!(state, WatchState::Parked(_)));
    let stores = board.stores();
    let unlisted = stores.iter().find(|store| store.trouble.is_some());
    let trouble = match (daemon.ready(), daemon.config_error, unlisted) {
        (Err(reason), _, _) => format!("not ready: {reason}; "),
        (Ok(()), Some(error), _) => format!("configuration: {}; ", error.summary),
        (Ok(()), None, Some(store)) => format!("no new job of the store {} can be found; ", store.name),
        (Ok(()), None, None) => String::new(),
    };
    let parked = if parked > 0 { format!(", {parked} parked") } else { String::new() };
    let last_poll: Option<Timestamp> = watches.iter().filter_map(|watch| watch.last_successful_poll).max();
    let last_poll = last_poll.map(|last| now.wall.duration_since(last).as_secs().max(0));
    let last_poll = last_poll.map(|seconds| format!("; last poll {seconds} s ago")).unwrap_or_default();
    let (jobs, in_progress) = (watches.len(), in_progress.count());
    let stores = match stores.len() {
        0 => String::new(),
        1 => "1 store, ".to_owned(),
        stores => format!("{stores} stores, "),
    };
    format!("{trouble}{stores}{jobs} jobs: {in_progress} in progress, {finished} finished{parked}{last_poll}")
}

#[cfg(test)]
mod tests;
