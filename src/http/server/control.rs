//! The control socket: a Unix socket next to the database that only its owner and root can use.
//!
//! It serves every route of the listener and the reload, which the listener never accepts.

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
use crate::http::response::sanitized_lines;
use crate::http::router::router;
use crate::reload::ReloadRequests;

pub const RELOAD_PATH: &str = "/-/reload";

/// The socket of the daemon that uses this database.
#[must_use]
pub fn socket_path(database: &Path) -> PathBuf {
    database.with_added_extension("sock")
}

/// Listens at `path` and replaces an existing socket. The caller holds the lock of the database, so no other daemon uses it.
///
/// # Errors
/// The error of the system, for example because the path is longer than 107 bytes.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop`. A connection that is open then ends with the process.
pub async fn serve(listener: UnixListener, state: AppState, requests: ReloadRequests, stop: CancellationToken) {
    let router = Router::new()
        .route(RELOAD_PATH, post(reload))
        .with_state(requests)
        .merge(guarded(router(state.clone()), state.host_names));
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
