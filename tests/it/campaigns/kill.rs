//! SIGKILL of the daemon during frequent transitions: at a random time, or at each write and sync of the database's files.
//!
//! After each kill the database must contain every logged transition once and in order. The next daemon must poll within a second.
//! At the end the database must match the simulator.
//!
//! `KILLS` sets the number. `KILL` selects one; it repeats the earlier kills of the same database.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt as _;
use std::panic;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use refwatch::clock::Clock;
use rustix::process::Signal;

use super::strace::{self, FILES, Injection};
use super::{env_number, print_summary, sleep};
use crate::disk_faults::skipped;
use crate::process::{Process, Workspace, eventually, json, metric};
use crate::transition_rows::{TransitionRow, assert_log_matches, assert_matches_simulator, ended, transitions};

/// The default number of kills.
const KILLS: u64 = 18;

/// Only runs of this length assert the time to the first poll.
const ALL_KILLS: u64 = 2_000;

/// Kills of one database. Odd, so that the first kills, while the database is created, are of all kinds.
const KILLS_PER_DATABASE: u64 = 9;

/// Databases in parallel.
const THREADS: usize = 4;

/// The jobs per database; all end within five seconds.
const JOBS: u16 = 100;

/// The longest time from a start to the first poll.
const FIRST_POLL_MAX: Duration = Duration::from_secs(1);

/// The first poll never takes this long unless something is broken.
const FIRST_POLL_DEADLINE: Duration = Duration::from_secs(20);

/// The longest life of a daemon that is killed at random, from its start or its first poll.
const RANDOM_LIFE_MAX: Duration = Duration::from_millis(300);

/// Time from the start to SIGTERM, if the stop is to be interrupted.
const STOP_AFTER: Duration = Duration::from_millis(300);

/// The daemon is killed after this time if the chosen call does not occur.
const LIFE_MAX: Duration = Duration::from_millis(1500);

const CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// Step through the list of kill points. Coprime to its length, so that a few kills cover all kinds.
const STRIDE: u64 = 23;

#[derive(Clone, Debug)]
enum KillPoint {
    AfterStart(Duration),
    AfterFirstPoll(Duration),
    At(Injection),
    /// After SIGTERM, during the checkpoint.
    AtStop(Injection),
}

#[derive(Debug, Default)]
struct Summary {
    random: usize,
    writes: usize,
    syncs: usize,
    logged: usize,
    first_polls: Vec<Duration>,
}

/// One database, its daemon and its simulator.
struct KillRun {
    workspace: Workspace,
    _simulator: Process,
    simulator: SocketAddr,
    config: PathBuf,
    database: PathBuf,
    rng: Rng,
    traced: bool,
    /// The rows at the last kill.
    rows: Vec<TransitionRow>,
    /// Jobs and statuses shown by the API of the current daemon.
    shown: Vec<(String, String)>,
    summary: Summary,
}

#[test]
fn logged_transitions_survive_a_kill_at_any_time_write_or_sync() {
    let traced = strace::is_usable();
    if !traced {
        skipped::<()>("strace is missing or may not trace: all kills are at random");
    }
    let requested = env_number("KILLS");
    let kills = match env_number("KILL") {
        Some(kill) => kill - kill % KILLS_PER_DATABASE..kill + 1,
        None => 0..requested.unwrap_or(KILLS),
    };
    let range = |first| first..kills.end.min(first + KILLS_PER_DATABASE);
    let ranges: Vec<Range<u64>> =
        kills.clone().step_by(usize::try_from(KILLS_PER_DATABASE).expect("few")).map(range).collect();
    let summary = thread::scope(|scope| {
        let run_some = |thread: usize| {
            let ranges = ranges.iter().skip(thread).step_by(THREADS);
            ranges.map(|kills| run_kills(kills.clone(), traced)).fold(Summary::default(), Summary::add)
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run_some(thread))).collect();
        let summaries =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        summaries.fold(Summary::default(), Summary::add)
    });
    let longest = summary.print();
    assert!(
        requested.is_none_or(|requested| requested < ALL_KILLS) || longest <= FIRST_POLL_MAX,
        "a first poll came after {longest:?}"
    );
}

/// Kills the daemons of one database, then runs a last one until all jobs have ended.
fn run_kills(kills: Range<u64>, traced: bool) -> Summary {
    let mut run = KillRun::new(kills.start, traced);
    let command = |kill| format!("to reproduce: KILL={kill} cargo test --test it campaigns::kill -- --nocapture");
    for kill in kills.clone() {
        let kill_point = run.draw_kill_point(kill);
        let log = run.run_until_killed(&kill_point);
        run.check(&log, &format!("killed {kill_point:?}; {}", command(kill)));
    }
    let (polls, clock) = (run.polls(), Clock::system());
    let (mut daemon, address) = run.workspace.daemon(&run.config);
    if run.has_live_jobs() {
        run.wait_for_poll(polls, clock);
    }
    let finished = || metric(address, "refwatch_watches", &["finished"]);
    eventually("every end", || (finished() == Some(f64::from(JOBS))).then_some(()));
    daemon.signal(Signal::KILL);
    daemon.end();
    run.check(&daemon.stderr(), &format!("after the last kill; {}", command(kills.end - 1)));
    assert_matches_simulator(run.rows, run.simulator);
    run.summary
}

/// The calls to kill at: all writes or all syncs of an open and some commits, then those of a checkpoint.
fn kill_points(syncs: bool) -> Vec<KillPoint> {
    let injection = |calls, files, nth| Injection { calls, files, action: "signal=KILL", nth, permanent: false };
    let (calls, commits, checkpoint) = if syncs { ("fsync,fdatasync", 16, 1) } else { ("pwrite64,ftruncate", 48, 8) };
    let commits = (1..=commits).map(|nth| KillPoint::At(injection(calls, FILES, nth)));
    let checkpoint = (1..=checkpoint).map(|nth| KillPoint::AtStop(injection(calls, &[""], nth)));
    commits.chain(checkpoint).collect()
}

impl KillRun {
    fn new(seed: u64, traced: bool) -> Self {
        let workspace = Workspace::new();
        let (jobs, seed_text) = (JOBS.to_string(), seed.to_string());
        let arguments = ["--jobs", &jobs, "--mean-seconds", "2.5", "--quota", "1000", "--seed", &seed_text];
        let (simulator, address, config) = workspace.simulate(&arguments);
        let config = config.replace("min_interval = \"1s\"", "min_interval = \"100ms\"");
        Self {
            config: workspace.write("refwatch.toml", &config),
            database: workspace.path("refwatch.db"),
            workspace,
            _simulator: simulator,
            simulator: address,
            rng: Rng::with_seed(seed),
            traced,
            rows: Vec::new(),
            shown: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Half of the kills are at random, a quarter at a write, a quarter at a sync.
    fn draw_kill_point(&mut self, kill: u64) -> KillPoint {
        let life = RANDOM_LIFE_MAX.mul_f64(self.rng.f64());
        let from_start = self.rng.u8(..4) == 0 || !self.has_live_jobs();
        if kill.is_multiple_of(2) || !self.traced {
            return if from_start { KillPoint::AfterStart(life) } else { KillPoint::AfterFirstPoll(life) };
        }
        let kill_points = kill_points(kill % 4 == 3);
        kill_points[usize::try_from(kill / 4 * STRIDE).expect("not so many") % kill_points.len()].clone()
    }

    /// Runs one daemon until its kill. Returns its log.
    fn run_until_killed(&mut self, kill_point: &KillPoint) -> String {
        match kill_point {
            KillPoint::AfterStart(life) => self.run_for(*life, false),
            KillPoint::AfterFirstPoll(life) => self.run_for(*life, true),
            KillPoint::At(injection) => self.run_until_call(injection, false),
            KillPoint::AtStop(injection) => self.run_until_call(injection, true),
        }
    }

    fn run_for(&mut self, life: Duration, from_first_poll: bool) -> String {
        let (polls, clock) = (self.polls(), Clock::system());
        let mut daemon = self.workspace.spawn(self.command());
        if from_first_poll {
            self.wait_for_poll(polls, clock);
        }
        sleep(life);
        if from_first_poll {
            self.collect_shown(daemon.address());
        }
        daemon.signal(Signal::KILL);
        daemon.end();
        self.summary.random += 1;
        daemon.stderr()
    }

    /// Kills at random if the call does not occur.
    fn run_until_call(&mut self, injection: &Injection, at_stop: bool) -> String {
        let command = injection.at_start_of(&self.command(), &self.database, &self.workspace.path("strace"));
        let mut daemon = self.workspace.spawn(command);
        if at_stop {
            // The handler of SIGTERM exists after the start.
            while !daemon.has_ended() && !daemon.stderr().contains("event=\"started\"") {
                sleep(CHECK_INTERVAL);
            }
            if !ends_within(&mut daemon, STOP_AFTER) {
                daemon.signal(Signal::TERM);
            }
        }
        if !ends_within(&mut daemon, LIFE_MAX) {
            daemon.signal(Signal::KILL);
            daemon.end();
            self.summary.random += 1;
            return daemon.stderr();
        }
        let status = daemon.end();
        if at_stop && status.success() {
            // The checkpoint made fewer calls.
            return daemon.stderr() + &self.run_for(RANDOM_LIFE_MAX, false);
        }
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{injection:?}: {status}: {}", daemon.stderr());
        *(if injection.calls.contains("sync") { &mut self.summary.syncs } else { &mut self.summary.writes }) += 1;
        daemon.stderr()
    }

    fn command(&self) -> Command {
        self.workspace.refwatch(&["--config", self.config.to_str().expect("text"), "run"])
    }

    /// The number of successful polls.
    fn polls(&self) -> u64 {
        json(self.simulator, "/-/calls")["GetReferenceImportJob"]["answered"].as_u64().expect("a number")
    }

    fn has_live_jobs(&self) -> bool {
        ended(&self.rows) < usize::from(JOBS)
    }

    /// Waits for the first poll of a daemon, and measures it from the start of `clock`.
    fn wait_for_poll(&mut self, polls: u64, clock: Clock) {
        while self.polls() == polls {
            sleep(CHECK_INTERVAL);
            assert!(clock.now().monotonic.elapsed() < FIRST_POLL_DEADLINE, "no poll");
        }
        self.summary.first_polls.push(clock.now().monotonic.elapsed());
    }

    fn collect_shown(&mut self, address: SocketAddr) {
        let watches = json(address, "/api/v1/jobs");
        let shown = watches.as_array().expect("an array").iter().filter_map(|watch| {
            let text = |field: &str| watch[field].as_str().map(str::to_owned);
            Some((text("job_id")?, text("status")?))
        });
        self.shown.extend(shown);
    }

    /// Checks the database after a kill. Reads a copy, so that the next daemon opens the files as the kill left them.
    fn check(&mut self, log: &str, context: &str) {
        let rows = self.copied_rows();
        assert!(rows.starts_with(&self.rows), "earlier rows have changed: {context}\n{log}");
        self.summary.logged += assert_log_matches(&rows, log, context);
        for (job, status) in self.shown.drain(..) {
            let recorded = rows.iter().any(|row| row.job_id == job && row.to_status == status);
            assert!(recorded, "{job} was shown as {status}, which is not in the database: {context}\n{log}");
        }
        let mut beside =
            fs::read_dir(self.workspace.path("")).expect("a directory").map(|entry| entry.expect("an entry"));
        let damaged = beside.any(|entry| entry.file_name().to_string_lossy().contains(".damaged"));
        assert!(!damaged, "moved to quarantine: {context}\n{log}");
        self.rows = rows;
    }

    fn copied_rows(&self) -> Vec<TransitionRow> {
        let copy = Workspace::new();
        for name in ["refwatch.db", "refwatch.db-wal"] {
            if self.workspace.path(name).exists() {
                fs::copy(self.workspace.path(name), copy.path(name)).expect("a copy");
            }
        }
        transitions(&copy.path("refwatch.db"))
    }
}

impl Summary {
    fn add(mut self, more: Self) -> Self {
        let Self { random, writes, syncs, logged, first_polls } = more;
        self.random += random;
        self.writes += writes;
        self.syncs += syncs;
        self.logged += logged;
        self.first_polls.extend(first_polls);
        self
    }

    /// Prints the summary. Returns the longest time to a first poll.
    fn print(mut self) -> Duration {
        self.first_polls.sort();
        let Self { random, writes, syncs, logged, first_polls } = self;
        let (median, longest) = (first_polls[first_polls.len() / 2], first_polls[first_polls.len() - 1]);
        print_summary(format_args!(
            "{} kills ({random} at random, {writes} at a write, {syncs} at an fsync): 0 of {logged} announced lost, \
             0 doubled; next first poll after {} ms at the median, {} ms at most",
            random + writes + syncs,
            median.as_millis(),
            longest.as_millis(),
        ));
        longest
    }
}

fn ends_within(process: &mut Process, time: Duration) -> bool {
    let clock = Clock::system();
    while !process.has_ended() && clock.now().monotonic.elapsed() < time {
        sleep(CHECK_INTERVAL);
    }
    process.has_ended()
}
