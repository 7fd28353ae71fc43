//! From the SDK's answer to a [`Snapshot`], once it is sure that it answers what was asked.

use std::collections::BTreeMap;

use aws_sdk_omics::operation::get_reference_import_job::GetReferenceImportJobOutput;
use aws_sdk_omics::primitives::DateTime;
use aws_sdk_omics::types::ImportReferenceSourceItem;

use crate::core::failure::{FailureReason, PollFailure, PollOutcome};
use crate::core::job::{JobKey, JobStatus, Snapshot, Source, SourceKey, SourceStatus, Sources};
use crate::core::time::Timestamp;

/// What the SDK puts in place of a status that the answer lacks (`correct_errors` in its `serde_util`).
const SDK_NO_VALUE: &str = "no value was set";

/// Checks the answer against the question and takes from it what a watch needs.
pub(super) fn snapshot(asked: &JobKey, answer: &GetReferenceImportJobOutput) -> PollOutcome {
    let (store, job) = (answer.reference_store_id(), answer.id());
    if store != asked.store.as_str() || job != asked.job.as_str() {
        return Err(protocol(format!("the answer is about job {store:?}/{job:?}, asked was {asked}")));
    }
    let status = answer.status().as_str();
    if status == SDK_NO_VALUE {
        return Err(protocol("the answer has no status".to_owned()));
    }
    Ok(Snapshot {
        status: JobStatus::from(status),
        status_message: answer.status_message().map(str::to_owned),
        created_at: timestamp(answer.creation_time()).filter(|&time| time != Timestamp::UNIX_EPOCH),
        completed_at: answer.completion_time().and_then(timestamp),
        sources: sources(answer.sources()),
    })
}

pub(super) fn protocol(message: String) -> PollFailure {
    PollFailure { reason: FailureReason::Protocol, message, retry_after: None }
}

/// `None` for a time that no calendar of ours reaches.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(time.subsec_nanos()).ok()?;
    Timestamp::new(time.secs(), nanoseconds).ok()
}

fn sources<'a>(items: &'a [ImportReferenceSourceItem]) -> Sources {
    let mut alike: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let source = |item: &'a ImportReferenceSourceItem| {
        let (name, source_file) = (item.name().unwrap_or_default(), item.source_file().unwrap_or_default());
        let count = alike.entry((name, source_file)).or_default();
        let key = SourceKey { name: name.into(), source_file: source_file.into(), nth: *count };
        *count += 1;
        let status = SourceStatus::from(item.status().as_str());
        (key, Source { status, status_message: item.status_message().map(Into::into) })
    };
    items.iter().map(source).collect()
}
