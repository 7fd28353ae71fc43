//! The events that a sink is notified of: a job reaches a status, or vanishes.

use super::job::JobStatus;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    Status(JobStatus),
    /// The service no longer knows the job.
    Vanished,
}

const VANISHED: &str = "vanished";

impl EventType {
    /// The types that a sink receives by default: every end of a job.
    pub const DEFAULT: [Self; 5] = [
        Self::Status(JobStatus::Completed),
        Self::Status(JobStatus::CompletedWithFailures),
        Self::Status(JobStatus::Failed),
        Self::Status(JobStatus::Cancelled),
        Self::Vanished,
    ];

    /// The types that the configuration can name.
    pub fn documented() -> impl Iterator<Item = Self> {
        JobStatus::DOCUMENTED.into_iter().map(Self::Status).chain([Self::Vanished])
    }

    /// The name in the configuration: the status, or `vanished`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Status(status) => status.as_str(),
            Self::Vanished => VANISHED,
        }
    }

    /// One of the documented statuses, or `vanished`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::documented().find(|event| event.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documented_event_is_found_by_its_name() {
        for event in EventType::documented() {
            assert_eq!(EventType::from_name(event.as_str()), Some(event));
        }
        for wrong in ["", "completed", "UNKNOWN", "PAUSED", "VANISHED"] {
            assert_eq!(EventType::from_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_default_events_are_every_end_of_a_job() {
        for event in EventType::documented() {
            let is_end = match &event {
                EventType::Status(status) => status.is_terminal(),
                EventType::Vanished => true,
            };
            assert_eq!(EventType::DEFAULT.contains(&event), is_end, "{event:?}");
        }
    }
}
