//! A scripted HTTP service: HealthOmics, or an endpoint for credentials. A closure returns the response to each request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::core::time::{Monotonic, Timestamp};

use crate::process::{Process, Workspace, eventually};

/// The store and the job in it that most tests watch.
pub(crate) const STORE: &str = "1234567890";
pub(crate) const JOB: &str = "9876543210";

/// Handles one request per connection, each in its own thread.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) at: Monotonic,
    /// The number of earlier requests.
    pub(crate) nth: usize,
}

impl Request {
    /// The access key in the signature.
    pub(crate) fn key(&self) -> &str {
        self.head.split_once("Credential=").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default())
    }
}

impl Service {
    /// Returns the result of `respond`. If that is empty, the service stays silent and keeps the connection open.
    pub(crate) fn new(respond: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, clock) = (listener.local_addr().expect("an address"), Clock::system());
        let (requests, respond) = (Arc::new(Mutex::new(Vec::new())), Arc::new(respond));
        let received = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (requests, respond) = (Arc::clone(&received), Arc::clone(&respond));
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let Some(head) = head(&mut stream) else { return };
                    let request = record(&mut requests.lock().unwrap_or_else(PoisonError::into_inner), head, clock);
                    let response = respond(&request);
                    // The client may have closed the connection.
                    drop(stream.write_all(response.as_bytes()));
                    if response.is_empty() {
                        drop(stream.read(&mut [0]));
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// A service that never responds.
    pub(crate) fn silent() -> Self {
        Self::new(|_| String::new())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this many requests have arrived.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Request> {
        eventually("requests", || Some(self.requests()).filter(|requests| requests.len() >= count))
    }
}

fn record(all: &mut Vec<Request>, head: String, clock: Clock) -> Request {
    let request = Request { head, at: clock.now().monotonic, nth: all.len() };
    all.push(request.clone());
    request
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read(&mut byte).ok().filter(|count| *count > 0)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.to_ascii_lowercase().split_once("content-length: ").map(|(_, rest)| rest.to_owned());
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok()).unwrap_or(0);
    // Closing with an unread body would reset the connection.
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// An error response as AWS sends it.
pub(crate) fn refusal(status: u16, code: &str) -> String {
    response(&format!("{status} No"), &format!("x-amzn-errortype: {code}\r\n"), r#"{"message": "no"}"#)
}

/// The requested job as in the example of the API reference. `members` replace its members; null removes one.
pub(crate) fn job(requests: &Request, members: &serde_json::Value) -> String {
    let mut path = requests.head.split([' ', '/']).skip(3);
    let (store, job) = (path.next(), path.nth(1));
    let mut body = serde_json::json!({
        "id": job, "referenceStoreId": store, "roleArn": "arn:aws:iam::123456789012:role/omics", "status": "IN_PROGRESS",
        "creationTime": "2026-01-02T03:04:05.678Z", "sources": [{"status": "IN_PROGRESS", "name": "a", "sourceFile": "s3://b/a"}],
    });
    for (name, value) in members.as_object().expect("members") {
        body[name] = value.clone();
    }
    body.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    response("200 OK", "Content-Type: application/json\r\n", &body.to_string())
}

/// A configuration that polls often. Each target has a name, an address and further keys.
pub(crate) fn config(targets: &[(&str, SocketAddr, &str)], jobs: &[(&str, &str, &str)]) -> String {
    let mut config = "[http]\nlisten = \"127.0.0.1:0\"\n[database]\npath = \"refwatch.db\"\n[quota]\n\
        requests_per_second = 20.0\nshare = 1.0\n[poll]\nmin_interval = \"100ms\"\ntimeout = \"1s\"\n\
        backoff_initial = \"300ms\"\nbackoff_max = \"1s\"\nuse_list = false\n"
        .to_owned();
    config.extend(targets.iter().map(|(name, address, keys)| {
        format!("[target.{name}]\nregion = \"us-west-2\"\nendpoint_url = \"http://{address}\"\n{keys}\n")
    }));
    config.extend(jobs.iter().map(|(target, store, job)| {
        format!("[[job]]\nname = \"{target}/{store}/{job}\"\ntarget = \"{target}\"\nreference_store_id = \"{store}\"\nid = \"{job}\"\n")
    }));
    config
}

/// A daemon with no other credentials than those in `environment`.
pub(crate) fn daemon(workspace: &Workspace, config: &str, environment: &[(&str, &str)]) -> (Process, SocketAddr) {
    let config = workspace.write("refwatch.toml", config);
    let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    without_credentials(&mut command).envs(environment.iter().copied());
    let process = workspace.spawn(command);
    let address = process.address();
    (process, address)
}

fn without_credentials(command: &mut Command) -> &mut Command {
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].into_iter().fold(command, Command::env_remove)
}

/// The response of a container's credentials endpoint.
pub(crate) fn credentials(key: &str, good_for: Duration) -> String {
    let until: Timestamp = Clock::system().now().wall.checked_add(good_for).expect("a time");
    let body = serde_json::json!({
        "AccessKeyId": key, "SecretAccessKey": "secret", "Token": "token", "Expiration": format!("{until:.0}"),
    });
    response("200 OK", "Content-Type: application/json\r\n", &body.to_string())
}
