//! The [`TargetService`](super::TargetService) that uses AWS's SDK.
//!
//! The SDK's types stay in this module. One exception: the benchmarks use the SDK interceptor [`WireRules`].

mod client;
mod errors;
mod identity;
mod redact;
mod responses;

pub use client::{AwsFactory, WireRules};
pub use identity::CallerIdentity;
