//! The program as a process: a directory, HTTP requests, signals and an STS stand-in.
//!
//! All functions block. Waits are for a state and end at a deadline.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use refwatch::database::{Database, FileError};
use refwatch::instruments::Instruments;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// No wait takes this long unless something is broken.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// Interval between two checks of a state.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `check` returns a value.
#[track_caller]
pub(crate) fn eventually<T>(expected: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let checks = DEADLINE.as_millis() / CHECK_INTERVAL.as_millis();
    for _ in 0..checks {
        if let Some(value) = check() {
            return value;
        }
        pause();
    }
    panic!("{expected}: not within {DEADLINE:?}");
}

/// Waits until nothing listens. A process that another test starts inherits a listener of this process until `exec`.
#[track_caller]
pub(crate) fn expect_closed(address: SocketAddr) {
    eventually("a closed port", || TcpStream::connect(address).is_err().then_some(()));
}

/// Opens a database that may have been closed just now. A process that another test starts inherits its lock until `exec`.
pub(crate) fn open_when_unlocked(path: &Path, instruments: &Instruments) -> Result<Database, FileError> {
    eventually("the database's lock", || match Database::open(path, instruments) {
        Err(FileError::InUse { .. }) => None,
        opened => Some(opened),
    })
}

#[expect(clippy::disallowed_methods, reason = "between two checks of a state")]
pub(crate) fn pause() {
    std::thread::sleep(CHECK_INTERVAL);
}

/// A temporary directory for files and processes.
pub(crate) struct Workspace {
    directory: TempDir,
}

/// A running `refwatch`. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: PathBuf,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Copies the binary to `refwatch`, in a process of its own: a concurrent test that forks would hold a file that this process writes
    /// open, and the copy could not be executed.
    pub(crate) fn copy_binary(&self) {
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_refwatch")).arg(self.path("refwatch")).status();
        assert!(copied.expect("cp starts").success());
    }

    /// `refwatch` with test credentials and no other AWS configuration.
    pub(crate) fn refwatch(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refwatch"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("TMPDIR", self.directory.path())
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
        let log = tempfile::Builder::new().prefix("stderr-").tempfile_in(self.directory.path()).expect("a file");
        let (file, stderr) = log.keep().expect("a file that stays");
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("the binary starts");
        let (lines, stdout) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Process { child, stdout, stderr }
    }

    /// Runs to the end. Returns the exit status, standard output and standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut process = self.start(arguments);
        let status = process.end();
        let stdout = process.rest().join("\n");
        (status.code().expect("an exit status"), stdout, process.stderr())
    }

    /// Starts a simulator. Returns its address and the configuration that it wrote.
    pub(crate) fn simulate(&self, arguments: &[&str]) -> (Process, SocketAddr, String) {
        let out = self.path("simulated.toml");
        let mut all = vec!["simulate", "--listen", "127.0.0.1:0", "--config-out", out.to_str().expect("text")];
        all.extend(arguments);
        let process = self.start(&all);
        let config = eventually("the simulator's configuration", || std::fs::read_to_string(&out).ok());
        let address = between(&config, "endpoint_url = \"http://", "\"").parse().expect("an address");
        // Each daemon uses its own port.
        let config = config.replace("127.0.0.1:10210", "127.0.0.1:0");
        (process, address, config)
    }

    /// Starts a daemon and waits until it listens.
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

    /// Standard error once it contains `text`. A log line may be written after its effect is visible.
    pub(crate) fn log_with(&self, text: &str) -> String {
        eventually(text, || Some(self.stderr()).filter(|log| log.contains(text)))
    }

    /// The address in a daemon's log.
    pub(crate) fn address(&self) -> SocketAddr {
        eventually("the daemon's address", || {
            let log = self.stderr();
            log.contains("event=\"started\"").then(|| between(&log, "address=", " ").parse().expect("an address"))
        })
    }

    /// Writes to standard input, which must be piped.
    pub(crate) fn input(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("piped").write_all(text.as_bytes()).expect("a running process");
    }

    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(DEADLINE).expect("another line")
    }

    /// The remaining lines of standard output; waits for the end.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.stdout.iter().collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A number from /proc/PID/status.
    pub(crate) fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line =
            status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("a line of this key");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("a running process");
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
        // Fails if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `command` with a prefix, in its own environment.
pub(crate) fn with_prefix(prefix: &[&str], command: &Command) -> Command {
    let mut shell = Command::new(prefix[0]);
    shell.args(&prefix[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// An STS stand-in that sends these responses in turn. Returns its URL and the requests.
pub(crate) fn serve_sts(responses: Vec<String>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for response in responses {
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
            // The test may have ended.
            drop(seen.send(head + &String::from_utf8_lossy(&body)));
            stream.write_all(response.as_bytes()).expect("a reader");
        }
    });
    (url, requests)
}

/// STS's response to an action.
pub(crate) fn sts_response(action: &str, result: &str) -> String {
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{result}</{action}Result></{action}Response>"
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The text after `start` and before `end`.
#[track_caller]
pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let after = text.split_once(start).unwrap_or_else(|| panic!("{start:?} in {text}")).1;
    after.split(end).next().expect("a first part")
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("a reader");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let status = response[9..12].parse().expect("a status");
    let body = response.split_once("\r\n\r\n").expect("a body").1;
    (status, body.to_owned())
}

pub(crate) fn json(address: SocketAddr, path: &str) -> serde_json::Value {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// The value of the series with all of these labels.
pub(crate) fn metric(address: SocketAddr, name: &str, labels: &[&str]) -> Option<f64> {
    series(&get(address, "/metrics").1, name, labels).next()
}

/// The sum over all series with this label.
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
