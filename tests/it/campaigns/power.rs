//! Power cuts by replay.
//!
//! A process writes a database under strace. The trace is cut after each operation, with unsynced operations dropped, kept or torn.
//! The remaining files are opened as at a start: the database must be intact and contain every acknowledged step.

use std::path::Path;
use std::{env, fs};

use refwatch::database::{Database, create_directory};
use refwatch::instruments::Instruments;
use rusqlite::{Connection, OpenFlags};
use tokio::runtime;

use super::disk::{Cut, Disk, Files};
use super::trace::{ACKNOWLEDGED, Operation, traced};
use super::{env_number, print_summary};
use crate::database::{at, full_change, id};

/// The default number of states.
const STATES: u64 = 500;

const THREADS: usize = 2;

/// The distance of cut points of consecutive seeds. A prime: the first seeds lie far apart, and every point is reached.
const STRIDE: u64 = 7919;

/// Environment variables that name the traced process's directory and script.
const DIRECTORY: &str = "POWER_PLACE";
const SCRIPT: &str = "POWER_SCRIPT";

/// Below the traced directory, in a directory that refwatch creates.
const RECORD: &str = "state/database.db";

/// A number of rounds. Every nth round deletes, checkpoints from another connection, or reopens.
struct Script {
    rounds: u64,
    deletes: u64,
    checkpoints: u64,
    reopens: u64,
}

const SCRIPTS: [Script; 2] = [
    Script { rounds: 60, deletes: 7, checkpoints: 5, reopens: 16 },
    // Long enough for SQLite's own checkpoints and a restart of the log.
    Script { rounds: 200, deletes: 60, checkpoints: 1000, reopens: 150 },
];

/// Traced runs: a script and the syncs at which successive processes are killed. The last process runs to the end of the script.
const TRACES: [(usize, &[u64]); 4] = [(0, &[]), (0, &[24, 17]), (0, &[60, 1, 40]), (1, &[])];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A change of a job; shares a commit with the next step if `with_next`.
    Append {
        job: u64,
        status: &'static str,
        with_next: bool,
    },
    /// Deletes jobs that ended before the last twelve steps.
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

/// The time of a step; it identifies the rows of the step.
fn time(step: usize) -> refwatch::core::time::Timestamp {
    at(i64::try_from(step).expect("few"))
}

/// The step before which jobs must have ended to be deleted by `step`.
fn deleted_before(step: usize) -> usize {
    step.saturating_sub(12)
}

/// The expected rows after each number of steps.
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

/// The rows in the database.
fn rows(path: &Path) -> rusqlite::Result<Vec<String>> {
    let table = |(short, name)| format!("SELECT id, '{short}/' || job_id || '/' || observed_at FROM {name}");
    let tables = [("t", "transitions"), ("s", "item_transitions"), ("d", "details")].map(table);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut select = connection.prepare(&format!("{} ORDER BY id", tables.join(" UNION ALL ")))?;
    select.query_map([], |row| row.get(1))?.collect()
}

#[test]
#[ignore = "runs as a traced process of the campaign"]
fn traced_writer() {
    let (Ok(directory), Some(script)) = (env::var(DIRECTORY), env_number(SCRIPT)) else { return };
    let steps = SCRIPTS[usize::try_from(script).expect("small")].steps();
    runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(write(&Path::new(&directory).join(RECORD), &steps));
}

/// Executes the steps, beginning after those that the database contains.
async fn write(path: &Path, steps: &[Step]) {
    let instruments = Instruments::new().expect("names");
    create_directory(path.parent().expect("a directory")).expect("a directory");
    let states = states(steps);
    let mut next = 0;
    while next < steps.len() {
        // On one thread, so that two traces of a script have the same operations.
        let (database, writing) = Database::open_without_thread(path, &instruments).expect("a database");
        let current = rows(path).expect("rows");
        next = states.iter().position(|state| *state == current).expect("a state").max(next);
        // The daemon publishes the rows that it reads at its start.
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

/// Executes the next step and those that share its commit. Returns false after a reopen.
async fn step(database: &Database, path: &Path, steps: &[Step], next: &mut usize) -> bool {
    let number = *next;
    *next += 1;
    match steps[number] {
        Step::Append { .. } => {
            let together = |step: &&Step| matches!(step, Step::Append { with_next: true, .. });
            *next += steps[number..].iter().take_while(together).count();
            let appends = (number..*next).map(|number| async move {
                let Step::Append { job, status, .. } = steps[number] else { panic!("{:?}", steps[number]) };
                database.append(&id(job), &full_change(None, status, i64::try_from(number).expect("few"))).await
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

#[expect(clippy::print_stdout, reason = "the trace contains these lines")]
fn acknowledge(steps: usize) {
    println!("{ACKNOWLEDGED}{steps}");
}

/// The operations of a trace and the expected states of its database.
struct Trace {
    operations: Vec<Operation>,
    states: Vec<Vec<String>>,
}

impl Trace {
    /// `None` if tracing is not possible.
    fn new((script, kills): (usize, &[u64])) -> Option<Self> {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("a path");
        let environment = [(DIRECTORY, root.to_str().expect("text")), (SCRIPT, &script.to_string())];
        let test = "campaigns::power::traced_writer";
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

    /// Checks that the model reproduces all files.
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

/// One state of the disk to check.
#[derive(Clone, Copy, Debug)]
struct CutPoint {
    trace: usize,
    /// The number of operations before the cut.
    operations: usize,
    cut: Cut,
    seed: u64,
}

impl CutPoint {
    fn new(traces: &[Trace], seed: u64) -> Self {
        let count = traces.len() as u64;
        let (trace, nth) = (usize::try_from(seed % count).expect("few"), seed / count);
        let count_of_points = traces[trace].operations.len() as u64 + 1;
        let (operations, visit) = (nth * STRIDE % count_of_points, nth / count_of_points);
        let cut = match (visit + operations) % 3 {
            0 if visit < 3 => Cut::Drops,
            1 if visit < 3 => Cut::Keeps,
            _ => Cut::Tears,
        };
        Self { trace, operations: usize::try_from(operations).expect("few"), cut, seed }
    }
}

#[test]
fn no_power_cut_damages_the_database_or_loses_an_acknowledged_commit() {
    let Some(traces) = TRACES.into_iter().map(Trace::new).collect::<Option<Vec<_>>>() else { return };
    let seeds = match env_number("POWER_CUT") {
        Some(seed) => seed..seed + 1,
        None => 0..env_number("POWER_CUTS").unwrap_or(STATES),
    };
    let mut cut_points: Vec<CutPoint> = seeds.map(|seed| CutPoint::new(&traces, seed)).collect();
    // Sorted, so that each operation is replayed once.
    cut_points.sort_by_key(|cut_point| (cut_point.trace, cut_point.operations));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let shares = cut_points.chunks(cut_points.len().div_ceil(THREADS));
        let threads: Vec<_> = shares.map(|share| scope.spawn(|| replay(&traces, share))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let (states, failed) = (cut_points.len(), failures.len());
    cut_points.dedup_by_key(|cut_point| (cut_point.trace, cut_point.operations));
    print_summary(format_args!("{states} states over {} cut points, {failed} failed", cut_points.len()));
    assert!(failures.is_empty(), "{failed} of {states}, the first:\n{}", failures[..failed.min(5)].join("\n"));
}

/// Checks sorted cut points. Returns each failure with the command that reproduces it.
fn replay(traces: &[Trace], cut_points: &[CutPoint]) -> Vec<String> {
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    let instruments = Instruments::new().expect("names");
    let (mut failures, mut at, mut disk, mut acknowledged) = (Vec::new(), (usize::MAX, 0), Disk::default(), 0);
    for cut_point in cut_points {
        if at.0 != cut_point.trace {
            (at, disk, acknowledged) = ((cut_point.trace, 0), Disk::default(), 0);
        }
        let trace = &traces[cut_point.trace];
        for operation in &trace.operations[at.1..cut_point.operations] {
            disk.apply(operation);
            acknowledged = operation.acknowledged().unwrap_or(acknowledged);
        }
        at.1 = cut_point.operations;
        let files = disk.after(cut_point.cut, &mut fastrand::Rng::with_seed(cut_point.seed));
        if let Err(error) = runtime.block_on(check_state(&files, &instruments, &trace.states, acknowledged)) {
            failures.push(format!(
                "{error}: {cut_point:?}: POWER_CUT={} cargo test --test it no_power_cut",
                cut_point.seed
            ));
        }
    }
    failures
}

/// Opens the database in these files: it must be undamaged, contain all acknowledged steps and no others, and accept a write.
async fn check_state(
    files: &Files,
    instruments: &Instruments,
    states: &[Vec<String>],
    acknowledged: usize,
) -> Result<(), String> {
    let memory = Path::new("/dev/shm");
    let directory =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory");
    for (path, bytes) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
    let (path, aside) = (directory.path().join(RECORD), instruments.database_quarantined.get());
    create_directory(path.parent().expect("a directory")).map_err(|error| error.to_string())?;
    let (database, writing) = Database::open_without_thread(&path, instruments).map_err(|error| error.to_string())?;
    if instruments.database_quarantined.get() > aside {
        return Err("corrupt".to_owned());
    }
    let current = rows(&path).map_err(|error| error.to_string())?;
    if !states[acknowledged..].contains(&current) {
        let earlier = states.iter().rposition(|state| *state == current);
        return Err(format!("{acknowledged} steps were acknowledged, the rows are those after step {earlier:?}"));
    }
    let append = async {
        let appended = database.append(&id(1), &full_change(None, "CANCELLED", 1_000_000)).await;
        database.close().await;
        appended.map_err(|error| error.to_string())
    };
    tokio::join!(writing, append).1
}
