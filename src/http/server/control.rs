//! The control socket: a Unix socket beside the database that only its owner and root may use. It serves everything that the
//! listener serves, and the one request that changes something: a reload.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Router, serve as serve_http};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::guard::guarded;
use crate::http::app_state::AppState;
use crate::http::response::printable_lines;
use crate::http::router::router;
use crate::reload::ReloadRequests;

/// The path of the reload request.
pub const RELOAD: &str = "/-/reload";

/// The socket of the daemon that has this database.
#[must_use]
pub fn path(database: &Path) -> PathBuf {
    database.with_added_extension("sock")
}

/// Listens at `path`. A socket that is there belonged to a daemon that was killed, since the caller holds the database's lock.
///
/// # Errors
/// The system's: among others, such a path has 107 bytes at most.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(listener: UnixListener, state: AppState, requests: ReloadRequests, stop: CancellationToken) {
    let router = Router::new()
        .route(RELOAD, post(reload))
        .with_state(requests)
        .merge(guarded(router(state.clone()), state.host_names));
    // It continues after every error, so there is no result.
    let _ = stop.run_until_cancelled(serve_http(listener, router).into_future()).await;
}

async fn reload(State(requests): State<ReloadRequests>) -> Response {
    match requests.send_and_wait().await {
        Some(Ok(in_force)) => (StatusCode::OK, in_force + "\n").into_response(),
        Some(Err(problems)) => (StatusCode::UNPROCESSABLE_ENTITY, printable_lines(&problems) + "\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "refwatch stops\n").into_response(),
    }
}
