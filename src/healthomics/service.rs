//! The service of a target: two HealthOmics operations for each kind of job, and STS's `GetCallerIdentity`.
//!
//! `aws` implements them with AWS's SDK. Tests on tokio's paused clock have their own implementation.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use crate::config::TargetConfig;
use crate::core::failure::RequestFailure;
use crate::core::job::{JobId, JobKey, JobStatus, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::core::time::Timestamp;

/// One request, sent when the future is awaited. Boxed, because [`TargetService`] is used as `dyn`.
pub type RequestFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, RequestFailure>> + Send + 'a>>;

pub type BuildFuture<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn TargetService>, TargetError>> + Send + 'a>>;

pub trait ServiceFactory: Debug + Send + Sync {
    /// Builds the service of one target. Sends no request to HealthOmics.
    fn build<'a>(&'a self, config: &'a TargetConfig) -> BuildFuture<'a>;
}

/// The service of one target. A call sends at most one request to HealthOmics or STS and, before it, the requests that fetch credentials,
/// if needed. If the fetch fails, the request itself is not sent. A call does not wait for the quota.
pub trait TargetService: Debug + Send + Sync {
    fn aws_region(&self) -> &Arc<str>;

    /// The identity of the credentials; `None` if HealthOmics's endpoint is not AWS's and no endpoint is set for STS: the credentials may
    /// be another service's, so AWS's STS must not receive them.
    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>>;

    fn get_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot>;

    /// Lists one page of the store's jobs of `kind` that were created after `created_after`. `created_after` is
    /// rounded down to a second.
    fn list_jobs<'a>(
        &'a self,
        kind: JobKind,
        store: &'a StoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The ARN of the user, or of the session of a role.
    pub arn: String,
    pub account: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    pub jobs: Vec<ListedJob>,
    /// The jobs of the page that are unreadable and skipped: one reason for each.
    pub skip_reasons: Vec<String>,
    /// Whether the page had more jobs than `Limit::PageJobs`. The jobs beyond the limit were dropped.
    pub exceeds_job_limit: bool,
    /// The token of the next page; `None` on the last page.
    pub next_token: Option<String>,
}

/// A job in a listing. Unlike a `Snapshot`, it has no status message, no completion time and no items (sources or read sets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedJob {
    pub job: JobId,
    pub status: JobStatus,
    pub created_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither the configuration nor AWS's own chain names a region.
    #[error(
        "target \"{0}\" has no AWS region: set `region` in [target.{0}], AWS_REGION, or a region in the AWS profile; \
         the instance metadata service names none"
    )]
    NoRegion(Arc<str>),
    /// An input of the SDK is invalid: a variable, a value of the AWS profile, a file, or the certificate authorities.
    #[error("{0}")]
    Invalid(String),
    /// The file system of a file that the SDK reads (AWS's configuration, a token, certificates) does not respond.
    #[error("{0}")]
    FilesTimeout(String),
}
