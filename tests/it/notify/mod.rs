//! Notifications of the daemon as a process: a scripted HealthOmics, whose jobs end when a test says so, and receivers with real sockets.

mod commands;
mod delivery;
mod faults;
mod schema;
mod secrets;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use refwatch::clock::Clock;
use refwatch::notify::signature::SigningSecret;
use refwatch::simulator::{FaultRate, Received, SinkFault, SinkOptions, SinkReceiver};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::faults::service::{self, STORE, Service};
use crate::process::{Process, Workspace, eventually, json as json_of};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==";

/// The file of the daemon's signing secret.
const SECRET_FILE: &str = "signing";

/// The response to polls of a job, from the daemon's start on.
type Jobs = Arc<Mutex<BTreeMap<String, Value>>>;

/// Everything but the daemon. All jobs are `IN_PROGRESS` at first.
struct Host {
    workspace: Workspace,
    runtime: Runtime,
    omics: Service,
    jobs: Jobs,
}

/// The id of the nth job.
fn job_id(nth: u32) -> String {
    format!("{nth:010}")
}

fn always(fault: SinkFault) -> Vec<FaultRate<SinkFault>> {
    vec![FaultRate { fault, rate: 1.0 }]
}

impl Host {
    fn new(jobs: u32) -> Self {
        let all = (1..=jobs).map(|nth| (job_id(nth), json!({}))).collect();
        let jobs: Jobs = Arc::new(Mutex::new(all));
        let known = Arc::clone(&jobs);
        let omics = Service::new(move |request| {
            let known = known.lock().expect("a lock");
            let requested = known.iter().find(|(id, _)| request.head.contains(&format!("/{id} ")));
            match requested {
                Some((_, members)) if !members.is_null() => service::job(request, members),
                _ => service::refusal(404, "ResourceNotFoundException"),
            }
        });
        let host = Self { workspace: Workspace::new(), runtime: Runtime::new().expect("a runtime"), omics, jobs };
        host.write_secret(SECRET);
        host
    }

    fn write_secret(&self, secret: &str) {
        let path = self.workspace.write(SECRET_FILE, secret);
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("our file");
    }

    /// A receiver that verifies [`SECRET`].
    fn receiver(&self, faults: Vec<FaultRate<SinkFault>>) -> SinkReceiver {
        let secrets = vec![SigningSecret::parse(SECRET).expect("a secret")];
        let options = SinkOptions { secrets, faults, seed: 1 };
        let started = SinkReceiver::start(SocketAddr::from(([127, 0, 0, 1], 0)), options);
        self.runtime.block_on(started).expect("a free port")
    }

    /// Writes the configuration with these `[[notify]]` entries.
    fn configure(&self, entries: &[String]) -> PathBuf {
        let jobs = self.jobs.lock().expect("a lock").keys().cloned().collect::<Vec<_>>();
        let jobs: Vec<_> = jobs.iter().map(|id| ("default", STORE, id.as_str())).collect();
        let config = service::config(&[("default", self.omics.address, "")], &jobs);
        let config = config.replace("[http]\n", "[http]\nexternal_url = \"https://ops.lab.example/refwatch/\"\n");
        let config = config.replace("[[job]]\n", "[[job]]\nlabels = { project = \"atlas\" }\n");
        self.workspace.write("refwatch.toml", &(config + &entries.concat()))
    }

    /// Starts a daemon, and waits until it knows that every job is `IN_PROGRESS`.
    fn start(&self, entries: &[String]) -> (Process, SocketAddr) {
        let (daemon, address) = self.workspace.daemon(&self.configure(entries));
        let live = self.jobs.lock().expect("a lock").values().filter(|members| **members == json!({})).count();
        eventually("a poll of each live job", || {
            (json_of(address, "/api/v1/jobs?status=IN_PROGRESS").as_array()?.len() == live).then_some(())
        });
        (daemon, address)
    }

    /// Ends a job with a status, or lets it vanish.
    fn end(&self, nth: u32, status: &str) {
        let now = format!("{:.3}", Clock::system().now().wall);
        let failed =
            json!([{ "status": "FAILED", "name": "a", "sourceFile": "s3://b/a", "statusMessage": "not a FASTA file" }]);
        let members = match status {
            "vanished" => Value::Null,
            "COMPLETED" => json!({ "status": status, "completionTime": now }),
            _ => {
                json!({ "status": status, "completionTime": now, "statusMessage": "1 of 1 sources failed", "sources": failed })
            }
        };
        self.jobs.lock().expect("a lock").insert(job_id(nth), members);
    }

    /// Runs a command that reads the configuration.
    fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let config = self.workspace.path("refwatch.toml");
        let mut all = vec!["--config", config.to_str().expect("text")];
        all.extend(arguments);
        self.workspace.run(&all)
    }

    /// Applies a configuration with these entries to the running daemon.
    #[track_caller]
    fn reload(&self, entries: &[String]) {
        self.configure(entries);
        let (status, output, error) = self.command(&["reload"]);
        assert_eq!(status, 0, "{output}{error}");
    }
}

/// A `[[notify]]` entry, signed with the secret of [`SECRET_FILE`].
fn entry(name: &str, receiver: &SinkReceiver, more: &str) -> String {
    entry_to(name, &receiver.url(), more)
}

fn entry_to(name: &str, url: &str, more: &str) -> String {
    format!("[[notify]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret_file = \"{SECRET_FILE}\"\n{more}\n")
}

/// Waits until this many requests have been accepted. Returns these.
#[track_caller]
fn accepted(receiver: &SinkReceiver, count: usize) -> Vec<Received> {
    eventually(&format!("{count} accepted events"), || {
        let requests = receiver.received().into_iter();
        let accepted: Vec<_> =
            requests.filter(|event| event.reply.status().is_some_and(|status| status.is_success())).collect();
        (accepted.len() >= count).then_some(accepted)
    })
}

fn body(event: &Received) -> Value {
    serde_json::from_slice(&event.body).expect("JSON")
}

/// The number in the id of the event's job, and its type without prefix and version.
fn job_and_type(event: &Received) -> (u32, String) {
    let nth = event.attribute("subject").and_then(|subject| subject.rsplit('/').next()?.parse().ok()).expect("a job");
    let event_type = event.attribute("type").expect("a type");
    (nth, event_type.trim_start_matches("io.refwatch.job.").trim_end_matches(".v1").to_owned())
}

/// Waits until the API shows the sink in this state. Returns the sink.
#[track_caller]
fn sink_in_state(address: SocketAddr, name: &str, state: impl Fn(&Value) -> bool) -> Value {
    eventually("a state of the sink", || {
        json_of(address, "/api/v1/sinks").as_array()?.iter().find(|sink| sink["name"] == name && state(sink)).cloned()
    })
}
