//! The endpoints for programs: JSON, metrics and probes.

pub mod daemon;
pub mod jobs;
pub(super) mod metrics;
mod negotiation;
pub mod stores;
pub(super) mod transitions;
