//! The endpoints for programs: JSON, metrics and probes. One file an endpoint.

pub(super) mod config;
pub mod daemon;
pub(super) mod health;
pub(super) mod metrics;
mod negotiation;
pub mod stores;
pub(super) mod transitions;
pub mod watches;
