//! Finds the running daemon of a configuration file: by its control socket, otherwise at `http.listen`.
//!
//! The daemon of another file is never used: its answers would be taken for those of this file's daemon.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use serde_json::from_slice;

use super::exit::{Failure, load};
use crate::config;
use crate::http::client::{self, DaemonAddress, RequestError};
use crate::http::daemon::DaemonInfo;
use crate::http::{control, sanitized_lines};

const DAEMON_PATH: &str = "/api/v1/daemon";

/// Errors in the file do not matter, except in `database.path` and `http.listen`. Linux connects to loopback for a listener on `0.0.0.0`
/// or `[::]`.
///
/// # Errors
/// The responses or errors at both addresses.
pub(super) async fn find(config: &Path) -> Result<DaemonAddress, Failure> {
    let settings = config::main_settings(config);
    let socket = DaemonAddress::Socket(control::socket_path(&settings.database.path));
    let listener = DaemonAddress::Listener(settings.http.listen.to_string());
    let mut reasons = Vec::new();
    for address in [socket, listener] {
        match ask(&address, config).await {
            Ok(()) => return Ok(address),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Failure::running(format_args!(
        "cannot find the daemon of {}: {}: check systemctl status refwatch and --config",
        config.display(),
        reasons.join("; ")
    )))
}

async fn ask(address: &DaemonAddress, config: &Path) -> Result<(), String> {
    let response = client::get(address, DAEMON_PATH).await.map_err(|error| match (&error, address) {
        (RequestError::Connect(denied), DaemonAddress::Socket(_)) if denied.kind() == ErrorKind::PermissionDenied => {
            format!("{address}: only root and the user of the daemon may use this socket")
        }
        _ => format!("{address}: {error}"),
    })?;
    require_own(&response, address, config)
}

/// Sends a command to the control socket of the daemon of this configuration. Returns the status and the sanitized body of the response.
///
/// # Errors
/// The configuration has errors, the daemon does not respond, or it is that of another configuration.
pub(super) async fn post(config: &Path, path: &str) -> Result<(StatusCode, String), Failure> {
    // The path of the socket follows from the configuration. If the configuration has errors, no request is needed to report them.
    let socket = DaemonAddress::Socket(control::socket_path(&load(config)?.config.database.path));
    let failure = |error| failed(&socket, &error);
    let daemon = client::get(&socket, DAEMON_PATH).await.map_err(failure)?;
    require_own(&daemon, &socket, config).map_err(Failure::running)?;
    let response = client::send(&socket, Method::POST, path).await.map_err(failure)?;
    Ok((response.status(), sanitized_lines(&String::from_utf8_lossy(response.body()))))
}

fn failed(socket: &DaemonAddress, error: &RequestError) -> Failure {
    let advice = match error {
        RequestError::Connect(error) if error.kind() == ErrorKind::PermissionDenied => {
            "run as root: only root and the daemon's user may use this socket"
        }
        RequestError::Connect(_) => {
            "check that it runs with this configuration: systemctl status refwatch; after an edit of database.path, restart it"
        }
        RequestError::Http(_) | RequestError::Status { .. } | RequestError::Timeout => "see the log of the daemon",
    };
    Failure::running(format_args!("no response from the daemon at {socket}: {error}: {advice}"))
}

/// Checks the response to a GET of [`DAEMON_PATH`].
///
/// # Errors
/// The daemon that responded is that of another configuration file, or another program.
fn require_own(response: &[u8], address: &DaemonAddress, config: &Path) -> Result<(), String> {
    let daemon: DaemonInfo = from_slice(response).map_err(|_| format!("{address} is another program"))?;
    let file = Path::new(&daemon.config_file);
    if resolved(file) == resolved(config) {
        return Ok(());
    }
    Err(format!("{address} is the daemon of {} (process {}, database {})", file.display(), daemon.pid, daemon.database))
}

/// The absolute path without symbolic links, as far as this user may read it.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
