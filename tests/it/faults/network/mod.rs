//! The network and HTTP: services that misbehave at the byte, whole daemons that come through, connections that lead nowhere.

mod answers;
mod connections;
mod names;
mod proxy;
mod tls;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use refwatch::record::TransitionRow;
use refwatch::simulator::{Fault, FaultRate, Options, Simulator};

use crate::process::{Process, Scene, eventually, get, metric};
use crate::truth::{assert_true, transitions};

/// The part of requests that a fault strikes: most, so that whoever comes through did not do so by luck.
const STRUCK: f64 = 0.6;

/// The first request is struck, and so are two of the next four.
const SEED: u64 = 4;

/// Requests a second that each target is allowed.
const LIMIT: f64 = 50.0;

/// Jobs of each simulator.
const JOBS: u32 = 2;

/// One daemon, and a target for each of many faults.
struct Trial {
    targets: Vec<(&'static str, Simulator)>,
    rows: Vec<TransitionRow>,
    address: SocketAddr,
    daemon: Process,
    _scene: Scene,
}

impl Trial {
    /// Runs until every job of every simulator has been seen to end. A target without a fault, `none`, is always there.
    async fn run(faults: &[Fault]) -> Self {
        let mut targets = vec![("none", simulator(Vec::new()).await)];
        for &fault in faults {
            targets.push((fault.name(), simulator(vec![FaultRate { fault, rate: STRUCK }]).await));
        }
        let scene = Scene::new();
        let config = scene.write("refwatch.toml", &configuration(&targets));
        let (daemon, address) = scene.daemon(&config);
        let jobs = f64::from(JOBS * u32::try_from(targets.len()).expect("few"));
        eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(jobs)).then_some(()));
        let rows = transitions(&scene.path("refwatch.db"));
        Self { targets, rows, address, daemon, _scene: scene }
    }

    /// Nothing was recorded that was not true, requests to `none` never failed, and those to the others only with the reasons
    /// told, if any.
    fn assert_came_through(&self, reasons: &[(Fault, &str)]) {
        for (name, simulator) in &self.targets {
            let rows = self.rows.iter().filter(|row| row.target == *name);
            assert_true(rows.cloned().collect(), simulator.address());
            let told = reasons.iter().find(|(fault, _)| fault.name() == *name).map_or("", |(_, reason)| reason);
            for reason in refwatch::core::outcome::FailureReason::ALL.map(|reason| reason.label()) {
                let failures = self.of(name, "refwatch_api_request_failures_total", &format!("reason=\"{reason}\""));
                assert_eq!(failures > 0.0, told == reason, "{name}, {reason}: {failures}\n{}", self.daemon.stderr());
            }
        }
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

fn configuration(targets: &[(&str, Simulator)]) -> String {
    let mut toml = format!(
        "[poll]\nmin_interval = \"100ms\"\ntimeout = \"1s\"\nbackoff_initial = \"100ms\"\nbackoff_max = \"1s\"\nsweep = false\n\
        [quota]\nrequests_per_second = {LIMIT:?}\nshare = 1.0\n[record]\npath = \"refwatch.db\"\n\
        [http]\nlisten = \"127.0.0.1:0\"\n"
    );
    for (name, simulator) in targets {
        let address = simulator.address();
        write!(toml, "[target.{name}]\nregion = \"us-west-2\"\nendpoint_url = \"http://{address}\"\n").expect("text");
        for job in simulator.jobs() {
            let (store, id) = (&job.reference_store_id, &job.id);
            write!(toml, "[[job]]\nname = \"{name}/{id}\"\ntarget = \"{name}\"\n").expect("text");
            write!(toml, "reference_store_id = \"{store}\"\nid = \"{id}\"\n").expect("text");
        }
    }
    toml
}
