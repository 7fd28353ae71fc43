//! `refwatch simulate`: runs a simulated HealthOmics, and a receiver of notifications if wanted, until a signal stops it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::add::{FILE_MODE, temporary_file};
use super::exit::{Failure, print};
use super::simulate_sink::{self, SinkArgs};
use crate::daemon::signals::Signals;
use crate::simulator::{Fault, FaultRate, Kind, Options, SimulatedJob, Simulator, fault_help};

/// Ten times the longest supported watch list.
const JOBS_MAX: i64 = 100_000;

/// Dummy credentials: the simulator requires a signature but does not verify it.
const CREDENTIALS: &str = "AWS_ACCESS_KEY_ID=simulated AWS_SECRET_ACCESS_KEY=simulated";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10211")]
    listen: SocketAddr,
    /// The number of jobs; eight or more reach every terminal status
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=JOBS_MAX))]
    jobs: u32,
    /// The number of additional jobs that never end
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=JOBS_MAX))]
    stuck: u32,
    /// The number of additional jobs created per minute, up to 10000 in total
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = number(0.0..=6000.0))]
    arrivals_per_minute: f64,
    /// A kind of the jobs; repeatable, the jobs then have the kinds in turn
    #[arg(long, value_name = "KIND", default_value = Kind::ReferenceImport.name())]
    kind: Vec<Kind>,
    /// The same seed gives the same ids, items, timelines and faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The quota of each operation, in requests per second
    #[arg(long, value_name = "RPS", default_value_t = 5.0, value_parser = number(0.01..=1_000_000.0))]
    quota: f64,
    /// All operations share one quota
    #[arg(long)]
    shared_quota: bool,
    /// The mean duration of a job, in seconds; durations are 0.25 to 1.75 times the mean
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = number(0.1..=86_400.0))]
    mean_seconds: f64,
    #[arg(long, value_name = "NAME=RATE", help = fault_help::<Fault>("requests"))]
    fault: Vec<FaultRate>,
    #[command(flatten)]
    sink: SinkArgs,
    /// Write a configuration that watches the jobs or, with --arrivals-per-minute, their stores
    #[arg(long, value_name = "FILE")]
    config_out: Option<PathBuf>,
}

/// # Errors
/// Returns an error if it cannot listen on the address or cannot write the configuration.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut signals = Signals::install_stop_only().map_err(Failure::running)?;
    let options = Options {
        jobs: args.jobs,
        stuck: args.stuck,
        arrivals_per_minute: args.arrivals_per_minute,
        kinds: args.kind,
        seed: args.seed,
        mean: Duration::from_secs_f64(args.mean_seconds),
        requests_per_second: args.quota,
        shared_quota: args.shared_quota,
        faults: args.fault,
        ..Options::default()
    };
    let simulator = Simulator::start(args.listen, &options)
        .await
        .map_err(|error| Failure::running(format_args!("cannot listen on {}: {error}", args.listen)))?;

    let mut text = format!("Simulated AWS HealthOmics at http://{}, seed {}\n", simulator.address(), args.seed);
    text.extend(simulator.jobs().map(|SimulatedJob { name, kind, store_id, id }| match kind {
        Kind::ReferenceImport => format!("  {store_id}/{id}  {name}\n"),
        kind => format!("  {}/{store_id}/{id}  {name}\n", kind.name()),
    }));
    let sink = args.sink.start(args.seed).await?;
    if let Some(sink) = &sink {
        text.extend([format!("Receives notifications at {}\n", sink.url())]);
    }
    if let Some(path) = &args.config_out {
        let sink = sink.as_ref().map(|sink| args.sink.entry(sink)).transpose();
        sink.and_then(|sink| write_configuration(path, &simulator, &options, &sink.unwrap_or_default()))
            .map_err(|error| Failure::running(format_args!("{}: {error}", path.display())))?;
        text.extend(["To watch them: ", CREDENTIALS, " refwatch --config ", &path.to_string_lossy(), " run\n"]);
    }
    print(text)?;

    tokio::select! {
        _ = signals.next() => {}
        ended = simulate_sink::print_received(sink.as_ref()) => ended?,
    }
    if let Some(sink) = sink {
        sink.stop().await;
    }
    simulator.stop().await;
    Ok(())
}

/// Atomically writes a configuration that watches every present and future job of `simulator`, and ends with `more`.
pub(super) fn write_configuration(path: &Path, simulator: &Simulator, options: &Options, more: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    temporary_file(directory, &(configuration(simulator, options) + more), FILE_MODE)?.persist(path)?;
    Ok(())
}

fn configuration(simulator: &Simulator, options: &Options) -> String {
    let requests_per_second = options.requests_per_second;
    let mut toml = format!(
        r#"# Watches the jobs of `refwatch simulate`. Requests are signed, so set dummy credentials:
# export {CREDENTIALS}

[poll]
min_interval = "1s"

[quota]
requests_per_second = {requests_per_second:?}

[database]
path = "refwatch.db"

[http]
listen = "127.0.0.1:10210"

[target.default]
region = "us-west-2"
endpoint_url = "http://{}"
"#,
        simulator.address()
    );
    if options.arrivals_per_minute > 0.0 {
        let stores: BTreeSet<_> = simulator.jobs().map(|job| (job.kind.store_key(), &*job.store_id)).collect();
        toml.extend(stores.iter().map(|(key, id)| format!("\n[[store]]\n{key} = \"{id}\"\n")));
        return toml;
    }
    toml.extend(simulator.jobs().map(|job| {
        let SimulatedJob { name, kind, store_id, id } = job;
        let kind_line = match kind {
            Kind::ReferenceImport => String::new(),
            kind => format!("kind = \"{}\"\n", kind.name()),
        };
        let key = kind.store_key();
        format!("\n[[job]]\nname = \"{name}\"\n{kind_line}{key} = \"{store_id}\"\nid = \"{id}\"\n")
    }));
    toml
}

fn number(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn the_written_configuration_watches_every_job() {
        let options = Options { jobs: 30, ..Options::default() };
        let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), &options).await.expect("a free port");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("refwatch.toml");
        fs::write(&path, "old text").expect("a file");
        write_configuration(&path, &simulator, &options, "").expect("a configuration");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1, "no temporary file is left");

        let toml: toml::Table = fs::read_to_string(&path).expect("text").parse().expect("TOML");
        let endpoint = format!("http://{}", simulator.address());
        assert_eq!(toml["target"]["default"]["endpoint_url"].as_str(), Some(&*endpoint));
        let entry = |job: &toml::Value, key: &str| job[key].as_str().expect(key).to_owned();
        let watched = toml["job"].as_array().expect("jobs").iter();
        let watched = watched.map(|job| ["name", "reference_store_id", "id"].map(|key| entry(job, key)));
        let simulated = simulator.jobs().cloned().map(|job| [job.name, job.store_id, job.id]);
        assert_eq!(watched.collect::<Vec<_>>(), simulated.collect::<Vec<_>>());
    }
}
