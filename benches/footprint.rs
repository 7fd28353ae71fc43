//! What refwatch costs the machine: CPU per poll beside a plain loop on the same SDK, memory, start, scrapes, size of the binary.
//!
//! The daemon, the simulated HealthOmics and the loop run as separate processes. The bench only reads `/proc` and sockets.
//! `docs/footprint.md` has the figures and explains each row.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result and the progress")]

mod support;

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_omics::config::retry::RetryConfig;
use clap::{Parser, Subcommand, ValueEnum};
use refwatch::clock::Clock;
use support::{Daemon, Failure, Process, Simulator, command_line, free_address, get, percentile, sdk_client, table};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The most that the configuration accepts, in requests per second: more than this machine can send.
const UNLIMITED: f64 = 100_000.0;

/// Watches that keep a contestant busy: the daemon polls each one at most every 100 ms.
const BUSY_WATCHES: usize = 2_000;

/// Requests that the plain loop has in flight.
const LOOP_CONCURRENCY: usize = 32;

/// No job is due twice while memory is measured.
const RARE: &str = "use_list = false, interval = \"6h\"";
const OFTEN: &str = "use_list = false, min_interval = \"100ms\"";

/// The database releases its page cache after 5 s, an idle thread exits after 10 s.
const REST: Duration = Duration::from_secs(12);

const SETTLE: Duration = Duration::from_secs(3);

/// The simulator's jobs have 3.6 sources on average, so this many give 100,000 transitions.
const JOBS_WITH_HISTORY: usize = 21_900;

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

/// This program is its own plain loop.
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
    Binary,
}

struct Extent {
    rounds: usize,
    window: Duration,
    starts: usize,
    scrapes: usize,
}

const WHOLE: Extent = Extent { rounds: 5, window: Duration::from_secs(8), starts: 21, scrapes: 200 };
const QUICK: Extent = Extent { rounds: 2, window: Duration::from_secs(4), starts: 5, scrapes: 40 };

/// Figure, refwatch, plain loop, to reach.
type Row = [String; 4];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(Role::PlainLoop { endpoint, jobs }) = args.role {
        return plain_loop(&endpoint, &jobs).await;
    }
    let extent = if args.quick { QUICK } else { WHOLE };
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

/// CPU time per poll without a limit on requests, while no job changes.
async fn cpu(extent: &Extent) -> Result<Vec<Row>, Failure> {
    let simulator = simulator(BUSY_WATCHES).await?;
    let (mut daemon, mut plain) = (Vec::new(), Vec::new());
    // The rounds alternate, so that other load on the machine affects both alike.
    for _ in 0..extent.rounds {
        let folder = tempfile::tempdir()?;
        daemon.push(
            cpu_per_poll(start_daemon(&simulator, folder.path(), OFTEN, UNLIMITED)?.0, &simulator, extent).await?,
        );
        let jobs = folder.path().join("jobs");
        fs::write(&jobs, simulator.jobs.join("\n"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("plain-loop").arg(simulator.endpoint()).arg(jobs).stderr(Stdio::null());
        plain.push(cpu_per_poll(Process::spawn(&mut command)?, &simulator, extent).await?);
    }
    let (daemon_cell, _) = median(daemon);
    let (plain_cell, plain) = median(plain);
    Ok(vec![["CPU per poll, µs".to_owned(), daemon_cell, plain_cell, format!("≤ {:.1}", 1.15 * plain)]])
}

/// In microseconds, once the process has polled each job twice.
async fn cpu_per_poll(process: Process, simulator: &Simulator, extent: &Extent) -> Result<f64, Failure> {
    simulator.wait_for_polls(simulator.polls().await? + 2 * BUSY_WATCHES as u64).await?;
    let (cpu, polls) = (process.cpu()?, simulator.polls().await?);
    Clock::system().sleep(extent.window).await;
    let cpu = process.cpu()?.saturating_sub(cpu);
    let polls = u32::try_from(simulator.polls().await? - polls)?;
    process.kill().await?;
    Ok(cpu.as_secs_f64() * 1e6 / f64::from(polls))
}

/// Resident memory after every job was polled and one scrape was served.
async fn memory() -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (watches, to_reach) in [(1, "≤ 22"), (1_000, "≤ 40"), (10_000, "≤ 80")] {
        let (simulator, folder) = (simulator(watches).await?, tempfile::tempdir()?);
        let (process, listen) = start_daemon(&simulator, folder.path(), RARE, 1_000.0)?;
        simulator.wait_for_polls(watches as u64).await?;
        Clock::system().sleep(REST).await;
        get(listen, "/metrics").await?;
        // The buffer of the response is freed once the client has read it.
        Clock::system().sleep(SETTLE).await;
        let resident = process.resident_mib()?;
        process.kill().await?;
        rows.push(row(&format!("RSS after a scrape, {watches} watches, MiB"), format!("{resident:.1}"), to_reach));
    }
    Ok(rows)
}

/// From the start of the process to its first request: without a database, and with one whose daemon was killed.
async fn start(extent: &Extent) -> Result<Vec<Row>, Failure> {
    let job = ["1234567890/9876543210".to_owned()];
    let mut fresh = Vec::new();
    for _ in 0..extent.starts {
        fresh.push(until_first_poll(&job, tempfile::tempdir()?.path()).await?);
    }
    let (simulator, folder) = (simulator(JOBS_WITH_HISTORY).await?, tempfile::tempdir()?);
    let (process, _) = start_daemon(&simulator, folder.path(), RARE, 1_000.0)?;
    simulator.wait_for_polls(JOBS_WITH_HISTORY as u64).await?;
    Clock::system().sleep(SETTLE).await;
    process.kill().await?;
    fs::remove_dir_all(folder.path().join("conf.d"))?;
    let mut killed = Vec::new();
    for _ in 0..extent.starts {
        killed.push(until_first_poll(&simulator.jobs[..1], folder.path()).await?);
    }
    let count = "SELECT (SELECT count(*) FROM transitions) + (SELECT count(*) FROM item_transitions)";
    let database = rusqlite::Connection::open(folder.path().join("refwatch.db"))?;
    let transitions: u32 = database.query_one(count, [], |row| row.get(0))?;
    Ok(vec![
        row("start to first poll, ms", median(fresh).0, "≤ 20"),
        row(&format!("the same after SIGKILL, {transitions} transitions, ms"), median(killed).0, "≤ 300"),
    ])
}

/// In milliseconds. The daemon is killed afterwards.
async fn until_first_poll(jobs: &[String], folder: &Path) -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (server, listen) = (listener.local_addr()?, free_address()?);
    let mut command = Daemon { folder, server, listen, jobs, poll: RARE, quota: 5.0 }.command()?;
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
    let (simulator, folder) = (simulator(WATCHES).await?, tempfile::tempdir()?);
    let (process, listen) = start_daemon(&simulator, folder.path(), OFTEN, 1_000.0)?;
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

fn binary() -> Result<Vec<Row>, Failure> {
    let bytes = u32::try_from(fs::metadata(env!("CARGO_BIN_EXE_refwatch"))?.len())?;
    Ok(vec![row("binary, MiB", format!("{:.1}", f64::from(bytes) / f64::from(1 << 20)), "≤ 22")])
}

/// Its quota is lifted, and its jobs stay SUBMITTED for as long as the bench runs.
async fn simulator(jobs: usize) -> Result<Simulator, Failure> {
    Simulator::start(jobs, &["--quota", "1e9", "--mean-seconds", "86400"]).await
}

/// The daemon, watching all of the simulator's jobs, and its address.
fn start_daemon(server: &Simulator, folder: &Path, poll: &str, quota: f64) -> Result<(Process, SocketAddr), Failure> {
    let listen = free_address()?;
    let mut command = Daemon { folder, server: server.address, listen, jobs: &server.jobs, poll, quota }.command()?;
    command.stderr(fs::File::create(folder.join("log"))?);
    Ok((Process::spawn(&mut command)?, listen))
}

fn row(figure: &str, refwatch: String, to_reach: &str) -> Row {
    [figure.to_owned(), refwatch, "–".to_owned(), to_reach.to_owned()]
}

/// The cell "median (least–most)", and the median.
fn median(mut values: Vec<f64>) -> (String, f64) {
    values.sort_by(f64::total_cmp);
    let rank = |percent| percentile(&values, percent).unwrap_or_default();
    let median = rank(50);
    (format!("{median:.1} ({:.1}–{:.1})", rank(0), rank(100)), median)
}

/// One task per job polls, and polls again at once. Retries are off, as they are in refwatch. It stores and shows nothing.
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
                // An error is left to the next poll.
                drop(poll.clone().send().await);
                drop(permit);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}
