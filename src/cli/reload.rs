//! `refwatch reload`: makes the running daemon read its configuration again, and waits for the result.

use std::io::ErrorKind;
use std::path::Path;

use http::{Method, StatusCode};

use super::exit::{Exit, Failure, load, print};
use super::own_daemon;
use crate::http::client::{self, DaemonAddress, RequestError};
use crate::http::{control, sanitized_lines};

/// # Errors
/// Returns an error if the configuration has errors or the daemon does not respond.
pub async fn run(config: &Path) -> Result<(), Failure> {
    // The path of the socket follows from the configuration. If the configuration has errors, no request is needed to report them.
    let socket = DaemonAddress::Socket(control::socket_path(&load(config)?.config.database.path));
    let failure = |error: RequestError| {
        let advice = match &error {
            RequestError::Connect(error) if error.kind() == ErrorKind::PermissionDenied => {
                "run sudo refwatch reload: only root and the daemon's user may reload"
            }
            RequestError::Connect(_) => "check that it runs with this configuration: systemctl status refwatch",
            RequestError::Http(_) | RequestError::Status(_) | RequestError::Timeout => "see the log of the daemon",
        };
        Failure::running(format_args!("cannot reload the daemon at {socket}: {error}: {advice}"))
    };
    let daemon = client::get(&socket, own_daemon::DAEMON_PATH).await.map_err(failure)?;
    own_daemon::require_own(&daemon, &socket, config).map_err(Failure::running)?;
    let response = client::send(&socket, Method::POST, control::RELOAD_PATH).await.map_err(failure)?;
    let body = sanitized_lines(&String::from_utf8_lossy(response.body()));
    match response.status() {
        StatusCode::OK => print(format_args!("{body}\n")),
        StatusCode::UNPROCESSABLE_ENTITY => Err(Failure { exit: Exit::Config, message: body }),
        status => Err(Failure::running(format_args!("the daemon responded with {status}: {body}"))),
    }
}
