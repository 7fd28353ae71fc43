//! The endpoints for programs: JSON, metrics and health checks. `docs/http-api.md` describes every field.

pub mod daemon;
pub mod jobs;
pub(super) mod metrics;
mod negotiation;
pub mod stores;
pub(super) mod transitions;
