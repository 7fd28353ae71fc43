//! A service that says what a test tells it to: HealthOmics, or one that hands out credentials.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::core::time::{Monotonic, Timestamp};

use crate::process::{Process, Scene, eventually};

/// A store, and the job in it that tests of one job watch.
pub(crate) const STORE: &str = "1234567890";
pub(crate) const JOB: &str = "9876543210";

/// It answers one request a connection, each connection in a thread of its own.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Its head.
    pub(crate) head: String,
    /// When it came.
    pub(crate) at: Monotonic,
    /// How many came before it.
    pub(crate) nth: usize,
}

impl Asked {
    /// The access key that it is signed with.
    pub(crate) fn key(&self) -> &str {
        self.head.split_once("Credential=").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default())
    }
}

impl Service {
    /// A service that answers with what `answer` returns; where that is nothing it is silent, and keeps the connection.
    pub(crate) fn new(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, clock) = (listener.local_addr().expect("an address"), Clock::system());
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let Some(head) = head(&mut stream) else { return };
                    let asked = note(&mut asked.lock().unwrap_or_else(PoisonError::into_inner), head, clock);
                    let answer = answer(&asked);
                    // Whoever asked may be gone.
                    drop(stream.write_all(answer.as_bytes()));
                    if answer.is_empty() {
                        drop(stream.read(&mut [0]));
                    }
                });
            }
        });
        Self { address, asked }
    }

    /// One that never says a word.
    pub(crate) fn silent() -> Self {
        Self::new(|_| String::new())
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for this many requests.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Asked> {
        eventually("requests", || Some(self.asked()).filter(|asked| asked.len() >= count))
    }
}

fn note(all: &mut Vec<Asked>, head: String, clock: Clock) -> Asked {
    let asked = Asked { head, at: clock.now().monotonic, nth: all.len() };
    all.push(asked.clone());
    asked
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
    // What is closed before it was read would be reset.
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// An error of AWS's.
pub(crate) fn refusal(status: u16, code: &str) -> String {
    response(&format!("{status} No"), &format!("x-amzn-errortype: {code}\r\n"), r#"{"message": "no"}"#)
}

/// What the API page says of the job that was asked for, with these members in place of its own; null takes one out.
pub(crate) fn job(asked: &Asked, members: &serde_json::Value) -> String {
    let mut path = asked.head.split([' ', '/']).skip(3);
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

/// A configuration that polls often: keys of targets, each with its address, and of jobs.
pub(crate) fn config(targets: &[(&str, SocketAddr, &str)], jobs: &[(&str, &str, &str)]) -> String {
    let mut config = "[http]\nlisten = \"127.0.0.1:0\"\n[database]\npath = \"refwatch.db\"\n[quota]\n\
        requests_per_second = 20.0\nshare = 1.0\n[poll]\nmin_interval = \"100ms\"\ntimeout = \"1s\"\n\
        backoff_initial = \"300ms\"\nbackoff_max = \"1s\"\nsweep = false\n"
        .to_owned();
    config.extend(targets.iter().map(|(name, address, keys)| {
        format!("[target.{name}]\nregion = \"us-west-2\"\nendpoint_url = \"http://{address}\"\n{keys}\n")
    }));
    config.extend(jobs.iter().map(|(target, store, job)| {
        format!("[[job]]\nname = \"{target}/{store}/{job}\"\ntarget = \"{target}\"\nreference_store_id = \"{store}\"\nid = \"{job}\"\n")
    }));
    config
}

/// A daemon that finds no credentials but those of `environment`.
pub(crate) fn daemon(scene: &Scene, config: &str, environment: &[(&str, &str)]) -> (Process, SocketAddr) {
    let config = scene.write("refwatch.toml", config);
    let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    without_credentials(&mut command).envs(environment.iter().copied());
    let process = scene.spawn(command);
    let address = process.address();
    (process, address)
}

fn without_credentials(command: &mut Command) -> &mut Command {
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].into_iter().fold(command, Command::env_remove)
}

/// What a container's endpoint says of the credentials with this access key, good for so long.
pub(crate) fn credentials(key: &str, good_for: Duration) -> String {
    let until: Timestamp = Clock::system().now().wall.checked_add(good_for).expect("a time");
    let body = serde_json::json!({
        "AccessKeyId": key, "SecretAccessKey": "secret", "Token": "token", "Expiration": format!("{until:.0}"),
    });
    response("200 OK", "Content-Type: application/json\r\n", &body.to_string())
}
