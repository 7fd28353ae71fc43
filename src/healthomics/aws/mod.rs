//! HealthOmics through AWS's SDK. The SDK's types do not leave this module.

mod client;
mod errors;
mod identity;
mod redact;
mod responses;

pub use client::{Aws, WireRules};
pub use identity::CallerIdentity;
