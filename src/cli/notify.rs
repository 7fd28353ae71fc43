//! `refwatch notify`: tests a sink, shows the sinks, and sends past events again. The running daemon does it.

use std::path::Path;

use clap::Subcommand;
use http::StatusCode;

use super::exit::{Failure, print, print_note};
use super::{own_daemon, table, terminal};
use crate::clock::Clock;
use crate::core::job::JobKey;
use crate::core::sanitize::Sanitized;
use crate::core::time::{Timestamp, parse_time};
use crate::http::client;
use crate::http::control::{self, ReplayQuery, TestSinkQuery};
use crate::http::{duration_between, sanitized_lines};
use crate::state::SinkStatus;

const LAYOUT: table::Layout<'static, 6> = table::Layout {
    header: ["SINK", "STATE", "WAITING", "FAILED", "LAST DELIVERY", "URL"],
    cut: Some(0),
    dropped: &[5, 4],
    below: 0,
    status: 1,
};

pub(super) const SINKS_PATH: &str = "/api/v1/sinks";

#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a test event to a sink and print its response
    Test {
        /// The `name` of its `[[notify]]` entry
        sink: String,
    },
    /// Show each sink, with the events that wait and those that have failed
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Send past events again, with the same event ids
    Replay {
        /// The `name` of its `[[notify]]` entry
        sink: String,
        /// Only the events of these jobs: STORE/JOB or KIND/STORE/JOB
        jobs: Vec<JobKey>,
        /// Only events observed since then: a duration such as 2h, a date or an RFC 3339 time
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only events whose delivery has failed
        #[arg(long)]
        failed: bool,
    },
}

/// # Errors
/// The configuration has errors, the daemon does not respond, there is no such sink, or it did not accept the test event.
pub async fn run(config: &Path, command: NotifyCommand) -> Result<(), Failure> {
    match command {
        NotifyCommand::Status { json } => show(config, json).await,
        NotifyCommand::Test { sink } => post(config, control::TEST_PATH, &TestSinkQuery { sink }).await,
        NotifyCommand::Replay { sink, jobs, since, failed } => {
            if jobs.is_empty() && since.is_none() && !failed {
                return Err(Failure::usage("name jobs, or set --since or --failed"));
            }
            let now = Clock::system().now().wall;
            let since = since.map(|text| parse_time(&text, now)).transpose();
            let since = since.map_err(|error| Failure::usage(format_args!("--since: {error}")))?;
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            post(config, control::REPLAY_PATH, &ReplayQuery { sink, jobs: jobs.join(","), since, failed }).await
        }
    }
}

async fn show(config: &Path, json: bool) -> Result<(), Failure> {
    let address = own_daemon::find(config).await?;
    let body = client::get(&address, SINKS_PATH).await;
    let body = body.map_err(|error| Failure::running(format_args!("{address}: {error}")))?;
    if json {
        return print(format_args!("{}\n", sanitized_lines(&String::from_utf8_lossy(&body))));
    }
    let sinks: Vec<SinkStatus> = serde_json::from_slice(&body)
        .map_err(|error| Failure::running(format_args!("{address}: unexpected response: {error}")))?;
    if sinks.is_empty() {
        print_note("the configuration has no [[notify]]");
        return Ok(());
    }
    print(table_of(&sinks, Clock::system().now().wall, terminal::width()))
}

/// One line per sink, and its error under it.
fn table_of(sinks: &[SinkStatus], now: Timestamp, width: usize) -> String {
    let shown = |text: &str| Sanitized(text).to_string();
    let row = |sink: &SinkStatus| {
        let last = sink.last_delivered_at.map_or("none".to_owned(), |at| format!("{} ago", duration_between(at, now)));
        let (state, waiting, failed) =
            (sink.state.as_str().to_owned(), sink.waiting.to_string(), sink.failed.to_string());
        let cells = [shown(&sink.name), state, waiting, failed, last, shown(&sink.url)];
        table::Row { cells, note: sink.last_error.as_deref().map(shown) }
    };
    let rows: Vec<_> = sinks.iter().map(row).collect();
    table::lines(&LAYOUT, &rows, width, false).text()
}

async fn post(config: &Path, path: &str, query: &impl serde::Serialize) -> Result<(), Failure> {
    let query = serde_urlencoded::to_string(query).map_err(Failure::running)?;
    match own_daemon::post(config, &format!("{path}?{query}")).await? {
        (StatusCode::OK, body) => print(format_args!("{body}\n")),
        (_, body) => Err(Failure::running(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SinkState;

    #[test]
    fn the_table_of_sinks_fits_80_columns() {
        let now = "2026-03-01T10:05:00Z".parse().expect("a time");
        let delivered = "2026-03-01T10:02:00Z".parse().expect("a time");
        let sink = |name: &str| SinkStatus {
            name: name.to_owned(),
            url: format!("https://{name}.lab.example"),
            ..SinkStatus::default()
        };
        let hooks = SinkStatus { last_delivered_at: Some(delivered), ..sink("hooks") };
        let last_error = Some("HTTP status 503".to_owned());
        let chat = SinkStatus { state: SinkState::Paused, waiting: 12, last_error, ..sink("chat") };
        let expected = r"
SINK   STATE   WAITING  FAILED  LAST DELIVERY  URL
chat   paused  12       0       none           https://chat.lab.example
   HTTP status 503
hooks  up      0        0       3m ago         https://hooks.lab.example
";
        assert_eq!(table_of(&[chat, hooks], now, 80), &expected[1..]);
    }
}
