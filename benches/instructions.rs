//! Two paths to count the instructions of, by `tests/e2e/instructions`: a poll of a job of which nothing is new, from the wire to
//! the board, and the rendering of what 1,000 watches show to a scrape. The rooms are the real ones, and the answers come from
//! the simulator over a socket, on a thread of its own.
//!
//! What is counted is what [`counted`] does and whatever it calls: valgrind finds it by its name.

#![expect(clippy::print_stdout, reason = "where it is called without valgrind")]

mod given;

use std::error::Error;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{future, thread};

use refwatch::board::StatusBoard;
use refwatch::clock::Clock;
use refwatch::config::{Quota, TargetConfig};
use refwatch::core::backoff::BackoffPolicy;
use refwatch::core::job::{JobKey, ReferenceStoreId, Snapshot, WatchId};
use refwatch::core::time::Timestamp;
use refwatch::core::watch::PollPolicy;
use refwatch::hints::StoreHints;
use refwatch::instruments::Instruments;
use refwatch::metrics::{Format, Metrics};
use refwatch::omics::{Asked, Aws, Connect, Connecting, HealthOmics, ListPage, Target};
use refwatch::record::Record;
use refwatch::simulator::{Options, Simulator};
use refwatch::watcher::{Poller, Watcher, Workplace};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

/// Polls before any is counted: until then a connection is made, credentials are found and the first transition is recorded.
const POLLS_BEFORE: u32 = 20;

/// Polls that are counted.
const POLLS: u32 = 100;

/// Watches that the scrape shows.
const WATCHES: u64 = 1_000;

/// More requests a second than are made here.
const UNLIMITED: f64 = 1e6;

/// No job of the simulator comes to its next status while it is polled here.
const MEAN: Duration = Duration::from_hours(10_000);

const POLICY: PollPolicy = PollPolicy {
    fixed: false,
    interval: Duration::ZERO,
    backoff: BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) },
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("poll") => polls(),
        Some("scrape") => scrape(),
        Some(_) | None => {
            println!("tests/e2e/run instructions");
            Ok(())
        }
    }
}

#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// The task of one job, at work.
fn polls() -> Result<(), Failure> {
    let (address, id) = simulate()?;
    let folder = tempfile::tempdir()?;
    let (clock, board, instruments) = (Clock::system(), StatusBoard::default(), Instruments::new()?);
    let record = Record::open(&folder.path().join("refwatch.db"), &instruments)?;
    let workplace = Arc::new(Workplace { clock, record, board, instruments });
    let config = TargetConfig {
        region: Some("us-west-2".to_owned()),
        endpoint_url: Some(format!("http://{address}")),
        quota: Quota { requests_per_second: UNLIMITED, share: 1.0 },
        simulated: true,
        ..TargetConfig::new(&id.target)
    };
    let (asked, mut told) = watch::channel(0);
    let runtime = runtime()?;
    let aws = CountedAws { clock, asked };
    let target = Arc::new(runtime.block_on(Target::new(&config, &aws, clock, &workplace.instruments))?);
    let hints = StoreHints::default().listen(&id.key.job);
    let poller = Poller::new(target, Arc::clone(&id), POLICY, None, hints, 1);
    let watcher = Box::new(Watcher::new(workplace, poller, id, "reference".into(), [0; 8], None));
    let (_stop, stopped) = oneshot::channel();
    let mut watching = pin!(watcher.run(stopped));
    let mut until = |polls| {
        runtime.block_on(async {
            tokio::select! {
                biased;
                asked = told.wait_for(|&asked| asked > polls) => asked.map(drop).map_err(Failure::from),
                ended = &mut watching => Err(format!("the watch has ended: {ended:?}").into()),
            }
        })
    };
    until(POLLS_BEFORE)?;
    counted(|| until(POLLS_BEFORE + POLLS))
}

/// A scrape, the second one.
fn scrape() -> Result<(), Failure> {
    let metrics = Metrics::new(given::board(WATCHES), &Instruments::new()?, given::at(0))?;
    metrics.render(Format::Text)?;
    counted(|| metrics.render(Format::Text))?;
    Ok(())
}

/// A simulator on a thread of its own, and its one job.
fn simulate() -> Result<(SocketAddr, Arc<WatchId>), Failure> {
    let (sender, started) = mpsc::channel();
    let runtime = runtime()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let options = Options { jobs: 1, mean: MEAN, requests_per_second: UNLIMITED, ..Options::default() };
            let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), &options).await;
            let simulator = simulator.inspect_err(|error| println!("{error}"))?;
            let job = simulator.jobs().next().map(|job| format!("{}/{}", job.reference_store_id, job.id));
            drop(sender.send((simulator.address(), job)));
            future::pending::<std::io::Result<()>>().await
        })
    });
    let (address, job) = started.recv()?;
    let key = job.ok_or("no job")?.parse()?;
    Ok((address, Arc::new(WatchId { target: TargetConfig::DEFAULT.into(), key })))
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The way to AWS's SDK, and `asked`: how often it was asked for a job.
#[derive(Debug)]
struct CountedAws {
    clock: Clock,
    asked: watch::Sender<u32>,
}

#[derive(Debug)]
struct CountedTarget {
    sdk: Arc<dyn HealthOmics>,
    asked: watch::Sender<u32>,
}

impl Connect for CountedAws {
    fn connect<'a>(&'a self, config: &'a TargetConfig) -> Connecting<'a> {
        Box::pin(async move {
            let sdk = Aws::new(self.clock).connect(config).await?;
            Ok(Arc::new(CountedTarget { sdk, asked: self.asked.clone() }) as Arc<dyn HealthOmics>)
        })
    }
}

impl HealthOmics for CountedTarget {
    fn aws_region(&self) -> &Arc<str> {
        self.sdk.aws_region()
    }

    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> Asked<'a, Snapshot> {
        self.asked.send_modify(|asked| *asked += 1);
        self.sdk.get_reference_import_job(key)
    }

    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> Asked<'a, ListPage> {
        self.sdk.list_reference_import_jobs(store, created_after, token)
    }
}
