//! The HealthOmics API as refwatch uses it: two operations. AWS's SDK implements it in `aws`, and a simulation in the tests.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use super::aws::CallerIdentity;
use crate::config::TargetConfig;
use crate::core::failure::PollFailure;
use crate::core::job::{ImportJobId, JobKey, JobStatus, ReferenceStoreId, Snapshot};
use crate::core::time::Timestamp;

/// One request in flight. Boxed, because the trait is used as `dyn`.
pub type RequestFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, PollFailure>> + Send + 'a>>;

pub type ConnectFuture<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn HealthOmics>, TargetError>> + Send + 'a>>;

pub trait Connect: Debug + Send + Sync {
    /// Builds the client of one target. The service need not be reachable.
    fn connect<'a>(&'a self, config: &'a TargetConfig) -> ConnectFuture<'a>;
}

/// The service behind one target. A call is one request, with no retry and no pacing.
pub trait HealthOmics: Debug + Send + Sync {
    fn aws_region(&self) -> &Arc<str>;

    /// The identity behind the credentials; `None` if no service can be asked.
    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        Box::pin(async { Ok(None) })
    }

    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot>;

    /// Lists one page of a store's jobs, those created after `created_after`.
    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    pub jobs: Vec<ListedJob>,
    /// The next page; `None` on the last one.
    pub next_token: Option<String>,
}

/// A job in a listing, which contains neither its message nor its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedJob {
    pub job: ImportJobId,
    pub status: JobStatus,
    pub created_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither the configuration nor AWS's own chain names a region.
    #[error(
        "target \"{0}\" has no AWS region: set `region` in [target.{0}], AWS_REGION, or a region in the AWS profile"
    )]
    NoRegion(Arc<str>),
}
