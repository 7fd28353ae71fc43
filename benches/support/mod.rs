//! Shared by the benches: child processes, the simulator, the daemon's configuration, an SDK client, tables.
//!
//! The simulator, the daemon and each peer run as separate processes, so that CPU time and memory are attributed to the right one.

#![allow(dead_code, reason = "each bench is a separate crate and uses some of it")]

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_omics::Client;
use aws_sdk_omics::config::Credentials;
use aws_sdk_omics::config::retry::RetryConfig;
use comfy_table::{CellAlignment, Table, presets};
use refwatch::clock::Clock;
use refwatch::healthomics::VerbatimEndpointAndSizeLimit;
use refwatch::http::client::{self, DaemonAddress};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

const REGION: &str = "us-west-2";

/// Access key and secret. The simulator requires a signature but does not verify it.
const CREDENTIALS: &str = "simulated";

/// Files of more than 1 MiB are rejected.
const JOBS_PER_FILE: usize = 10_000;

/// The first 21,900 polls at 1,000 requests per second take 22 s.
const POLLS_TIMEOUT: Duration = Duration::from_mins(2);

/// A running process. Dropping it kills it.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.kill_on_drop(true).spawn()?))
    }

    pub(crate) fn stdout(&mut self) -> Result<ChildStdout, Failure> {
        self.0.stdout.take().ok_or_else(|| "stdout is not piped".into())
    }

    pub(crate) fn stderr(&mut self) -> Result<ChildStderr, Failure> {
        self.0.stderr.take().ok_or_else(|| "stderr is not piped".into())
    }

    /// Sends SIGKILL and waits until the process has exited.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.0.kill().await?)
    }

    /// CPU time of its live threads. `/proc/PID/stat` counts in ticks; `schedstat` counts in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let mut total = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()?))? {
            // The thread may have exited.
            let schedstat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            total += Duration::from_nanos(schedstat.split_whitespace().next().unwrap_or("0").parse()?);
        }
        Ok(total)
    }

    pub(crate) fn resident_mib(&self) -> Result<f64, Failure> {
        self.memory_mib("VmRSS")
    }

    /// A line of `/proc/PID/status`, such as `VmHWM`, the peak of `VmRSS`.
    pub(crate) fn memory_mib(&self, key: &str) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let value = |line: &str| line.strip_prefix(key)?.strip_prefix(':').map(str::to_owned);
        let line = status.lines().find_map(value).ok_or("the process has exited")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    fn id(&self) -> Result<u32, Failure> {
        self.0.id().ok_or_else(|| "the process has exited".into())
    }
}

/// `refwatch simulate` as a process.
pub(crate) struct Simulator {
    pub(crate) address: SocketAddr,
    /// Each as `STORE/JOB`.
    pub(crate) jobs: Vec<String>,
    _process: Process,
}

impl Simulator {
    pub(crate) async fn start(jobs: usize, options: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refwatch"));
        command.args(["simulate", "--listen", "127.0.0.1:0", "--jobs"]).arg(jobs.to_string()).args(options);
        let mut process = Process::spawn(command.stdout(Stdio::piped()))?;
        let mut lines = BufReader::new(process.stdout()?).lines();
        let first = lines.next_line().await?.ok_or("the simulator printed nothing")?;
        let address = first.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        let address = address.ok_or("the simulator printed no address")?.parse()?;
        let mut ids = Vec::with_capacity(jobs);
        while ids.len() < jobs {
            let line = lines.next_line().await?.ok_or("the simulator printed too few jobs")?;
            ids.push(line.split_whitespace().next().ok_or("the simulator printed an empty line")?.to_owned());
        }
        Ok(Self { address, jobs: ids, _process: process })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn json(&self, path: &str) -> Result<Value, Failure> {
        Ok(serde_json::from_slice(&get(self.address, path).await?)?)
    }

    /// Successful Get requests so far.
    pub(crate) async fn polls(&self) -> Result<u64, Failure> {
        let calls = self.json("/-/calls").await?;
        calls["GetReferenceImportJob"]["answered"].as_u64().ok_or_else(|| "/-/calls has no count of polls".into())
    }

    pub(crate) async fn wait_for_polls(&self, count: u64) -> Result<(), Failure> {
        let clock = Clock::system();
        while self.polls().await? < count {
            if clock.now().monotonic.elapsed() > POLLS_TIMEOUT {
                return Err(format!("fewer than {count} polls within {POLLS_TIMEOUT:?}").into());
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// The configuration of a daemon; other keys have their defaults.
pub(crate) struct Daemon<'a> {
    /// Holds the configuration and the database.
    pub(crate) directory: &'a Path,
    pub(crate) server: SocketAddr,
    pub(crate) listen: SocketAddr,
    /// Each as `STORE/JOB`.
    pub(crate) jobs: &'a [String],
    /// Keys of `[poll]`.
    pub(crate) poll: &'a str,
    /// In requests per second.
    pub(crate) quota: f64,
}

impl Daemon<'_> {
    /// Writes the configuration. The caller redirects standard error.
    pub(crate) fn command(&self) -> Result<Command, Failure> {
        let (path, conf_d) = (self.directory.join("refwatch.toml"), self.directory.join("conf.d"));
        let main = format!(
            "include = [\"conf.d/*.toml\"]\npoll = {{ {} }}\ndatabase.path = \"refwatch.db\"\nlog.format = \"json\"\n\
             quota = {{ requests_per_second = {:?}, share = 1.0 }}\nhttp.listen = \"{}\"\n\
             target.default = {{ region = \"{REGION}\", endpoint_url = \"http://{}\" }}\n",
            self.poll, self.quota, self.listen, self.server
        );
        fs::write(&path, main)?;
        fs::create_dir_all(&conf_d)?;
        for (index, jobs) in self.jobs.chunks(JOBS_PER_FILE).enumerate() {
            let mut toml = String::new();
            for job in jobs {
                let (store, id) = job.split_once('/').ok_or("a job is written STORE/JOB")?;
                write!(toml, "[[job]]\nreference_store_id = \"{store}\"\nid = \"{id}\"\n")?;
            }
            fs::write(conf_d.join(format!("{index:02}.toml")), toml)?;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_refwatch"));
        command.arg("--config").arg(path).arg("run").env_clear();
        command.env("AWS_ACCESS_KEY_ID", CREDENTIALS).env("AWS_SECRET_ACCESS_KEY", CREDENTIALS);
        Ok(command)
    }
}

pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub(crate) async fn get(server: SocketAddr, path: &str) -> Result<Vec<u8>, Failure> {
    Ok(client::get(&DaemonAddress::Listener(server.to_string()), path).await?.to_vec())
}

/// An SDK client with default settings; `None` keeps the default retries.
pub(crate) async fn sdk_client(endpoint: &str, retries: Option<RetryConfig>) -> Client {
    let credentials = Credentials::new(CREDENTIALS, CREDENTIALS, None, None, CREDENTIALS);
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    loader = loader.region(Region::new(REGION)).endpoint_url(endpoint).credentials_provider(credentials);
    if let Some(retries) = retries {
        loader = loader.retry_config(retries);
    }
    let config = aws_sdk_omics::config::Builder::from(&loader.load().await);
    Client::from_conf(config.interceptor(VerbatimEndpointAndSizeLimit).build())
}

/// A Markdown table: text in the first column, numbers in the others.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// By nearest rank; `None` without values.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

/// The command that started the bench.
pub(crate) fn command_line(name: &str) -> String {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let separator = if arguments.is_empty() { "" } else { " -- " };
    format!("cargo bench --bench {name}{separator}{}", arguments.join(" "))
}
