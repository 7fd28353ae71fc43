//! `refwatch reload`: makes the running daemon read its configuration again, and waits for the result.

use std::path::Path;

use http::StatusCode;

use super::exit::{Exit, Failure, print};
use super::own_daemon;
use crate::http::control;

/// # Errors
/// Returns an error if the configuration has errors or the daemon does not respond.
pub async fn run(config: &Path) -> Result<(), Failure> {
    match own_daemon::post(config, control::RELOAD_PATH).await? {
        (StatusCode::OK, body) => print(format_args!("{body}\n")),
        (StatusCode::UNPROCESSABLE_ENTITY, body) => Err(Failure { exit: Exit::Config, message: body }),
        (status, body) => Err(Failure::running(format_args!("the daemon responded with {status}: {body}"))),
    }
}
