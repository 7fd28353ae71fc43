//! AWS HealthOmics: one [`Target`] per account, region and role.
//!
//! Only `aws` uses AWS's SDK. The SDK's retries are off: one poll is one request, and a job whose poll fails is polled again later.
//! A poll or a listing first waits for its circuit breakers (`breakers`), then for the quota (`scheduler`). `refwatch check` calls
//! [`TargetService`] directly.

mod aws;
mod breakers;
mod scheduler;
mod service;
mod target;

pub use aws::{AwsFactory, CallerIdentity, WireRules};
pub use scheduler::Priority;
pub use service::{BuildFuture, ListPage, ListedJob, RequestFuture, ServiceFactory, TargetError, TargetService};
pub use target::{RequestPermit, Target};
