//! From the SDK's answer to `ListReferenceImportJobs` to a [`ListPage`].

use aws_sdk_omics::operation::list_reference_import_jobs::ListReferenceImportJobsOutput;

use super::answer::{protocol, timestamp};
use crate::core::job::{ImportJobId, JobStatus, ReferenceStoreId};
use crate::core::outcome::PollFailure;
use crate::core::time::Timestamp;

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

/// Checks the answer against the question and takes from it what a sweep needs.
pub(super) fn page(asked: &ReferenceStoreId, answer: ListReferenceImportJobsOutput) -> Result<ListPage, PollFailure> {
    let listed = answer.import_jobs().iter().map(|job| {
        let (store, id) = (job.reference_store_id(), job.id());
        let of_this_store = (store == asked.as_str()).then(|| id.parse().ok()).flatten();
        let job_id = of_this_store
            .ok_or_else(|| protocol(format!("store {asked} was listed, and the answer names {store:?}/{id:?}")))?;
        let status = JobStatus::from(job.status().as_str());
        Ok(ListedJob { job: job_id, status, created_at: timestamp(job.creation_time()) })
    });
    Ok(ListPage { jobs: listed.collect::<Result<_, _>>()?, next_token: answer.next_token })
}
