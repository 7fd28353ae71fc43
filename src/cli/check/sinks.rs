//! `refwatch check --online` for sinks: resolves each host and does the TLS handshake. It sends no request.

use tokio::task::spawn_blocking;

use super::super::exit::{Exit, Failure, print};
use crate::config::{Config, redacted_url};
use crate::core::sanitize::Sanitized;
use crate::notify::{connection, secrets};

pub(super) async fn run(config: &Config) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for sink in &config.sinks {
        let (name, timeout, sink) = (&sink.name, sink.timeout, sink.clone());
        let read = spawn_blocking(move || secrets::read(&sink)).await;
        // `preflight` has read the files, so they have just changed.
        let read = read.map_err(|error| Failure::new(Exit::InternalError, error))?;
        let url = read.map_err(|error| Failure::new(Exit::Config, error))?.url;
        let result = connection::check(&url, timeout).await;
        if result.is_err() {
            exit = Exit::Failed;
        }
        let text = result.unwrap_or_else(|error| error);
        print(format_args!("{}\n", Sanitized(&format!("sink {name}, {}: {text}", redacted_url(&url)))))?;
    }
    Ok(exit)
}
