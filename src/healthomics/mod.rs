//! AWS HealthOmics: one [`Target`] per account, region and role.
//!
//! The SDK's types stay in `aws`. Its retries are off: one poll is one request, and a failed poll becomes the same job's next,
//! later poll. A request first passes the circuit breakers (`breakers`), then waits for the quota (`scheduler`).

mod aws;
mod breakers;
mod scheduler;
mod service;
mod target;

pub use aws::{Aws, CallerIdentity, WireRules};
pub use scheduler::Priority;
pub use service::{Connect, ConnectFuture, HealthOmics, ListPage, ListedJob, RequestFuture, TargetError};
pub use target::{RequestPermit, Target};
