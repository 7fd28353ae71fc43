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
/// Internal.
pub(super) async fn run(config: &Config) -> Result<Vec<SinkReport>, Failure> {
    let mut reports = Vec::new();
    for sink in &config.sinks {
        let (name, shown_url, timeout, sink) = (sink.name.to_string(), sink.shown_url(), sink.timeout, sink.clone());
        let read = spawn_blocking(move || secrets::read(&sink)).await;
        let read = read.map_err(|error| Failure::new(Exit::InternalError, error))?;
        let (url, checked) = match read {
            Ok(secrets) => (redacted_url(&secrets.url), connection::check(&secrets.url, timeout).await),
            // A file has changed since the configuration was checked.
            Err(error) => (shown_url, Err(error)),
        };
        let is_reachable = checked.is_ok();
        let result = checked.map_or_else(|error| error, str::to_owned);
        reports.push(SinkReport { sink: name, url, is_reachable, result });
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
