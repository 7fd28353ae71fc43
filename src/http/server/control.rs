//! The control socket: a Unix socket beside the record that only its owner, and root, may use. It shows all that the listener shows,
//! and takes requests that change something, of which there is one: to reload.

use std::ffi::OsString;
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

/// Where a reload is asked for.
pub const RELOAD: &str = "/-/reload";

/// What it is called, after the name of the record.
const SUFFIX: &str = ".sock";

/// For its owner alone.
const MODE: u32 = 0o600;

/// The socket of the daemon that has this record.
#[must_use]
pub fn path(record: &Path) -> PathBuf {
    let mut path: OsString = record.into();
    path.push(SUFFIX);
    path.into()
}

/// Listens at `path`. What is there belonged to a daemon that was killed, since whoever calls has the record's lock.
///
/// # Errors
/// The system refuses it: such a path has 107 bytes at most.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    // It is in nobody's way before it is closed to others.
    let mut new: OsString = path.into();
    new.push(".new");
    let new = PathBuf::from(new);
    for left in [path, &new] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(MODE))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(listener: UnixListener, state: AppState, requests: ReloadRequests, stop: CancellationToken) {
    let router = Router::new()
        .route(RELOAD, post(reload))
        .with_state(requests)
        .merge(guarded(router(state.clone()), state.host_names));
    // It goes on over any error.
    let _ = stop.run_until_cancelled(serve_http(listener, router).into_future()).await;
}

async fn reload(State(requests): State<ReloadRequests>) -> Response {
    match requests.answered().await {
        Some(Ok(in_force)) => (StatusCode::OK, in_force + "\n").into_response(),
        Some(Err(problems)) => (StatusCode::UNPROCESSABLE_ENTITY, printable_lines(&problems) + "\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "refwatch stops\n").into_response(),
    }
}
