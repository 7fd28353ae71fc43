//! The network and HTTP: services that misbehave at the byte, whole daemons that come through, connections that lead nowhere.

mod answers;
mod connections;
mod names;
mod proxy;
mod tls;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use refwatch::core::failure::FailureReason;
use refwatch::simulator::{Fault, FaultRate, Options, Simulator};

use crate::process::{Process, Scene, eventually, get, metric};
use crate::truth::{TransitionRow, assert_true, transitions};

/// The part of requests that a fault strikes: most, so that whoever comes through did not do so by luck.
const STRUCK: f64 = 0.6;

/// The first request is struck, and so are two of the next four.
const SEED: u64 = 4;

/// Requests a second that each target is allowed.
const LIMIT: f64 = 50.0;

/// A deadline that polls come near only where somebody stalls.
const LONG: &str = "30s";

/// A deadline that a machine which is busy may make miss others than those that are to.
const SHORT: &str = "1s";

/// What a daemon is told but for its targets and jobs.
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

/// Jobs of each simulator.
const JOBS: u32 = 2;

/// One daemon, and a target for each of many faults.
struct Trial {
    timeout: &'static str,
    targets: Vec<(&'static str, Simulator)>,
    rows: Vec<TransitionRow>,
    address: SocketAddr,
    daemon: Process,
    _scene: Scene,
}

impl Trial {
    /// Runs until every job of every simulator has been seen to end. A target without a fault, `none`, is always there.
    async fn run(timeout: &'static str, faults: &[Fault]) -> Self {
        let mut targets = vec![("none", simulator(Vec::new()).await)];
        for &fault in faults {
            targets.push((fault.name(), simulator(vec![FaultRate { fault, rate: STRUCK }]).await));
        }
        let scene = Scene::new();
        let config = scene.write("refwatch.toml", &configuration(timeout, &targets));
        let (daemon, address) = scene.daemon(&config);
        let jobs = f64::from(JOBS * u32::try_from(targets.len()).expect("few"));
        eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(jobs)).then_some(()));
        let rows = transitions(&scene.path("refwatch.db"));
        Self { timeout, targets, rows, address, daemon, _scene: scene }
    }

    /// Nothing was recorded that was not true, requests to `none` never failed, and those to the others only with the reasons
    /// told, if any.
    fn assert_came_through(&self, reasons: &[(Fault, &str)]) {
        let mut complaints = Vec::new();
        for (name, simulator) in &self.targets {
            let rows = self.rows.iter().filter(|row| row.target == *name);
            assert_true(rows.cloned().collect(), simulator.address());
            let told = reasons.iter().find(|(fault, _)| fault.name() == *name).map_or("", |(_, reason)| reason);
            for reason in FailureReason::ALL.map(FailureReason::label) {
                let failures = self.of(name, "refwatch_api_request_failures_total", &format!("reason=\"{reason}\""));
                let slow_here = self.timeout == SHORT && reason == FailureReason::Timeout.label();
                let as_told = (failures > 0.0) == (told == reason) || (told != reason && slow_here);
                if !as_told {
                    complaints.push(format!("{name}, {reason}: {failures}"));
                }
            }
        }
        assert!(complaints.is_empty(), "{complaints:?}\n{}", self.daemon.stderr());
    }

    /// The value of a metric of a target's polls.
    fn of(&self, target: &str, name: &str, label: &str) -> f64 {
        let target = format!("target=\"{target}\"");
        let labels = [&*target, "operation=\"GetReferenceImportJob\"", label];
        metric(self.address, name, &labels).unwrap_or_default()
    }

    /// What the log says of failures in these words.
    fn assert_logged(&self, words: &[&str]) {
        let log = self.daemon.stderr();
        assert!(words.iter().all(|word| log.contains(word)), "{words:?} in {log}");
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
            toml.push_str(&watch(&format!("{name}/{}", job.id), name, &job.reference_store_id, &job.id));
        }
    }
    toml
}

/// A configuration with a target for each of these names and endpoints, and one job in each, which has the target's name.
fn one_job_each<'a>(timeout: &str, targets: impl IntoIterator<Item = (&'a str, String)>) -> String {
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

/// The failed polls of a target that has one job, for a reason.
fn failures(address: SocketAddr, target: &str, reason: &str) -> f64 {
    let labels = [&*format!("target=\"{target}\""), &*format!("reason=\"{reason}\"")];
    metric(address, "refwatch_api_request_failures_total", &labels).unwrap_or_default()
}

/// What the log says of the failures of a watch: one line for each kind in a row.
fn told_of_failure(daemon: &Process, watch: &str) -> String {
    let (log, about) = (daemon.stderr(), format!("watch=\"{watch}\" "));
    log.lines().filter(|line| line.contains(&about) && line.contains("poll_failed")).collect()
}

/// Reads a request's head: empty where the connection ends before there is one.
fn head(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}
