//! The integration tests: one binary, so that it links once.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod http;
