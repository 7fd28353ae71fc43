//! The words of the service: ids, statuses, what one answer says of a job, and what of that is worth a row in the record.
//!
//! Patterns and values are those of the API page of `GetReferenceImportJob`.
//! Over 400 lines: the vocabulary is read in one place, and most of it is plain lists.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

use super::time::Timestamp;

/// Ids are `[0-9]+`, 10 to 36 characters (API page, "Length Constraints").
const ID_LENGTH: std::ops::RangeInclusive<usize> = 10..=36;

/// A text that is no id of the service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {min} to {max} digits", min = ID_LENGTH.start(), max = ID_LENGTH.end())]
pub struct InvalidId {
    what: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if ID_LENGTH.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId { what: $what })
                }
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

id!(
    /// The id of a reference store.
    ReferenceStoreId,
    "a reference store id"
);
id!(
    /// The id of a reference import job.
    ImportJobId,
    "an import job id"
);

/// A job within one target. Written `STORE/JOB`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The reference store that the job imports into.
    pub store: ReferenceStoreId,
    /// The import job.
    pub job: ImportJobId,
}

impl Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.job)
    }
}

impl FromStr for JobKey {
    type Err = InvalidJobKey;

    fn from_str(text: &str) -> Result<Self, InvalidJobKey> {
        let (store, job) = text.split_once('/').ok_or(InvalidJobKey::NoSlash)?;
        Ok(Self { store: store.parse()?, job: job.parse()? })
    }
}

/// A text that names no job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJobKey {
    /// The two ids are not told apart.
    #[error("a job is written REFERENCE_STORE_ID/IMPORT_JOB_ID")]
    NoSlash,
    /// One of the ids is none.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// A job and the target it is read through: what one watch is about, across the whole daemon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId {
    /// The name of the target, from the configuration.
    pub target: Arc<str>,
    /// The job.
    pub key: JobKey,
}

/// The status of an import job. The enumeration may grow, so a value that is new is kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the API's own values")]
pub enum JobStatus {
    Submitted,
    InProgress,
    Cancelling,
    Cancelled,
    Failed,
    Completed,
    CompletedWithFailures,
    /// A value that the API page does not have.
    Unknown(Box<str>),
}

impl JobStatus {
    /// The seven statuses of the API page, in the order of a job's life.
    pub const KNOWN: [Self; 7] = [
        Self::Submitted,
        Self::InProgress,
        Self::Cancelling,
        Self::Cancelled,
        Self::Failed,
        Self::Completed,
        Self::CompletedWithFailures,
    ];

    /// The label for every status that is not on the API page.
    pub const UNKNOWN_LABEL: &'static str = "UNKNOWN";

    /// The status as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::InProgress => "IN_PROGRESS",
            Self::Cancelling => "CANCELLING",
            Self::Cancelled => "CANCELLED",
            Self::Failed => "FAILED",
            Self::Completed => "COMPLETED",
            Self::CompletedWithFailures => "COMPLETED_WITH_FAILURES",
            Self::Unknown(verbatim) => verbatim,
        }
    }

    /// The status as a metric label: one of a closed set, whatever the service says.
    #[must_use]
    pub fn label(&self) -> &'static str {
        Self::labels().nth(self.index()).unwrap_or(Self::UNKNOWN_LABEL)
    }

    /// Every label there is: the seven of the API page, then `UNKNOWN`.
    pub fn labels() -> impl Iterator<Item = &'static str> {
        static KNOWN: [JobStatus; 7] = JobStatus::KNOWN;
        KNOWN.iter().map(Self::as_str).chain([Self::UNKNOWN_LABEL])
    }

    /// The place of this status's label in [`Self::labels`].
    #[must_use]
    pub fn index(&self) -> usize {
        Self::KNOWN.iter().position(|known| known == self).unwrap_or(Self::KNOWN.len())
    }

    /// Whether a job with this status has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Cancelled | Self::Failed | Self::Completed | Self::CompletedWithFailures => true,
            Self::Submitted | Self::InProgress | Self::Cancelling | Self::Unknown(_) => false,
        }
    }
}

impl From<&str> for JobStatus {
    fn from(text: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == text);
        known.unwrap_or_else(|| Self::Unknown(text.into()))
    }
}

impl Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The status of one source of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the API's own values")]
pub enum SourceStatus {
    NotStarted,
    InProgress,
    Finished,
    Failed,
    /// A value that the API page does not have.
    Unknown(Box<str>),
}

impl SourceStatus {
    /// The four statuses of the API, in the order of a source's life.
    pub const KNOWN: [Self; 4] = [Self::NotStarted, Self::InProgress, Self::Finished, Self::Failed];

    /// The status as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::NotStarted => "NOT_STARTED",
            Self::InProgress => "IN_PROGRESS",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Unknown(verbatim) => verbatim,
        }
    }

    /// Every metric label there is: the four of the API, then `UNKNOWN`.
    pub fn labels() -> impl Iterator<Item = &'static str> {
        static KNOWN: [SourceStatus; 4] = SourceStatus::KNOWN;
        KNOWN.iter().map(Self::as_str).chain([JobStatus::UNKNOWN_LABEL])
    }

    /// The place of this status's label in [`Self::labels`].
    #[must_use]
    pub fn index(&self) -> usize {
        Self::KNOWN.iter().position(|known| known == self).unwrap_or(Self::KNOWN.len())
    }
}

impl From<&str> for SourceStatus {
    fn from(text: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == text);
        known.unwrap_or_else(|| Self::Unknown(text.into()))
    }
}

impl Display for SourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which source of a job is meant. The API gives sources no id, so what the requester said of one tells it from the others,
/// and `nth` (from 0) tells apart those that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey {
    /// The reference's name.
    pub name: String,
    /// The source file's location.
    pub source_file: String,
    /// Which of several with the same name and file.
    pub nth: u32,
}

/// What is known of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its status.
    pub status: SourceStatus,
    /// The service's remark on it.
    pub status_message: Option<String>,
}

/// The sources of a job by what tells them apart.
pub type Sources = BTreeMap<SourceKey, Source>;

/// What one answer said of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The job's status.
    pub status: JobStatus,
    /// The service's remark on it.
    pub status_message: Option<String>,
    /// When the job was created.
    pub created_at: Option<Timestamp>,
    /// When the service says that it ended.
    pub completed_at: Option<Timestamp>,
    /// Its sources; empty where the answer named none, which the API page does not allow.
    pub sources: Sources,
}

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
}

impl DetailKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::StatusMessage, Self::CreationTimeChanged, Self::Vanished, Self::Returned];

    /// The name in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StatusMessage => "status_message",
            Self::CreationTimeChanged => "creation_time_changed",
            Self::Vanished => "vanished",
            Self::Returned => "returned",
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
    fn an_id_is_ten_to_thirty_six_digits() {
        assert_eq!("1234567890".parse::<ReferenceStoreId>().map(|id| id.to_string()), Ok("1234567890".to_owned()));
        for wrong in ["", "123456789", "12345678901234567890123456789012345678", "12345678ab", "١٢٣٤٥", " 1234567890"]
        {
            let error = wrong.parse::<ImportJobId>().expect_err(wrong);
            assert_eq!(error.to_string(), "an import job id must be 10 to 36 digits");
        }
    }

    #[test]
    fn a_job_is_written_store_slash_job() {
        let key: JobKey = "1234567890/9876543210".parse().expect("two ids");
        assert_eq!(key.to_string(), "1234567890/9876543210");
        assert_eq!("1234567890".parse::<JobKey>(), Err(InvalidJobKey::NoSlash));
        assert!("1234567890/9876543210/1".parse::<JobKey>().is_err());
    }

    #[test]
    fn a_status_survives_the_way_through_text() {
        for status in JobStatus::KNOWN {
            assert_eq!(JobStatus::from(status.as_str()), status);
            assert_eq!(status.label(), status.as_str());
        }
        let new = JobStatus::from("PAUSED");
        assert_eq!((new.as_str(), new.label(), new.is_terminal()), ("PAUSED", "UNKNOWN", false));
        assert_eq!(JobStatus::labels().count(), 8);
    }
}
