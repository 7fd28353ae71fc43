//! Plain words for what a person on call meets in our labels and AWS's: what is wrong, and what to do about it.

use crate::core::failure::FailureReason;
use crate::core::job::{JobStatus, SourceStatus};
use crate::core::transition::{Anomaly, DetailKind};
use crate::state::{WatchState, WatchView};

/// What a failed poll was about: "A poll failed: …".
pub(super) fn reason(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Throttled => "too many requests",
        FailureReason::AccessDenied => "access denied",
        FailureReason::NotFound => "no such job",
        FailureReason::Validation => "a malformed request",
        FailureReason::Timeout => "no answer in time",
        FailureReason::Connect => "no connection",
        FailureReason::Internal => "a fault at AWS",
        FailureReason::Protocol => "no answer of HealthOmics",
        FailureReason::Credentials => "no valid credentials",
        FailureReason::Other => "refused",
    }
}

/// What a person can do about polls that fail so, and what refwatch does by itself.
pub(super) fn remedy(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Throttled => {
            "The account's quota is used up. refwatch has slowed down and will speed up again by itself. If it lasts: \
             lower quota.share, or ask AWS for a higher quota."
        }
        FailureReason::AccessDenied => {
            "Allow omics:GetReferenceImportJob on this reference store to the identity of the target. It is taken up at the \
             next poll."
        }
        FailureReason::NotFound => {
            "Check reference_store_id and id of the entry, and region and account of its target. A job that was deleted \
             stays unknown: take its entry out."
        }
        FailureReason::Validation => "AWS does not accept these ids. Correct the entry and reload.",
        FailureReason::Timeout => {
            "It is tried again, less and less often. If it lasts: check the way to AWS (proxy, firewall), or raise \
             poll.timeout."
        }
        FailureReason::Connect => {
            "It is tried again, less and less often. If it lasts: check name resolution, route, proxy and certificate \
             authorities on this host, and endpoint_url."
        }
        FailureReason::Internal => {
            "Nothing to do here: it is tried again, less and less often. AWS tells of outages in its Health Dashboard."
        }
        FailureReason::Protocol => {
            "Something else than HealthOmics answers, most often a proxy or a captive portal. Check HTTPS_PROXY and \
             endpoint_url."
        }
        FailureReason::Credentials => {
            "Check the credentials of the target: profile, role, instance role. Once they are mended they are taken up \
             without a restart."
        }
        FailureReason::Other => "AWS refuses for a reason that refwatch does not know: its message says more.",
    }
}

/// What a person should know or do about a watch as it stands; `None` where nothing is wrong.
pub(super) fn advice(watch: &WatchView) -> Option<&'static str> {
    if let WatchState::Parked(_) = watch.state {
        return Some("It is not polled any more. Correct its entry and reload.");
    }
    if let (Some(false), Some(last)) = (watch.up, watch.recent_failures.back()) {
        return Some(remedy(last.reason));
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

/// What is odd about a transition, by its name in the record.
pub(super) fn anomaly(name: &str) -> Option<&'static str> {
    let anomaly = Anomaly::ALL.into_iter().find(|anomaly| anomaly.as_str() == name)?;
    Some(match anomaly {
        Anomaly::Regressed => "The status went back to an earlier one.",
        Anomaly::Reopened => "The job had ended and goes on.",
        Anomaly::EndChanged => "The job had ended otherwise.",
        Anomaly::NoCompletionTime => "AWS did not say when it ended.",
    })
}

/// What was seen beside transitions, by its name in the record.
pub(super) fn detail(name: &str) -> Option<&'static str> {
    let detail = DetailKind::ALL.into_iter().find(|kind| kind.as_str() == name)?;
    Some(match detail {
        DetailKind::StatusMessage => "AWS's message changed",
        DetailKind::CreationTimeChanged => "AWS gave another creation time",
        DetailKind::Vanished => "AWS no longer knew the job",
        DetailKind::Returned => "AWS knew the job again",
        DetailKind::StillSeen => "Watching stopped; the status was the same until then",
    })
}

/// How a job's status looks: a class of the style sheet.
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

/// How a source's status looks.
pub(super) fn source_tone(status: &SourceStatus) -> &'static str {
    match status {
        SourceStatus::NotStarted => "waiting",
        SourceStatus::InProgress => "active",
        SourceStatus::Finished => "good",
        SourceStatus::Failed => "bad",
        SourceStatus::Unknown(_) => "mixed",
    }
}
