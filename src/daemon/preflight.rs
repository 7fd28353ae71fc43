//! The checks before the daemon listens. `refwatch check` runs them too, so it rejects what a start would reject.
//!
//! Every failure is a wrong configuration, which a restart does not correct. States of this machine, such as a port in use or a
//! full disk, are no part of it.

use std::fmt::{self, Display};
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::database::{self, OpenError};
use crate::healthomics::{AwsFactory, ServiceFactory as _};
use crate::http::tls::Tls;

/// Every problem, each on one line.
#[derive(Debug)]
pub struct PreflightError(pub Vec<String>);

impl std::error::Error for PreflightError {}

impl Display for PreflightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Loads the TLS files, inspects the file of the database, and builds each used target once. If nothing names the region of a target, this requests it from the instance
/// metadata service. No answer after the SDK's four attempts counts as none: the unit starts after the network is online, and systemd
/// would otherwise restart a daemon outside of EC2 for ever.
///
/// # Errors
/// The configuration cannot be used.
pub async fn preflight(config: &Config) -> Result<Option<Arc<Tls>>, PreflightError> {
    let mut errors = Vec::new();
    let tls = config.http.tls.clone().map(Tls::load).transpose();
    let tls = tls.unwrap_or_else(|error| {
        errors.push(error.to_string());
        None
    });
    match database::inspect(&config.database.path) {
        // The start creates it.
        Err(OpenError::MissingDirectory { .. }) if config.database.is_in_user_directory() => {}
        Err(error) if error.is_permanent() => errors.push(error.to_string()),
        Ok(()) | Err(_) => {}
    }
    let factory = AwsFactory::new(Clock::system());
    for target in config.watch_list.targets().into_iter().filter_map(|name| config.targets.get(name)) {
        if let Err(error) = factory.build(target).await {
            errors.push(error.to_string());
        }
    }
    // A variable of the environment is an error of every target.
    errors.dedup();
    if errors.is_empty() { Ok(tls.map(Arc::new)) } else { Err(PreflightError(errors)) }
}
