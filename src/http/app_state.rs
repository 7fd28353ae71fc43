//! What every endpoint reads. Endpoints change nothing.

use std::sync::Arc;

use crate::clock::Clock;
use crate::database::DatabaseReader;
use crate::instruments::Instruments;
use crate::metrics::Metrics;
use crate::state::SharedState;

#[derive(Clone, Debug)]
pub struct AppState {
    pub board: SharedState,
    pub metrics: Arc<Metrics>,
    pub instruments: Instruments,
    pub database: DatabaseReader,
    pub clock: Clock,
    /// The names, in lower case, that this server accepts as `Host` in any domain, besides `localhost` and IP addresses.
    /// `None` accepts every name: with TLS the certificate proves the name.
    pub host_names: Option<Arc<[String]>>,
}
