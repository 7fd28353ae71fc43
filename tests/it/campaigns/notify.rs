//! SIGKILL of the daemon while it delivers notifications: a few milliseconds after a request has arrived at the receiver.
//!
//! Every status is an event. At the end the receiver must have accepted each event of the database, in order per job, and none that is
//! not in the database. An event that was sent again must have the id and body of its first request.
//!
//! `NOTIFY_KILLS` sets the number. `NOTIFY_KILL` selects one; it repeats the earlier kills of the same database.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::panic;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use refwatch::clock::Clock;
use refwatch::core::job::JobStatus;
use refwatch::notify::signature::SigningSecret;
use refwatch::simulator::{Received, SignatureCheck, SinkOptions, SinkReceiver};
use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{env_number, print_summary, sleep};
use crate::process::{Process, Workspace, eventually, metric};
use crate::transition_rows::{TransitionRow, transitions};

/// The default number of kills.
const KILLS: u64 = 16;

/// Kills of one database.
const KILLS_PER_DATABASE: u64 = 8;

/// Databases in parallel.
const THREADS: usize = 4;

/// The jobs per database; all end within nine seconds.
const JOBS: u16 = 100;

/// Each job has about 3.5 events, and 8 daemons receive fewer than this each: events are left for the last daemon.
const REQUESTS_MAX: usize = 30;

/// The longest time from the chosen request to the kill. A delivery takes a few milliseconds.
const DELAY_MAX: Duration = Duration::from_millis(6);

/// A daemon is killed after this time if fewer requests arrive.
const LIFE_MAX: Duration = Duration::from_secs(2);

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    /// Kills while events were delivered.
    during: usize,
    /// Kills after [`LIFE_MAX`].
    idle: usize,
    events: usize,
    duplicates: usize,
}

/// One database, its simulated HealthOmics and its receiver.
struct NotifyRun {
    workspace: Workspace,
    _simulator: Process,
    config: PathBuf,
    runtime: Runtime,
    receiver: SinkReceiver,
    received: Vec<Received>,
    rng: Rng,
    summary: Summary,
}

#[test]
fn events_survive_a_kill_during_their_delivery_and_duplicates_have_the_first_id() {
    let kills = match env_number("NOTIFY_KILL") {
        Some(kill) => kill - kill % KILLS_PER_DATABASE..kill + 1,
        None => 0..env_number("NOTIFY_KILLS").unwrap_or(KILLS),
    };
    let range = |first| first..kills.end.min(first + KILLS_PER_DATABASE);
    let ranges: Vec<Range<u64>> =
        kills.clone().step_by(usize::try_from(KILLS_PER_DATABASE).expect("few")).map(range).collect();
    let summary = thread::scope(|scope| {
        let run_some = |thread: usize| {
            let ranges = ranges.iter().skip(thread).step_by(THREADS);
            ranges.map(|kills| run_kills(kills.clone())).fold(Summary::default(), Summary::add)
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run_some(thread))).collect();
        let summaries =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        summaries.fold(Summary::default(), Summary::add)
    });
    summary.print();
}

/// Kills the daemons of one database, then runs a last one until everything was delivered.
fn run_kills(kills: Range<u64>) -> Summary {
    let mut run = NotifyRun::new(kills.start);
    for _ in kills.clone() {
        run.run_until_killed();
    }
    let (_daemon, address) = run.workspace.daemon(&run.config);
    eventually("every end", || {
        (metric(address, "refwatch_watches", &["finished"]) == Some(f64::from(JOBS))).then_some(())
    });
    // The API may show the queue as it was before the last commit.
    let sql = "SELECT cursor >= (SELECT max(id) FROM transitions)
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE next_attempt_at IS NOT NULL) FROM sinks";
    eventually("every delivery", || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = Connection::open_with_flags(run.workspace.path("refwatch.db"), flags).expect("a database");
        database.query_one(sql, [], |row| row.get::<_, bool>(0)).is_ok_and(|delivered| delivered).then_some(())
    });
    run.received.extend(run.receiver.received());
    run.check(&format!(
        "to reproduce: NOTIFY_KILL={} cargo test --test it campaigns::notify -- --nocapture",
        kills.end - 1
    ));
    run.summary
}

impl NotifyRun {
    fn new(seed: u64) -> Self {
        let workspace = Workspace::new();
        let runtime = Runtime::new().expect("a runtime");
        let secrets = vec![SigningSecret::parse(SECRET).expect("a secret")];
        let options = SinkOptions { secrets, faults: Vec::new(), seed };
        let started = SinkReceiver::start(SocketAddr::from(([127, 0, 0, 1], 0)), options);
        let receiver = runtime.block_on(started).expect("a free port");
        let (jobs, seed_text) = (JOBS.to_string(), seed.to_string());
        let arguments = ["--jobs", &jobs, "--mean-seconds", "5", "--quota", "1000", "--seed", &seed_text];
        let (simulator, _, config) = workspace.simulate(&arguments);
        let config = config.replace("min_interval = \"1s\"", "min_interval = \"100ms\"");
        workspace.write("signing", SECRET);
        let statuses = r#"["SUBMITTED", "IN_PROGRESS", "CANCELLING", "CANCELLED", "FAILED", "COMPLETED", "COMPLETED_WITH_FAILURES"]"#;
        let url = receiver.url();
        let entry =
            format!("\n[[notify]]\nname = \"sink\"\nurl = \"{url}\"\nsecret_file = \"signing\"\non = {statuses}\n");
        Self {
            config: workspace.write("refwatch.toml", &(config + &entry)),
            workspace,
            _simulator: simulator,
            runtime,
            receiver,
            received: Vec::new(),
            rng: Rng::with_seed(seed),
            summary: Summary::default(),
        }
    }

    fn run_until_killed(&mut self) {
        let mut daemon = self.workspace.start(&["--config", self.config.to_str().expect("text"), "run"]);
        let requests = self.rng.usize(1..=REQUESTS_MAX);
        let delay = DELAY_MAX.mul_f64(self.rng.f64());
        if self.receive(requests) {
            sleep(delay);
            self.summary.during += 1;
        } else {
            self.summary.idle += 1;
        }
        daemon.signal(Signal::KILL);
        daemon.end();
    }

    /// Waits for this many further requests. Returns whether they arrived within [`LIFE_MAX`].
    fn receive(&mut self, count: usize) -> bool {
        let (sink, received) = (&self.receiver, &mut self.received);
        let wanted = received.len() + count;
        let wait = async {
            while received.len() < wanted {
                received.extend(sink.take_received().await);
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = wait => true,
                () = Clock::system().sleep(LIFE_MAX) => false,
            }
        })
    }

    fn check(&mut self, context: &str) {
        let rows = transitions(&self.workspace.path("refwatch.db"));
        let mut requests: BTreeMap<i64, Vec<&Received>> = BTreeMap::new();
        for request in &self.received {
            let event: Value = serde_json::from_slice(&request.body).expect("JSON");
            assert_eq!(request.signature, SignatureCheck::Verified, "{context}");
            requests.entry(event["data"]["id"].as_i64().expect("a row")).or_default().push(request);
        }
        // A job that had ended before the first daemon created the sink is no event of it.
        let is_event =
            |row: &TransitionRow| row.from_status.is_some() || !JobStatus::from(&*row.to_status).is_terminal();
        let lost: Vec<_> = rows.iter().filter(|row| is_event(row) && !requests.contains_key(&row.id)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}; {context}");
        let unknown: Vec<_> = requests.keys().filter(|id| !rows.iter().any(|row| row.id == **id)).collect();
        assert!(unknown.is_empty(), "sent but not in the database: {unknown:?}; {context}");
        let mut rows_of_ids: BTreeMap<&str, i64> = BTreeMap::new();
        for (row, requests) in &requests {
            let first = requests[0];
            assert_eq!(*rows_of_ids.entry(&first.id).or_insert(*row), *row, "two events with one id; {context}");
            for again in &requests[1..] {
                assert_eq!((&again.id, &again.body), (&first.id, &first.body), "{context}");
            }
            self.summary.duplicates += requests.len() - 1;
        }
        self.summary.events += requests.len();
        self.check_order(&rows, context);
    }

    /// The first requests of a job's events come in the order of their rows.
    fn check_order(&self, rows: &[TransitionRow], context: &str) {
        let mut last: BTreeMap<&str, i64> = BTreeMap::new();
        let mut seen: Vec<i64> = Vec::new();
        for request in &self.received {
            let event: Value = serde_json::from_slice(&request.body).expect("JSON");
            let id = event["data"]["id"].as_i64().expect("a row");
            if !seen.contains(&id) {
                seen.push(id);
                let job = &*rows.iter().find(|row| row.id == id).expect("a row").job_id;
                let earlier = last.insert(job, id);
                assert!(earlier.is_none_or(|earlier| earlier < id), "{job}: {earlier:?} before {id}; {context}");
            }
        }
    }
}

impl Summary {
    fn add(mut self, more: Self) -> Self {
        let Self { during, idle, events, duplicates } = more;
        self.during += during;
        self.idle += idle;
        self.events += events;
        self.duplicates += duplicates;
        self
    }

    fn print(self) {
        let Self { during, idle, events, duplicates } = self;
        print_summary(format_args!(
            "{} kills ({during} during delivery, {idle} without requests): 0 of {events} events lost; \
             {duplicates} were sent again, each with its first id and body",
            during + idle
        ));
    }
}
