//! `refwatch reload`: asks the running daemon to read its configuration again, and waits until it has.

use std::io;
use std::path::Path;

use http::StatusCode;

use super::exit::{Exit, Failure, load, print};
use crate::config::Loaded;
use crate::http::client::{self, RequestError};
use crate::http::control;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// The file is bad, or no daemon answers.
pub async fn run(config: &Path, Args {}: Args) -> Result<Exit, Failure> {
    // Of a file with mistakes nobody can tell where its daemon is; that one will see them by itself.
    let Loaded { config, .. } = load(config)?;
    let socket = control::path(&config.record.path);
    let (status, answer) = client::post(&socket, control::RELOAD).await.map_err(|error| unanswered(&socket, &error))?;
    let answer = String::from_utf8_lossy(&answer);
    match status {
        StatusCode::OK => print(answer).map(|()| Exit::Done),
        StatusCode::UNPROCESSABLE_ENTITY => Err(Failure { exit: Exit::Config, message: answer.trim_end().to_owned() }),
        status => Err(Failure::running(format_args!("the daemon answers {status}: {}", answer.trim_end()))),
    }
}

fn unanswered(socket: &Path, error: &RequestError) -> Failure {
    let advice = match error {
        RequestError::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "only root and the user it runs as may ask it: sudo refwatch reload"
        }
        RequestError::Connect(_) => "is it running, with this configuration? see systemctl status refwatch",
        RequestError::Http(_) | RequestError::Status(_) | RequestError::Timeout => "see its log",
    };
    Failure::running(format_args!("the daemon does not answer at {}: {error} ({advice})", socket.display()))
}
