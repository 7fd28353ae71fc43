//! What of an answer is worth a row in the record: transitions of a job and of its sources, and what else was seen.

use super::job::{JobStatus, Source, SourceKey, SourceStatus};
use super::time::Timestamp;

/// One job's status, seen to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The status before; `None` at the first sighting.
    pub from: Option<JobStatus>,
    /// The status now.
    pub to: JobStatus,
    /// When the new status was seen.
    pub observed_at: Timestamp,
    /// The last time that the old status was seen: the change lies between the two.
    pub not_before: Option<Timestamp>,
    /// The service's remark.
    pub status_message: Option<String>,
    /// When the job was created.
    pub created_at: Option<Timestamp>,
    /// When the service says that it ended.
    pub completed_at: Option<Timestamp>,
    /// What the life cycle does not allow about it.
    pub anomaly: Option<Anomaly>,
}

/// One source's status, seen to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTransition {
    /// Which source.
    pub key: SourceKey,
    /// The status before; `None` at the first sighting.
    pub from: Option<SourceStatus>,
    /// The status now, and the remark with it.
    pub to: Source,
    /// When it was seen.
    pub observed_at: Timestamp,
}

/// Something seen of a job whose status did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// What was seen.
    pub kind: DetailKind,
    /// The new value, as text.
    pub value: Option<String>,
    /// When it was seen.
    pub observed_at: Timestamp,
}

/// What a [`Detail`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DetailKind {
    /// The status message became another.
    StatusMessage,
    /// The creation time became another, which the API does not allow.
    CreationTimeChanged,
    /// The service no longer knows a job that it knew.
    Vanished,
    /// A job that had vanished is there again.
    Returned,
    /// The status was still the same when watching stopped.
    StillSeen,
}

impl DetailKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::StatusMessage, Self::CreationTimeChanged, Self::Vanished, Self::Returned, Self::StillSeen];

    /// The name in the record.
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

/// A transition that the life cycle does not allow. It is kept and marked, never hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// The status went back to an earlier one.
    Regressed,
    /// A job that had ended goes on.
    Reopened,
    /// A job that had ended one way ended another way.
    EndChanged,
    /// A job ended and the service did not say when.
    NoCompletionTime,
}

impl Anomaly {
    /// Every anomaly.
    pub const ALL: [Self; 4] = [Self::Regressed, Self::Reopened, Self::EndChanged, Self::NoCompletionTime];

    /// The name in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::Reopened => "reopened",
            Self::EndChanged => "end_changed",
            Self::NoCompletionTime => "no_completion_time",
        }
    }

    /// The anomaly with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|anomaly| anomaly.as_str() == name)
    }
}

/// All that one answer adds to the record of a job. It is committed whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The job's own transition.
    pub transition: Option<Transition>,
    /// Its sources' transitions.
    pub sources: Vec<SourceTransition>,
    /// What else was seen.
    pub details: Vec<Detail>,
}

impl Change {
    /// Whether there is nothing to record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transition.is_none() && self.sources.is_empty() && self.details.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_empty_without_transition_source_and_detail() {
        let at = Timestamp::UNIX_EPOCH;
        let detail = Detail { kind: DetailKind::StatusMessage, value: None, observed_at: at };
        let key = SourceKey { name: "".into(), source_file: "".into(), nth: 0 };
        let to = Source { status: SourceStatus::Finished, status_message: None };
        let source = SourceTransition { key, from: None, to, observed_at: at };
        let transition = Transition {
            from: None,
            to: JobStatus::Submitted,
            observed_at: at,
            not_before: None,
            status_message: None,
            created_at: None,
            completed_at: None,
            anomaly: None,
        };
        assert!(Change::default().is_empty());
        assert!(!Change { transition: Some(transition), ..Change::default() }.is_empty());
        assert!(!Change { details: vec![detail], ..Change::default() }.is_empty());
        assert!(!Change { sources: vec![source], ..Change::default() }.is_empty());
    }
}
