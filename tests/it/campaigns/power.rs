//! Power cuts by replay: processes write a database under strace, and what they wrote is cut at every operation, with all that was not
//! synced dropped, kept or torn. What is left is opened as a start opens it.

use std::path::Path;
use std::{env, fs};

use refwatch::database::Database;
use refwatch::instruments::Instruments;
use rusqlite::{Connection, OpenFlags};
use tokio::runtime;

use super::disk::{Cut, Disk, Files};
use super::trace::{ACKNOWLEDGED, Operation, traced};
use super::{number, say};
use crate::database::{at, full, id};

/// States in `cargo test`.
const STATES: u64 = 500;

/// Half of the machines that this runs on have no more.
const THREADS: usize = 2;

/// Between the cut points of two seeds: a prime, so that the first few seeds lie far apart and all points come up.
const STRIDE: u64 = 7919;

/// Tells the traced process where its database is, and which of [`SCRIPTS`] to follow.
const PLACE: &str = "POWER_PLACE";
const SCRIPT: &str = "POWER_SCRIPT";

/// Beneath a traced directory: the database is in one that refwatch makes.
const RECORD: &str = "state/database.db";

/// Rounds of a script, of which every so many delete, checkpoint (as somebody else may) and reopen.
struct Script {
    rounds: u64,
    deletes: u64,
    checkpoints: u64,
    reopens: u64,
}

const SCRIPTS: [Script; 2] = [
    Script { rounds: 60, deletes: 7, checkpoints: 5, reopens: 16 },
    // Long enough that SQLite itself checkpoints, and begins its log anew.
    Script { rounds: 200, deletes: 60, checkpoints: 1000, reopens: 150 },
];

/// What is traced: a script, and the syncs at which its process is killed, one after the other, before the last one follows it to its
/// end.
const TRACES: [(usize, &[u64]); 4] = [(0, &[]), (0, &[24, 17]), (0, &[60, 1, 40]), (1, &[])];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A change of a job; in one commit with the next step where that is one too.
    Append {
        job: u64,
        status: &'static str,
        with_next: bool,
    },
    /// Of all jobs that ended before the last few steps.
    Delete,
    Checkpoint,
    Reopen,
}

impl Script {
    fn steps(&self) -> Vec<Step> {
        let (mut steps, mut changes) = (Vec::new(), 0_u64);
        for round in 1..=self.rounds {
            let together = [1, 1, 3][usize::try_from(round % 3).expect("small")];
            for nth in 1..=together {
                let (job, status) = (
                    changes / 2 * STRIDE % 1_000_000,
                    if changes.is_multiple_of(2) { "IN_PROGRESS" } else { "FAILED" },
                );
                steps.push(Step::Append { job, status, with_next: nth < together });
                changes += 1;
            }
            for (every, step) in
                [(self.deletes, Step::Delete), (self.checkpoints, Step::Checkpoint), (self.reopens, Step::Reopen)]
            {
                if round.is_multiple_of(every) {
                    steps.push(step);
                }
            }
        }
        steps
    }
}

/// A step's time: what it recorded is told apart by it.
fn time(step: usize) -> refwatch::core::time::Timestamp {
    at(i64::try_from(step).expect("few"))
}

/// What step `step` deletes ended before this one.
fn deleted_before(step: usize) -> usize {
    step.saturating_sub(12)
}

/// The rows that stand in the database after so many steps, by their number.
fn states(steps: &[Step]) -> Vec<Vec<String>> {
    let mut states = vec![Vec::new()];
    let mut changes: Vec<(usize, u64, &str)> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Append { job, status, .. } => changes.push((number, *job, status)),
            Step::Delete => {
                let all = changes.clone();
                let last = |job| all.iter().rfind(|(_, other, _)| *other == job).expect("itself");
                changes.retain(|(_, job, _)| {
                    let (changed_at, _, to) = last(*job);
                    *to != "FAILED" || *changed_at >= deleted_before(number)
                });
            }
            Step::Checkpoint | Step::Reopen => {}
        }
        let rows = changes.iter().flat_map(|(number, job, _)| {
            let job = format!("{}/{:.3}", id(*job).key.job.as_str(), time(*number));
            ["t", "s", "s", "d", "d"].map(|table| format!("{table}/{job}"))
        });
        states.push(rows.collect());
    }
    states
}

/// The rows that stand in the database.
fn rows(path: &Path) -> rusqlite::Result<Vec<String>> {
    let table = |(short, name)| format!("SELECT id, '{short}/' || job_id || '/' || observed_at FROM {name}");
    let tables = [("t", "transitions"), ("s", "item_transitions"), ("d", "details")].map(table);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut select = connection.prepare(&format!("{} ORDER BY id", tables.join(" UNION ALL ")))?;
    select.query_map([], |row| row.get(1))?.collect()
}

#[test]
#[ignore = "the process that a campaign traces: nothing by itself"]
fn a_process_that_writes_a_record() {
    let (Ok(place), Some(script)) = (env::var(PLACE), number(SCRIPT)) else { return };
    let steps = SCRIPTS[usize::try_from(script).expect("small")].steps();
    runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(write(&Path::new(&place).join(RECORD), &steps));
}

/// Follows the steps from where the database that is there stands.
async fn write(path: &Path, steps: &[Step]) {
    let instruments = Instruments::new().expect("names");
    let states = states(steps);
    let mut next = 0;
    while next < steps.len() {
        // One thread does everything, so that two traces of one script have the same operations.
        let (database, writing) = Database::open_unwritten(path, &instruments).expect("a database");
        let known = rows(path).expect("rows");
        next = states.iter().position(|state| *state == known).expect("a state").max(next);
        // What a start has read, the daemon shows.
        acknowledge(next);
        let work = async {
            while next < steps.len() && step(&database, path, steps, &mut next).await {
                acknowledge(next);
            }
            database.close().await;
        };
        tokio::join!(writing, work);
    }
}

/// Does the next step, with those that share its commit. Whether the database stays open.
async fn step(database: &Database, path: &Path, steps: &[Step], next: &mut usize) -> bool {
    let number = *next;
    *next += 1;
    match steps[number] {
        Step::Append { .. } => {
            let together = |step: &&Step| matches!(step, Step::Append { with_next: true, .. });
            *next += steps[number..].iter().take_while(together).count();
            let appends = (number..*next).map(|number| async move {
                let Step::Append { job, status, .. } = steps[number] else { panic!("{:?}", steps[number]) };
                database.append(&id(job), &full(None, status, i64::try_from(number).expect("few"))).await
            });
            futures_util::future::try_join_all(appends).await.expect("a commit");
        }
        Step::Delete => {
            database
                .delete_ended_before(time(deleted_before(number)), std::collections::BTreeSet::new())
                .await
                .expect("a commit");
        }
        Step::Checkpoint => {
            let shell = Connection::open(path).expect("a connection");
            shell.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("a checkpoint");
        }
        Step::Reopen => return false,
    }
    true
}

#[expect(clippy::print_stdout, reason = "the trace knows by it what was acknowledged when")]
fn acknowledge(steps: usize) {
    println!("{ACKNOWLEDGED}{steps}");
}

/// The operations of a trace, and the states that its database went through.
struct Trace {
    operations: Vec<Operation>,
    states: Vec<Vec<String>>,
}

impl Trace {
    /// `None` where nothing can be traced.
    fn new((script, kills): (usize, &[u64])) -> Option<Self> {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("a path");
        let environment = [(PLACE, root.to_str().expect("text")), (SCRIPT, &script.to_string())];
        let test = "campaigns::power::a_process_that_writes_a_record";
        let mut operations = Vec::new();
        for kill in kills {
            let kill = format!("inject=fsync:signal=KILL:when={kill}");
            operations.extend(traced(&root, test, &["-e", &kill], &environment)?);
        }
        operations.extend(traced(&root, test, &[], &environment)?);
        let trace = Self { operations, states: states(&SCRIPTS[script].steps()) };
        trace.assert_complete(&root);
        Some(trace)
    }

    /// The model misses nothing that was written.
    fn assert_complete(&self, root: &Path) {
        let mut disk = Disk::default();
        self.operations.iter().for_each(|operation| disk.apply(operation));
        let files = disk.after(Cut::Keeps, &mut fastrand::Rng::with_seed(0));
        assert!(files.contains_key(Path::new(RECORD)), "{:?}", files.keys());
        for (path, bytes) in files {
            assert!(fs::read(root.join(&path)).expect("a file") == bytes, "{}", path.display());
        }
        let last = self.operations.iter().rev().find_map(Operation::acknowledged).expect("an acknowledgement");
        assert_eq!(last, self.states.len() - 1);
    }
}

/// One state of the disk.
#[derive(Clone, Copy, Debug)]
struct Point {
    trace: usize,
    /// So many operations went before.
    operations: usize,
    cut: Cut,
    seed: u64,
}

impl Point {
    fn new(traces: &[Trace], seed: u64) -> Self {
        let count = traces.len() as u64;
        let (trace, nth) = (usize::try_from(seed % count).expect("few"), seed / count);
        let points = traces[trace].operations.len() as u64 + 1;
        let (operations, visit) = (nth * STRIDE % points, nth / points);
        let cut = match (visit + operations) % 3 {
            0 if visit < 3 => Cut::Drops,
            1 if visit < 3 => Cut::Keeps,
            _ => Cut::Tears,
        };
        Self { trace, operations: usize::try_from(operations).expect("few"), cut, seed }
    }
}

#[test]
fn no_power_cut_damages_the_record_or_loses_what_was_acknowledged() {
    let Some(traces) = TRACES.into_iter().map(Trace::new).collect::<Option<Vec<_>>>() else { return };
    let seeds = match number("POWER_CUT") {
        Some(seed) => seed..seed + 1,
        None => 0..number("POWER_CUTS").unwrap_or(STATES),
    };
    let mut points: Vec<Point> = seeds.map(|seed| Point::new(&traces, seed)).collect();
    // Operations are replayed once.
    points.sort_by_key(|point| (point.trace, point.operations));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let shares = points.chunks(points.len().div_ceil(THREADS));
        let threads: Vec<_> = shares.map(|share| scope.spawn(|| replay(&traces, share))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let (states, failed) = (points.len(), failures.len());
    points.dedup_by_key(|point| (point.trace, point.operations));
    say(format_args!("{states} states over {} cut points, {failed} failed", points.len()));
    assert!(failures.is_empty(), "{failed} of {states}, the first:\n{}", failures[..failed.min(5)].join("\n"));
}

/// Tries points, which are in order. Says of every failure what it is and how to see it again.
fn replay(traces: &[Trace], points: &[Point]) -> Vec<String> {
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    let instruments = Instruments::new().expect("names");
    let (mut failures, mut at, mut disk, mut acknowledged) = (Vec::new(), (usize::MAX, 0), Disk::default(), 0);
    for point in points {
        if at.0 != point.trace {
            (at, disk, acknowledged) = ((point.trace, 0), Disk::default(), 0);
        }
        let trace = &traces[point.trace];
        for operation in &trace.operations[at.1..point.operations] {
            disk.apply(operation);
            acknowledged = operation.acknowledged().unwrap_or(acknowledged);
        }
        at.1 = point.operations;
        let files = disk.after(point.cut, &mut fastrand::Rng::with_seed(point.seed));
        if let Err(what) = runtime.block_on(start(&files, &instruments, &trace.states, acknowledged)) {
            failures.push(format!("{what}: {point:?}: POWER_CUT={} cargo test --test it no_power_cut", point.seed));
        }
    }
    failures
}

/// Starts on these files: the database is sound, holds what was acknowledged and nothing that was not asked for, and goes on.
async fn start(
    files: &Files,
    instruments: &Instruments,
    states: &[Vec<String>],
    acknowledged: usize,
) -> Result<(), String> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    let (path, aside) = (folder.path().join(RECORD), instruments.database_quarantined.get());
    let (database, writing) = Database::open_unwritten(&path, instruments).map_err(|error| error.to_string())?;
    if instruments.database_quarantined.get() > aside {
        return Err("corrupt".to_owned());
    }
    let found = rows(&path).map_err(|error| error.to_string())?;
    if !states[acknowledged..].contains(&found) {
        let earlier = states.iter().rposition(|state| *state == found);
        return Err(format!("{acknowledged} steps were acknowledged, and it stands as after {earlier:?}"));
    }
    let going_on = async {
        let appended = database.append(&id(1), &full(None, "CANCELLED", 1_000_000)).await;
        database.close().await;
        appended.map_err(|error| error.to_string())
    };
    tokio::join!(writing, going_on).1
}
