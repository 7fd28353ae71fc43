//! Kills: SIGKILL ends the daemon while transitions come fast, at a moment that is drawn, or at a write or sync of the database's
//! files, each of them in turn. After each kill what was announced is in the database, once and in order; the next daemon polls
//! soon; and in the end the database says what was true.
//!
//! `KILLS` says how many, `KILL` which one alone: with all of its scene, as one database lives through many.

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

use super::strace::{self, FILES, Strike};
use super::{number, pass, say};
use crate::process::{Process, Scene, eventually, json, metric};
use crate::trouble::skipped;
use crate::truth::{TransitionRow, assert_announced, assert_true, ended, transitions};

/// Kills unless it is said how many.
const KILLS: u64 = 18;

/// All of them. Whoever asks for so many has a machine with nothing else to do, and only then is the clock held to account.
const ALL_KILLS: u64 = 2_000;

/// Kills that one database lives through: odd, so that the first ones, of a database that is being made, are of all kinds.
const SCENE_KILLS: u64 = 9;

/// Scenes at a time.
const THREADS: usize = 4;

/// The jobs of a scene, all of which end within five seconds.
const JOBS: u16 = 100;

/// How soon after its start a daemon has to have asked for a job.
const FIRST_POLL_MAX: Duration = Duration::from_secs(1);

/// Nothing but a fault of ours comes near it.
const FIRST_POLL_DEADLINE: Duration = Duration::from_secs(20);

/// A daemon that is killed at random lives for up to so long, from its start or from its first poll.
const RANDOM_LIFE_MAX: Duration = Duration::from_millis(300);

/// How long after its start a daemon is told to stop whose stop is to be killed.
const STOP_AFTER: Duration = Duration::from_millis(300);

/// How long a daemon lives whose call to be killed at does not come.
const LIFE_MAX: Duration = Duration::from_millis(1500);

const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A step through a walk, without a common factor with its length, so that a few kills are already of all kinds.
const STRIDE: u64 = 23;

/// When a daemon is killed.
#[derive(Clone, Debug)]
enum Moment {
    AfterStart(Duration),
    AfterFirstPoll(Duration),
    At(Strike),
    /// Once it was told to stop: it takes the write-ahead log into the file then.
    AtStop(Strike),
}

/// What some kills came to.
#[derive(Debug, Default)]
struct Figures {
    random: usize,
    writes: usize,
    syncs: usize,
    announced: usize,
    first_polls: Vec<Duration>,
}

/// One database, and the jobs whose lives go into it.
struct Stage {
    scene: Scene,
    _simulator: Process,
    simulator: SocketAddr,
    config: PathBuf,
    database: PathBuf,
    rng: Rng,
    traced: bool,
    /// What was recorded at the last kill.
    rows: Vec<TransitionRow>,
    /// Jobs and statuses that the API of the present daemon has shown.
    shown: Vec<(String, String)>,
    figures: Figures,
}

#[test]
fn what_was_announced_outlives_a_kill_at_any_moment_write_or_sync() {
    let traced = strace::works();
    if !traced {
        skipped::<()>("strace is not there, or may not trace: every kill is at random");
    }
    let asked = number("KILLS");
    let kills = match number("KILL") {
        Some(kill) => kill - kill % SCENE_KILLS..kill + 1,
        None => 0..asked.unwrap_or(KILLS),
    };
    let scene = |first| first..kills.end.min(first + SCENE_KILLS);
    let scenes: Vec<Range<u64>> =
        kills.clone().step_by(usize::try_from(SCENE_KILLS).expect("few")).map(scene).collect();
    let figures = thread::scope(|scope| {
        let play_some = |thread: usize| {
            let scenes = scenes.iter().skip(thread).step_by(THREADS);
            scenes.map(|kills| play(kills.clone(), traced)).fold(Figures::default(), Figures::and)
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || play_some(thread))).collect();
        let played =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        played.fold(Figures::default(), Figures::and)
    });
    let longest = figures.tell();
    assert!(
        asked.is_none_or(|asked| asked < ALL_KILLS) || longest <= FIRST_POLL_MAX,
        "a first poll came after {longest:?}"
    );
}

/// Plays a scene: a database lives through some kills, and then to the ends of all jobs.
fn play(kills: Range<u64>, traced: bool) -> Figures {
    let mut stage = Stage::new(kills.start, traced);
    let again = |kill| format!("to see it again: KILL={kill} cargo test --test it campaigns::kill -- --nocapture");
    for kill in kills.clone() {
        let moment = stage.draw(kill);
        let log = stage.live(&moment);
        stage.check(&log, &format!("killed {moment:?}; {}", again(kill)));
    }
    let (polls, clock) = (stage.polls(), Clock::system());
    let (mut daemon, address) = stage.scene.daemon(&stage.config);
    if stage.goes_on() {
        stage.wait_for_poll(polls, clock);
    }
    let finished = || metric(address, "refwatch_watches", &["finished"]);
    eventually("every end", || (finished() == Some(f64::from(JOBS))).then_some(()));
    daemon.signal(Signal::KILL);
    daemon.end();
    stage.check(&daemon.stderr(), &format!("after the last kill; {}", again(kills.end - 1)));
    assert_true(stage.rows, stage.simulator);
    stage.figures
}

/// Every write, or every sync, to be killed at: those of an open and of some commits, then those of a checkpoint.
fn walk(syncs: bool) -> Vec<Moment> {
    let strike = |calls, files, nth| Strike { calls, files, act: "signal=KILL", nth, for_good: false };
    let (calls, live, checkpoint) = if syncs { ("fsync,fdatasync", 16, 1) } else { ("pwrite64,ftruncate", 48, 8) };
    let live = (1..=live).map(|nth| Moment::At(strike(calls, FILES, nth)));
    let checkpoint = (1..=checkpoint).map(|nth| Moment::AtStop(strike(calls, &[""], nth)));
    live.chain(checkpoint).collect()
}

impl Stage {
    fn new(seed: u64, traced: bool) -> Self {
        let scene = Scene::new();
        let (jobs, seed_text) = (JOBS.to_string(), seed.to_string());
        let arguments = ["--jobs", &jobs, "--mean-seconds", "2.5", "--quota", "1000", "--seed", &seed_text];
        let (simulator, address, config) = scene.simulate(&arguments);
        let config = config.replace("min_interval = \"1s\"", "min_interval = \"100ms\"");
        Self {
            config: scene.write("refwatch.toml", &config),
            database: scene.path("refwatch.db"),
            scene,
            _simulator: simulator,
            simulator: address,
            rng: Rng::with_seed(seed),
            traced,
            rows: Vec::new(),
            shown: Vec::new(),
            figures: Figures::default(),
        }
    }

    /// Half of the kills are at random, a quarter at a write, a quarter at a sync.
    fn draw(&mut self, kill: u64) -> Moment {
        let life = RANDOM_LIFE_MAX.mul_f64(self.rng.f64());
        let from_start = self.rng.u8(..4) == 0 || !self.goes_on();
        if kill.is_multiple_of(2) || !self.traced {
            return if from_start { Moment::AfterStart(life) } else { Moment::AfterFirstPoll(life) };
        }
        let walk = walk(kill % 4 == 3);
        walk[usize::try_from(kill / 4 * STRIDE).expect("not so many") % walk.len()].clone()
    }

    /// One life of the daemon, up to its kill. Returns its log.
    fn live(&mut self, moment: &Moment) -> String {
        match moment {
            Moment::AfterStart(life) => self.live_for(*life, false),
            Moment::AfterFirstPoll(life) => self.live_for(*life, true),
            Moment::At(strike) => self.live_until(strike, false),
            Moment::AtStop(strike) => self.live_until(strike, true),
        }
    }

    fn live_for(&mut self, life: Duration, from_first_poll: bool) -> String {
        let (polls, clock) = (self.polls(), Clock::system());
        let mut daemon = self.scene.spawn(self.command());
        if from_first_poll {
            self.wait_for_poll(polls, clock);
        }
        pass(life);
        if from_first_poll {
            self.note_shown(daemon.address());
        }
        daemon.signal(Signal::KILL);
        daemon.end();
        self.figures.random += 1;
        daemon.stderr()
    }

    /// Where the call does not come, the kill is at random.
    fn live_until(&mut self, strike: &Strike, at_stop: bool) -> String {
        let command = strike.at_start_of(&self.command(), &self.database, &self.scene.path("strace"));
        let mut daemon = self.scene.spawn(command);
        if at_stop {
            // Before that it does not know what a SIGTERM is to do.
            while !daemon.has_ended() && !daemon.stderr().contains("event=\"started\"") {
                pass(LOOK_AGAIN);
            }
            if !ends_within(&mut daemon, STOP_AFTER) {
                daemon.signal(Signal::TERM);
            }
        }
        if !ends_within(&mut daemon, LIFE_MAX) {
            daemon.signal(Signal::KILL);
            daemon.end();
            self.figures.random += 1;
            return daemon.stderr();
        }
        let status = daemon.end();
        if at_stop && status.success() {
            // There was less to take into the file than that.
            return daemon.stderr() + &self.live_for(RANDOM_LIFE_MAX, false);
        }
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{strike:?}: {status}: {}", daemon.stderr());
        *(if strike.calls.contains("sync") { &mut self.figures.syncs } else { &mut self.figures.writes }) += 1;
        daemon.stderr()
    }

    fn command(&self) -> Command {
        self.scene.refwatch(&["--config", self.config.to_str().expect("text"), "run"])
    }

    /// How many polls the simulator has answered.
    fn polls(&self) -> u64 {
        json(self.simulator, "/-/calls")["GetReferenceImportJob"]["answered"].as_u64().expect("a number")
    }

    /// Whether there is a job left to poll.
    fn goes_on(&self) -> bool {
        ended(&self.rows) < usize::from(JOBS)
    }

    /// Waits for the first poll of a daemon that was started when `clock` was and the simulator had answered `polls`.
    fn wait_for_poll(&mut self, polls: u64, clock: Clock) {
        while self.polls() == polls {
            pass(LOOK_AGAIN);
            assert!(clock.now().monotonic.elapsed() < FIRST_POLL_DEADLINE, "no poll");
        }
        self.figures.first_polls.push(clock.now().monotonic.elapsed());
    }

    fn note_shown(&mut self, address: SocketAddr) {
        let watches = json(address, "/api/v1/jobs");
        let shown = watches.as_array().expect("an array").iter().filter_map(|watch| {
            let text = |field: &str| watch[field].as_str().map(str::to_owned);
            Some((text("job_id")?, text("status")?))
        });
        self.shown.extend(shown);
    }

    /// What must hold after a kill. The database is read in a copy, so that the next daemon finds it as the kill left it.
    fn check(&mut self, log: &str, what: &str) {
        let rows = self.copied_rows();
        assert!(rows.starts_with(&self.rows), "what was recorded before does not stand as it was: {what}\n{log}");
        self.figures.announced += assert_announced(&rows, log, what);
        for (job, status) in self.shown.drain(..) {
            let recorded = rows.iter().any(|row| row.job_id == job && row.to_status == status);
            assert!(recorded, "{job} was shown as {status} and is not recorded so: {what}\n{log}");
        }
        let mut beside = fs::read_dir(self.scene.path("")).expect("a folder").map(|entry| entry.expect("an entry"));
        let damaged = beside.any(|entry| entry.file_name().to_string_lossy().contains(".damaged"));
        assert!(!damaged, "taken for damage: {what}\n{log}");
        self.rows = rows;
    }

    fn copied_rows(&self) -> Vec<TransitionRow> {
        let copy = Scene::new();
        for name in ["refwatch.db", "refwatch.db-wal"] {
            if self.scene.path(name).exists() {
                fs::copy(self.scene.path(name), copy.path(name)).expect("a copy");
            }
        }
        transitions(&copy.path("refwatch.db"))
    }
}

impl Figures {
    fn and(mut self, more: Self) -> Self {
        let Self { random, writes, syncs, announced, first_polls } = more;
        self.random += random;
        self.writes += writes;
        self.syncs += syncs;
        self.announced += announced;
        self.first_polls.extend(first_polls);
        self
    }

    /// Says them. Returns the longest wait for a first poll.
    fn tell(mut self) -> Duration {
        self.first_polls.sort();
        let Self { random, writes, syncs, announced, first_polls } = self;
        let (median, longest) = (first_polls[first_polls.len() / 2], first_polls[first_polls.len() - 1]);
        say(format_args!(
            "{} kills ({random} at random, {writes} at a write, {syncs} at an fsync): 0 of {announced} announced lost, \
             0 doubled; next first poll after {} ms at the median, {} ms at most",
            random + writes + syncs,
            median.as_millis(),
            longest.as_millis(),
        ));
        longest
    }
}

/// Whether a process ends in this time.
fn ends_within(process: &mut Process, time: Duration) -> bool {
    let clock = Clock::system();
    while !process.has_ended() && clock.now().monotonic.elapsed() < time {
        pass(LOOK_AGAIN);
    }
    process.has_ended()
}
