//! Disk errors: a system call on the database's files fails, once or until the test ends the fault.
//!
//! Each call is tried in turn: while a new database is created, while one is opened after a kill, during commits, and during a
//! checkpoint. The daemon must serve, report why it is not ready, recover without a restart, and store each transition once.
//!
//! `DISK_ERRORS` sets the number, `DISK_ERROR` selects one.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use refwatch::clock::Clock;
use rustix::process::Signal;

use super::strace::{self, FILES, Injection};
use super::{env_number, print_summary, sleep};
use crate::disk_faults::skipped;
use crate::process::{Process, Workspace, eventually, get};
use crate::transition_rows::{assert_log_matches, assert_matches_simulator, ended, transitions};

/// The default number of errors.
const DISK_ERRORS: u64 = 6;

/// Errors in parallel, each with its own daemon and simulator. They mostly wait.
const THREADS: usize = 4;

/// Jobs per daemon, all of which end within six seconds: enough transitions for an automatic checkpoint.
const JOBS: usize = 120;

/// The longest time to recover after the fault has ended.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// No wait takes this long unless something is broken.
const DEADLINE: Duration = Duration::from_mins(2);

const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Step through the list of errors. Coprime to its length, so that a few errors cover all kinds.
const STRIDE: usize = 101;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    FirstStart,
    StartAfterKill,
    Commits,
    /// Commits succeed; the checkpoint fails and is retried with the next commit.
    Checkpoint,
}

/// Failing calls, the error, and the greatest number of such calls.
const KINDS: &[(Phase, &str, &str, u64)] = &[
    (Phase::FirstStart, "openat", "error=EIO", 8),
    (Phase::FirstStart, "openat", "error=ENOSPC", 8),
    (Phase::FirstStart, "pread64,read", "error=EIO", 6),
    (Phase::FirstStart, "pwrite64", "error=ENOSPC", 14),
    (Phase::FirstStart, "ftruncate", "error=ENOSPC", 3),
    (Phase::FirstStart, "fsync,fdatasync", "error=EIO", 6),
    (Phase::FirstStart, "mmap", "error=ENOMEM", 1),
    (Phase::StartAfterKill, "openat", "error=EIO", 8),
    (Phase::StartAfterKill, "openat", "error=ENOSPC", 8),
    (Phase::StartAfterKill, "pread64,read", "error=EIO", 12),
    (Phase::StartAfterKill, "pwrite64", "error=ENOSPC", 10),
    (Phase::StartAfterKill, "ftruncate", "error=ENOSPC", 2),
    (Phase::StartAfterKill, "mmap", "error=ENOMEM", 2),
    (Phase::Commits, "pwrite64", "error=ENOSPC", 18),
    (Phase::Commits, "pwrite64", "error=EIO", 18),
    (Phase::Commits, "fsync,fdatasync", "error=EIO", 3),
    (Phase::Checkpoint, "pwrite64", "error=ENOSPC", 4),
    (Phase::Checkpoint, "fsync,fdatasync", "error=EIO", 1),
];

#[derive(Debug, Default)]
struct Summary {
    once: usize,
    permanent: usize,
    not_reached: usize,
    recorded: usize,
    recoveries: Vec<Duration>,
}

/// A daemon with its simulator and database.
struct ErrorRun {
    workspace: Workspace,
    _simulator: Process,
    simulator: SocketAddr,
    config: PathBuf,
    database: PathBuf,
    address: SocketAddr,
}

#[test]
fn the_daemon_recovers_from_a_disk_error_at_any_call() {
    if !strace::is_usable() {
        skipped::<()>("strace is missing or may not trace");
        return;
    }
    let injections = injections();
    let requested = env_number("DISK_ERRORS");
    let numbers = match env_number("DISK_ERROR") {
        Some(error) => error..error + 1,
        None => 0..requested.unwrap_or(DISK_ERRORS).min(injections.len() as u64),
    };
    let summary = thread::scope(|scope| {
        let run_some = |thread: usize| {
            let numbers = numbers.clone().skip(thread).step_by(THREADS);
            let results = numbers.map(|number| {
                let (phase, injection) = &injections[usize::try_from(number).expect("few") * STRIDE % injections.len()];
                let command = format!("DISK_ERROR={number} cargo test --test it campaigns::errors -- --nocapture");
                ErrorRun::new(number).run(
                    *phase,
                    injection,
                    &format!("{phase:?}, {injection:?}; to reproduce: {command}"),
                )
            });
            results.fold(Summary::default(), Summary::add)
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run_some(thread))).collect();
        let results =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        results.fold(Summary::default(), Summary::add)
    });
    let longest = summary.print();
    assert!(requested.is_none() || longest <= RECOVERY_MAX, "recovered only after {longest:?}");
}

/// Every call twice: failing once, and failing permanently.
fn injections() -> Vec<(Phase, Injection)> {
    let injections = KINDS.iter().flat_map(|&(phase, calls, action, most)| {
        let files = if phase == Phase::Checkpoint { &FILES[..1] } else { FILES };
        let injection = move |nth, permanent| (phase, Injection { calls, files, action, nth, permanent });
        (1..=most).flat_map(move |nth| [injection(nth, false), injection(nth, true)])
    });
    injections.collect()
}

impl ErrorRun {
    fn new(seed: u64) -> Self {
        let workspace = Workspace::new();
        let (jobs, seed) = (JOBS.to_string(), seed.to_string());
        let arguments = ["--jobs", &jobs, "--mean-seconds", "3", "--quota", "1000", "--seed", &seed];
        let (simulator, simulated, config) = workspace.simulate(&arguments);
        // The port is chosen here: a daemon without a database logs no address.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let config = config.replace("127.0.0.1:0", &address.to_string());
        let config = config.replace("min_interval = \"1s\"", "min_interval = \"100ms\"");
        Self {
            config: workspace.write("refwatch.toml", &config),
            database: workspace.path("refwatch.db"),
            workspace,
            _simulator: simulator,
            simulator: simulated,
            address,
        }
    }

    /// Runs a daemon with the injection until all jobs have ended.
    fn run(self, phase: Phase, injection: &Injection, context: &str) -> Summary {
        let mut logs = if phase == Phase::StartAfterKill { self.killed() } else { String::new() };
        let at_start = matches!(phase, Phase::FirstStart | Phase::StartAfterKill);
        let command = self.command();
        let log_path = self.workspace.path("strace");
        let command = if at_start { injection.at_start_of(&command, &self.database, &log_path) } else { command };
        let mut traced =
            TracedDaemon { daemon: self.workspace.spawn(command), run: &self, context, injected: log_path };
        let strace = (!at_start).then(|| {
            traced.daemon.address();
            injection.on(traced.daemon.pid(), &self.database, &traced.injected).spawn().expect("strace")
        });
        let mut summary = Summary::default();
        if traced.wait_until(|traced| traced.injected() > 0) {
            if injection.permanent {
                traced.check_failure_state(phase);
                strace::detach(traced.daemon.pid());
                summary.permanent = 1;
            } else {
                // strace counts the calls of each thread, and every attempt to open the database may use another thread.
                strace::detach(traced.daemon.pid());
                summary.once = 1;
            }
            // The next transition may be late, or none may be left: below, every end is in the database.
            let fault_ended = Clock::system();
            traced.wait_until(|traced| traced.ready().is_some_and(|(status, _)| status == 200));
            summary.recoveries.push(fault_ended.now().monotonic.elapsed());
        } else {
            summary.not_reached = 1;
        }
        strace::detach(traced.daemon.pid());
        eventually("every end", || traced.finished().then_some(()));
        if let Some(mut strace) = strace {
            strace.wait().expect("strace ends");
        }
        let mut daemon = traced.daemon;
        daemon.signal(Signal::KILL);
        daemon.end();
        logs += &daemon.stderr();
        let rows = transitions(&self.database);
        assert_log_matches(&rows, &logs, context);
        let mut beside =
            fs::read_dir(self.workspace.path("")).expect("a directory").map(|entry| entry.expect("an entry"));
        let damaged = beside.any(|entry| entry.file_name().to_string_lossy().contains(".damaged"));
        assert!(!damaged, "moved to quarantine: {context}\n{logs}");
        summary.recorded = rows.len();
        assert_matches_simulator(rows, self.simulator);
        summary
    }

    /// The log of a daemon that created the database and was killed.
    fn killed(&self) -> String {
        let mut daemon = self.workspace.spawn(self.command());
        eventually("transitions", || daemon.stderr().contains("event=\"transition\"").then_some(()));
        daemon.signal(Signal::KILL);
        daemon.end();
        daemon.stderr()
    }

    fn command(&self) -> Command {
        self.workspace.refwatch(&["--config", self.config.to_str().expect("text"), "run"])
    }
}

struct TracedDaemon<'a> {
    daemon: Process,
    run: &'a ErrorRun,
    context: &'a str,
    /// The log of strace.
    injected: PathBuf,
}

impl TracedDaemon<'_> {
    /// Waits for a condition; false if all jobs end first. The daemon must keep running.
    fn wait_until(&mut self, mut seen: impl FnMut(&Self) -> bool) -> bool {
        let clock = Clock::system();
        for look in 1_u64.. {
            if seen(self) {
                return true;
            }
            if look.is_multiple_of(10) && self.finished() {
                return seen(self);
            }
            let (ended, waited) = (self.daemon.has_ended(), clock.now().monotonic.elapsed());
            assert!(!ended && waited < DEADLINE, "ended: {ended}, {}\n{}", self.context, self.daemon.stderr());
            sleep(CHECK_INTERVAL);
        }
        unreachable!("the loop does not end");
    }

    /// Checks the reported health during the fault, until a retry has failed as well.
    fn check_failure_state(&mut self, phase: Phase) {
        if phase == Phase::Checkpoint {
            self.wait_until(|traced| traced.injected() > 1);
            return;
        }
        let not_ready =
            |(status, reason): (u16, String)| status == 503 && reason.starts_with("the database cannot be written: ");
        if self.wait_until(|traced| traced.ready().is_some_and(not_ready)) {
            assert_eq!(get(self.run.address, "/-/healthy").0, 200);
            assert!(get(self.run.address, "/").1.contains("The database cannot be written"), "{}", self.context);
            let injected = self.injected();
            self.wait_until(|traced| traced.injected() > injected);
        }
    }

    fn injected(&self) -> usize {
        fs::read_to_string(&self.injected).map_or(0, |log| log.matches("(INJECTED)").count())
    }

    fn ready(&self) -> Option<(u16, String)> {
        TcpStream::connect(self.run.address).is_ok().then(|| get(self.run.address, "/-/ready"))
    }

    fn finished(&self) -> bool {
        ended(&transitions(&self.run.database)) == JOBS
    }
}

impl Summary {
    fn add(mut self, more: Self) -> Self {
        let Self { once, permanent, not_reached, recorded, recoveries } = more;
        self.once += once;
        self.permanent += permanent;
        self.not_reached += not_reached;
        self.recorded += recorded;
        self.recoveries.extend(recoveries);
        self
    }

    /// Prints the summary. Returns the longest recovery.
    fn print(mut self) -> Duration {
        self.recoveries.sort();
        let Self { once, permanent, not_reached, recorded, recoveries } = self;
        let at = |place: usize| recoveries.get(place).copied().unwrap_or_default();
        let (median, longest) = (at(recoveries.len() / 2), at(recoveries.len().saturating_sub(1)));
        print_summary(format_args!(
            "{} disk errors ({once} once, {permanent} for good; {not_reached} more were not reached): {recorded} \
             transitions recorded as they were, 0 lost, 0 doubled, 0 taken for damage; recovered after {} ms at the \
             median, {} ms at most",
            once + permanent,
            median.as_millis(),
            longest.as_millis(),
        ));
        longest
    }
}
