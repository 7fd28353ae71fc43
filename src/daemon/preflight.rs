//! The checks before the daemon listens. `refwatch check` runs them too, so it rejects what a start would reject.
//!
//! Files are read on blocking threads, because file systems can hang. States of this machine, such as a port in use or a full
//! disk, are no part of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};

use crate::clock::Clock;
use crate::config::Config;
use crate::database::{self, FileError};
use crate::healthomics::{AwsFactory, ServiceFactory as _, TargetError};
use crate::http::tls::Tls;
use crate::notify::secrets;

/// The timeout for reading the configuration, or the files that it names. Without systemd, nothing else would report a file system
/// that hangs.
const FILES_TIMEOUT: Duration = Duration::from_mins(1);

/// The results of the checks.
#[derive(Debug)]
pub struct Checked {
    pub tls: Option<Arc<Tls>>,
    /// Secrets that every user can read.
    pub readable_secret_warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Every problem of the configuration, each on one line. A restart does not help.
    #[error("{}", .0.join("; "))]
    Config(Vec<String>),
    #[error("the {files} cannot be read within {} s: the file system does not respond", FILES_TIMEOUT.as_secs())]
    FilesTimeout { files: &'static str },
    #[error(transparent)]
    Target(TargetError),
    #[error("internal error while reading files: {0}")]
    Panicked(#[from] JoinError),
}

/// Loads the TLS files, reads the files of the sinks, inspects the file of the database, and builds each used target once. If nothing names
/// the region of a target, this requests it from the instance metadata service. No answer after the SDK's four attempts counts as none: the
/// unit starts after the network is online, and systemd would otherwise restart a daemon outside of EC2 for ever.
///
/// # Errors
/// The configuration cannot be used, or files cannot be read in time.
pub async fn preflight(config: &Config, main_file: PathBuf) -> Result<Checked, PreflightError> {
    let files_of = config.clone();
    let read = move || {
        let Config { http, database, sinks, .. } = &files_of;
        let tls = http.tls.clone().map(Tls::load).transpose();
        let sinks: Vec<String> = sinks.iter().filter_map(|sink| secrets::read(sink).err()).collect();
        (files_of.readable_secret_warnings(&main_file), tls, database::inspect(&database.path), sinks)
    };
    let (readable_secret_warnings, tls, inspected, mut errors) =
        read_at_start("files of http.tls, of the database and of the sinks", read).await?;
    let tls = tls.unwrap_or_else(|error| {
        errors.push(error.to_string());
        None
    });
    match inspected {
        // The start creates it.
        Err(FileError::MissingDirectory { .. }) if config.database.is_in_user_directory() => {}
        Err(error) if error.outlasts_restart() => errors.push(error.to_string()),
        Ok(()) | Err(_) => {}
    }
    let factory = AwsFactory::new(Clock::system());
    for target in config.watch_list.targets().into_iter().filter_map(|name| config.targets.get(name)) {
        match factory.build(target).await {
            Ok(_) => {}
            Err(error @ TargetError::FilesTimeout(_)) => return Err(PreflightError::Target(error)),
            Err(error @ (TargetError::NoRegion(_) | TargetError::Invalid(_))) => errors.push(error.to_string()),
        }
    }
    // A variable of the environment is an error of every target.
    let mut reported = BTreeSet::new();
    errors.retain(|error| reported.insert(error.clone()));
    if !errors.is_empty() {
        return Err(PreflightError::Config(errors));
    }
    Ok(Checked { tls: tls.map(Arc::new), readable_secret_warnings })
}

/// Calls `read` on a blocking thread. A signal can then end the start.
///
/// # Errors
/// `read` takes too long or panics.
pub async fn read_at_start<T: Send + 'static>(
    files: &'static str,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PreflightError> {
    let result = tokio::time::timeout(FILES_TIMEOUT, spawn_blocking(read)).await;
    Ok(result.map_err(|_| PreflightError::FilesTimeout { files })??)
}
