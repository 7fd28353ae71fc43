//! What is measured, and the rows of the table that come of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use refwatch::clock::Clock;

use super::contestant::{Contestant, LIFTED, Work, free_address};
use super::process::{Process, connections_to};
use super::simulated::Simulated;
use super::{Extent, Failure, Row};

/// Watches that keep any contestant busy where the quota is lifted: refwatch asks for one at most every 100 ms.
const BUSY: usize = 2_000;

/// What comes after the first polls: commits, log lines, threads that end.
const SETTLE: Duration = Duration::from_secs(3);

/// What comes before memory is what it will be for hours: the record lets go of its pages after five seconds, a thread with nothing to do
/// ends after ten.
const COME_TO_REST: Duration = Duration::from_secs(12);

/// So long that nothing is due again while memory is looked at.
const LONG: Duration = Duration::from_hours(6);

/// Of a figure, one value a round.
type Values = Vec<f64>;

/// A figure's cells: each contestant's values, where it has any.
#[derive(Default)]
struct Cells([Values; 3]);

impl Cells {
    fn add(&mut self, contestant: Contestant, value: f64) {
        self.0[contestant as usize].push(value);
    }

    fn median(&self, contestant: Contestant) -> Option<f64> {
        let mut sorted = self.0[contestant as usize].clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    /// Each cell is a median and, of several rounds, what it lies between.
    fn row(&self, what: &str, decimals: usize, to_reach: &str) -> Row {
        let [refwatch, plain_loop, boto3] = Contestant::ALL.map(|contestant| {
            let Some(median) = self.median(contestant) else { return "–".to_owned() };
            let values = &self.0[contestant as usize];
            let (min, max) = values.iter().fold((median, median), |(min, max), &one| (min.min(one), max.max(one)));
            if values.len() == 1 {
                return format!("{median:.decimals$}");
            }
            format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
        });
        [what.to_owned(), refwatch, plain_loop, boto3, to_reach.to_owned()]
    }
}

/// What a poll costs and how many there are where nothing holds them back, and nothing changes.
pub(super) async fn polls(contestants: &[Contestant], extent: &Extent) -> Result<Vec<Row>, Failure> {
    let simulated = Simulated::start(BUSY).await?;
    let (mut cpu, mut rate) = (Cells::default(), Cells::default());
    // Round by round, so that what else the machine does hits all alike.
    for round in 1..=extent.rounds {
        for &contestant in contestants {
            let folder = tempfile::tempdir()?;
            let process = contestant.start(&work(&simulated, folder.path(), Duration::ZERO, LIFTED)?)?;
            simulated.polled(simulated.polls().await? + 2 * BUSY as u64).await?;
            let seen = Seen::over(extent.window, &process, &simulated).await?;
            process.end().await?;
            cpu.add(contestant, seen.cpu.as_secs_f64() * 1e6 / seen.polls);
            rate.add(contestant, seen.polls / seen.took.as_secs_f64());
            let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / seen.took.as_secs_f64();
            let (own, simulator) = (share(seen.cpu), share(seen.simulator_cpu));
            eprintln!("  round {round}, {}: {own:.0} % of a core, the simulator {simulator:.0} %", contestant.title());
        }
    }
    let bounds = cpu.median(Contestant::PlainLoop).map(|plain| format!("≤ {:.1}", 1.15 * plain)).into_iter();
    let bounds = bounds.chain(cpu.median(Contestant::Boto3).map(|boto3| format!("≤ {:.1}", boto3 / 15.0)));
    Ok(vec![
        cpu.row("CPU µs a poll, quota lifted", 1, &bounds.collect::<Vec<_>>().join(" and ")),
        rate.row("polls a second, quota lifted", 0, "≥ 12000"),
    ])
}

/// What refwatch is allowed where its memory is looked at: so the first polls of 100,000 jobs take less than two minutes.
const FILLING: f64 = 1_000.0;

/// Resident memory once every job has been polled and recorded.
pub(super) async fn memory(contestants: &[Contestant], extent: &Extent) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for &watches in extent.watches {
        let simulated = Simulated::start(watches).await?;
        let mut resident = Cells::default();
        // boto3 would take minutes for the first polls alone.
        for &contestant in contestants.iter().filter(|one| **one != Contestant::Boto3 || watches < 100_000) {
            let folder = tempfile::tempdir()?;
            let process = contestant.start(&work(&simulated, folder.path(), LONG, FILLING)?)?;
            simulated.polled(simulated.polls().await? + watches as u64).await?;
            Clock::system().sleep(COME_TO_REST).await;
            resident.add(contestant, process.resident_mib()?);
            process.end().await?;
        }
        let to_reach = match watches {
            1 => "≤ 12",
            1_000 => "≤ 16",
            10_000 => "≤ 40",
            _ => "≤ 250",
        };
        rows.push(resident.row(&format!("resident MiB, {watches} watches"), 1, to_reach));
    }
    Ok(rows)
}

/// The most connections at a time while 10,000 jobs are asked for; refwatch has 5 requests a second.
pub(super) async fn connections(contestants: &[Contestant]) -> Result<Vec<Row>, Failure> {
    let simulated = Simulated::start(10_000).await?;
    let mut most = Cells::default();
    for &contestant in contestants {
        let folder = tempfile::tempdir()?;
        let process = contestant.start(&work(&simulated, folder.path(), Duration::from_secs(5), 5.0)?)?;
        let mut seen = 0;
        for _ in 0..100 {
            Clock::system().sleep(Duration::from_millis(200)).await;
            seen = seen.max(connections_to(simulated.address)?);
        }
        process.end().await?;
        most.add(contestant, u32::try_from(seen)?.into());
    }
    Ok(vec![most.row("connections, 10000 watches of one target", 0, "≤ 8")])
}

/// 1,000 jobs, each asked for every 30 s: where nothing holds the requests back, and where they come one by one.
pub(super) async fn idle(contestants: &[Contestant], extent: &Extent) -> Result<Vec<Row>, Failure> {
    const EACH: Duration = Duration::from_secs(30);
    let simulated = Simulated::start(1_000).await?;
    let (mut at_once, mut one_by_one) = (Cells::default(), Cells::default());
    for &contestant in contestants {
        let folder = tempfile::tempdir()?;
        let work = work(&simulated, folder.path(), EACH, LIFTED)?;
        at_once.add(contestant, share_of_a_core(contestant, &work, &simulated, extent).await?);
        let work = match contestant {
            Contestant::Refwatch => Work { quota: 50.0, ..work },
            // It knows no quota; of one job it asks as often as of a thousand.
            Contestant::PlainLoop => Work { jobs: &simulated.jobs[..1], interval: EACH / 1_000, ..work },
            Contestant::Boto3 => continue,
        };
        one_by_one.add(contestant, share_of_a_core(contestant, &work, &simulated, extent).await?);
    }
    Ok(vec![
        at_once.row("% of a core, 1000 watches, each every 30 s", 2, "≤ 0.5"),
        one_by_one.row("the same number of requests, one by one", 2, "–"),
    ])
}

/// What a contestant takes of a core, in percent, once it has begun.
async fn share_of_a_core(
    contestant: Contestant,
    work: &Work<'_>,
    simulated: &Simulated,
    extent: &Extent,
) -> Result<f64, Failure> {
    let process = contestant.start(work)?;
    simulated.polled(simulated.polls().await? + 1_000).await?;
    Clock::system().sleep(SETTLE).await;
    let seen = Seen::over(extent.idle_window, &process, simulated).await?;
    process.end().await?;
    eprintln!("  {}: {:.1} polls a second", contestant.title(), seen.polls / seen.took.as_secs_f64());
    Ok(100.0 * seen.cpu.as_secs_f64() / seen.took.as_secs_f64())
}

/// From the start of the process to its first request.
pub(super) async fn start(contestants: &[Contestant], extent: &Extent) -> Result<Vec<Row>, Failure> {
    let mut fresh = Cells::default();
    let job = ["1234567890/9876543210".to_owned()];
    for _ in 0..extent.starts {
        for &contestant in contestants {
            let folder = tempfile::tempdir()?;
            fresh.add(contestant, until_first_poll(contestant, &job, folder.path()).await?);
        }
    }
    let mut rows = vec![fresh.row("start to first poll, ms", 1, "≤ 15")];
    for &(watches, to_reach) in extent.recorded {
        rows.push(start_with_a_record(watches, to_reach, extent).await?);
    }
    Ok(rows)
}

/// The same, where so many jobs, and their sources, were seen before.
async fn start_with_a_record(watches: usize, to_reach: &str, extent: &Extent) -> Result<Row, Failure> {
    let (simulated, folder) = (Simulated::start(watches).await?, tempfile::tempdir()?);
    let process = Contestant::Refwatch.start(&work(&simulated, folder.path(), LONG, LIFTED)?)?;
    simulated.polled(watches as u64).await?;
    Clock::system().sleep(SETTLE).await;
    process.stop().await?;
    std::fs::remove_dir_all(folder.path().join("conf.d"))?;
    let record = rusqlite::Connection::open(folder.path().join("refwatch.db"))?;
    let transitions: u32 = record.query_one(
        "SELECT (SELECT count(*) FROM transitions) + (SELECT count(*) FROM source_transitions)",
        [],
        |row| row.get(0),
    )?;
    drop(record);
    let mut recorded = Cells::default();
    for _ in 0..extent.starts {
        let took = until_first_poll(Contestant::Refwatch, &simulated.jobs[..1], folder.path()).await?;
        recorded.add(Contestant::Refwatch, took);
    }
    Ok(recorded.row(&format!("the same, {transitions} transitions recorded"), 1, to_reach))
}

/// In milliseconds.
async fn until_first_poll(contestant: Contestant, jobs: &[String], folder: &Path) -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (server, listen) = (listener.local_addr()?, free_address()?);
    let mut command = contestant.command(&Work { server, jobs, interval: LONG, quota: 5.0, folder, listen })?;
    let clock = Clock::system();
    let process = Process::spawn(&mut command)?;
    let arrived = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept()?;
        stream.read(&mut [0; 16]).map(|_| clock.now().monotonic.elapsed())
    });
    let took = arrived.await??;
    process.stop().await?;
    Ok(took.as_secs_f64() * 1e3)
}

/// How long a scrape takes while jobs are polled, and what becomes of the polls meanwhile.
pub(super) async fn scrapes(extent: &Extent) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (watches, to_reach) in [(1_000, "p99 ≤ 15"), (10_000, "p99 ≤ 150")] {
        let (simulated, folder) = (Simulated::start(watches).await?, tempfile::tempdir()?);
        let work = work(&simulated, folder.path(), Duration::ZERO, 1_000.0)?;
        let process = Contestant::Refwatch.start(&work)?;
        simulated.polled(watches as u64).await?;
        Clock::system().sleep(SETTLE).await;
        let alone = Seen::over(extent.window, &process, &simulated).await?;
        let (clock, before) = (Clock::system(), simulated.polls().await?);
        let mut took = scraped(work.listen, extent.scrapes).await?;
        let polls = u32::try_from(simulated.polls().await? - before)?;
        let meanwhile = f64::from(polls) / clock.now().monotonic.elapsed().as_secs_f64();
        process.end().await?;
        took.sort_by(f64::total_cmp);
        let rank = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
        let cell = format!("p50 {:.1}, p99 {:.1}", rank(50), rank(99));
        let none = || "–".to_owned();
        rows.push([format!("/metrics, {watches} watches, ms"), cell, none(), none(), to_reach.to_owned()]);
        let alone = alone.polls / alone.took.as_secs_f64();
        let cell = format!("{meanwhile:.0} of {alone:.0}");
        rows.push(["polls a second meanwhile, of 1000".to_owned(), cell, none(), none(), "as many".to_owned()]);
    }
    Ok(rows)
}

/// How long each of `count` scrapes took, in milliseconds.
async fn scraped(listen: SocketAddr, count: usize) -> Result<Values, Failure> {
    let mut took = Values::new();
    for _ in 0..count {
        Clock::system().sleep(Duration::from_millis(100)).await;
        let clock = Clock::system();
        tokio::task::spawn_blocking(move || scrape(listen)).await??;
        took.push(clock.now().monotonic.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// Reads a scrape to its end and keeps nothing of it: what a client makes of it is the client's time.
fn scrape(listen: SocketAddr) -> Result<(), std::io::Error> {
    const FOUND: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = TcpStream::connect(listen)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; FOUND.len()];
    stream.read_exact(&mut status)?;
    if status != FOUND {
        return Err(std::io::Error::other(String::from_utf8_lossy(&status)));
    }
    std::io::copy(&mut stream, &mut std::io::sink())?;
    Ok(())
}

pub(super) fn binary() -> Result<Vec<Row>, Failure> {
    let mut size = Cells::default();
    let bytes = std::fs::metadata(env!("CARGO_BIN_EXE_refwatch"))?.len();
    size.add(Contestant::Refwatch, f64::from(u32::try_from(bytes)?) / f64::from(1 << 20));
    Ok(vec![size.row("binary, MiB", 1, "≤ 16")])
}

fn work<'a>(simulated: &'a Simulated, folder: &'a Path, interval: Duration, quota: f64) -> Result<Work<'a>, Failure> {
    Ok(Work { server: simulated.address, jobs: &simulated.jobs, interval, quota, folder, listen: free_address()? })
}

/// What was seen of a process over a time.
struct Seen {
    took: Duration,
    polls: f64,
    cpu: Duration,
    simulator_cpu: Duration,
}

impl Seen {
    async fn over(window: Duration, process: &Process, simulated: &Simulated) -> Result<Self, Failure> {
        let (clock, polls) = (Clock::system(), simulated.polls().await?);
        let (cpu, simulator_cpu) = (process.cpu()?, simulated.process.cpu()?);
        clock.sleep(window).await;
        let cpu = process.cpu()?.saturating_sub(cpu);
        let simulator_cpu = simulated.process.cpu()?.saturating_sub(simulator_cpu);
        let (polls, took) = (simulated.polls().await? - polls, clock.now().monotonic.elapsed());
        Ok(Self { took, polls: u32::try_from(polls)?.into(), cpu, simulator_cpu })
    }
}
