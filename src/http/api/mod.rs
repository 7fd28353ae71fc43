//! The endpoints for programs: JSON, metrics and probes.

pub mod daemon;
pub(super) mod metrics;
mod negotiation;
pub mod stores;
pub(super) mod transitions;
pub mod watches;
