//! `refwatch reload`: asks the running daemon to read its configuration again, and waits until it has.

use std::io::ErrorKind;
use std::path::Path;

use http::{Method, StatusCode};

use super::exit::{Exit, Failure, load, print};
use crate::http::client::{self, Endpoint, RequestError};
use crate::http::control;

/// # Errors
/// The file has errors, or the daemon does not respond.
pub async fn run(config: &Path) -> Result<(), Failure> {
    // The file says where the daemon's socket is. If it has errors, the daemon reports them without a request.
    let socket = Endpoint::Socket(control::path(&load(config)?.config.database.path));
    let response = client::send(&socket, Method::POST, control::RELOAD).await.map_err(|error| {
        let advice = match &error {
            RequestError::Connect(error) if error.kind() == ErrorKind::PermissionDenied => {
                "only root and the user it runs as may ask it: sudo refwatch reload"
            }
            RequestError::Connect(_) => "is it running, with this configuration? see systemctl status refwatch",
            RequestError::Http(_) | RequestError::Status(_) | RequestError::Timeout => "see its log",
        };
        Failure::running(format_args!("the daemon does not answer at {socket}: {error} ({advice})"))
    })?;
    let body = String::from_utf8_lossy(response.body());
    match response.status() {
        StatusCode::OK => print(body),
        StatusCode::UNPROCESSABLE_ENTITY => Err(Failure { exit: Exit::Config, message: body.trim_end().to_owned() }),
        status => Err(Failure::running(format_args!("the daemon answers {status}: {}", body.trim_end()))),
    }
}
