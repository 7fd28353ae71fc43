//! Converts the SDK's responses to a [`Snapshot`] or a [`ListPage`].
//!
//! Each kind has a reader for its `Get` response and one for its `List` response. The rest is the same for all kinds.
//!
//! The SDK substitutes values for missing members (`correct_errors` in its `serde_util`). A missing id, a job without a status, and
//! another job or store than the requested one are errors here. A missing creation time is `None`. An item without a status keeps
//! the SDK's substitute.

use std::collections::BTreeMap;

use aws_sdk_omics::operation::get_read_set_activation_job::GetReadSetActivationJobOutput;
use aws_sdk_omics::operation::get_read_set_export_job::GetReadSetExportJobOutput;
use aws_sdk_omics::operation::get_read_set_import_job::GetReadSetImportJobOutput;
use aws_sdk_omics::operation::get_reference_import_job::GetReferenceImportJobOutput;
use aws_sdk_omics::operation::list_read_set_activation_jobs::ListReadSetActivationJobsOutput;
use aws_sdk_omics::operation::list_read_set_export_jobs::ListReadSetExportJobsOutput;
use aws_sdk_omics::operation::list_read_set_import_jobs::ListReadSetImportJobsOutput;
use aws_sdk_omics::operation::list_reference_import_jobs::ListReferenceImportJobsOutput;
use aws_sdk_omics::primitives::DateTime;
use aws_sdk_omics::types::SourceFiles;

use crate::core::failure::{FailureReason, PollOutcome, RequestFailure};
use crate::core::job::{JobKey, JobStatus, Snapshot, Source, SourceKey, SourceStatus, Sources, StoreId};
use crate::core::time::Timestamp;
use crate::healthomics::service::{ListPage, ListedJob};

/// The SDK's substitute for a missing status.
const SDK_NO_VALUE: &str = "no value was set";

/// A job in a response of any kind.
pub(super) struct Job {
    store: String,
    id: String,
    status: String,
    created: DateTime,
}

/// The response of a `Get` operation.
pub(super) struct JobDetail {
    job: Job,
    status_message: Option<String>,
    completed: Option<DateTime>,
    items: Vec<Item>,
}

struct Item {
    /// What the requester gave to identify the item.
    name: String,
    source_file: String,
    status: String,
    status_message: Option<String>,
}

macro_rules! job {
    ($job:expr, $store_id:ident) => {
        Job {
            store: $job.$store_id,
            id: $job.id,
            status: $job.status.as_str().to_owned(),
            created: $job.creation_time,
        }
    };
}

macro_rules! job_detail {
    ($response:ident, $store_id:ident, $items:expr) => {
        JobDetail {
            items: $items.collect(),
            status_message: $response.status_message,
            completed: $response.completion_time,
            job: job!($response, $store_id),
        }
    };
}

macro_rules! item {
    ($item:expr, $name:expr, $source_file:expr) => {
        Item {
            name: $name,
            source_file: $source_file,
            status: $item.status.as_str().to_owned(),
            status_message: $item.status_message.clone(),
        }
    };
}

pub(super) fn reference_import(response: GetReferenceImportJobOutput) -> JobDetail {
    let items = response.sources.iter().map(|source| {
        item!(source, source.name.clone().unwrap_or_default(), source.source_file.clone().unwrap_or_default())
    });
    job_detail!(response, reference_store_id, items)
}

pub(super) fn read_set_import(response: GetReadSetImportJobOutput) -> JobDetail {
    let items = response.sources.iter().map(|source| {
        let name = format!("{}/{}", source.subject_id, source.sample_id);
        item!(source, name, source.source_files.as_ref().map(file_names).unwrap_or_default())
    });
    job_detail!(response, sequence_store_id, items)
}

pub(super) fn read_set_export(response: GetReadSetExportJobOutput) -> JobDetail {
    let items = response.read_sets.iter().flatten().map(|read_set| item!(read_set, read_set.id.clone(), String::new()));
    job_detail!(response, sequence_store_id, items)
}

pub(super) fn read_set_activation(response: GetReadSetActivationJobOutput) -> JobDetail {
    let items =
        response.sources.iter().flatten().map(|source| item!(source, source.read_set_id.clone(), String::new()));
    job_detail!(response, sequence_store_id, items)
}

fn file_names(files: &SourceFiles) -> String {
    [Some(&files.source1), files.source2.as_ref()].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

/// The jobs on a page and the token of the next page.
type Page = (Vec<Job>, Option<String>);

pub(super) fn reference_imports(response: ListReferenceImportJobsOutput) -> Page {
    let jobs = response.import_jobs.into_iter().flatten().map(|job| job!(job, reference_store_id));
    (jobs.collect(), response.next_token)
}

pub(super) fn read_set_imports(response: ListReadSetImportJobsOutput) -> Page {
    let jobs = response.import_jobs.into_iter().flatten().map(|job| job!(job, sequence_store_id));
    (jobs.collect(), response.next_token)
}

pub(super) fn read_set_exports(response: ListReadSetExportJobsOutput) -> Page {
    let jobs = response.export_jobs.into_iter().flatten().map(|job| job!(job, sequence_store_id));
    (jobs.collect(), response.next_token)
}

pub(super) fn read_set_activations(response: ListReadSetActivationJobsOutput) -> Page {
    let jobs = response.activation_jobs.into_iter().flatten().map(|job| job!(job, sequence_store_id));
    (jobs.collect(), response.next_token)
}

pub(super) fn snapshot(requested: &JobKey, JobDetail { job, status_message, completed, items }: JobDetail) -> PollOutcome {
    if job.store != requested.store.as_str() || job.id != requested.job.as_str() {
        let (store, id) = (job.store, job.id);
        return Err(protocol(format!("the response is about job {store:?}/{id:?}, the request was about {requested}")));
    }
    Ok(Snapshot {
        status: job_status(&job.status)?,
        status_message,
        created_at: timestamp(&job.created),
        completed_at: completed.as_ref().and_then(timestamp),
        sources: sources(items),
    })
}

pub(super) fn list_page(requested: &StoreId, (jobs, next_token): Page) -> Result<ListPage, RequestFailure> {
    let listed = jobs.into_iter().map(|Job { store, id, status, created }| {
        let (true, Ok(job)) = (store == requested.as_str(), id.parse()) else {
            return Err(protocol(format!("the listing of store {requested} contains job {store:?}/{id:?}")));
        };
        Ok(ListedJob { job, status: job_status(&status)?, created_at: timestamp(&created) })
    });
    Ok(ListPage {
        jobs: listed.collect::<Result<_, _>>()?,
        next_token: next_token.filter(|token| !token.is_empty()),
    })
}

fn protocol(message: String) -> RequestFailure {
    RequestFailure { reason: FailureReason::Protocol, message, retry_after: None }
}

fn job_status(status: &str) -> Result<JobStatus, RequestFailure> {
    let status = Some(status).filter(|&status| status != SDK_NO_VALUE);
    status.map(JobStatus::from).ok_or_else(|| protocol("the response has no status".to_owned()))
}

/// `None` for the epoch, the SDK's substitute for a missing time, and for a time that [`Timestamp`] cannot represent.
fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let time = Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()?;
    (time != Timestamp::UNIX_EPOCH).then_some(time)
}

fn sources(items: Vec<Item>) -> Sources {
    // Items may share name and file; `nth` distinguishes them.
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    let source = |Item { name, source_file, status, status_message }| {
        let count = counts.entry((name.clone(), source_file.clone())).or_default();
        let key = SourceKey { name: name.into(), source_file: source_file.into(), nth: *count };
        *count += 1;
        (key, Source { status: SourceStatus::from(&*status), status_message: status_message.map(Into::into) })
    };
    items.into_iter().map(source).collect()
}
