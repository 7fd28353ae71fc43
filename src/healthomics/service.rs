//! HealthOmics, as far as refwatch asks it: two operations. AWS's SDK is one way to reach it; a simulation is another.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use super::TargetError;
use super::identity::CallerIdentity;
use crate::config::TargetConfig;
use crate::core::failure::PollFailure;
use crate::core::job::{ImportJobId, JobKey, JobStatus, ReferenceStoreId, Snapshot};
use crate::core::time::Timestamp;

/// One request under way. Boxed: in a task that sleeps most of its life the future of a send would take 5 kB inline.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, PollFailure>> + Send + 'a>>;

/// The way to one target being prepared.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn HealthOmics>, TargetError>> + Send + 'a>>;

/// How targets are reached.
pub trait Connect: Debug + Send + Sync {
    /// Prepares the way to one target. The service itself need not be reachable.
    fn connect<'a>(&'a self, config: &'a TargetConfig) -> Connecting<'a>;
}

/// The service behind one target. A call is one request, with no retry and no pacing.
pub trait HealthOmics: Debug + Send + Sync {
    /// The region that calls go to.
    fn aws_region(&self) -> &Arc<str>;

    /// Asks whose credentials are used. `None`: there is nobody to ask.
    fn caller_identity(&self) -> Asked<'_, Option<CallerIdentity>> {
        Box::pin(async { Ok(None) })
    }

    /// Asks for one job.
    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> Asked<'a, Snapshot>;

    /// Asks for one page of a store's jobs, those created after `created_after`; `token` names the page.
    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> Asked<'a, ListPage>;
}

/// One page of the jobs of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// Its jobs.
    pub jobs: Vec<ListedJob>,
    /// Where the next page begins; `None`: this was the last one.
    pub next_token: Option<String>,
}

/// What a listing says of a job: neither its message nor its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedJob {
    /// The job.
    pub job: ImportJobId,
    /// Its status.
    pub status: JobStatus,
    /// When it was created.
    pub created_at: Option<Timestamp>,
}
