//! The binary as a process: started, asked over real sockets, told things by real signals. Everything here blocks, and every
//! wait is for a state, with a deadline.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// No healthy wait comes near it, on any machine.
const DEADLINE: Duration = Duration::from_mins(2);

/// Between two looks at a state that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until `look` sees something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looks = DEADLINE.as_millis() / LOOK_AGAIN.as_millis();
    for _ in 0..looks {
        if let Some(seen) = look() {
            return seen;
        }
        pause();
    }
    panic!("{what}: not within {DEADLINE:?}");
}

#[expect(clippy::disallowed_methods, reason = "between two looks, not in place of one")]
fn pause() {
    std::thread::sleep(LOOK_AGAIN);
}

/// A folder of its own, and the processes that write to it.
pub(crate) struct Scene {
    folder: TempDir,
}

/// A running `refwatch`. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: PathBuf,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// `refwatch` with these arguments, credentials that AWS never gave, and nothing else of this machine's AWS configuration.
    pub(crate) fn refwatch(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refwatch"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
            .env("AWS_SECRET_ACCESS_KEY", "verysecretkey")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        self.spawn(self.refwatch(arguments))
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Process {
        let log = tempfile::Builder::new().prefix("stderr-").tempfile_in(self.folder.path()).expect("a file");
        let (file, stderr) = log.keep().expect("a file that stays");
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("the binary starts");
        let (lines, stdout) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Process { child, stdout, stderr }
    }

    /// Runs to the end: its status, standard output and standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut process = self.start(arguments);
        let status = process.end();
        let stdout = process.rest().join("\n");
        (status.code().expect("an exit status"), stdout, process.stderr())
    }

    /// A simulator as a process of its own. Returns it with its address and the configuration that it wrote.
    pub(crate) fn simulate(&self, arguments: &[&str]) -> (Process, SocketAddr, String) {
        let out = self.path("simulated.toml");
        let mut all = vec!["simulate", "--listen", "127.0.0.1:0", "--config-out", out.to_str().expect("text")];
        all.extend(arguments);
        let process = self.start(&all);
        let config = eventually("the simulator's configuration", || std::fs::read_to_string(&out).ok());
        let address = between(&config, "endpoint_url = \"http://", "\"").parse().expect("an address");
        // Each daemon of these tests takes a port of its own.
        let config = config.replace("127.0.0.1:10210", "127.0.0.1:0");
        (process, address, config)
    }

    /// A daemon on `config`, once it listens.
    pub(crate) fn daemon(&self, config: &Path) -> (Process, SocketAddr) {
        let process = self.start(&["--config", config.to_str().expect("text"), "run"]);
        let address = process.address();
        (process, address)
    }
}

impl Process {
    pub(crate) fn stderr(&self) -> String {
        let mut text = String::new();
        File::open(&self.stderr).and_then(|mut file| file.read_to_string(&mut text)).expect("standard error");
        text
    }

    /// Where a daemon listens, from its log.
    pub(crate) fn address(&self) -> SocketAddr {
        eventually("the daemon's address", || {
            let log = self.stderr();
            log.contains("event=\"started\"").then(|| between(&log, "address=", " ").parse().expect("an address"))
        })
    }

    /// The next line of standard output.
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(DEADLINE).expect("another line")
    }

    /// What it still prints, up to its end.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.stdout.iter().collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().expect("a child"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An STS that gives one of these answers to each request. Returns its URL and what it is asked.
pub(crate) fn serve_sts(answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(&mut stream);
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let mut line = String::new();
                assert!(reader.read_line(&mut line).expect("a request") > 0, "{head}");
                let lower = line.to_lowercase();
                length =
                    lower.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().expect("a length"));
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            // Whoever listens no more has seen enough.
            drop(seen.send(head + &String::from_utf8_lossy(&body)));
            stream.write_all(answer.as_bytes()).expect("it reads");
        }
    });
    (url, requests)
}

/// What STS answers to an action.
pub(crate) fn sts_answer(action: &str, result: &str) -> String {
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{result}</{action}Result></{action}Response>"
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// What stands in `text` after `start` and before `end`.
#[track_caller]
pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let after = text.split_once(start).unwrap_or_else(|| panic!("{start:?} in {text}")).1;
    after.split(end).next().expect("a first part")
}

/// The status and the body of a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let status = answer[9..12].parse().expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, body.to_owned())
}

pub(crate) fn json(address: SocketAddr, path: &str) -> serde_json::Value {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// The value of a metric's one series that has all of these labels.
pub(crate) fn metric(address: SocketAddr, name: &str, labels: &[&str]) -> Option<f64> {
    series(&get(address, "/metrics").1, name, labels).next()
}

/// The sum over a metric's series that have this label.
pub(crate) fn metric_sum(address: SocketAddr, name: &str, label: &str) -> f64 {
    series(&get(address, "/metrics").1, name, &[label]).sum()
}

fn series(exposition: &str, name: &str, labels: &[&str]) -> impl Iterator<Item = f64> {
    exposition.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        let (labelled, value) = rest.rsplit_once(' ')?;
        labels.iter().all(|label| labelled.contains(label)).then(|| value.parse().ok())?
    })
}
