//! `refwatch simulate`: a simulated HealthOmics of its own, until a signal ends it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::add::temporary_file;
use super::exit::{Failure, print};
use crate::daemon::signals::{SignalAction, Signals};
use crate::simulator::{Fault, FaultRate, Options, Simulator};

/// Ten times the longest watch list that refwatch is made for.
const JOBS_MAX: i64 = 100_000;

/// Dummy credentials: the simulator wants a signature but does not verify it.
const CREDENTIALS: &str = "AWS_ACCESS_KEY_ID=simulated AWS_SECRET_ACCESS_KEY=simulated";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10211")]
    listen: SocketAddr,
    /// How many import jobs there are; from eight on, every terminal status comes up
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=JOBS_MAX))]
    jobs: u32,
    /// How many more jobs there are that never end
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=JOBS_MAX))]
    stuck: u32,
    /// How many more jobs are created each minute from now on, up to 10000 in all
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = number(0.0..=6000.0))]
    arrivals_per_minute: f64,
    /// The same seed gives the same ids, sources, lives and faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Requests per second that each operation allows
    #[arg(long, value_name = "RPS", default_value_t = 5.0, value_parser = number(0.01..=1_000_000.0))]
    quota: f64,
    /// Get and List share one quota instead of having one each
    #[arg(long)]
    shared_quota: bool,
    /// How long a job takes on average, in seconds; none takes less than a quarter of it or more than one and three quarters
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = number(0.1..=86_400.0))]
    mean_seconds: f64,
    #[arg(long, value_name = "NAME=RATE", help = fault_help())]
    fault: Vec<FaultRate>,
    /// Write a configuration that watches the jobs; where more are to come, their stores
    #[arg(long, value_name = "FILE")]
    config_out: Option<PathBuf>,
}

fn fault_help() -> String {
    let names = Fault::ALL.map(Fault::name).join(", ");
    format!(
        "A fault and the part of all requests, 0 to 1, that it hits; may be given more than once. There are: {names}"
    )
}

/// # Errors
/// The address cannot be listened on, or the configuration cannot be written.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(Failure::running)?;
    let options = Options {
        jobs: args.jobs,
        stuck: args.stuck,
        arrivals_per_minute: args.arrivals_per_minute,
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
    text.extend(simulator.jobs().map(|job| format!("  {}/{}  {}\n", job.reference_store_id, job.id, job.name)));
    if let Some(path) = &args.config_out {
        write_configuration(path, &simulator, &options)
            .map_err(|error| Failure::running(format_args!("{}: {error}", path.display())))?;
        text.extend(["To watch them: ", CREDENTIALS, " refwatch --config ", &path.to_string_lossy(), " run\n"]);
    }
    print(text)?;

    while signals.next().await == SignalAction::Reload {}
    simulator.stop().await;
    Ok(())
}

/// Writes a configuration that watches every job of `simulator`, those to come included. A reader finds the whole file or none.
pub(super) fn write_configuration(path: &Path, simulator: &Simulator, options: &Options) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    temporary_file(directory, &configuration(simulator, options))?.persist(path)?;
    Ok(())
}

fn configuration(simulator: &Simulator, options: &Options) -> String {
    let requests_per_second = options.requests_per_second;
    let mut toml = format!(
        r#"# Watches the jobs of `refwatch simulate`. It signs its requests, so set dummy credentials:
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
        let stores: BTreeSet<&str> = simulator.jobs().map(|job| &*job.reference_store_id).collect();
        toml.extend(stores.iter().map(|store| format!("\n[[store]]\nreference_store_id = \"{store}\"\n")));
        return toml;
    }
    toml.extend(simulator.jobs().map(|job| {
        let (name, store, id) = (&job.name, &job.reference_store_id, &job.id);
        format!("\n[[job]]\nname = \"{name}\"\nreference_store_id = \"{store}\"\nid = \"{id}\"\n")
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
    async fn the_configuration_written_watches_every_job() {
        let options = Options { jobs: 30, ..Options::default() };
        let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), &options).await.expect("a free port");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("refwatch.toml");
        fs::write(&path, "of before").expect("written");
        write_configuration(&path, &simulator, &options).expect("written");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);

        let toml: toml::Table = fs::read_to_string(&path).expect("text").parse().expect("TOML");
        let endpoint = format!("http://{}", simulator.address());
        assert_eq!(toml["target"]["default"]["endpoint_url"].as_str(), Some(&*endpoint));
        let entry = |job: &toml::Value, key: &str| job[key].as_str().expect(key).to_owned();
        let watched = toml["job"].as_array().expect("jobs").iter();
        let watched = watched.map(|job| ["name", "reference_store_id", "id"].map(|key| entry(job, key)));
        let simulated = simulator.jobs().cloned().map(|job| [job.name, job.reference_store_id, job.id]);
        assert_eq!(watched.collect::<Vec<_>>(), simulated.collect::<Vec<_>>());
    }
}
