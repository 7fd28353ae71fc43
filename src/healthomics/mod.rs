//! AWS HealthOmics: one [`Target`] for each configured account, region and credentials.
//!
//! A poll gets one job. A listing gets one page of a store's jobs. Each is one request, because the SDK's retries are off. The
//! request first waits for its circuit breakers (`breakers`), then for the pacer, which keeps to the quota (`scheduler`).
//! `refwatch check` calls [`TargetService`] directly. Only `aws` uses AWS's SDK.

mod aws;
mod breakers;
mod scheduler;
mod service;
mod target;

pub use aws::{AwsFactory, EndpointAndSizeInterceptor};
pub use scheduler::Priority;
pub use service::{
    BuildFuture, CallerIdentity, ListPage, ListedJob, RequestFuture, ServiceFactory, TargetError, TargetService,
};
pub use target::{RequestPermit, Target};
