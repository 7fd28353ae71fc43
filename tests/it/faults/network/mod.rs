//! Faults 1 to 30: the network and HTTP.
//!
//! `responses` runs a daemon with one target per fault of the simulator. The other files test single connections, DNS, proxies and
//! TLS.

mod connections;
mod dns;
mod proxy;
mod responses;
mod tls;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use refwatch::core::failure::FailureReason;
use refwatch::simulator::{Fault, FaultRate, NamedFault as _, Options, Simulator};

use crate::process::{Process, Workspace, eventually, get, metric};
use crate::transition_rows::{TransitionRow, assert_matches_simulator, transitions};

/// Fraction of requests with the fault. A high rate makes it certain that jobs are followed despite the fault.
const FAULT_RATE: f64 = 0.6;

/// With this seed the first request and two of the next four have the fault.
const SEED: u64 = 4;

/// Requests per second of each target.
const LIMIT: f64 = 50.0;

/// A timeout that only stalled requests reach.
const LONG: &str = "30s";

/// A timeout that other requests may exceed as well on a busy machine.
const SHORT: &str = "1s";

/// The configuration without targets and jobs.
const SETTINGS: &str = r#"
[poll]
min_interval = "100ms"
timeout = "TIMEOUT"
backoff_initial = "100ms"
backoff_max = "1s"
use_list = false

[quota]
requests_per_second = 50.0
share = 1.0

[database]
path = "refwatch.db"

[http]
listen = "127.0.0.1:0"

"#;

/// Per simulator.
const JOBS: u32 = 2;

/// One daemon with one target per fault.
struct FaultRun {
    timeout: &'static str,
    targets: Vec<(&'static str, Simulator)>,
    rows: Vec<TransitionRow>,
    address: SocketAddr,
    daemon: Process,
    _scene: Workspace,
}

impl FaultRun {
    /// Runs until every job has ended. A target without a fault, `none`, is always present.
    async fn run(timeout: &'static str, faults: &[Fault]) -> Self {
        let mut targets = vec![("none", simulator(Vec::new()).await)];
        for &fault in faults {
            targets.push((fault.name(), simulator(vec![FaultRate { fault, rate: FAULT_RATE }]).await));
        }
        let workspace = Workspace::new();
        let config = workspace.write("refwatch.toml", &configuration(timeout, &targets));
        let (daemon, address) = workspace.daemon(&config);
        let jobs = f64::from(JOBS * u32::try_from(targets.len()).expect("few"));
        eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(jobs)).then_some(()));
        let rows = transitions(&workspace.path("refwatch.db"));
        Self { timeout, targets, rows, address, daemon, _scene: workspace }
    }

    /// Checks the rows against the simulators, and that polls of each target failed for the expected reason only.
    fn assert_all_jobs_seen(&self, reasons: &[(Fault, &str)]) {
        let mut errors = Vec::new();
        for (name, simulator) in &self.targets {
            let rows = self.rows.iter().filter(|row| row.target == *name);
            assert_matches_simulator(rows.cloned().collect(), simulator.address());
            let expected = reasons.iter().find(|(fault, _)| fault.name() == *name).map_or("", |(_, reason)| reason);
            for reason in FailureReason::ALL.map(FailureReason::label) {
                let failures = self.value(name, "refwatch_api_request_failures_total", &format!("reason=\"{reason}\""));
                let slow_here = self.timeout == SHORT && reason == FailureReason::Timeout.label();
                let as_expected = (failures > 0.0) == (expected == reason) || (expected != reason && slow_here);
                if !as_expected {
                    errors.push(format!("{name}, {reason}: {failures}"));
                }
            }
        }
        assert!(errors.is_empty(), "{errors:?}\n{}", self.daemon.stderr());
    }

    /// A metric of a target's polls.
    fn value(&self, target: &str, name: &str, label: &str) -> f64 {
        let target = format!("target=\"{target}\"");
        let labels = [&*target, "operation=\"GetReferenceImportJob\"", label];
        metric(self.address, name, &labels).unwrap_or_default()
    }

    /// Checks that the failed polls of the jobs have messages with these phrases. The log has only failures in a row.
    fn assert_reported(&self, words: &[&str]) {
        let jobs = get(self.address, "/api/v1/jobs").1;
        assert!(words.iter().all(|word| jobs.contains(word)), "{words:?} in {jobs}");
        assert_eq!(get(self.address, "/-/healthy").0, 200);
    }
}

async fn simulator(faults: Vec<FaultRate>) -> Simulator {
    let mean = Duration::from_secs(1);
    let options = Options { jobs: JOBS, mean, requests_per_second: 1e6, seed: SEED, faults, ..Options::default() };
    Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &options).await.expect("a free port")
}

fn configuration(timeout: &str, targets: &[(&str, Simulator)]) -> String {
    let mut toml = SETTINGS.replace("TIMEOUT", timeout);
    for (name, simulator) in targets {
        let target = target(name, &format!("http://{}", simulator.address()));
        toml.push_str(&target);
        for job in simulator.jobs() {
            toml.push_str(&watch(&format!("{name}/{}", job.id), name, &job.store_id, &job.id));
        }
    }
    toml
}

/// A configuration with one job per target.
fn config_with_one_job_each<'a>(timeout: &str, targets: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let entries = targets
        .into_iter()
        .map(|(name, endpoint_url)| target(name, &endpoint_url) + &watch(name, name, "1234567890", "9876543210"));
    SETTINGS.replace("TIMEOUT", timeout) + &entries.collect::<String>()
}

fn target(name: &str, endpoint_url: &str) -> String {
    format!("[target.{name}]\nregion = \"us-west-2\"\nendpoint_url = \"{endpoint_url}\"\n")
}

fn watch(name: &str, target: &str, store: &str, id: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\ntarget = \"{target}\"\nreference_store_id = \"{store}\"\nid = \"{id}\"\n")
}

/// The number of failed polls of a target for a reason.
fn failures(address: SocketAddr, target: &str, reason: &str) -> f64 {
    let labels = [&*format!("target=\"{target}\""), &*format!("reason=\"{reason}\"")];
    metric(address, "refwatch_api_request_failures_total", &labels).unwrap_or_default()
}

/// The `poll_failed` lines of a watch, once there are any.
fn poll_failures_in_log(daemon: &Process, watch: &str) -> String {
    let about = format!("watch=\"{watch}\" ");
    // The third failure in a row is logged.
    eventually("a logged failure", || {
        let log = daemon.stderr();
        let lines: String = log.lines().filter(|line| line.contains(&about) && line.contains("poll_failed")).collect();
        Some(lines).filter(|lines| !lines.is_empty())
    })
}

/// Reads the head of a request; empty if the connection ends first.
fn head(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}
