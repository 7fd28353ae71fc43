//! The simulated HealthOmics that all are measured on, in a process of its own: its quota lifted, its jobs just submitted for as long
//! as it is measured.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::http::client::{self, Endpoint};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::Failure;
use super::process::Process;

/// After it, what is waited for counts as never to come: boto3 takes a minute for the first 10,000 polls.
const PATIENCE: Duration = Duration::from_mins(5);

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Simulated {
    pub(super) address: SocketAddr,
    /// Each as `STORE/JOB`.
    pub(super) jobs: Vec<String>,
    pub(super) process: Process,
}

impl Simulated {
    pub(super) async fn start(jobs: usize) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refwatch"));
        command.args(["simulate", "--listen", "127.0.0.1:0", "--quota", "1e9", "--mean-seconds", "86400", "--jobs"]);
        let mut process = Process::spawn(command.arg(jobs.to_string()).stdout(Stdio::piped()))?;
        let mut lines = BufReader::new(process.stdout().ok_or("not piped")?).lines();
        let first = lines.next_line().await?.ok_or("the simulator says nothing")?;
        let address = first.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        let address = address.ok_or("no address")?.parse()?;
        let mut found = Vec::with_capacity(jobs);
        while found.len() < jobs {
            let line = lines.next_line().await?.ok_or("fewer jobs than asked for")?;
            found.push(line.split_whitespace().next().ok_or("no job")?.to_owned());
        }
        Ok(Self { address, jobs: found, process })
    }

    /// Polls answered so far.
    pub(super) async fn polls(&self) -> Result<u64, Failure> {
        let calls = client::get(&Endpoint::Listener(self.address.to_string()), "/-/calls").await?;
        let calls: Value = serde_json::from_slice(&calls)?;
        calls["GetReferenceImportJob"]["answered"].as_u64().ok_or_else(|| "no count".into())
    }

    /// Returns once `count` polls have been answered.
    pub(super) async fn polled(&self, count: u64) -> Result<(), Failure> {
        let clock = Clock::system();
        while self.polls().await? < count {
            if clock.now().monotonic.elapsed() > PATIENCE {
                return Err(format!("{count} polls did not come").into());
            }
            clock.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}
