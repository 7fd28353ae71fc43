//! The events that a sink is notified of: a job reaches a status, or vanishes.

use super::job::JobStatus;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    Status(JobStatus),
    /// The service no longer knows the job.
    Vanished,
}

impl EventType {
    /// The types that a sink receives by default: every end of a job.
    pub const DEFAULT: [Self; 5] = [
        Self::Status(JobStatus::Completed),
        Self::Status(JobStatus::CompletedWithFailures),
        Self::Status(JobStatus::Failed),
        Self::Status(JobStatus::Cancelled),
        Self::Vanished,
    ];

    /// The name in the configuration: the status, or `vanished`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Status(status) => status.as_str(),
            Self::Vanished => "vanished",
        }
    }

    /// One of the documented statuses, or `vanished`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let status = JobStatus::DOCUMENTED.iter().find(|status| status.as_str() == name);
        status.cloned().map(Self::Status).or_else(|| (name == "vanished").then_some(Self::Vanished))
    }
}
