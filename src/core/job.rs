//! The words of the service: ids, statuses, and what one answer says of a job.
//!
//! Patterns and values are those of the API page of `GetReferenceImportJob`.

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

impl ImportJobId {
    /// Orders before every id.
    #[must_use]
    pub fn least() -> Self {
        Self(Arc::default())
    }
}

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

impl WatchId {
    /// The job's store, through the same target.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        StoreId { target: Arc::clone(&self.target), store: self.key.store.clone() }
    }
}

/// A store and the target it is read through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId {
    /// The name of the target, from the configuration.
    pub target: Arc<str>,
    /// The store.
    pub store: ReferenceStoreId,
}

impl StoreId {
    /// A job of the store, through the same target.
    #[must_use]
    pub fn watch(&self, job: ImportJobId) -> Arc<WatchId> {
        Arc::new(WatchId { target: Arc::clone(&self.target), key: JobKey { store: self.store.clone(), job } })
    }
}

macro_rules! status {
    ($(#[$doc:meta])* $name:ident [$count:literal] { $($status:ident = $word:literal),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the API's own values")]
        pub enum $name {
            $($status,)+
            /// A value that the API does not have. The enumeration may grow, so it is kept as it came.
            Unknown(Box<str>),
        }

        impl $name {
            /// The API's statuses, in the order of a life.
            pub const KNOWN: [Self; $count] = [$(Self::$status),+];

            /// The status as the service writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$status => $word,)+
                    Self::Unknown(verbatim) => verbatim,
                }
            }

            /// Every metric label there is: a closed set, whatever the service says.
            pub fn labels() -> impl Iterator<Item = &'static str> {
                [$($word,)+ UNKNOWN_LABEL].into_iter()
            }

            /// The status as a metric label.
            #[must_use]
            pub fn label(&self) -> &'static str {
                Self::labels().nth(self.index()).unwrap_or(UNKNOWN_LABEL)
            }

            /// The place of this status's label in [`Self::labels`].
            #[must_use]
            pub fn index(&self) -> usize {
                Self::KNOWN.iter().position(|known| known == self).unwrap_or(Self::KNOWN.len())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($word => Self::$status,)+
                    _ => Self::Unknown(text.into()),
                }
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

status!(
    /// The status of an import job.
    JobStatus [7] {
        Submitted = "SUBMITTED",
        InProgress = "IN_PROGRESS",
        Cancelling = "CANCELLING",
        Cancelled = "CANCELLED",
        Failed = "FAILED",
        Completed = "COMPLETED",
        CompletedWithFailures = "COMPLETED_WITH_FAILURES"
    }
);

status!(
    /// The status of one source of a job.
    SourceStatus [4] {
        NotStarted = "NOT_STARTED",
        InProgress = "IN_PROGRESS",
        Finished = "FINISHED",
        Failed = "FAILED"
    }
);

/// The metric label for every status that the API does not have.
pub const UNKNOWN_LABEL: &str = "UNKNOWN";

impl JobStatus {
    /// Whether a job with this status has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Cancelled | Self::Failed | Self::Completed | Self::CompletedWithFailures => true,
            Self::Submitted | Self::InProgress | Self::Cancelling | Self::Unknown(_) => false,
        }
    }
}

/// Which source of a job is meant. The API gives sources no id, so what the requester said of one tells it from the others,
/// and `nth` (from 0) tells apart those that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey {
    /// The reference's name.
    pub name: Box<str>,
    /// The source file's location.
    pub source_file: Box<str>,
    /// Which of several with the same name and file.
    pub nth: u32,
}

/// What is known of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its status.
    pub status: SourceStatus,
    /// The service's remark on it.
    pub status_message: Option<Box<str>>,
}

/// The sources of a job.
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
        assert_eq!((new.as_str(), new.is_terminal()), ("PAUSED", false));
        assert_eq!((new.label(), new.index() + 1), (UNKNOWN_LABEL, JobStatus::labels().count()));
    }
}
