//! AWS HealthOmics: one [`Target`] for each target of the configuration, which is a region or endpoint with credentials.
//!
//! A job imports, exports or activates data of a reference store or sequence store. A poll gets one job. A listing gets one page of a
//! store's jobs. Each is one request, because the SDK's retries are off. The request first waits for its circuit breakers (`breakers`),
//! then for its turn, a free place in flight and the quota (`scheduler`). `refwatch check` calls [`TargetService`] directly, without
//! breakers and quota. Only `aws` uses AWS's SDK.

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
