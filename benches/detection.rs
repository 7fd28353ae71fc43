//! The delay from the end of a job to its detection, and the use of the quota.
//!
//! The simulation on paused time gives the same results on every machine. A few rows over real sockets confirm them.
//! `docs/benchmarks.md` has the results.

#![expect(clippy::print_stdout, reason = "the result")]
#![allow(dead_code, reason = "tests use more of the simulation")]

#[path = "../tests/simulation/bucket.rs"]
mod bucket;
#[path = "../tests/simulation/counters.rs"]
mod counters;
#[path = "../tests/simulation/draw.rs"]
mod draw;
#[path = "../tests/simulation/expectations.rs"]
mod expectations;
#[path = "../tests/simulation/instance.rs"]
mod instance;
#[path = "../tests/simulation/kinds.rs"]
mod kinds;
#[path = "../tests/simulation/measurements.rs"]
mod measurements;
#[path = "../tests/simulation/response.rs"]
mod response;
#[path = "../tests/simulation/run.rs"]
mod run;
#[path = "../tests/simulation/scenario.rs"]
mod scenario;
#[path = "../tests/simulation/service.rs"]
mod service;
#[path = "../tests/simulation/sinks.rs"]
mod sinks;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use kinds::delays_of_two_kinds;
use measurements::{AfterOutage, ChangedQuota, Delays, bound, changed_quota, delays, of, outage, two_daemons};
use refwatch::clock::Clock;
use refwatch::config::watch_list::WatchList;
use refwatch::config::{Config, PollConfig, Quota, TargetConfig};
use refwatch::core::kind::JobKind;
use refwatch::core::time::Timestamp;
use refwatch::database::Database;
use refwatch::healthomics::AwsFactory;
use refwatch::http::client;
use refwatch::instruments::Instruments;
use refwatch::simulator::{Options, Simulator};
use refwatch::state::SharedState;
use refwatch::tasks::context::TaskContext;
use refwatch::tasks::supervisor::Supervisor;
use run::End;
use serde_json::Value;
use support::{Failure, table};
use tokio::task::JoinSet;

/// How soon the end of a job is detected, and how the quota is used
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench detection --")]
struct Args {
    /// Without the rows over real sockets, which take minutes
    #[arg(long)]
    simulation_only: bool,
    /// Only the rows with two kinds of jobs
    #[arg(long)]
    kinds_only: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    println!(
        "Simulated, 1,000 read set imports in one store and 10 reference imports, polls and listings:\n\n{}\n",
        two_kinds()
    );
    if args.kinds_only {
        return Ok(());
    }
    let mut table = rows_table();
    for (jobs, stores) in [(10, 1), (100, 1), (1_000, 1), (10_000, 10)] {
        for use_list in [false, true] {
            table.add_row(row(jobs, stores, use_list, delays(jobs, stores, use_list)));
        }
    }
    println!("Simulated, quota 5 requests/s, share 1.0:\n\n{table}\n");
    quota_and_outage();
    if !args.simulation_only {
        let rows = tokio::runtime::Runtime::new()?.block_on(over_sockets())?;
        let mut table = rows_table();
        table.add_rows(rows);
        println!("Over real sockets, a fifth of the jobs ending within four minutes:\n\n{table}");
    }
    Ok(())
}

fn two_kinds() -> comfy_table::Table {
    let mut table = table(&["kind", "mean", "p99", "worst", "throttled"]);
    // A fifth of the jobs end in each run, so these have 20 ends of reference imports.
    for (kind, Delays { mean, p99, worst, throttled }) in delays_of_two_kinds(10) {
        table.add_row([kind.to_string(), seconds(mean), seconds(p99), seconds(worst), percent(throttled)]);
    }
    table
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn rows_table() -> comfy_table::Table {
    table(&["live jobs", "stores", "polls", "mean", "p99", "worst", "mean if all stayed live", "throttled"])
}

fn row(jobs: usize, stores: usize, use_list: bool, delays_of_run: Delays) -> [String; 8] {
    let polls = if use_list { "Get and List" } else { "Get" };
    [
        jobs.to_string(),
        stores.to_string(),
        polls.to_owned(),
        seconds(delays_of_run.mean),
        seconds(delays_of_run.p99),
        seconds(delays_of_run.worst),
        if use_list { String::new() } else { seconds(bound(jobs)) },
        percent(delays_of_run.throttled),
    ]
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

fn quota_and_outage() {
    let ChangedQuota { throttled, used } = changed_quota();
    println!("Quota lowered from 5 to 2 requests/s: {} throttled after the first minute.", percent(throttled));
    println!("Quota raised again: {} of it used five minutes later.", percent(used));
    let [first, second] = two_daemons(1);
    println!("Two daemons on one quota: they get {} and {} of it.", percent(first), percent(second));
    for (refused, how) in [(true, "refused"), (false, "hanging")] {
        let AfterOutage { calls, fresh } = outage(1_000, refused, false);
        let round = fresh.as_secs_f64() / (2 * bound(1_000)).as_secs_f64();
        println!(
            "Ten minutes of outage, connections {how}, 1,000 jobs: {} of the requests of ten healthy minutes; \
             afterwards every job was polled within {round:.2} rounds.",
            percent(calls)
        );
    }
    println!();
}

/// The number of jobs in each row over real sockets, summed over its runs. One run of 10 jobs has only two ends.
const JOBS_OVER_SOCKETS: usize = 400;

/// Measures all rows over real sockets at once. Each run has its own simulator and quota.
async fn over_sockets() -> Result<Vec<[String; 8]>, Failure> {
    let settings = [(10, false), (10, true), (100, false), (100, true)];
    let measurements = settings.map(|(jobs, use_list)| {
        let runs: JoinSet<_> = (1..).take(JOBS_OVER_SOCKETS / jobs).map(|seed| measure(seed, jobs, use_list)).collect();
        async move {
            let runs = runs.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
            let throttled =
                runs.iter().map(|run| run.throttled).sum::<f64>() / runs.iter().map(|run| run.requests).sum::<f64>();
            let delays_of_runs = of(runs.into_iter().flat_map(|run| run.ends).collect(), throttled);
            Ok::<_, Failure>(row(jobs, 1, use_list, delays_of_runs))
        }
    });
    futures_util::future::try_join_all(measurements).await
}

struct SocketRun {
    ends: Vec<End>,
    requests: f64,
    throttled: f64,
}

/// Runs the supervisor against a simulated HealthOmics over HTTP until a fifth of the jobs have ended.
async fn measure(seed: u64, jobs: usize, use_list: bool) -> Result<SocketRun, Failure> {
    let ending = u32::try_from(jobs / 5)?;
    let stuck = u32::try_from(jobs)? - ending;
    let options = Options { seed, jobs: ending, stuck, mean: Duration::from_secs(135), ..Options::default() };
    let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), &options).await?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("refwatch.db");
    let (clock, instruments) = (Clock::system(), Instruments::new()?);
    let database = Database::open(&path, &instruments)?;
    let context = TaskContext { clock, database, shared: SharedState::default(), instruments };
    let mut announced = context.shared.subscribe();
    let mut supervisor = Supervisor::new(context, Arc::new(AwsFactory::new(clock)), 1);
    supervisor.apply(&config(&simulator, use_list, Config::new(path))?).await?;

    let began = clock.now().wall;
    let since_began = |time: Timestamp| Duration::try_from(time.duration_since(began));
    let mut ends = Vec::new();
    while ends.len() < jobs / 5 {
        let transition = announced.recv().await?.transition.clone();
        if let Some(ended) = transition.completed_at {
            ends.push(End {
                kind: JobKind::ReferenceImport,
                ended: since_began(ended)?,
                detected: since_began(clock.now().wall)?,
            });
        }
    }
    supervisor.stop().await;
    let calls: Value = serde_json::from_slice(
        &client::get(&client::DaemonAddress::Listener(simulator.address().to_string()), "/-/calls").await?,
    )?;
    simulator.stop().await;
    let count = |response: &str| {
        ["GetReferenceImportJob", "ListReferenceImportJobs"].map(|name| calls[name][response].as_f64())
    };
    let total = |response: &str| count(response).into_iter().flatten().sum::<f64>();
    let throttled = total("throttled");
    Ok(SocketRun { ends, requests: total("answered") + throttled, throttled })
}

fn config(simulator: &Simulator, use_list: bool, config: Config) -> Result<Config, Failure> {
    let target = TargetConfig {
        region: Some("us-west-2".to_owned()),
        endpoint_url: Some(format!("http://{}", simulator.address())),
        quota: Quota { share: 1.0, ..Quota::default() },
        simulated: true,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let poll = PollConfig { use_list, ..PollConfig::default() };
    let jobs: Result<Vec<_>, _> = simulator.jobs().map(|job| format!("{}/{}", job.store_id, job.id).parse()).collect();
    let watch_list = WatchList::of_jobs(jobs?, poll.policy());
    Ok(Config { targets: [(Arc::clone(&target.name), target)].into(), watch_list, poll, ..config })
}
