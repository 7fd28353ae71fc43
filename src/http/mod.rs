//! The HTTP server: pages for people (`ui`), JSON and metrics for programs (`api`), listener and control socket (`server`). The
//! commands send their requests with `client`.
//!
//! Endpoints read the shared state (`state`) and the database. They never change anything, so only GET and HEAD are allowed.
//! The control socket also accepts one POST: a reload.

mod api;
mod app_state;
pub mod client;
mod response;
mod router;
pub mod server;
mod ui;

pub use api::{daemon, jobs, stores};
pub use app_state::AppState;
pub use response::duration_between;
pub use server::{control, tls};
