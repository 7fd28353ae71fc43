//! From the SDK's answer to `ListReferenceImportJobs` to a [`ListPage`].

use aws_sdk_omics::operation::list_reference_import_jobs::ListReferenceImportJobsOutput;

use super::answer::{protocol, timestamp};
use super::service::{ListPage, ListedJob};
use crate::core::failure::PollFailure;
use crate::core::job::{JobStatus, ReferenceStoreId};

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
