//! How long the rooms take for what they do all day, each alone: a decision of the core, a turn under the quota, a look at a
//! listed job, the text of a scrape, a commit of the record and its opening.

mod given;

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use given::{at, board, change, job, snapshot};
use refwatch::clock::Clock;
use refwatch::config::{Quota, TargetConfig};
use refwatch::core::backoff::BackoffPolicy;
use refwatch::core::job::JobStatus::{self, Completed, InProgress, Submitted};
use refwatch::core::sweep::Sweep;
use refwatch::core::time::{Monotonic, Now};
use refwatch::core::watch::{JobWatch, PollPolicy};
use refwatch::instruments::Instruments;
use refwatch::metrics::{Format, Metrics};
use refwatch::omics::{Aws, Target, Urgency};
use refwatch::record::Record;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Jobs of the record that is opened, each of which has three transitions.
const RECORDED_JOBS: u64 = 33_334;

/// The bytes of a lock file up to the seal of what was closed.
const MARKED: u64 = 60;

/// Jobs whose transitions are recorded at once: as many as wait for the writer.
const AT_ONCE: u64 = 1_000;

const POLICY: PollPolicy = PollPolicy {
    fixed: false,
    interval: Duration::from_secs(10),
    backoff: BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) },
};

fn main() {
    divan::main();
}

/// What an answer adds to the record and when to ask again.
#[divan::bench(args = [InProgress, Completed])]
fn decision(bencher: Bencher<'_, '_>, status: &JobStatus) {
    let now = Now { monotonic: Monotonic::at(Duration::from_secs(100)), wall: at(100) };
    let seen = || {
        let mut watch = JobWatch::new(POLICY, None, 1);
        watch.handle_outcome(Ok(snapshot(InProgress)), now);
        (watch, snapshot(status.clone()))
    };
    bencher.with_inputs(seen).bench_values(|(mut watch, snapshot)| (watch.handle_outcome(Ok(snapshot), now), watch));
}

/// One turn under the quota, where so many wait for theirs. Time is paused, so what is left is the work.
#[divan::bench(args = [1_000, 100_000], sample_count = 5, sample_size = 1)]
fn turn(bencher: Bencher<'_, '_>, waiting: u64) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let queue = || {
        let config = TargetConfig {
            region: Some("us-west-2".to_owned()),
            simulated: true,
            quota: Quota { share: 1.0, ..Quota::default() },
            ..TargetConfig::new(TargetConfig::DEFAULT)
        };
        runtime.block_on(async {
            let (clock, instruments) = (Clock::system(), Instruments::new().expect("metrics"));
            let target = Target::new(&config, &Aws::new(clock), clock, &instruments).await.expect("a target");
            let (target, mut turns) = (Arc::new(target), JoinSet::new());
            for number in 0..waiting {
                let (target, store) = (Arc::clone(&target), job(number).key.store.clone());
                turns.spawn(async move { drop(target.poll_turn(&store, Urgency::Routine).await) });
            }
            tokio::task::yield_now().await;
            turns
        })
    };
    let items = ItemsCount::new(waiting);
    bencher.counter(items).with_inputs(queue).bench_local_values(|turns| runtime.block_on(turns.join_all()));
}

/// One look at each of a thousand listed jobs.
#[divan::bench]
fn sweep(bencher: Bencher<'_, '_>) {
    let jobs: Vec<_> = (0..1_000).map(|number| job(number).key.job.clone()).collect();
    bencher.counter(ItemsCount::new(jobs.len())).with_inputs(Sweep::default).bench_values(|mut sweep| {
        let changed = |job| sweep.looks_changed(job, Some(&InProgress), Some(black_box(&InProgress)));
        jobs.iter().map(changed).filter(|changed| *changed).count()
    });
}

/// The text of a scrape of so many watches.
#[divan::bench(args = [1_000, 10_000], sample_count = 20, sample_size = 1)]
fn scrape(bencher: Bencher<'_, '_>, watches: u64) {
    let metrics = Metrics::new(board(watches), &Instruments::new().expect("metrics"), at(0)).expect("metrics");
    bencher.bench(|| metrics.render(Format::Text));
}

/// Transitions of so many jobs at once, until each is on disk.
#[divan::bench(args = [1, AT_ONCE], sample_count = 20, sample_size = 1)]
fn append(bencher: Bencher<'_, '_>, jobs: u64) {
    let (runtime, place) = (runtime(), place());
    let record = open(&place);
    let mut seconds = 0..;
    let items = ItemsCount::new(jobs);
    bencher.counter(items).with_inputs(|| seconds.next().unwrap_or_default()).bench_local_values(|second| {
        runtime.block_on(record_transitions(
            &record,
            jobs,
            None,
            &JobStatus::from(format!("S{second}").as_str()),
            second,
        ));
    });
}

/// A start with 100,000 transitions in the record: after a stop, and after a kill, when all of them are checked.
#[divan::bench(args = ["stopped", "killed"], sample_count = 5, sample_size = 1)]
fn opening(bencher: Bencher<'_, '_>, after: &str) {
    let (runtime, place) = (runtime(), place());
    let record = open(&place);
    runtime.block_on(async {
        for (from, to, seconds) in
            [(None, Submitted, 0), (Some(Submitted), InProgress, 60), (Some(InProgress), Completed, 900)]
        {
            record_transitions(&record, RECORDED_JOBS, from, &to, seconds).await;
        }
        record.close().await;
    });
    let standing: RefCell<Option<Record>> = RefCell::new(None);
    let before = || {
        if let Some(record) = standing.take() {
            runtime.block_on(record.close());
        }
        if after == "killed" {
            let lock = File::options().write(true).open(place.path().join("refwatch.db.lock"));
            lock.and_then(|lock| lock.set_len(MARKED)).expect("a lock file without its seal");
        }
    };
    bencher.with_inputs(before).bench_local_values(|()| drop(standing.replace(Some(open(&place)))));
}

async fn record_transitions(record: &Record, jobs: u64, from: Option<JobStatus>, to: &JobStatus, seconds: i64) {
    let mut appends = JoinSet::new();
    for number in 0..jobs {
        let (record, change) = (record.clone(), change(from.clone(), to.clone(), seconds));
        appends.spawn(async move { record.append(&job(number), &change).await.expect("a commit") });
    }
    appends.join_all().await;
}

fn open(place: &TempDir) -> Record {
    Record::open(&place.path().join("refwatch.db"), &Instruments::new().expect("metrics")).expect("a record")
}

/// On a disk, where the system's directory for temporary files may be in memory.
fn place() -> TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a directory")
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}
