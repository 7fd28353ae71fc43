//! Cost of refwatch: CPU per poll compared with a plain loop on the same SDK, memory, start, scrapes, binary size.
//!
//! The daemon, the simulated HealthOmics and the loop run as separate processes. The bench only reads `/proc` and sockets.
//! `docs/footprint.md` has the results and explains each row.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result and the progress")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_omics::config::retry::RetryConfig;
use clap::{Parser, Subcommand, ValueEnum};
use refwatch::clock::Clock;
use refwatch::simulator::{SinkOptions, SinkReceiver};
use support::{Daemon, Failure, Process, Simulator, command_line, free_address, get, percentile, sdk_client, table};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Requests per second. The greatest value that the configuration accepts; this machine cannot send as many.
const UNLIMITED: f64 = 100_000.0;

/// Enough watches to keep a process busy: the daemon polls each at most every 100 ms.
const BUSY_WATCHES: usize = 2_000;

/// Requests in flight.
const LOOP_CONCURRENCY: usize = 32;

/// No job is polled twice during a measurement of memory.
const POLL_RARELY: &str = "use_list = false, interval = \"6h\"";
const POLL_OFTEN: &str = "use_list = false, min_interval = \"100ms\"";

/// The database releases its page cache after 5 s, an idle thread exits after 10 s.
const IDLE_TIME: Duration = Duration::from_secs(12);

const SETTLE: Duration = Duration::from_secs(3);

/// With 3.6 sources per simulated job on average, these give 100,000 transitions.
const JOBS_WITH_HISTORY: usize = 21_900;

/// The ends that one sink receives at once.
const ENDS: usize = 10_000;

/// What refwatch costs the machine
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench footprint --", args_conflicts_with_subcommands = true)]
struct Args {
    /// Only these
    measures: Vec<Measure>,
    /// Fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The bench runs itself as the plain loop.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    PlainLoop { endpoint: String, jobs: PathBuf },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    Cpu,
    Memory,
    Start,
    Scrapes,
    Notify,
    Binary,
}

struct Extent {
    rounds: usize,
    window: Duration,
    starts: usize,
    scrapes: usize,
}

const FULL: Extent = Extent { rounds: 5, window: Duration::from_secs(8), starts: 21, scrapes: 200 };
const QUICK: Extent = Extent { rounds: 2, window: Duration::from_secs(4), starts: 5, scrapes: 40 };

/// Measurement, refwatch, plain loop, goal.
type Row = [String; 4];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(Role::PlainLoop { endpoint, jobs }) = args.role {
        return plain_loop(&endpoint, &jobs).await;
    }
    let extent = if args.quick { QUICK } else { FULL };
    let mut table = table(&["", "refwatch", "plain loop", "to reach"]);
    for measure in Measure::value_variants() {
        if !args.measures.is_empty() && !args.measures.contains(measure) {
            continue;
        }
        let rows = match measure {
            Measure::Cpu => cpu(&extent).await?,
            Measure::Memory => memory().await?,
            Measure::Start => start(&extent).await?,
            Measure::Scrapes => scrapes(&extent).await?,
            Measure::Notify => notify().await?,
            Measure::Binary => binary()?,
        };
        for row in rows {
            eprintln!("{}", row.join(" | "));
            table.add_row(row);
        }
    }
    println!("```sh\n{}\n```\n\n{table}\n", command_line("footprint"));
    println!("aws-sdk-omics {}", aws_sdk_omics::meta::PKG_VERSION);
    Ok(())
}

/// CPU time per poll without a quota; no job changes.
async fn cpu(extent: &Extent) -> Result<Vec<Row>, Failure> {
    let simulator = simulator(BUSY_WATCHES).await?;
    let (mut daemon, mut plain) = (Vec::new(), Vec::new());
    // Alternating rounds: other load on the machine affects both equally.
    for _ in 0..extent.rounds {
        let directory = tempfile::tempdir()?;
        daemon.push(
            cpu_per_poll(start_daemon(&simulator, directory.path(), POLL_OFTEN, UNLIMITED)?.0, &simulator, extent)
                .await?,
        );
        let jobs = directory.path().join("jobs");
        fs::write(&jobs, simulator.jobs.join("\n"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("plain-loop").arg(simulator.endpoint()).arg(jobs).stderr(Stdio::null());
        plain.push(cpu_per_poll(Process::spawn(&mut command)?, &simulator, extent).await?);
    }
    let (daemon_cell, _) = median(daemon);
    let (plain_cell, plain) = median(plain);
    Ok(vec![["CPU per poll, µs".to_owned(), daemon_cell, plain_cell, format!("≤ {:.1}", 1.15 * plain)]])
}

/// Microseconds. Measures after the process has polled each job twice.
async fn cpu_per_poll(process: Process, simulator: &Simulator, extent: &Extent) -> Result<f64, Failure> {
    simulator.wait_for_polls(simulator.polls().await? + 2 * BUSY_WATCHES as u64).await?;
    let (cpu, polls) = (process.cpu()?, simulator.polls().await?);
    Clock::system().sleep(extent.window).await;
    let cpu = process.cpu()?.saturating_sub(cpu);
    let polls = u32::try_from(simulator.polls().await? - polls)?;
    process.kill().await?;
    Ok(cpu.as_secs_f64() * 1e6 / f64::from(polls))
}

/// Resident memory after all jobs were polled and one scrape was served.
async fn memory() -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (watches, goal) in [(1, "≤ 22"), (1_000, "≤ 40"), (10_000, "≤ 80")] {
        let (simulator, directory) = (simulator(watches).await?, tempfile::tempdir()?);
        let (process, listen) = start_daemon(&simulator, directory.path(), POLL_RARELY, 1_000.0)?;
        simulator.wait_for_polls(watches as u64).await?;
        Clock::system().sleep(IDLE_TIME).await;
        get(listen, "/metrics").await?;
        // The buffer of the response is freed once the client has read it.
        Clock::system().sleep(SETTLE).await;
        let resident = process.resident_mib()?;
        process.kill().await?;
        rows.push(row(&format!("RSS after a scrape, {watches} watches, MiB"), format!("{resident:.1}"), goal));
    }
    Ok(rows)
}

/// Time from the start of the process to its first request, without a database and after a SIGKILL.
async fn start(extent: &Extent) -> Result<Vec<Row>, Failure> {
    let job = ["1234567890/9876543210".to_owned()];
    let mut fresh = Vec::new();
    for _ in 0..extent.starts {
        fresh.push(until_first_poll(&job, tempfile::tempdir()?.path()).await?);
    }
    let (simulator, directory) = (simulator(JOBS_WITH_HISTORY).await?, tempfile::tempdir()?);
    let (process, _) = start_daemon(&simulator, directory.path(), POLL_RARELY, 1_000.0)?;
    simulator.wait_for_polls(JOBS_WITH_HISTORY as u64).await?;
    Clock::system().sleep(SETTLE).await;
    process.kill().await?;
    fs::remove_dir_all(directory.path().join("conf.d"))?;
    let mut killed = Vec::new();
    for _ in 0..extent.starts {
        killed.push(until_first_poll(&simulator.jobs[..1], directory.path()).await?);
    }
    let count = "SELECT (SELECT count(*) FROM transitions) + (SELECT count(*) FROM item_transitions)";
    let database = rusqlite::Connection::open(directory.path().join("refwatch.db"))?;
    let transitions: u32 = database.query_one(count, [], |row| row.get(0))?;
    Ok(vec![
        row("start to first poll, ms", median(fresh).0, "≤ 20"),
        row(&format!("the same after SIGKILL, {transitions} transitions, ms"), median(killed).0, "≤ 300"),
    ])
}

/// Milliseconds. Kills the daemon afterwards.
async fn until_first_poll(jobs: &[String], directory: &Path) -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (server, listen) = (listener.local_addr()?, free_address()?);
    let mut command = Daemon { directory, server, listen, jobs, poll: POLL_RARELY, quota: 5.0 }.command()?;
    command.stderr(Stdio::null());
    let clock = Clock::system();
    let process = Process::spawn(&mut command)?;
    let arrived = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept()?;
        stream.read(&mut [0; 16]).map(|_| clock.now().monotonic.elapsed())
    });
    let elapsed = arrived.await??;
    process.kill().await?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// The duration of scrapes of 10,000 watches, ten scrapes a second, during 1,000 polls a second.
async fn scrapes(extent: &Extent) -> Result<Vec<Row>, Failure> {
    const WATCHES: usize = 10_000;
    let (simulator, directory) = (simulator(WATCHES).await?, tempfile::tempdir()?);
    let (process, listen) = start_daemon(&simulator, directory.path(), POLL_OFTEN, 1_000.0)?;
    simulator.wait_for_polls(WATCHES as u64).await?;
    Clock::system().sleep(SETTLE).await;
    let mut durations = Vec::new();
    for _ in 0..extent.scrapes {
        Clock::system().sleep(Duration::from_millis(100)).await;
        let clock = Clock::system();
        get(listen, "/metrics").await?;
        durations.push(clock.now().monotonic.elapsed().as_secs_f64() * 1e3);
    }
    process.kill().await?;
    durations.sort_by(f64::total_cmp);
    let rank = |percent| percentile(&durations, percent).unwrap_or_default();
    let cell = format!("p50 {:.1}, p99 {:.1}", rank(50), rank(99));
    Ok(vec![row("/metrics, 10000 watches, ms", cell, "p99 ≤ 300")])
}

/// The time from the start of the daemon to the delivery of 10,000 ends to one sink, and the memory that it takes.
async fn notify() -> Result<Vec<Row>, Failure> {
    let receiver = SinkReceiver::start(SocketAddr::from(([127, 0, 0, 1], 0)), SinkOptions::default()).await?;
    let directory = tempfile::tempdir()?;
    // The first start creates the database and the sink, the second one is idle.
    let mut idle = 0.0;
    for _ in 0..2 {
        let process = start_notifying(&receiver, directory.path())?;
        Clock::system().sleep(IDLE_TIME).await;
        idle = process.memory_mib("VmHWM")?;
        process.kill().await?;
    }
    rusqlite::Connection::open(directory.path().join("refwatch.db"))?.execute_batch(&format!(
        "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < {ENDS})
         INSERT INTO transitions (id, target, kind, store_id, job_id, from_status, to_status, observed_at, region, watch)
         SELECT n, 'default', 'reference_import', '1234567890', 1000000000 + n, 'IN_PROGRESS', 'COMPLETED',
             '2026-01-01T00:00:00.000Z', 'us-west-2', 'job ' || n FROM n"
    ))?;
    let clock = Clock::system();
    let process = start_notifying(&receiver, directory.path())?;
    let mut ids = BTreeSet::new();
    while ids.len() < ENDS {
        ids.extend(receiver.take_received().await.into_iter().map(|event| event.id));
    }
    let elapsed = clock.now().monotonic.elapsed().as_secs_f64();
    let more = process.memory_mib("VmHWM")? - idle;
    process.kill().await?;
    Ok(vec![
        row("10,000 ends to one sink, s", format!("{elapsed:.1}"), "≤ 30"),
        row("the same, peak RSS above an idle daemon's, MiB", format!("{more:.1}"), "≤ 30"),
    ])
}

/// A daemon without jobs, with one sink.
fn start_notifying(receiver: &SinkReceiver, directory: &Path) -> Result<Process, Failure> {
    let (server, listen) = (receiver.address(), free_address()?);
    let mut command = Daemon { directory, server, listen, jobs: &[], poll: POLL_RARELY, quota: 5.0 }.command()?;
    let mut config = fs::OpenOptions::new().append(true).open(directory.join("refwatch.toml"))?;
    write!(config, "[[notify]]\nname = \"sink\"\nurl = \"{}\"\n", receiver.url())?;
    command.stderr(fs::File::create(directory.join("log"))?);
    Process::spawn(&mut command)
}

fn binary() -> Result<Vec<Row>, Failure> {
    let bytes = u32::try_from(fs::metadata(env!("CARGO_BIN_EXE_refwatch"))?.len())?;
    Ok(vec![row("binary, MiB", format!("{:.1}", f64::from(bytes) / f64::from(1 << 20)), "≤ 22")])
}

/// No effective quota; the jobs stay SUBMITTED during the bench.
async fn simulator(jobs: usize) -> Result<Simulator, Failure> {
    Simulator::start(jobs, &["--quota", "1000000", "--mean-seconds", "86400"]).await
}

/// A daemon that watches all of the simulator's jobs, and its address.
fn start_daemon(
    server: &Simulator,
    directory: &Path,
    poll: &str,
    quota: f64,
) -> Result<(Process, SocketAddr), Failure> {
    let listen = free_address()?;
    let mut command =
        Daemon { directory, server: server.address, listen, jobs: &server.jobs, poll, quota }.command()?;
    command.stderr(fs::File::create(directory.join("log"))?);
    Ok((Process::spawn(&mut command)?, listen))
}

fn row(figure: &str, refwatch: String, goal: &str) -> Row {
    [figure.to_owned(), refwatch, "–".to_owned(), goal.to_owned()]
}

/// The cell "median (least–most)", and the median.
fn median(mut values: Vec<f64>) -> (String, f64) {
    values.sort_by(f64::total_cmp);
    let rank = |percent| percentile(&values, percent).unwrap_or_default();
    let median = rank(50);
    (format!("{median:.1} ({:.1}–{:.1})", rank(0), rank(100)), median)
}

/// One task per job polls continuously. Retries are off, as in refwatch. Results are discarded.
async fn plain_loop(endpoint: &str, jobs: &Path) -> Result<(), Failure> {
    let client = sdk_client(endpoint, Some(RetryConfig::disabled())).await;
    let permits = Arc::new(Semaphore::new(LOOP_CONCURRENCY));
    let mut tasks = JoinSet::new();
    for job in fs::read_to_string(jobs)?.lines() {
        let (store, id) = job.split_once('/').ok_or("a job is written STORE/JOB")?;
        let poll = client.get_reference_import_job().reference_store_id(store).id(id);
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            while let Ok(permit) = permits.acquire().await {
                // Errors are retried by the next poll.
                drop(poll.clone().send().await);
                drop(permit);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}
