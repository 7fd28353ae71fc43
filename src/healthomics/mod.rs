//! AWS HealthOmics. A target of the configuration is a region or an endpoint, with credentials. For each target to which a watched job or
//! store refers, there is one [`Target`].
//!
//! A job imports, exports or activates data of a reference store or sequence store. A poll gets one job. A `List` request gets one page of
//! a store's jobs. Each is one request, because the SDK's retries are off. The request first waits for its circuit breakers (`breakers`),
//! then in a queue, then until there are fewer requests in flight than the maximum, then for the quota (`scheduler`). `refwatch check`
//! calls [`TargetService`] directly, without breakers and quota. Only `aws` uses AWS's SDK.

mod aws;
mod breakers;
mod scheduler;
mod service;
mod target;

// The SDK interceptor, which keeps the SDK from putting a prefix before the host of a configured endpoint, and limits the size of
// responses, is public for the benchmarks.
pub use aws::{AwsFactory, VerbatimEndpointAndSizeLimit};
pub use scheduler::Priority;
pub use service::{
    BuildFuture, CallerIdentity, ListPage, ListedJob, RequestFuture, ServiceFactory, TargetError, TargetService,
};
pub use target::{RequestPermit, Target};
