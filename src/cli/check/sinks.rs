//! `refwatch check --online` for sinks: resolves each host and does the TLS handshake. It sends no request.

use serde::Serialize;

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

pub(super) async fn run(config: &Config) -> Vec<SinkReport> {
    let mut reports = Vec::new();
    for sink in &config.sinks {
        let (url, checked) = match secrets::read(sink) {
            Ok(secrets) => (redacted_url(&secrets.url), connection::check(&secrets.url, sink.timeout).await),
            // A file has changed since the configuration was checked.
            Err(error) => (sink.shown_url(), Err(error)),
        };
        let is_reachable = checked.is_ok();
        let result = checked.map_or_else(|error| error, str::to_owned);
        reports.push(SinkReport { sink: sink.name.to_string(), url, is_reachable, result });
    }
    reports
}

/// One line for each sink.
pub(super) fn text(reports: &[SinkReport]) -> String {
    let line = |SinkReport { sink, url, result, .. }: &SinkReport| {
        format!("{}\n", Sanitized(&format!("sink {sink}, {url}: {result}")))
    };
    reports.iter().map(line).collect()
}
