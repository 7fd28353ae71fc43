//! What the daemon shows over HTTP: pages for people (`ui`), JSON and metrics for programs (`api`), and the listener around
//! them (`server`).
//!
//! Endpoints read the published state and the database. They change nothing, so GET and HEAD are the only methods; the
//! control socket adds the one request that changes something, a reload.

mod api;
mod app_state;
pub mod client;
mod response;
mod router;
pub mod server;
mod ui;

pub use api::{daemon, jobs, stores};
pub use app_state::AppState;
pub use response::distance;
pub use server::{control, tls};
