//! The endpoints for programs: JSON, metrics and `/-/ready`. `docs/http-api.md` describes every field.
//!
//! The types of JSON responses also derive `Deserialize`, because CLI subcommands parse them.

pub mod daemon;
pub mod jobs;
pub(super) mod metrics;
pub(super) mod negotiation;
pub(super) mod sinks;
pub mod stores;
pub(super) mod transitions;
