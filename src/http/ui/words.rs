//! What statuses and errors mean to a person on call: plain words, advice, colours and severity.

use crate::core::job::{JobStatus, SourceStatus};
use crate::core::transition::{Anomaly, DetailKind};
use crate::state::{WatchState, WatchStatus};

/// What a person should know or do; `None` if nothing is wrong.
pub(super) fn advice(watch: &WatchStatus) -> Option<&'static str> {
    if let WatchState::Parked(_) = watch.state {
        return Some("It is not polled any more. Correct its entry and reload.");
    }
    if let (Some(false), Some(last)) = (watch.up, watch.recent_failures.back()) {
        return Some(last.reason.class().advice);
    }
    match &watch.known.as_ref()?.status {
        JobStatus::Failed => Some(
            "The import failed. The sources below say why, where AWS does; correct them and start a new import job. This one does \
             not start again.",
        ),
        JobStatus::CompletedWithFailures => Some(
            "Some sources were not imported. The others are in the store; import the failed ones again in a new job.",
        ),
        JobStatus::Unknown(_) => Some("AWS uses a status that refwatch does not know. It goes on polling."),
        JobStatus::Submitted
        | JobStatus::InProgress
        | JobStatus::Cancelling
        | JobStatus::Cancelled
        | JobStatus::Completed => None,
    }
}

pub(super) fn anomaly(anomaly: Anomaly) -> &'static str {
    match anomaly {
        Anomaly::Regressed => "The status went back to an earlier one.",
        Anomaly::Reopened => "The job had ended and goes on.",
        Anomaly::EndChanged => "The job had ended otherwise.",
        Anomaly::NoCompletionTime => "AWS did not say when it ended.",
    }
}

pub(super) fn detail(kind: DetailKind) -> &'static str {
    match kind {
        DetailKind::StatusMessage => "AWS's message changed",
        DetailKind::CreationTimeChanged => "AWS gave another creation time",
        DetailKind::Vanished => "AWS no longer knew the job",
        DetailKind::Returned => "AWS knew the job again",
        DetailKind::StillSeen => "Watching stopped; the status was the same until then",
    }
}

/// A class of the style sheet.
pub(super) fn job_tone(status: &JobStatus) -> &'static str {
    match status {
        JobStatus::Submitted => "waiting",
        JobStatus::InProgress => "active",
        JobStatus::Cancelling | JobStatus::Cancelled => "void",
        JobStatus::Failed => "bad",
        JobStatus::Completed => "good",
        JobStatus::CompletedWithFailures | JobStatus::Unknown(_) => "mixed",
    }
}

/// A class of the style sheet.
pub(super) fn source_tone(status: &SourceStatus) -> &'static str {
    match status {
        SourceStatus::NotStarted => "waiting",
        SourceStatus::InProgress => "active",
        SourceStatus::Finished => "good",
        SourceStatus::Failed => "bad",
        SourceStatus::Unknown(_) => "mixed",
    }
}

/// How urgently a watch needs a person. The table is sorted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Attention,
    /// The job has not ended.
    UnderWay,
    /// The job has ended as intended.
    Ended,
}

pub(super) fn severity(watch: &WatchStatus) -> Severity {
    let parked = matches!(watch.state, WatchState::Parked(_));
    match &watch.known {
        _ if parked || watch.up == Some(false) => Severity::Attention,
        Some(known) if known.vanished_at.is_some() => Severity::Attention,
        Some(known) => match known.status {
            JobStatus::Failed | JobStatus::CompletedWithFailures | JobStatus::Unknown(_) => Severity::Attention,
            JobStatus::Completed | JobStatus::Cancelled => Severity::Ended,
            JobStatus::Submitted | JobStatus::InProgress | JobStatus::Cancelling => Severity::UnderWay,
        },
        None => Severity::UnderWay,
    }
}
