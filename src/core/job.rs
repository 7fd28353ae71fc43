//! The service's data: ids, statuses, and the snapshot of a job that one response holds.
//!
//! Patterns and values are from the API page of `GetReferenceImportJob`. A status that the page does not list is kept as text.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

use super::kind::{InvalidKind, JobKind};
use super::limits::Limit;
use super::time::Timestamp;

/// Ids are `[0-9]+`, 10 to 36 characters (API page, "Length Constraints").
const ID_LENGTH: std::ops::RangeInclusive<usize> = 10..=36;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {min} to {max} digits", min = ID_LENGTH.start(), max = ID_LENGTH.end())]
pub struct InvalidId {
    what: &'static str,
}

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
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

id!(StoreId, "a store id");
id!(JobId, "a job id");

/// The labels of a job in the configuration, by name.
pub type Labels = BTreeMap<String, String>;

/// A job's kind, store and id. Its text form is `KIND/STORE/JOB`, or `STORE/JOB` for a reference import. It is unique within one
/// target only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    pub kind: JobKind,
    pub store: StoreId,
    pub job: JobId,
}

impl Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            JobKind::ReferenceImport => write!(f, "{}/{}", self.store, self.job),
            kind => write!(f, "{kind}/{}/{}", self.store, self.job),
        }
    }
}

impl FromStr for JobKey {
    type Err = InvalidJobKey;

    fn from_str(text: &str) -> Result<Self, InvalidJobKey> {
        let parts: Vec<&str> = text.split('/').collect();
        match *parts {
            [store, job] => Ok(Self { kind: JobKind::ReferenceImport, store: store.parse()?, job: job.parse()? }),
            [kind, store, job] => Ok(Self { kind: kind.parse()?, store: store.parse()?, job: job.parse()? }),
            _ => Err(InvalidJobKey::Parts),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJobKey {
    #[error("a job is written STORE/JOB, or KIND/STORE/JOB with a kind such as read_set_import")]
    Parts,
    #[error(transparent)]
    Kind(#[from] InvalidKind),
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// A job and the target that it is polled through. Two targets may poll the same job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetJob {
    /// The target's name in the configuration.
    pub target: Arc<str>,
    pub key: JobKey,
}

impl TargetJob {
    #[must_use]
    pub fn target_store(&self) -> TargetStore {
        let JobKey { kind, store, .. } = &self.key;
        TargetStore { target: Arc::clone(&self.target), store: store.clone(), kind: *kind }
    }
}

/// The jobs of one kind in a store, and the target that they are listed through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetStore {
    /// The target's name in the configuration.
    pub target: Arc<str>,
    pub store: StoreId,
    pub kind: JobKind,
}

impl TargetStore {
    #[must_use]
    pub fn target_job(&self, job: JobId) -> Arc<TargetJob> {
        let key = JobKey { kind: self.kind, store: self.store.clone(), job };
        Arc::new(TargetJob { target: Arc::clone(&self.target), key })
    }
}

macro_rules! status {
    ($(#[$doc:meta])* $name:ident [$count:literal] { $($status:ident = $word:literal),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($status,)+
            /// A status that the API page does not list, unchanged. AWS may add statuses.
            Unknown(Box<str>),
        }

        impl $name {
            /// The statuses that the API page lists, in the order of the life cycle.
            pub const DOCUMENTED: [Self; $count] = [$(Self::$status),+];

            /// The status as the service writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$status => $word,)+
                    Self::Unknown(verbatim) => verbatim,
                }
            }

            /// Every metric label: the API's statuses and `UNKNOWN`.
            pub fn labels() -> impl Iterator<Item = &'static str> {
                [$($word,)+ UNKNOWN_LABEL].into_iter()
            }

            #[must_use]
            pub fn label(&self) -> &'static str {
                Self::labels().nth(self.index()).unwrap_or(UNKNOWN_LABEL)
            }

            /// The position of the label in [`Self::labels`].
            #[must_use]
            pub fn index(&self) -> usize {
                Self::DOCUMENTED.iter().position(|status| status == self).unwrap_or(Self::DOCUMENTED.len())
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
    /// The status of one item of a job.
    ItemStatus [4] {
        NotStarted = "NOT_STARTED",
        InProgress = "IN_PROGRESS",
        Finished = "FINISHED",
        Failed = "FAILED"
    }
);

/// The metric label of every status that the API page does not list.
pub const UNKNOWN_LABEL: &str = "UNKNOWN";

impl JobStatus {
    /// True if a job with this status has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Cancelled | Self::Failed | Self::Completed | Self::CompletedWithFailures => true,
            Self::Submitted | Self::InProgress | Self::Cancelling | Self::Unknown(_) => false,
        }
    }
}

/// Identifies an item of a job: a source of an import, or a read set of an export or activation. Sources have no id in the API: the name
/// and file that the requester gave identify them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    pub name: Box<str>,
    pub source_file: Box<str>,
    /// A number among the items with the same name and file. In a response it is the position. `core::items` matches it with
    /// the known numbers.
    pub nth: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub status: ItemStatus,
    pub status_message: Option<Box<str>>,
}

pub type Items = BTreeMap<ItemKey, Item>;

/// The state of a job in one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub status: JobStatus,
    pub status_message: Option<String>,
    pub created_at: Option<Timestamp>,
    /// The service's `completionTime`.
    pub completed_at: Option<Timestamp>,
    /// Empty if the response names no items, which the API page does not allow.
    pub items: Items,
    /// The limits that the response exceeded. Values beyond a limit are left out.
    pub exceeded_limits: Vec<Limit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_ten_to_thirty_six_digits() {
        assert_eq!("1234567890".parse::<StoreId>().map(|id| id.to_string()), Ok("1234567890".to_owned()));
        for wrong in ["", "123456789", "12345678901234567890123456789012345678", "12345678ab", "١٢٣٤٥", " 1234567890"]
        {
            let error = wrong.parse::<JobId>().expect_err(wrong);
            assert_eq!(error.to_string(), "a job id must be 10 to 36 digits");
        }
    }

    #[test]
    fn the_text_form_of_a_job_has_the_kind_unless_it_is_a_reference_import() {
        for kind in JobKind::ALL {
            let key: JobKey = format!("{kind}/1234567890/9876543210").parse().expect("a kind and two ids");
            assert_eq!((key.kind, key.to_string().parse()), (kind, Ok(key.clone())));
        }
        let key: JobKey = "1234567890/9876543210".parse().expect("two ids");
        assert_eq!((key.kind, key.to_string()), (JobKind::ReferenceImport, "1234567890/9876543210".to_owned()));
        assert_eq!("1234567890".parse::<JobKey>(), Err(InvalidJobKey::Parts));
        assert_eq!("run/1234567890/9876543210".parse::<JobKey>(), Err(InvalidKind.into()));
        assert!("1234567890/9876543210/1".parse::<JobKey>().is_err());
    }

    #[test]
    fn a_status_converts_to_text_and_back() {
        for status in JobStatus::DOCUMENTED {
            assert_eq!(JobStatus::from(status.as_str()), status);
            assert_eq!(status.label(), status.as_str());
        }
        let new = JobStatus::from("PAUSED");
        assert_eq!((new.as_str(), new.is_terminal()), ("PAUSED", false));
        assert_eq!((new.label(), new.index() + 1), (UNKNOWN_LABEL, JobStatus::labels().count()));
    }
}
