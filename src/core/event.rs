//! The events that a sink is notified of: a job reaches a status, or vanishes.

use std::collections::BTreeSet;

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
}

impl From<&str> for EventType {
    fn from(name: &str) -> Self {
        if name == VANISHED { Self::Vanished } else { Self::Status(name.into()) }
    }
}

/// The events that a sink receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    pub types: BTreeSet<EventType>,
    /// Patterns of watch names, in which a `*` matches any text. Empty: all watches.
    pub watches: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_is_read_from_its_name() {
        for event in EventType::documented() {
            assert_eq!(EventType::from(event.as_str()), event);
        }
        assert_eq!(EventType::from("PAUSED"), EventType::Status("PAUSED".into()));
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
