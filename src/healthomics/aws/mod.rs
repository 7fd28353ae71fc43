//! The [`TargetService`](super::TargetService) that uses AWS's SDK.
//!
//! The SDK's types stay in this module. The interceptor [`VerbatimEndpointAndSizeLimit`] keeps the SDK from putting
//! a prefix before the host of a configured endpoint, and limits the size of responses. It is public for the benchmarks.

mod client;
mod credentials;
mod environment;
mod errors;
mod identity;
mod redact;
mod responses;
mod sdk_files;

pub use client::{AwsFactory, VerbatimEndpointAndSizeLimit};
