//! The HTTP server: pages for people (`ui`), JSON and metrics for programs (`api`), listener and control socket (`server`).
//! CLI subcommands send their requests with `client`.
//!
//! A request passes `server` (limits, host name, login) and `router`, then an endpoint in `ui` or `api`. Most endpoints render their
//! response with `renderer`. `filter`, `parameters` and `response` are their helpers.
//!
//! Endpoints read the shared state (`crate::state`) and the database. They never change anything, so only GET and HEAD are allowed.
//! The control socket also accepts POST: to reload, and to send test events or past events to a sink.
//!
//! Terms of the other modules:
//! - A target is an AWS region or endpoint with credentials. A watch is one job as configured or discovered for one target. Its
//!   `TargetJob` is the target and the `JobKey`: kind, store and id of the job.
//! - A store holds data in AWS and has jobs. A `[[store]]` entry of the configuration watches all jobs of a store. The watches
//!   that the entry discovers have the name of the entry.
//! - An item is a part of a job: a source of an import, or a read set of an export or activation.
//! - `WatchStatus` is a snapshot of a watch. Its `state` (`WatchState`) is `live` (polled), `finished` (the job has ended) or `parked` (not
//!   polled until the configuration changes). Its `known` (`JobState`) is the last known state of the job, with AWS's status in
//!   `known.status` (`JobStatus`). `known` is `None` until a poll has succeeded. Its `up` is whether the last poll succeeded. A discovered
//!   job that has finished is polled again if a listing shows that AWS has reopened it.
//! - A transition is a saved change of a job's status. An item transition is a saved change of an item's status. A detail is any other
//!   saved observation of a job, for example a new message.
//! - A sink receives notifications of events. A delivery is one event for one sink. A sink may reject a delivery several times. A delivery
//!   has failed after its last retry was rejected. Only a replay then sends the event again.
//! - `label` of a status is `UNKNOWN` for every status that AWS does not document. `as_str` is AWS's own text.
//! - A job has vanished if AWS returned it before and now returns 404.
//! - `kind` is the kind of job (`core::kind`), such as `reference_import`.

mod api;
mod app_state;
pub mod client;
mod filter;
mod parameters;
mod renderer;
mod response;
mod router;
pub mod server;
mod ui;

pub use api::{daemon, jobs, stores};
pub use app_state::AppState;
pub use filter::{NOT_SEEN, Severity};
pub use renderer::Renderer;
pub use response::{duration_between, sanitized_lines};
pub use server::{control, tls};
