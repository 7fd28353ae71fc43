//! The control socket: a Unix socket that only its owner and root can use, next to the database.
//!
//! It serves every route of the listener. It also serves the reload and the commands to sinks, which the
//! listener never accepts.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Router, serve as serve_http};
use rustix::fs::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket};
use tokio_util::sync::CancellationToken;

use super::guard::guarded;
use crate::http::app_state::AppState;
use crate::http::response::sanitized_lines;
use crate::http::router::router;
use crate::notify::SinkCommands;
use crate::reload::ReloadRequests;

mod notify;

pub use notify::{REPLAY_PATH, ReplayQuery, TEST_PATH, TestQuery};

pub const RELOAD_PATH: &str = "/-/reload";

/// Connections that wait to be accepted. A command opens one at a time.
const BACKLOG_MAX: u32 = 128;

/// The socket of the daemon that uses this database.
#[must_use]
pub fn socket_path(database: &Path) -> PathBuf {
    database.with_added_extension("sock")
}

/// Listens at `path` and replaces an existing socket. The caller holds the lock of the database, so no other daemon uses it.
///
/// # Errors
/// There is a file that is not a socket, or the error of the system, for example because the path is longer than 107 bytes.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    remove(path)?;
    let socket = UnixSocket::new_stream()?;
    // Linux creates the file with this mode, so no other user can connect even for a moment.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG_MAX)
}

/// Removes the socket, if there is one.
///
/// # Errors
/// There is another file at `path`, or it cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file is there: move it away"))
        }
        found => found.and_then(|_| fs::remove_file(path)),
    }
}

/// Serves until `stop`. Connections still open at that time live until the process exits.
pub async fn serve(
    listener: UnixListener,
    state: AppState,
    requests: ReloadRequests,
    sinks: SinkCommands,
    stop: CancellationToken,
) {
    let reload = Router::new().route(RELOAD_PATH, post(reload)).with_state(requests);
    let router = reload.merge(notify::router(sinks)).merge(guarded(router(state.clone()), state.host_names));
    // `axum::serve` never returns.
    let _ = stop.run_until_cancelled(serve_http(listener, router).into_future()).await;
}

async fn reload(State(requests): State<ReloadRequests>) -> Response {
    match requests.send_and_wait().await {
        Some(Ok(applied)) => (StatusCode::OK, applied + "\n").into_response(),
        Some(Err(problems)) => (StatusCode::UNPROCESSABLE_ENTITY, sanitized_lines(&problems) + "\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "refwatch is stopping\n").into_response(),
    }
}
