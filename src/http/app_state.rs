//! The data that the endpoints read.

use std::sync::Arc;

use crate::clock::Clock;
use crate::database::DatabaseReader;
use crate::http::renderer::Renderer;
use crate::instruments::Instruments;
use crate::metrics::Metrics;
use crate::state::SharedState;

#[derive(Clone, Debug)]
pub struct AppState {
    /// The published status of all jobs, stores and sinks, and of the daemon.
    pub shared: SharedState,
    /// Renders `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Counts responses and failed logins. Also has the rates of requests to AWS, which the status page shows.
    pub instruments: Instruments,
    pub database: DatabaseReader,
    pub renderer: Renderer,
    pub clock: Clock,
    /// Allowed host names in lower case. `localhost` and IP addresses are always allowed.
    /// `None`, with TLS, allows every name: a browser rejects the certificate under another name.
    pub host_names: Option<Arc<[String]>>,
    /// The path of `http.external_url` without the final slash. It is removed from requests that begin with it.
    pub external_path: Arc<str>,
}
