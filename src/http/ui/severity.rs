//! How urgently a watch needs a person. The table is sorted by it, and the summary counts by it.

use crate::core::job::JobStatus;
use crate::state::{WatchState, WatchView};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// A person should look.
    Attention,
    /// Its job has not ended.
    UnderWay,
    /// Its job has ended as it was meant to.
    Ended,
}

pub(super) fn severity(watch: &WatchView) -> Severity {
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
