//! Converts the SDK's responses to a [`Snapshot`] or a [`ListPage`], within the limits of `core::limits`.
//!
//! Each kind has a function `…_detail` for its `Get` response and a function `…_page` for its `List` response. They return `Unchecked…`
//! types, which are the same for all kinds. `snapshot` and `checked_page` check and convert them.
//!
//! The SDK substitutes values for missing members (`correct_errors` in its `serde_util`). Here a missing creation time becomes
//! `None`, and an item without a status keeps the substitute. Errors are a missing id, a job without a status, and a job or
//! store that was not requested. In a listing, an error concerns only its job.

use std::collections::BTreeMap;

use aws_sdk_omics::operation::get_read_set_activation_job::GetReadSetActivationJobOutput;
use aws_sdk_omics::operation::get_read_set_export_job::GetReadSetExportJobOutput;
use aws_sdk_omics::operation::get_read_set_import_job::GetReadSetImportJobOutput;
use aws_sdk_omics::operation::get_reference_import_job::GetReferenceImportJobOutput;
use aws_sdk_omics::operation::list_read_set_activation_jobs::ListReadSetActivationJobsOutput;
use aws_sdk_omics::operation::list_read_set_export_jobs::ListReadSetExportJobsOutput;
use aws_sdk_omics::operation::list_read_set_import_jobs::ListReadSetImportJobsOutput;
use aws_sdk_omics::operation::list_reference_import_jobs::ListReferenceImportJobsOutput;
use aws_sdk_omics::primitives::{DateTime, DateTimeFormat};
use aws_sdk_omics::types::SourceFiles;
use serde_json::Value;

use crate::core::failure::{FailureReason, PollResult, RequestFailure};
use crate::core::job::{Item, ItemKey, ItemStatus, Items, JobKey, JobStatus, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::core::limits::{Limit, PAGE_TOKEN_BYTES_MAX};
use crate::core::sanitize::excerpt;
use crate::core::time::Timestamp;
use crate::healthomics::service::{ListPage, ListedJob};

/// The SDK's substitute for a missing status.
const SDK_NO_VALUE: &str = "no value was set";

/// The longest quote of an id in an error, in characters.
const QUOTED_ID_MAX: usize = 50;

/// The members that a job of any kind has in `Get` and `List` responses.
pub(super) struct UncheckedJob {
    store: String,
    id: String,
    status: String,
    created: Option<DateTime>,
}

/// The response of a `Get` operation.
pub(super) struct UncheckedJobDetail {
    job: UncheckedJob,
    status_message: Option<String>,
    completed: Option<DateTime>,
    items: Vec<UncheckedItem>,
}

/// An item of a response. Name and file identify it, except that several items may share both (see `ItemKey::nth`).
struct UncheckedItem {
    /// Reference import: the name of the reference. Read set import: `SUBJECT/SAMPLE`. Export and activation: the id of the read set.
    name: String,
    /// Empty for exports and activations.
    source_file: String,
    status: String,
    status_message: Option<String>,
}

/// The response of a `List` operation. The error of a job says why it is unreadable.
pub(super) struct UncheckedPage {
    jobs: Vec<Result<UncheckedJob, String>>,
    next_token: Option<String>,
}

macro_rules! job {
    ($job:expr, $store_id:ident) => {
        UncheckedJob {
            store: $job.$store_id,
            id: $job.id,
            status: $job.status.as_str().to_owned(),
            created: Some($job.creation_time),
        }
    };
}

macro_rules! job_detail {
    ($response:ident, $store_id:ident, $items:expr) => {
        UncheckedJobDetail {
            items: $items.collect(),
            status_message: $response.status_message,
            completed: $response.completion_time,
            job: job!($response, $store_id),
        }
    };
}

macro_rules! item {
    ($item:ident, $name:expr, $source_file:expr) => {
        UncheckedItem {
            name: $name,
            source_file: $source_file,
            status: $item.status.as_str().to_owned(),
            status_message: $item.status_message,
        }
    };
}

macro_rules! page {
    ($response:ident, $jobs:ident, $store_id:ident) => {
        UncheckedPage {
            jobs: $response.$jobs.into_iter().flatten().map(|job| Ok(job!(job, $store_id))).collect(),
            next_token: $response.next_token,
        }
    };
}

pub(super) fn reference_import_detail(response: GetReferenceImportJobOutput) -> UncheckedJobDetail {
    let items = response
        .sources
        .into_iter()
        .map(|source| item!(source, source.name.unwrap_or_default(), source.source_file.unwrap_or_default()));
    job_detail!(response, reference_store_id, items)
}

pub(super) fn read_set_import_detail(response: GetReadSetImportJobOutput) -> UncheckedJobDetail {
    let items = response.sources.into_iter().map(|source| {
        let name = format!("{}/{}", source.subject_id, source.sample_id);
        item!(source, name, source.source_files.as_ref().map(file_names).unwrap_or_default())
    });
    job_detail!(response, sequence_store_id, items)
}

pub(super) fn read_set_export_detail(response: GetReadSetExportJobOutput) -> UncheckedJobDetail {
    let items = response.read_sets.into_iter().flatten().map(|read_set| item!(read_set, read_set.id, String::new()));
    job_detail!(response, sequence_store_id, items)
}

pub(super) fn read_set_activation_detail(response: GetReadSetActivationJobOutput) -> UncheckedJobDetail {
    let items = response.sources.into_iter().flatten().map(|source| item!(source, source.read_set_id, String::new()));
    job_detail!(response, sequence_store_id, items)
}

fn file_names(files: &SourceFiles) -> String {
    let files = [Some(&*files.source1), files.source2.as_deref()];
    files.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

pub(super) fn reference_import_page(response: ListReferenceImportJobsOutput) -> UncheckedPage {
    page!(response, import_jobs, reference_store_id)
}

pub(super) fn read_set_import_page(response: ListReadSetImportJobsOutput) -> UncheckedPage {
    page!(response, import_jobs, sequence_store_id)
}

pub(super) fn read_set_export_page(response: ListReadSetExportJobsOutput) -> UncheckedPage {
    page!(response, export_jobs, sequence_store_id)
}

pub(super) fn read_set_activation_page(response: ListReadSetActivationJobsOutput) -> UncheckedPage {
    page!(response, activation_jobs, sequence_store_id)
}

/// Parses a page that the SDK rejects, job by job: the SDK rejects the whole page if one member of one job has a wrong type.
/// `None` if the body is not a page.
pub(super) fn lenient_page(kind: JobKind, body: &[u8]) -> Option<UncheckedPage> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let next_token = match &body["nextToken"] {
        Value::Null => None,
        token => Some(token.as_str()?.to_owned()),
    };
    let store_member = kind.info().store.id_member();
    let jobs = body[kind.info().list_member].as_array()?.iter().map(|job| {
        let text = |member: &str| job[member].as_str().unwrap_or_default().to_owned();
        let (store, id) = (text(store_member), text("id"));
        let created = DateTime::from_str(&text("creationTime"), DateTimeFormat::DateTime).ok();
        if created.is_none() && !job["creationTime"].is_null() {
            return Err(format!("{} has an unreadable creation time", describe(&store, &id)));
        }
        Ok(UncheckedJob { store, id, status: text("status"), created })
    });
    Some(UncheckedPage { jobs: jobs.collect(), next_token })
}

pub(super) fn snapshot(
    requested: &JobKey,
    UncheckedJobDetail { job, status_message, completed, items }: UncheckedJobDetail,
) -> PollResult {
    if job.store != requested.store.as_str() || job.id != requested.job.as_str() {
        let response = describe(&job.store, &job.id);
        return Err(protocol_failure(format!("the response is about {response}, the request was about {requested}")));
    }
    let mut exceeded_limits = Vec::new();
    let status = job_status(&job.status, &mut exceeded_limits);
    Ok(Snapshot {
        status: status.ok_or_else(|| protocol_failure("the response has no status".to_owned()))?,
        status_message: status_message.map(|text| cut(&text, &mut exceeded_limits).to_owned()),
        created_at: job.created.as_ref().and_then(timestamp),
        completed_at: completed.as_ref().and_then(timestamp),
        items: snapshot_items(&items, &mut exceeded_limits),
        exceeded_limits,
    })
}

pub(super) fn checked_page(
    requested: &StoreId,
    UncheckedPage { jobs, next_token }: UncheckedPage,
) -> Result<ListPage, RequestFailure> {
    let next_token = next_token.filter(|token| !token.is_empty());
    if let Some(length) = next_token.as_ref().map(String::len).filter(|length| *length > PAGE_TOKEN_BYTES_MAX) {
        let message = format!("the nextToken of a listing has {length} bytes, more than {PAGE_TOKEN_BYTES_MAX}");
        return Err(protocol_failure(message));
    }
    let mut page =
        ListPage { next_token, exceeds_job_limit: jobs.len() > Limit::PageJobs.max(), ..ListPage::default() };
    for job in jobs.into_iter().take(Limit::PageJobs.max()) {
        match job.and_then(|job| listed_job(requested, job)) {
            Ok(job) => page.jobs.push(job),
            Err(reason) => page.skip_reasons.push(reason),
        }
    }
    Ok(page)
}

/// The error says why the job is unreadable.
fn listed_job(
    requested: &StoreId,
    UncheckedJob { store, id, status, created }: UncheckedJob,
) -> Result<ListedJob, String> {
    let (true, Ok(job)) = (store == requested.as_str(), id.parse()) else {
        return Err(format!("{} is not a job of store {requested}", describe(&store, &id)));
    };
    let status = job_status(&status, &mut Vec::new());
    let status = status.ok_or_else(|| format!("{} has no status", describe(&store, &id)))?;
    Ok(ListedJob { job, status, created_at: created.as_ref().and_then(timestamp) })
}

fn describe(store: &str, job: &str) -> String {
    format!("job {:?}/{:?}", excerpt(store, QUOTED_ID_MAX), excerpt(job, QUOTED_ID_MAX))
}

fn protocol_failure(message: String) -> RequestFailure {
    RequestFailure { reason: FailureReason::Protocol, message, retry_after: None }
}

/// `None` for a missing status.
fn job_status(status: &str, exceeded_limits: &mut Vec<Limit>) -> Option<JobStatus> {
    (!status.is_empty() && status != SDK_NO_VALUE).then(|| JobStatus::from(cut(status, exceeded_limits)))
}

/// The start of a text, within its limit.
fn cut<'a>(text: &'a str, exceeded_limits: &mut Vec<Limit>) -> &'a str {
    let end = text.floor_char_boundary(Limit::TextBytes.max());
    note_if_exceeded(Limit::TextBytes, end < text.len(), exceeded_limits);
    &text[..end]
}

fn note_if_exceeded(limit: Limit, is_exceeded: bool, exceeded_limits: &mut Vec<Limit>) {
    if is_exceeded && !exceeded_limits.contains(&limit) {
        exceeded_limits.push(limit);
    }
}

/// `None` for the epoch, the SDK's substitute for a missing time, and for a time that [`Timestamp`] cannot represent.
fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let time = Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()?;
    (time != Timestamp::UNIX_EPOCH).then_some(time)
}

fn snapshot_items<'a>(unchecked_items: &'a [UncheckedItem], exceeded_limits: &mut Vec<Limit>) -> Items {
    note_if_exceeded(Limit::Items, unchecked_items.len() > Limit::Items.max(), exceeded_limits);
    // Items may share name and file; `nth` distinguishes them.
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let convert = |item: &'a UncheckedItem| {
        let (name, source_file) = (cut(&item.name, exceeded_limits), cut(&item.source_file, exceeded_limits));
        let count = counts.entry((name, source_file)).or_default();
        let key = ItemKey { name: name.into(), source_file: source_file.into(), nth: *count };
        *count += 1;
        let status = ItemStatus::from(cut(&item.status, exceeded_limits));
        (
            key,
            Item {
                status,
                status_message: item.status_message.as_deref().map(|text| cut(text, exceeded_limits).into()),
            },
        )
    };
    unchecked_items.iter().take(Limit::Items.max()).map(convert).collect()
}
