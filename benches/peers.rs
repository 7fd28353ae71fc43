//! Compares refwatch with SDK waiters and loops: the delay until the ends of 200 jobs are known.
//!
//! Each contestant watches a new simulator with the same seed and newly created jobs. Its reports are
//! compared with the timelines of the simulator. `two-daemons` measures how two daemons divide one quota.
//! `docs/benchmarks.md` has the results and explains each row.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result and the progress")]

mod support;

use std::collections::BTreeMap;
use std::hint;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_sdk_omics::Client;
use aws_sdk_omics::client::Waiters as _;
use aws_smithy_runtime_api::client::waiters::error::WaiterError;
use clap::{Parser, ValueEnum};
use refwatch::clock::Clock;
use refwatch::core::job::JobStatus;
use refwatch::core::time::Timestamp;
use serde_json::Value;
use support::{Daemon, Failure, Process, Simulator, command_line, free_address, get, percentile, sdk_client, table};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

const JOBS: usize = 200;

/// Later reports count as missed. The last job ends within two minutes.
const DEADLINE: Duration = Duration::from_mins(10);

/// The interval of AWS's own waiters.
const LOOP_INTERVAL: Duration = Duration::from_secs(30);

/// The Python in which `tests/e2e/run` installs boto3.
const PYTHON: &str = "target/e2e/venv/bin/python3";

const BUSY_LOOPS: usize = 4;

/// Delays between the starts of the two daemons; one pair each, all at the same time.
const STAGGERS_MS: [u64; 10] = [0, 5, 10, 15, 20, 25, 30, 35, 40, 45];

/// Long enough for the rates to settle after the start.
const TWO_DAEMONS_WINDOW: Duration = Duration::from_mins(10);

/// How late the ends of 200 jobs are known, to refwatch and to others
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench peers --")]
struct Args {
    /// Only these
    contestants: Vec<Contestant>,
    /// Without boto3
    #[arg(long)]
    without_boto3: bool,
    /// The same seed gives the same jobs
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Contestant {
    RefwatchGet,
    RefwatchLists,
    RefwatchShared,
    RefwatchBusy,
    SdkWaiter,
    SdkLoop,
    Boto3Waiter,
    Boto3Tuned,
    TwoDaemons,
}

/// When each job's end was reported.
type Reports = BTreeMap<String, Timestamp>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let chosen = |contestant: &Contestant| args.contestants.is_empty() || args.contestants.contains(contestant);
    let contestants: Vec<Contestant> = Contestant::value_variants()
        .iter()
        .copied()
        .filter(|contestant| chosen(contestant) && !(args.without_boto3 && contestant.boto3_mode().is_some()))
        .collect();
    let boto3 = if contestants.iter().any(|contestant| contestant.boto3_mode().is_some()) {
        boto3_version()?
    } else {
        "left out".into()
    };

    println!("```sh\n{}\n```\n", command_line("peers"));
    let mut peers = table(&["", "ends missed", "mean delay", "p99", "requests", "throttled"]);
    for &contestant in contestants.iter().filter(|contestant| **contestant != Contestant::TwoDaemons) {
        let row = measure(contestant, args.seed).await?;
        eprintln!("{}", row.join(" | "));
        peers.add_row(row);
    }
    if !peers.is_empty() {
        println!("{peers}\n\naws-sdk-omics {}, boto3 {boto3}\n", aws_sdk_omics::meta::PKG_VERSION);
    }
    if contestants.contains(&Contestant::TwoDaemons) {
        println!("{}", two_daemons().await?);
    }
    Ok(())
}

fn boto3_version() -> Result<String, String> {
    let missing = || format!("{PYTHON} has no boto3: run `tests/e2e/run simulator`, or pass --without-boto3");
    let script = "import boto3; print(boto3.__version__, end='')";
    let ended = std::process::Command::new(PYTHON).args(["-c", script]).output().map_err(|_| missing())?;
    ended.status.success().then(|| String::from_utf8_lossy(&ended.stdout).into_owned()).ok_or_else(missing)
}

impl Contestant {
    fn title(self) -> &'static str {
        match self {
            Self::RefwatchGet => "refwatch, `use_list = false`",
            Self::RefwatchLists => "refwatch",
            Self::RefwatchShared => "refwatch, Get and List share the quota",
            Self::RefwatchBusy => "the same beside four busy loops",
            Self::SdkWaiter => "AWS SDK for Rust, its waiter",
            Self::SdkLoop => "AWS SDK for Rust, a loop of 30 s",
            Self::Boto3Waiter => "boto3, its waiter",
            Self::Boto3Tuned => "boto3, its waiter at 5 s, adaptive retries",
            Self::TwoDaemons => "two daemons",
        }
    }

    /// The argument of `peers_boto3.py`.
    fn boto3_mode(self) -> Option<&'static str> {
        match self {
            Self::Boto3Waiter => Some("waiter"),
            Self::Boto3Tuned => Some("tuned"),
            _ => None,
        }
    }

    fn shares_quota(self) -> bool {
        matches!(self, Self::RefwatchShared | Self::RefwatchBusy)
    }

    /// Runs until each end is reported or the contestant stops. Dropping the future ends the contestant.
    async fn run(self, simulator: &Simulator, reports: &mut Reports) -> Result<(), Failure> {
        match self {
            Self::SdkWaiter => sdk(simulator, sdk_waiter, reports).await,
            Self::SdkLoop => sdk(simulator, sdk_loop, reports).await,
            _ => match self.boto3_mode() {
                Some(mode) => boto3(simulator, mode, reports).await,
                None => refwatch(simulator, self != Self::RefwatchGet, reports).await,
            },
        }
    }
}

async fn measure(contestant: Contestant, seed: u64) -> Result<[String; 6], Failure> {
    let seed = seed.to_string();
    let mut options = vec!["--quota", "10", "--mean-seconds", "60", "--seed", &seed];
    options.extend(contestant.shares_quota().then_some("--shared-quota"));
    let busy = (contestant == Contestant::RefwatchBusy).then(BusyLoops::start);
    let simulator = Simulator::start(JOBS, &options).await?;
    let mut reports = Reports::new();
    if let Ok(ended) = tokio::time::timeout(DEADLINE, contestant.run(&simulator, &mut reports)).await {
        ended?;
    }
    drop(busy);
    let (jobs, calls) = (simulator.json("/-/jobs").await?, simulator.json("/-/calls").await?);

    let mut delays = Vec::new();
    for job in jobs.as_array().ok_or("/-/jobs is no array")? {
        let last = job["timeline"].as_array().and_then(|timeline| timeline.last()).ok_or("a job has no timeline")?;
        let ended: Timestamp = last["at"].as_str().ok_or("a timeline has no time")?.parse()?;
        let reported = job["id"].as_str().and_then(|id| reports.get(id));
        delays.extend(reported.map(|reported| reported.duration_since(ended).as_secs_f64()));
    }
    delays.sort_by(f64::total_cmp);
    let count = |result: &str| -> u64 {
        let operations = ["GetReferenceImportJob", "ListReferenceImportJobs"];
        operations.iter().filter_map(|operation| calls[operation][result].as_u64()).sum()
    };
    Ok([
        contestant.title().to_owned(),
        (JOBS - delays.len()).to_string(),
        seconds(mean(&delays)),
        seconds(percentile(&delays, 99)),
        (count("answered") + count("throttled")).to_string(),
        count("throttled").to_string(),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "at most 200 values")]
fn mean(delays: &[f64]) -> Option<f64> {
    (!delays.is_empty()).then(|| delays.iter().sum::<f64>() / delays.len() as f64)
}

fn seconds(delay: Option<f64>) -> String {
    delay.map_or_else(|| "–".to_owned(), |delay| format!("{delay:.1} s"))
}

/// Busy threads that exit when this is dropped.
struct BusyLoops(#[expect(dead_code, reason = "dropped to end the threads")] Arc<()>);

impl BusyLoops {
    fn start() -> Self {
        let token = Arc::new(());
        for _ in 0..BUSY_LOOPS {
            let running = Arc::downgrade(&token);
            thread::spawn(move || {
                while running.strong_count() > 0 {
                    hint::spin_loop();
                }
            });
        }
        Self(token)
    }
}

/// The daemon with the whole quota. It logs transitions after their commit.
async fn refwatch(simulator: &Simulator, use_list: bool, reports: &mut Reports) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let poll = format!("use_list = {use_list}, min_interval = \"1s\"");
    let (server, listen, jobs) = (simulator.address, free_address()?, &simulator.jobs);
    let daemon = Daemon { directory: directory.path(), server, listen, jobs, poll: &poll, quota: 10.0 };
    let mut process = Process::spawn(daemon.command()?.stderr(Stdio::piped()))?;
    follow(process.stderr()?, reports).await
}

async fn boto3(simulator: &Simulator, mode: &str, reports: &mut Reports) -> Result<(), Failure> {
    let mut command = Command::new(PYTHON);
    command.arg("benches/peers_boto3.py").arg(simulator.endpoint()).arg(mode);
    let mut process = Process::spawn(command.stdout(Stdio::piped()))?;
    follow(process.stdout()?, reports).await
}

/// Reads one JSON object per line until each end is reported or the output ends.
async fn follow(output: impl AsyncRead + Unpin, reports: &mut Reports) -> Result<(), Failure> {
    let clock = Clock::system();
    let mut lines = BufReader::new(output).lines();
    while reports.len() < JOBS
        && let Some(line) = lines.next_line().await?
    {
        let at = clock.now().wall;
        let report: Value = serde_json::from_str(&line).unwrap_or_default();
        if let (Some(job), Some(status)) = (report["job_id"].as_str(), report["to_status"].as_str()) {
            if JobStatus::from(status).is_terminal() {
                reports.entry(job.to_owned()).or_insert(at);
            }
        } else if report["level"] != "INFO" {
            eprintln!("{line}");
        }
    }
    Ok(())
}

/// One task per job on one client with default settings.
async fn sdk<F>(
    simulator: &Simulator,
    wait: fn(Client, String, String) -> F,
    reports: &mut Reports,
) -> Result<(), Failure>
where
    F: Future<Output = bool> + Send + 'static,
{
    let clock = Clock::system();
    let client = sdk_client(&simulator.endpoint(), None).await;
    let mut waits = JoinSet::new();
    for job in &simulator.jobs {
        let (store, id) = job.split_once('/').ok_or("a job is written STORE/JOB")?;
        let (id, ended) = (id.to_owned(), wait(client.clone(), store.to_owned(), id.to_owned()));
        waits.spawn(async move { ended.await.then(|| (id, clock.now().wall)) });
    }
    while let Some(ended) = waits.join_next().await {
        reports.extend(ended?);
    }
    Ok(())
}

/// Returns whether the waiter saw the job's end.
async fn sdk_waiter(client: Client, store: String, id: String) -> bool {
    let wait = client.wait_until_reference_import_job_completed();
    let end = wait.reference_store_id(store).id(id).wait(DEADLINE).await;
    // The waiter fails on every end except COMPLETED. Other failures mean that it stopped waiting.
    matches!(end, Ok(_) | Err(WaiterError::FailureState(_)))
}

async fn sdk_loop(client: Client, store: String, id: String) -> bool {
    let poll = client.get_reference_import_job().reference_store_id(store).id(id);
    loop {
        // Errors are retried by the next poll.
        if let Ok(output) = poll.clone().send().await
            && JobStatus::from(output.status().as_str()).is_terminal()
        {
            return true;
        }
        Clock::system().sleep(LOOP_INTERVAL).await;
    }
}

/// Two daemons with `share = 1.0` poll 200 live jobs on one quota of 5 requests per second.
async fn two_daemons() -> Result<String, Failure> {
    let mut table = table(&["two daemons start", "answers", "smaller part", "to reach"]);
    let mut pairs = JoinSet::new();
    for stagger in STAGGERS_MS {
        pairs.spawn(pair_of_daemons(stagger));
    }
    let mut rows = pairs.join_all().await.into_iter().collect::<Result<Vec<_>, Failure>>()?;
    rows.sort_by_key(|(stagger, _)| *stagger);
    table.add_rows(rows.into_iter().map(|(_, row)| row));
    Ok(table.to_string())
}

async fn pair_of_daemons(stagger: u64) -> Result<(u64, [String; 4]), Failure> {
    let simulator = Simulator::start(JOBS, &["--quota", "5", "--mean-seconds", "86400"]).await?;
    let mut daemons = Vec::new();
    for delay in [0, stagger] {
        let (directory, listen) = (tempfile::tempdir()?, free_address()?);
        let (server, jobs) = (simulator.address, &simulator.jobs);
        let daemon = Daemon { directory: directory.path(), server, listen, jobs, poll: "use_list = false", quota: 5.0 };
        let mut command = daemon.command()?;
        Clock::system().sleep(Duration::from_millis(delay)).await;
        daemons.push((Process::spawn(command.stderr(Stdio::null()))?, listen, directory));
    }
    Clock::system().sleep(TWO_DAEMONS_WINDOW).await;
    let (one, other) = (successful_requests(daemons[0].1).await?, successful_requests(daemons[1].1).await?);
    let part = 100.0 * one.min(other) / (one + other);
    Ok((
        stagger,
        [format!("{stagger} ms apart"), format!("{one} and {other}"), format!("{part:.0} %"), "≥ 33 %".into()],
    ))
}

/// The daemon's successful requests, from its metrics.
async fn successful_requests(daemon: SocketAddr) -> Result<f64, Failure> {
    let scrape = get(daemon, "/metrics").await?;
    let text = str::from_utf8(&scrape)?;
    let sum = |metric: &str| -> f64 {
        let series = text.lines().filter(|line| line.starts_with(metric));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    Ok(sum("refwatch_api_requests_total{") - sum("refwatch_api_request_failures_total{"))
}
