//! The data that every endpoint reads.

use std::sync::Arc;

use crate::clock::Clock;
use crate::database::DatabaseReader;
use crate::instruments::Instruments;
use crate::metrics::Metrics;
use crate::state::SharedState;

#[derive(Clone, Debug)]
pub struct AppState {
    pub shared: SharedState,
    pub metrics: Arc<Metrics>,
    pub instruments: Instruments,
    pub database: DatabaseReader,
    pub clock: Clock,
    /// Allowed host names in lower case, with or without a domain. `localhost` and IP addresses are always allowed.
    /// `None` allows every name: with TLS the certificate proves the name.
    pub host_names: Option<Arc<[String]>>,
}
