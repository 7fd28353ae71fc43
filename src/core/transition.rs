//! The history of a job as the database holds it: status transitions of the job and of its items, and other details.
//!
//! Plain data. `JobTracker` computes almost all of it; the job's task adds [`DetailKind::StillSeen`] when it stops.

use std::sync::Arc;

use super::job::{Item, ItemKey, ItemStatus, JobStatus, Labels};
use super::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// `None` at the first observation of the job.
    pub from: Option<JobStatus>,
    pub to: JobStatus,
    /// When the new status was observed. A reopened job is observed twice; this is the second time.
    pub observed_at: Timestamp,
    /// When the old status was last observed, or `observed_at` if that is earlier: the wall clock may have been set back.
    pub not_before: Option<Timestamp>,
    pub status_message: Option<String>,
    pub created_at: Option<Timestamp>,
    /// The service's `completionTime`.
    pub completed_at: Option<Timestamp>,
    pub anomaly: Option<Anomaly>,
    /// `None` until the job's task adds it, and for transitions saved before version 5 of the database.
    pub watch: Option<Arc<WatchInfo>>,
}

/// How a job was watched when its transition was observed. Saved, so that a notification can be sent again with the same text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchInfo {
    /// The target's AWS region; empty if the target has an endpoint and no region.
    pub region: Arc<str>,
    /// The name of the watch.
    pub name: Arc<str>,
    pub labels: Arc<Labels>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemTransition {
    pub key: ItemKey,
    /// `None` at the first observation of the item.
    pub from: Option<ItemStatus>,
    /// `None` if the service no longer names the item.
    pub to: Option<Item>,
    pub observed_at: Timestamp,
}

/// An observation other than a change of status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    pub kind: DetailKind,
    /// The new value, as text.
    pub value: Option<String>,
    pub observed_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DetailKind {
    /// The status message changed, but not the status.
    StatusMessage,
    /// The creation time changed. The API page does not allow that.
    CreationTimeChanged,
    /// The service returned 404 for a job that it had returned before.
    Vanished,
    /// The service returned a vanished job again.
    Returned,
    /// The watch of the job stopped. The status was last observed at `observed_at`.
    StillSeen,
}

impl DetailKind {
    pub const ALL: [Self; 5] =
        [Self::StatusMessage, Self::CreationTimeChanged, Self::Vanished, Self::Returned, Self::StillSeen];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StatusMessage => "status_message",
            Self::CreationTimeChanged => "creation_time_changed",
            Self::Vanished => "vanished",
            Self::Returned => "returned",
            Self::StillSeen => "still_seen",
        }
    }
}

/// A rule of the life cycle that a transition breaks. The transition is kept, and marked with one anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// The status went back to an earlier one.
    Regressed,
    /// The job had ended, and is live again.
    Reopened,
    /// The job had ended, and has another terminal status.
    EndChanged,
    /// The job ended without a `completionTime`.
    NoCompletionTime,
}

impl Anomaly {
    pub const ALL: [Self; 4] = [Self::Regressed, Self::Reopened, Self::EndChanged, Self::NoCompletionTime];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::Reopened => "reopened",
            Self::EndChanged => "end_changed",
            Self::NoCompletionTime => "no_completion_time",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|anomaly| anomaly.as_str() == name)
    }
}

/// Everything that one poll or stop adds to the database. It is committed whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub transition: Option<Transition>,
    pub items: Vec<ItemTransition>,
    pub details: Vec<Detail>,
}

impl Change {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transition.is_none() && self.items.is_empty() && self.details.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anomaly_is_found_by_its_name() {
        for anomaly in Anomaly::ALL {
            assert_eq!(Anomaly::from_name(anomaly.as_str()), Some(anomaly));
        }
        assert_eq!(Anomaly::from_name("REGRESSED"), None);
    }

    #[test]
    fn a_change_is_empty_without_transition_source_and_detail() {
        let at = Timestamp::UNIX_EPOCH;
        let detail = Detail { kind: DetailKind::StatusMessage, value: None, observed_at: at };
        let key = ItemKey { name: "".into(), source_file: "".into(), nth: 0 };
        let to = Some(Item { status: ItemStatus::Finished, status_message: None });
        let item = ItemTransition { key, from: None, to, observed_at: at };
        let transition = Transition {
            from: None,
            to: JobStatus::Submitted,
            observed_at: at,
            not_before: None,
            status_message: None,
            created_at: None,
            completed_at: None,
            anomaly: None,
            watch: None,
        };
        assert!(Change::default().is_empty());
        assert!(!Change { transition: Some(transition), ..Change::default() }.is_empty());
        assert!(!Change { details: vec![detail], ..Change::default() }.is_empty());
        assert!(!Change { items: vec![item], ..Change::default() }.is_empty());
    }
}
