//! Errors of a disk: a system call on the database's files fails, each in turn, once or until the trouble is over, in the open of a new
//! database, of one that a kill left, or while transitions are committed. The daemon serves, says why it is not ready, goes on by
//! itself, and has in the end recorded what was true, once.
//!
//! `DISK_ERRORS` says how many, `DISK_ERROR` which one alone.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use refwatch::clock::Clock;
use rustix::process::Signal;

use super::strace::{self, FILES, Strike};
use super::{number, pass, say};
use crate::process::{Process, Scene, eventually, get};
use crate::trouble::skipped;
use crate::truth::{assert_announced, assert_true, ended, transitions};

/// Errors unless it is said how many.
const DISK_ERRORS: u64 = 6;

/// Errors at a time, each with a daemon and a simulator of its own. Mostly they wait.
const THREADS: usize = 4;

/// The jobs of each, all of which end within six seconds: enough for the write-ahead log to be taken into the file meanwhile.
const JOBS: usize = 120;

/// How soon after its end a trouble is over for the daemon.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// Nothing but a fault of ours comes near it.
const DEADLINE: Duration = Duration::from_mins(2);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A step through all errors, without a common factor with how many there are, so that a few are already of all kinds.
const STRIDE: usize = 101;

/// What is under way when the error comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    FirstStart,
    StartAfterKill,
    Commits,
    /// Commits go on; what fails is the taking of the write-ahead log into the file, which is tried again with the next.
    Checkpoint,
}

/// Which calls fail, and how; and how many of them there are at most.
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

/// What some errors came to.
#[derive(Debug, Default)]
struct Figures {
    once: usize,
    for_good: usize,
    not_reached: usize,
    recorded: usize,
    recoveries: Vec<Duration>,
}

/// A daemon to strike at, and what it watches.
struct Stage {
    scene: Scene,
    _simulator: Process,
    simulator: SocketAddr,
    config: PathBuf,
    database: PathBuf,
    address: SocketAddr,
}

#[test]
fn a_disk_error_at_any_call_is_waited_out() {
    if !strace::works() {
        skipped::<()>("strace is not there, or may not trace");
        return;
    }
    let all = all();
    let asked = number("DISK_ERRORS");
    let numbers = match number("DISK_ERROR") {
        Some(error) => error..error + 1,
        None => 0..asked.unwrap_or(DISK_ERRORS).min(all.len() as u64),
    };
    let figures = thread::scope(|scope| {
        let strike_some = |thread: usize| {
            let numbers = numbers.clone().skip(thread).step_by(THREADS);
            let struck = numbers.map(|number| {
                let (phase, strike) = &all[usize::try_from(number).expect("few") * STRIDE % all.len()];
                let again = format!("DISK_ERROR={number} cargo test --test it campaigns::errors -- --nocapture");
                Stage::new(number).suffer(*phase, strike, &format!("{phase:?}, {strike:?}; to see it again: {again}"))
            });
            struck.fold(Figures::default(), Figures::and)
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || strike_some(thread))).collect();
        let struck =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        struck.fold(Figures::default(), Figures::and)
    });
    let longest = figures.tell();
    assert!(asked.is_none() || longest <= RECOVERY_MAX, "recovered only after {longest:?}");
}

/// Every error: each once, and each for good.
fn all() -> Vec<(Phase, Strike)> {
    let strikes = KINDS.iter().flat_map(|&(phase, calls, act, most)| {
        let files = if phase == Phase::Checkpoint { &FILES[..1] } else { FILES };
        let strike = move |nth, for_good| (phase, Strike { calls, files, act, nth, for_good });
        (1..=most).flat_map(move |nth| [strike(nth, false), strike(nth, true)])
    });
    strikes.collect()
}

impl Stage {
    fn new(seed: u64) -> Self {
        let scene = Scene::new();
        let (jobs, seed) = (JOBS.to_string(), seed.to_string());
        let arguments = ["--jobs", &jobs, "--mean-seconds", "3", "--quota", "1000", "--seed", &seed];
        let (simulator, simulated, config) = scene.simulate(&arguments);
        // Where it listens cannot be read off the log of a daemon that waits for its database.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let config = config.replace("127.0.0.1:0", &address.to_string());
        let config = config.replace("min_interval = \"1s\"", "min_interval = \"100ms\"");
        Self {
            config: scene.write("refwatch.toml", &config),
            database: scene.path("refwatch.db"),
            scene,
            _simulator: simulator,
            simulator: simulated,
            address,
        }
    }

    /// Starts a daemon, strikes, looks on, and waits for the ends of all jobs.
    fn suffer(self, phase: Phase, strike: &Strike, what: &str) -> Figures {
        let mut logs = if phase == Phase::StartAfterKill { self.killed() } else { String::new() };
        let at_start = matches!(phase, Phase::FirstStart | Phase::StartAfterKill);
        let command = self.command();
        let struck = self.scene.path("strace");
        let command = if at_start { strike.at_start_of(&command, &self.database, &struck) } else { command };
        let mut struck = Struck { daemon: self.scene.spawn(command), stage: &self, what, hits: struck };
        let strace = (!at_start).then(|| {
            struck.daemon.address();
            strike.on(struck.daemon.pid(), &self.database, &struck.hits).spawn().expect("strace")
        });
        let mut figures = Figures::default();
        if struck.until(|struck| struck.hits() > 0) {
            if strike.for_good {
                struck.in_trouble(phase);
                strace::detach(struck.daemon.pid());
                figures.for_good = 1;
            } else {
                figures.once = 1;
            }
            let (over, told) = (Clock::system(), struck.told());
            struck.until(|struck| struck.ready().is_some_and(|(status, _)| status == 200) && struck.told() > told);
            figures.recoveries.push(over.now().monotonic.elapsed());
        } else {
            figures.not_reached = 1;
        }
        strace::detach(struck.daemon.pid());
        eventually("every end", || struck.finished().then_some(()));
        if let Some(mut strace) = strace {
            strace.wait().expect("strace ends");
        }
        let mut daemon = struck.daemon;
        daemon.signal(Signal::KILL);
        daemon.end();
        logs += &daemon.stderr();
        let rows = transitions(&self.database);
        assert_announced(&rows, &logs, what);
        let mut beside = fs::read_dir(self.scene.path("")).expect("a folder").map(|entry| entry.expect("an entry"));
        let damaged = beside.any(|entry| entry.file_name().to_string_lossy().contains(".damaged"));
        assert!(!damaged, "taken for damage: {what}\n{logs}");
        figures.recorded = rows.len();
        assert_true(rows, self.simulator);
        figures
    }

    /// The log of a daemon that ran before, and was killed.
    fn killed(&self) -> String {
        let mut daemon = self.scene.spawn(self.command());
        eventually("transitions", || daemon.stderr().contains("event=\"transition\"").then_some(()));
        daemon.signal(Signal::KILL);
        daemon.end();
        daemon.stderr()
    }

    fn command(&self) -> Command {
        self.scene.refwatch(&["--config", self.config.to_str().expect("text"), "run"])
    }
}

/// A daemon that is struck.
struct Struck<'a> {
    daemon: Process,
    stage: &'a Stage,
    what: &'a str,
    /// Where strace tells what it did.
    hits: PathBuf,
}

impl Struck<'_> {
    /// Waits until something is seen; `false` where every job ended before that. The daemon lives on all the while.
    fn until(&mut self, mut seen: impl FnMut(&Self) -> bool) -> bool {
        let clock = Clock::system();
        for look in 1_u64.. {
            if seen(self) {
                return true;
            }
            if look.is_multiple_of(10) && self.finished() {
                return seen(self);
            }
            let (ended, waited) = (self.daemon.has_ended(), clock.now().monotonic.elapsed());
            assert!(!ended && waited < DEADLINE, "ended: {ended}, {}\n{}", self.what, self.daemon.stderr());
            pass(LOOK_AGAIN);
        }
        unreachable!("it looks for ever");
    }

    /// What is said while the trouble lasts, until another try has failed as well.
    fn in_trouble(&mut self, phase: Phase) {
        if phase == Phase::Checkpoint {
            self.until(|struck| struck.hits() > 1);
            return;
        }
        let told =
            |(status, reason): (u16, String)| status == 503 && reason.starts_with("the database cannot be written: ");
        if self.until(|struck| struck.ready().is_some_and(told)) {
            assert_eq!(get(self.stage.address, "/-/healthy").0, 200);
            assert!(get(self.stage.address, "/").1.contains("The database cannot be written"), "{}", self.what);
            let hits = self.hits();
            self.until(|struck| struck.hits() > hits);
        }
    }

    fn hits(&self) -> usize {
        fs::read_to_string(&self.hits).map_or(0, |log| log.matches("(INJECTED)").count())
    }

    /// How many transitions it has announced.
    fn told(&self) -> usize {
        self.daemon.stderr().matches("event=\"transition\"").count()
    }

    fn ready(&self) -> Option<(u16, String)> {
        TcpStream::connect(self.stage.address).is_ok().then(|| get(self.stage.address, "/-/ready"))
    }

    fn finished(&self) -> bool {
        ended(&transitions(&self.stage.database)) == JOBS
    }
}

impl Figures {
    fn and(mut self, more: Self) -> Self {
        let Self { once, for_good, not_reached, recorded, recoveries } = more;
        self.once += once;
        self.for_good += for_good;
        self.not_reached += not_reached;
        self.recorded += recorded;
        self.recoveries.extend(recoveries);
        self
    }

    /// Says them. Returns the longest recovery.
    fn tell(mut self) -> Duration {
        self.recoveries.sort();
        let Self { once, for_good, not_reached, recorded, recoveries } = self;
        let at = |place: usize| recoveries.get(place).copied().unwrap_or_default();
        let (median, longest) = (at(recoveries.len() / 2), at(recoveries.len().saturating_sub(1)));
        say(format_args!(
            "{} disk errors ({once} once, {for_good} for good; {not_reached} more were not reached): {recorded} \
             transitions recorded as they were, 0 lost, 0 doubled, 0 taken for damage; recovered after {} ms at the \
             median, {} ms at most",
            once + for_good,
            median.as_millis(),
            longest.as_millis(),
        ));
        longest
    }
}
