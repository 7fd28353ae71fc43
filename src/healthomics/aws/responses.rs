//! Converts the SDK's responses to a [`Snapshot`] or a [`ListPage`].
//!
//! The SDK substitutes values for missing members (`correct_errors` in its `serde_util`). A missing id, a job without a status, and
//! another job or store than the requested one are errors here. A missing creation time is `None`. A source without a status keeps
//! the SDK's substitute.

use std::collections::BTreeMap;

use aws_sdk_omics::operation::get_reference_import_job::GetReferenceImportJobOutput;
use aws_sdk_omics::operation::list_reference_import_jobs::ListReferenceImportJobsOutput;
use aws_sdk_omics::primitives::DateTime;
use aws_sdk_omics::types::{ImportReferenceSourceItem, ReferenceImportJobStatus};

use crate::core::failure::{FailureReason, PollOutcome, RequestFailure};
use crate::core::job::{JobKey, JobStatus, ReferenceStoreId, Snapshot, Source, SourceKey, SourceStatus, Sources};
use crate::core::limits::PAGE_TOKEN_BYTES_MAX;
use crate::core::time::Timestamp;
use crate::healthomics::service::{ListPage, ListedJob};

/// The SDK's substitute for a missing status.
const SDK_NO_VALUE: &str = "no value was set";

pub(super) fn snapshot(requested: &JobKey, response: &GetReferenceImportJobOutput) -> PollOutcome {
    let (store, job) = (response.reference_store_id(), response.id());
    if store != requested.store.as_str() || job != requested.job.as_str() {
        return Err(protocol(format!(
            "the response is about job {store:?}/{job:?}, the request was about {requested}"
        )));
    }
    Ok(Snapshot {
        status: job_status(response.status())?,
        status_message: response.status_message().map(str::to_owned),
        created_at: timestamp(response.creation_time()),
        completed_at: response.completion_time().and_then(timestamp),
        sources: sources(response.sources()),
    })
}

pub(super) fn list_page(
    requested: &ReferenceStoreId,
    response: ListReferenceImportJobsOutput,
) -> Result<ListPage, RequestFailure> {
    let listed = response.import_jobs().iter().map(|job| {
        let (store, id) = (job.reference_store_id(), job.id());
        let (true, Ok(job_id)) = (store == requested.as_str(), id.parse()) else {
            return Err(protocol(format!("the listing of store {requested} contains job {store:?}/{id:?}")));
        };
        Ok(ListedJob { job: job_id, status: job_status(job.status())?, created_at: timestamp(job.creation_time()) })
    });
    let jobs = listed.collect::<Result<_, _>>()?;
    let next_token = response.next_token.filter(|token| !token.is_empty());
    if let Some(length) = next_token.as_ref().map(String::len).filter(|length| *length > PAGE_TOKEN_BYTES_MAX) {
        return Err(protocol(format!(
            "the nextToken of a listing has {length} bytes, more than {PAGE_TOKEN_BYTES_MAX}"
        )));
    }
    Ok(ListPage { jobs, next_token })
}

fn protocol(message: String) -> RequestFailure {
    RequestFailure { reason: FailureReason::Protocol, message, retry_after: None }
}

fn job_status(status: &ReferenceImportJobStatus) -> Result<JobStatus, RequestFailure> {
    let status = Some(status.as_str()).filter(|&status| status != SDK_NO_VALUE);
    status.map(JobStatus::from).ok_or_else(|| protocol("the response has no status".to_owned()))
}

/// `None` for the epoch, the SDK's substitute for a missing time, and for a time that [`Timestamp`] cannot represent.
fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let time = Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()?;
    (time != Timestamp::UNIX_EPOCH).then_some(time)
}

fn sources<'a>(items: &'a [ImportReferenceSourceItem]) -> Sources {
    // Sources may share name and file; `nth` distinguishes them.
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let source = |item: &'a ImportReferenceSourceItem| {
        let (name, source_file) = (item.name().unwrap_or_default(), item.source_file().unwrap_or_default());
        let count = counts.entry((name, source_file)).or_default();
        let key = SourceKey { name: name.into(), source_file: source_file.into(), nth: *count };
        *count += 1;
        let status = SourceStatus::from(item.status().as_str());
        (key, Source { status, status_message: item.status_message().map(Into::into) })
    };
    items.iter().map(source).collect()
}
