//! How soon the end of a job is known, and what becomes of the quota: from the simulation, which is exact and comes out the same on
//! every machine, and for some rows over real sockets against `refwatch simulate`, to see that the simulation is no dream.
//!
//! `docs/benchmarks.md` has a result and says how to get one.

#![expect(clippy::print_stdout, reason = "the result")]
#![allow(dead_code, reason = "tests use more of the simulation")]

#[path = "../tests/simulation/bucket.rs"]
mod bucket;
#[path = "../tests/simulation/draw.rs"]
mod draw;
#[path = "../tests/simulation/fate.rs"]
mod fate;
#[path = "../tests/simulation/figures.rs"]
mod figures;
#[path = "../tests/simulation/met.rs"]
mod met;
#[path = "../tests/simulation/run.rs"]
mod run;
#[path = "../tests/simulation/scenario.rs"]
mod scenario;
#[path = "../tests/simulation/service.rs"]
mod service;
#[path = "../tests/simulation/told.rs"]
mod told;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use figures::{AfterOutage, ChangedQuota, Delays, bound, changed_quota, delays, of, outage, two_daemons};
use refwatch::clock::Clock;
use refwatch::config::watch_list::WatchList;
use refwatch::config::{Config, PollConfig, Quota, TargetConfig};
use refwatch::core::time::Timestamp;
use refwatch::database::Record;
use refwatch::healthomics::Aws;
use refwatch::http::client;
use refwatch::instruments::Instruments;
use refwatch::simulator::{Options, Simulator};
use refwatch::state::StatusBoard;
use refwatch::tasks::job_watcher::Workplace;
use refwatch::tasks::supervisor::Supervisor;
use run::End;
use serde_json::Value;
use tokio::task::JoinSet;

/// How soon the end of a job is known, and what becomes of the quota
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench detection --")]
struct Args {
    /// Without the rows over real sockets, which take minutes
    #[arg(long)]
    simulation_only: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let mut table = table();
    for (jobs, stores) in [(10, 1), (100, 1), (1_000, 1), (10_000, 10)] {
        for sweep in [false, true] {
            table.add_row(row(jobs, stores, sweep, delays(jobs, stores, sweep)));
        }
    }
    println!("Simulated, quota 5 a second, share 1.0:\n\n{table}\n");
    quota_and_outage();
    if !args.simulation_only {
        let rows = tokio::runtime::Runtime::new()?.block_on(over_sockets())?;
        let mut table = self::table();
        table.add_rows(rows);
        println!("Over real sockets, a fifth of the jobs ending within four minutes:\n\n{table}");
    }
    Ok(())
}

fn table() -> Table {
    let mut table = Table::new();
    let header = ["live jobs", "stores", "polls", "mean", "99 %", "worst", "mean if all stayed live", "throttled"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(jobs: usize, stores: usize, sweep: bool, seen: Delays) -> [String; 8] {
    let seconds = |delay: Duration| format!("{:.2} s", delay.as_secs_f64());
    let polls = if sweep { "and sweeps" } else { "alone" };
    [
        jobs.to_string(),
        stores.to_string(),
        polls.to_owned(),
        seconds(seen.mean),
        seconds(seen.p99),
        seconds(seen.worst),
        if sweep { String::new() } else { seconds(bound(jobs)) },
        percent(seen.throttled),
    ]
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

fn quota_and_outage() {
    let ChangedQuota { throttled, used } = changed_quota();
    println!("Quota lowered from 5 to 2 a second: from a minute later on {} of polls throttled.", percent(throttled));
    println!("Raised again: five minutes later {} of it used.", percent(used));
    let [one, other] = two_daemons(1);
    println!("Two daemons on one quota: {} and {} of it.", percent(one), percent(other));
    for (refused, how) in [(true, "refused"), (false, "hanging")] {
        let AfterOutage { calls, fresh } = outage(1_000, refused, false);
        let round = fresh.as_secs_f64() / (2 * bound(1_000)).as_secs_f64();
        println!(
            "Ten minutes of outage, connections {how}, 1,000 jobs: {} of the calls of ten healthy minutes; \
             after it every job fresh within {round:.2} of a round of polls.",
            percent(calls)
        );
    }
    println!();
}

/// The rows over real sockets, all at once: they share the machine, not the quota.
async fn over_sockets() -> Result<Vec<[String; 8]>, Failure> {
    let mut measurements = JoinSet::new();
    for (nth, (jobs, sweep)) in [(10, false), (10, true), (100, false), (100, true)].into_iter().enumerate() {
        measurements.spawn(async move { Ok::<_, Failure>((nth, row(jobs, 1, sweep, measure(jobs, sweep).await?))) });
    }
    let mut rows = measurements.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    rows.sort_by_key(|(nth, _)| *nth);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The supervisor and what belongs to it on a simulated HealthOmics over HTTP, until a fifth of the jobs have ended.
async fn measure(jobs: usize, sweep: bool) -> Result<Delays, Failure> {
    let ending = u32::try_from(jobs / 5)?;
    let stuck = u32::try_from(jobs)? - ending;
    let options = Options { jobs: ending, stuck, mean: Duration::from_secs(135), ..Options::default() };
    let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), &options).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("refwatch.db");
    let (clock, instruments) = (Clock::system(), Instruments::new()?);
    let record = Record::open(&path, &instruments)?;
    let workplace = Workplace { clock, record, board: StatusBoard::default(), instruments };
    let mut announced = workplace.board.follow();
    let mut supervisor = Supervisor::new(workplace, Arc::new(Aws::new(clock)), 1);
    supervisor.apply(&config(&simulator, sweep, Config::new(path))?).await?;

    let began = clock.now().wall;
    let since_began = |time: Timestamp| Duration::try_from(time.duration_since(began));
    let mut ends = Vec::new();
    while ends.len() < jobs / 5 {
        let transition = announced.recv().await?.transition.clone();
        if let Some(ended) = transition.completed_at {
            ends.push(End { ended: since_began(ended)?, known: since_began(clock.now().wall)? });
        }
    }
    supervisor.stop().await;
    let calls: Value = serde_json::from_slice(
        &client::get(&client::Endpoint::Listener(simulator.address().to_string()), "/-/calls").await?,
    )?;
    simulator.stop().await;
    let count =
        |fate: &str| ["GetReferenceImportJob", "ListReferenceImportJobs"].map(|name| calls[name][fate].as_f64());
    let total = |fate: &str| count(fate).into_iter().flatten().sum::<f64>();
    Ok(of(ends, total("throttled") / (total("answered") + total("throttled"))))
}

fn config(simulator: &Simulator, sweep: bool, config: Config) -> Result<Config, Failure> {
    let target = TargetConfig {
        region: Some("us-west-2".to_owned()),
        endpoint_url: Some(format!("http://{}", simulator.address())),
        quota: Quota { share: 1.0, ..Quota::default() },
        simulated: true,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let poll = PollConfig { sweep, ..PollConfig::default() };
    let jobs: Result<Vec<_>, _> =
        simulator.jobs().map(|job| format!("{}/{}", job.reference_store_id, job.id).parse()).collect();
    let watch_list = WatchList::of_jobs(jobs?, poll.policy());
    Ok(Config { targets: [(Arc::clone(&target.name), target)].into(), watch_list, poll, ..config })
}
