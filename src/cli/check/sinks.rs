//! `refwatch check --online` for sinks: resolves each host and does the TLS handshake. It sends no request.

use serde::Serialize;
use tokio::task::spawn_blocking;

use super::super::exit::{Exit, Failure};
use crate::config::{Config, redacted_url};
use crate::core::sanitize::Sanitized;
use crate::notify::{connection, secrets};

#[derive(Serialize)]
pub(super) struct SinkReport {
    sink: String,
    /// Scheme, host and port.
    url: String,
    pub(super) is_reachable: bool,
    /// The step that was reached, or the error.
    result: String,
}

/// # Errors
/// The files of a sink have changed since the configuration was checked, and cannot be used.
pub(super) async fn run(config: &Config) -> Result<Vec<SinkReport>, Failure> {
    let mut reports = Vec::new();
    for sink in &config.sinks {
        let (name, timeout, sink) = (sink.name.to_string(), sink.timeout, sink.clone());
        let read = spawn_blocking(move || secrets::read(&sink)).await;
        let read = read.map_err(|error| Failure::new(Exit::InternalError, error))?;
        let url = read.map_err(|error| Failure::new(Exit::Config, error))?.url;
        let result = connection::check(&url, timeout).await;
        let is_reachable = result.is_ok();
        let result = result.map_or_else(|error| error, str::to_owned);
        reports.push(SinkReport { sink: name, url: redacted_url(&url), is_reachable, result });
    }
    Ok(reports)
}

/// One line for each sink.
pub(super) fn text(reports: &[SinkReport]) -> String {
    let line = |SinkReport { sink, url, result, .. }: &SinkReport| {
        format!("{}\n", Sanitized(&format!("sink {sink}, {url}: {result}")))
    };
    reports.iter().map(line).collect()
}
