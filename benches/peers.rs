//! refwatch beside what one would use in its place: who hears of the ends of 200 jobs, and how late.
//!
//! Every contestant gets the same work: a fresh simulated HealthOmics on loopback with the same seed, all jobs just begun. What it
//! says is held against the simulator's own truth and counts. `docs/benchmarks.md` has a result and says how to get one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result and what comes with it")]

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_omics::Client;
use aws_sdk_omics::client::Waiters as _;
use aws_sdk_omics::config::Credentials;
use aws_sdk_omics::error::BoxError;
use aws_smithy_runtime_api::client::waiters::error::WaiterError;
use clap::{Parser, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use refwatch::clock::Clock;
use refwatch::core::job::JobStatus;
use refwatch::core::time::Timestamp;
use refwatch::healthomics::WireRules;
use refwatch::http::client;
use refwatch::simulator::{Options, SimulatedJob, Simulator};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

/// After it, what a contestant has not said counts as missed. The last job ends within two minutes.
const DEADLINE: Duration = Duration::from_mins(10);

/// From one poll to the next of the plain loop: as AWS's own waiters wait.
const LOOP_INTERVAL: Duration = Duration::from_secs(30);

const REGION: &str = "us-west-2";

/// Key and secret: the simulator wants a signature but does not verify it.
const CREDENTIALS: &str = "simulated";

/// Where `tests/e2e/run` installs boto3.
const PYTHON: &str = "target/e2e/venv/bin/python3";

/// How late the ends of 200 jobs are known, to refwatch and to others
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench peers --")]
struct Args {
    /// Only these
    contestants: Vec<Contestant>,
    /// Without boto3, which the others do not need
    #[arg(long)]
    without_boto3: bool,
    /// Which jobs: the same seed gives the same ones
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Contestant {
    RefwatchGet,
    RefwatchSweeps,
    SdkWaiter,
    SdkLoop,
    Boto3Waiter,
    Boto3Legacy,
    Boto3Tuned,
}

/// When each job's end was known.
type Known = BTreeMap<String, Timestamp>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let named = |contestant: &Contestant| args.contestants.is_empty() || args.contestants.contains(contestant);
    let takes_part = |contestant: &Contestant| named(contestant) && !(args.without_boto3 && contestant.is_boto3());
    let contestants: Vec<Contestant> = Contestant::value_variants().iter().copied().filter(takes_part).collect();
    let boto3 =
        if contestants.iter().any(|contestant| contestant.is_boto3()) { boto3_version()? } else { "left out".into() };

    let mut table = Table::new();
    let header = ["", "ends missed", "late on average", "99 %", "requests", "throttled"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (nth, contestant) in (1..).zip(&contestants) {
        eprintln!("{nth} of {}: {}", contestants.len(), contestant.title());
        let row = measure(*contestant, args.seed).await?;
        eprintln!("  {}", row[1..].join(", "));
        table.add_row(row);
    }
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let separator = if arguments.is_empty() { "" } else { " -- " };
    let sdk = aws_sdk_omics::meta::PKG_VERSION;
    println!("`cargo bench --bench peers{separator}{}`\n\n{table}\n", arguments.join(" "));
    println!("aws-sdk-omics {sdk}, boto3 {boto3}");
    Ok(())
}

fn boto3_version() -> Result<String, String> {
    let missing =
        || format!("{PYTHON} has no boto3: `tests/e2e/run simulator` installs it, --without-boto3 does without");
    let script = "import boto3; print(boto3.__version__, end='')";
    let ended = std::process::Command::new(PYTHON).args(["-c", script]).output().map_err(|_| missing())?;
    ended.status.success().then(|| String::from_utf8_lossy(&ended.stdout).into_owned()).ok_or_else(missing)
}

impl Contestant {
    fn title(self) -> &'static str {
        match self {
            Self::RefwatchGet => "refwatch, `sweep = false`",
            Self::RefwatchSweeps => "refwatch",
            Self::SdkWaiter => "AWS SDK for Rust, its waiter",
            Self::SdkLoop => "AWS SDK for Rust, a loop of 30 s",
            Self::Boto3Waiter => "boto3, its waiter",
            Self::Boto3Legacy => "boto3, its waiter, legacy retries",
            Self::Boto3Tuned => "boto3, its waiter at 5 s, adaptive retries",
        }
    }

    fn is_boto3(self) -> bool {
        matches!(self, Self::Boto3Waiter | Self::Boto3Legacy | Self::Boto3Tuned)
    }

    /// Waits for the end of every job, or until it gives up. Dropping it ends it.
    async fn run(self, simulator: &Simulator, known: &mut Known) -> Result<(), BoxError> {
        match self {
            Self::RefwatchGet => refwatch(simulator, false, known).await,
            Self::RefwatchSweeps => refwatch(simulator, true, known).await,
            Self::SdkWaiter => sdk(simulator, sdk_waiter, known).await,
            Self::SdkLoop => sdk(simulator, sdk_loop, known).await,
            Self::Boto3Waiter => boto3(simulator, "waiter", known).await,
            Self::Boto3Legacy => boto3(simulator, "legacy", known).await,
            Self::Boto3Tuned => boto3(simulator, "tuned", known).await,
        }
    }
}

/// One contestant's row of the table.
async fn measure(contestant: Contestant, seed: u64) -> Result<[String; 6], BoxError> {
    let options =
        Options { jobs: 200, seed, mean: Duration::from_mins(1), requests_per_second: 10.0, ..Options::default() };
    let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), &options).await?;
    let mut known = Known::new();
    if let Ok(ended) = tokio::time::timeout(DEADLINE, contestant.run(&simulator, &mut known)).await {
        ended?;
    }
    let address = simulator.address().to_string();
    let truth: Value =
        serde_json::from_slice(&client::get(&client::Endpoint::Listener(address.clone()), "/-/jobs").await?)?;
    let calls: Value =
        serde_json::from_slice(&client::get(&client::Endpoint::Listener(address.clone()), "/-/calls").await?)?;
    simulator.stop().await;

    let mut delays = Vec::new();
    for job in truth.as_array().ok_or("no jobs")? {
        let ended = &job["timeline"].as_array().and_then(|timeline| timeline.last()).ok_or("no end")?["at"];
        let ended: Timestamp = ended.as_str().ok_or("no time")?.parse()?;
        let known = job["id"].as_str().and_then(|id| known.get(id));
        delays.extend(known.map(|known| known.duration_since(ended).as_secs_f64()));
    }
    delays.sort_by(f64::total_cmp);
    let requests = |fate: &str| -> u64 {
        ["GetReferenceImportJob", "ListReferenceImportJobs"].iter().filter_map(|name| calls[name][fate].as_u64()).sum()
    };
    let throttled = requests("throttled");
    Ok([
        contestant.title().to_owned(),
        (options.jobs as usize - delays.len()).to_string(),
        seconds(mean(&delays)),
        seconds(percentile_99(&delays)),
        (requests("answered") + throttled).to_string(),
        throttled.to_string(),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "some hundred values")]
fn mean(delays: &[f64]) -> Option<f64> {
    (!delays.is_empty()).then(|| delays.iter().sum::<f64>() / delays.len() as f64)
}

/// By nearest rank.
fn percentile_99(sorted: &[f64]) -> Option<f64> {
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn seconds(delay: Option<f64>) -> String {
    delay.map_or_else(|| "–".to_owned(), |delay| format!("{delay:.1} s"))
}

/// The daemon, with the whole quota for itself. It logs a transition once that is on disk.
async fn refwatch(simulator: &Simulator, sweep: bool, known: &mut Known) -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("refwatch.toml");
    let mut toml = format!(
        "poll = {{ sweep = {sweep}, min_interval = \"1s\" }}\nquota = {{ requests_per_second = 10.0, share = 1.0 }}\nrecord.path = \"refwatch.db\"\n\
         http.listen = \"127.0.0.1:0\"\nlog.format = \"json\"\n\
         target.default = {{ region = \"{REGION}\", endpoint_url = \"http://{}\" }}\n",
        simulator.address()
    );
    for SimulatedJob { reference_store_id, id, .. } in simulator.jobs() {
        write!(toml, "[[job]]\nreference_store_id = \"{reference_store_id}\"\nid = \"{id}\"\n")?;
    }
    std::fs::write(&config, toml)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_refwatch"));
    command.arg("--config").arg(config).arg("run").env_clear();
    command.env("AWS_ACCESS_KEY_ID", CREDENTIALS).env("AWS_SECRET_ACCESS_KEY", CREDENTIALS);
    let mut daemon = command.stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    follow(daemon.stderr.take(), known, simulator.jobs().count()).await
}

async fn boto3(simulator: &Simulator, how: &str, known: &mut Known) -> Result<(), BoxError> {
    let mut command = Command::new(PYTHON);
    command.arg("benches/peers_boto3.py").arg(format!("http://{}", simulator.address())).arg(how);
    let mut script = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    follow(script.stdout.take(), known, simulator.jobs().count()).await
}

/// Takes note of the ends that a process tells of, a JSON object a line, until all are known or it ends.
async fn follow(output: Option<impl AsyncRead + Unpin>, known: &mut Known, jobs: usize) -> Result<(), BoxError> {
    let clock = Clock::system();
    let mut lines = BufReader::new(output.ok_or("not piped")?).lines();
    while known.len() < jobs
        && let Some(line) = lines.next_line().await?
    {
        let at = clock.now().wall;
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        if let (Some(job), Some(status)) = (said["import_job_id"].as_str(), said["to_status"].as_str()) {
            if JobStatus::from(status).is_terminal() {
                known.entry(job.to_owned()).or_insert(at);
            }
        } else if said["level"] != "INFO" {
            eprintln!("{line}");
        }
    }
    Ok(())
}

/// A task for each job, on one client as the SDK makes it by default.
async fn sdk<F>(simulator: &Simulator, wait: fn(Client, SimulatedJob) -> F, known: &mut Known) -> Result<(), BoxError>
where
    F: Future<Output = bool> + Send + 'static,
{
    let clock = Clock::system();
    let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .endpoint_url(format!("http://{}", simulator.address()))
        .credentials_provider(Credentials::new(CREDENTIALS, CREDENTIALS, None, None, CREDENTIALS))
        .load()
        .await;
    let client = aws_sdk_omics::config::Builder::from(&sdk).interceptor(WireRules).build();
    let client = Client::from_conf(client);
    let mut waits = JoinSet::new();
    for job in simulator.jobs() {
        let (id, ended) = (job.id.clone(), wait(client.clone(), job.clone()));
        waits.spawn(async move { ended.await.then(|| (id, clock.now().wall)) });
    }
    while let Some(ended) = waits.join_next().await {
        known.extend(ended?);
    }
    Ok(())
}

/// Whether it comes to know of the end.
async fn sdk_waiter(client: Client, job: SimulatedJob) -> bool {
    let wait = client.wait_until_reference_import_job_completed();
    let end = wait.reference_store_id(job.reference_store_id).id(job.id).wait(DEADLINE).await;
    // It fails on every end but COMPLETED; any other failure means that it has given up.
    matches!(end, Ok(_) | Err(WaiterError::FailureState(_)))
}

/// What one writes first. An error is left to the next round.
async fn sdk_loop(client: Client, job: SimulatedJob) -> bool {
    let poll = client.get_reference_import_job().reference_store_id(job.reference_store_id).id(job.id);
    loop {
        if let Ok(answer) = poll.clone().send().await
            && JobStatus::from(answer.status().as_str()).is_terminal()
        {
            return true;
        }
        Clock::system().sleep(LOOP_INTERVAL).await;
    }
}
