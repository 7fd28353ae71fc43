//! Converts the SDK's responses to a [`Snapshot`] or a [`ListPage`], within the limits of `core::limits`.
//!
//! The SDK substitutes values for missing members (`correct_errors` in its `serde_util`). A missing id, a job without a status, and
//! another job or store than the requested one are errors here. A missing creation time is `None`. A source without a status keeps
//! the SDK's substitute. In a listing, an error concerns only its job.

use std::collections::BTreeMap;

use aws_sdk_omics::operation::get_reference_import_job::GetReferenceImportJobOutput;
use aws_sdk_omics::operation::list_reference_import_jobs::ListReferenceImportJobsOutput;
use aws_sdk_omics::primitives::{DateTime, DateTimeFormat};
use aws_sdk_omics::types::ImportReferenceSourceItem;
use serde::Deserialize;
use serde_json::Value;

use crate::core::failure::{FailureReason, PollOutcome, RequestFailure};
use crate::core::job::{JobKey, JobStatus, ReferenceStoreId, Snapshot, Source, SourceKey, SourceStatus, Sources};
use crate::core::limits::{Limit, PAGE_TOKEN_BYTES_MAX};
use crate::core::sanitize::excerpt;
use crate::core::time::Timestamp;
use crate::healthomics::service::{ListPage, ListedJob};

/// The SDK's substitute for a missing status.
const SDK_NO_VALUE: &str = "no value was set";

/// The longest quote of an id in an error, in characters.
const QUOTED_ID_MAX: usize = 50;

/// A page of a listing whose jobs are not parsed yet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnparsedPage {
    import_jobs: Vec<Value>,
    next_token: Option<String>,
}

pub(super) fn snapshot(requested: &JobKey, response: &GetReferenceImportJobOutput) -> PollOutcome {
    let (store, job) = (response.reference_store_id(), response.id());
    if store != requested.store.as_str() || job != requested.job.as_str() {
        let response = describe(store, job);
        return Err(protocol(format!("the response is about {response}, the request was about {requested}")));
    }
    let mut exceeded = Vec::new();
    let status = job_status(response.status().as_str(), &mut exceeded);
    Ok(Snapshot {
        status: status.ok_or_else(|| protocol("the response has no status".to_owned()))?,
        status_message: response.status_message().map(|text| cut(text, &mut exceeded).to_owned()),
        created_at: timestamp(response.creation_time()),
        completed_at: response.completion_time().and_then(timestamp),
        sources: sources(response.sources(), &mut exceeded),
        exceeded,
    })
}

pub(super) fn list_page(
    requested: &ReferenceStoreId,
    response: &ListReferenceImportJobsOutput,
) -> Result<ListPage, RequestFailure> {
    let jobs = response.import_jobs().iter().map(|job| {
        listed_job(requested, job.reference_store_id(), job.id(), job.status().as_str(), Some(job.creation_time()))
    });
    page(jobs, response.next_token().map(str::to_owned))
}

/// Parses a page that the SDK rejects, job by job: the SDK rejects the whole page if one member of one job has a wrong type.
/// `None` if the body is not a page.
pub(super) fn rejected_list_page(
    requested: &ReferenceStoreId,
    body: &[u8],
) -> Option<Result<ListPage, RequestFailure>> {
    let UnparsedPage { import_jobs, next_token } = serde_json::from_slice(body).ok()?;
    let jobs = import_jobs.iter().map(|job| {
        let text = |member: &str| job[member].as_str().unwrap_or_default();
        let created_at = DateTime::from_str(text("creationTime"), DateTimeFormat::DateTime).ok();
        if created_at.is_none() && !job["creationTime"].is_null() {
            return Err(format!("{} has an unreadable creation time", describe(text("referenceStoreId"), text("id"))));
        }
        listed_job(requested, text("referenceStoreId"), text("id"), text("status"), created_at.as_ref())
    });
    Some(page(jobs, next_token))
}

fn page(
    mut jobs: impl ExactSizeIterator<Item = Result<ListedJob, String>>,
    next_token: Option<String>,
) -> Result<ListPage, RequestFailure> {
    let next_token = next_token.filter(|token| !token.is_empty());
    if let Some(length) = next_token.as_ref().map(String::len).filter(|length| *length > PAGE_TOKEN_BYTES_MAX) {
        let message = format!("the nextToken of a listing has {length} bytes, more than {PAGE_TOKEN_BYTES_MAX}");
        return Err(protocol(message));
    }
    let mut page = ListPage { next_token, ..ListPage::default() };
    for job in jobs.by_ref().take(Limit::PageJobs.max()) {
        match job {
            Ok(job) => page.jobs.push(job),
            Err(reason) => page.skipped.push(reason),
        }
    }
    page.is_cut = jobs.len() > 0;
    Ok(page)
}

/// The error says why the job is unreadable.
fn listed_job(
    requested: &ReferenceStoreId,
    store: &str,
    id: &str,
    status: &str,
    created_at: Option<&DateTime>,
) -> Result<ListedJob, String> {
    let (true, Ok(job)) = (store == requested.as_str(), id.parse()) else {
        return Err(format!("{} is not a job of store {requested}", describe(store, id)));
    };
    let status = job_status(status, &mut Vec::new());
    let status = status.ok_or_else(|| format!("{} has no status", describe(store, id)))?;
    Ok(ListedJob { job, status, created_at: created_at.and_then(timestamp) })
}

fn describe(store: &str, job: &str) -> String {
    format!("job {:?}/{:?}", excerpt(store, QUOTED_ID_MAX), excerpt(job, QUOTED_ID_MAX))
}

fn protocol(message: String) -> RequestFailure {
    RequestFailure { reason: FailureReason::Protocol, message, retry_after: None }
}

/// `None` for a missing status.
fn job_status(status: &str, exceeded: &mut Vec<Limit>) -> Option<JobStatus> {
    (!status.is_empty() && status != SDK_NO_VALUE).then(|| JobStatus::from(cut(status, exceeded)))
}

/// The start of a text, within its limit.
fn cut<'a>(text: &'a str, exceeded: &mut Vec<Limit>) -> &'a str {
    let end = text.floor_char_boundary(Limit::TextBytes.max());
    note(Limit::TextBytes, end < text.len(), exceeded);
    &text[..end]
}

fn note(limit: Limit, is_exceeded: bool, exceeded: &mut Vec<Limit>) {
    if is_exceeded && !exceeded.contains(&limit) {
        exceeded.push(limit);
    }
}

/// `None` for the epoch, the SDK's substitute for a missing time, and for a time that [`Timestamp`] cannot represent.
fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let time = Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()?;
    (time != Timestamp::UNIX_EPOCH).then_some(time)
}

fn sources<'a>(items: &'a [ImportReferenceSourceItem], exceeded: &mut Vec<Limit>) -> Sources {
    note(Limit::Items, items.len() > Limit::Items.max(), exceeded);
    // Sources may share name and file; `nth` distinguishes them.
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let source = |item: &'a ImportReferenceSourceItem| {
        let name = cut(item.name().unwrap_or_default(), exceeded);
        let source_file = cut(item.source_file().unwrap_or_default(), exceeded);
        let count = counts.entry((name, source_file)).or_default();
        let key = SourceKey { name: name.into(), source_file: source_file.into(), nth: *count };
        *count += 1;
        let status = SourceStatus::from(cut(item.status().as_str(), exceeded));
        (key, Source { status, status_message: item.status_message().map(|text| cut(text, exceeded).into()) })
    };
    items.iter().take(Limit::Items.max()).map(source).collect()
}
