//! The receiver of notifications of `refwatch simulate --sink`: its options, its `[[notify]]` entry, and a line for each event.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::exit::{Failure, print_to_reader};
use crate::core::sanitize::Sanitized;
use crate::notify::secrets::read_signing_secrets;
use crate::notify::signature::SigningSecret;
use crate::simulator::{
    FaultRate, NamedFault as _, Received, SignatureCheck, SinkFault, SinkOptions, SinkReceiver, SinkReply, fault_help,
};

#[derive(Debug, clap::Args)]
pub(super) struct SinkArgs {
    /// Also receive notifications at `http://ADDR/sink`, and print each
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "127.0.0.1:10212"
    )]
    sink: Option<SocketAddr>,
    /// Verify signatures with the secrets in this file, one per line
    #[arg(long, value_name = "FILE", requires = "sink")]
    sink_secret_file: Option<PathBuf>,
    #[arg(long, value_name = "NAME=RATE", requires = "sink", help = fault_help::<SinkFault>("notifications to the receiver"))]
    sink_fault: Vec<FaultRate<SinkFault>>,
}

impl SinkArgs {
    /// `None` without `--sink`.
    pub(super) async fn start(&self, seed: u64) -> Result<Option<SinkReceiver>, Failure> {
        let Some(listen) = self.sink else { return Ok(None) };
        let options = SinkOptions { secrets: self.secrets()?, faults: self.sink_fault.clone(), seed };
        let sink = SinkReceiver::start(listen, options).await;
        sink.map(Some).map_err(|error| Failure::running(format_args!("cannot listen on {listen}: {error}")))
    }

    fn secrets(&self) -> Result<Vec<SigningSecret>, Failure> {
        let Some(path) = &self.sink_secret_file else { return Ok(Vec::new()) };
        let failure = |error| format!("the file of --sink-secret-file, {}, {error}", path.display());
        read_signing_secrets(path).map_err(|error| Failure::running(failure(error)))
    }

    /// The entry of the configuration that sends notifications to `sink`.
    pub(super) fn entry(&self, sink: &SinkReceiver) -> io::Result<String> {
        let mut entry = format!("\n[[notify]]\nname = \"simulator\"\nurl = \"{}\"\n", sink.url());
        if let Some(path) = &self.sink_secret_file {
            let path = std::path::absolute(path)?.display().to_string();
            entry += &["secret_file = ", &toml::Value::String(path).to_string(), "\n"].concat();
        }
        Ok(entry)
    }
}

/// Prints a line for each received event. Returns only an error of standard output, but not for a closed pipe.
pub(super) async fn print_received(sink: Option<&SinkReceiver>) -> Result<(), Failure> {
    let Some(sink) = sink else { return future::pending().await };
    loop {
        let lines: String = sink.take_received().await.iter().map(line).collect();
        // The simulator outlives the reader of its output.
        if !print_to_reader(lines)? {
            return future::pending().await;
        }
    }
}

fn line(event: &Received) -> String {
    let attribute = |name| event.attribute(name).unwrap_or_else(|| "-".to_owned());
    let signature = match event.signature {
        SignatureCheck::Verified => "verified".to_owned(),
        SignatureCheck::Rejected(reason) => format!("not verified: {reason}"),
        SignatureCheck::Unchecked => "not verified: no secret".to_owned(),
    };
    let reply = match (event.reply, event.reply.status()) {
        (SinkReply::Fault(SinkFault::Slow), Some(status)) => format!("{} slowly", status.as_u16()),
        (_, Some(status)) => status.as_u16().to_string(),
        (SinkReply::Fault(fault), None) => fault.name().to_owned(),
        (SinkReply::Accepted | SinkReply::Unauthorized, None) => "-".to_owned(),
    };
    let line = format!(
        "{time}  {kind}  {subject}  id {id}  attempt {attempt}  {signature}  → {reply}",
        time = event.at.wall.strftime("%H:%M:%SZ"),
        kind = attribute("type"),
        subject = attribute("subject"),
        id = event.id,
        attempt = event.attempt,
    );
    format!("{}\n", Sanitized(&line))
}
