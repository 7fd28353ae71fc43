//! Who is measured, and how each is made to do the same work.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{self, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::Failure;
use super::process::Process;

pub(super) const REGION: &str = "us-west-2";

/// Key and secret: the simulator wants a signature but does not verify it.
pub(super) const CREDENTIALS: &str = "simulated";

/// Where `tests/e2e/run` installs boto3.
pub(super) const PYTHON: &str = "target/e2e/venv/bin/python3";

/// In requests per second: more than any machine makes, and the most that the configuration takes.
pub(super) const LIFTED: f64 = 100_000.0;

/// Jobs in one file of the configuration, which may be of a mebibyte.
const JOBS_A_FILE: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Contestant {
    Refwatch,
    PlainLoop,
    Boto3,
}

/// What is to be done.
pub(super) struct Work<'a> {
    pub(super) server: SocketAddr,
    /// Each as `STORE/JOB`.
    pub(super) jobs: &'a [String],
    /// From one poll of a job to its next; zero: as soon as may be.
    pub(super) interval: Duration,
    /// What refwatch is allowed, in requests per second. The others know no quota.
    pub(super) quota: f64,
    /// Where refwatch has its configuration and record.
    pub(super) folder: &'a Path,
    /// Where refwatch serves its metrics.
    pub(super) listen: SocketAddr,
}

impl Contestant {
    pub(super) const ALL: [Self; 3] = [Self::Refwatch, Self::PlainLoop, Self::Boto3];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Refwatch => "refwatch",
            Self::PlainLoop => "plain loop",
            Self::Boto3 => "boto3",
        }
    }

    /// What runs it, its input written.
    pub(super) fn command(self, work: &Work) -> Result<Command, Failure> {
        let (jobs, endpoint) = (work.folder.join("jobs"), format!("http://{}", work.server));
        let interval = work.interval.as_secs_f64().to_string();
        let mut command = match self {
            Self::Refwatch => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_refwatch"));
                command.arg("--config").arg(configuration(work)?).arg("run").env_clear();
                command.env("AWS_ACCESS_KEY_ID", CREDENTIALS).env("AWS_SECRET_ACCESS_KEY", CREDENTIALS);
                command.stderr(fs::File::create(work.folder.join("log"))?);
                return Ok(command);
            }
            Self::PlainLoop => Command::new(std::env::current_exe()?),
            Self::Boto3 => Command::new(PYTHON),
        };
        fs::write(&jobs, work.jobs.join("\n"))?;
        command.arg(if self == Self::Boto3 { "benches/footprint/boto3_threads.py" } else { "plain-loop" });
        command.arg(endpoint).arg(jobs).arg(interval).stderr(Stdio::null());
        Ok(command)
    }

    pub(super) fn start(self, work: &Work) -> Result<Process, Failure> {
        Process::spawn(&mut self.command(work)?)
    }
}

/// `None` where it is not there.
pub(super) fn boto3_version() -> Option<String> {
    let script = "import boto3; print(boto3.__version__, end='')";
    let ended = process::Command::new(PYTHON).args(["-c", script]).output().ok()?;
    ended.status.success().then(|| String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// An address that nobody listens on.
pub(super) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Writes refwatch's configuration: everything is default but what the work asks for.
fn configuration(work: &Work) -> Result<std::path::PathBuf, Failure> {
    let interval = match work.interval {
        Duration::ZERO => "min_interval = \"100ms\"".to_owned(),
        interval => format!("interval = \"{}s\"", interval.as_secs()),
    };
    let main = format!(
        "include = [\"conf.d/*.toml\"]\npoll = {{ sweep = false, {interval} }}\nrecord.path = \"refwatch.db\"\n\
         quota = {{ requests_per_second = {:?}, share = 1.0 }}\nhttp.listen = \"{}\"\n\
         target.default = {{ region = \"{REGION}\", endpoint_url = \"http://{}\" }}\n",
        work.quota, work.listen, work.server
    );
    let folder = work.folder.join("conf.d");
    fs::create_dir_all(&folder)?;
    for (nth, jobs) in work.jobs.chunks(JOBS_A_FILE).enumerate() {
        let mut toml = String::new();
        for job in jobs {
            let (store, id) = job.split_once('/').ok_or("a job is written STORE/JOB")?;
            write!(toml, "[[job]]\nreference_store_id = \"{store}\"\nid = \"{id}\"\n")?;
        }
        fs::write(folder.join(format!("{nth:02}.toml")), toml)?;
    }
    let path = work.folder.join("refwatch.toml");
    fs::write(&path, main)?;
    Ok(path)
}
