//! Expectations of one daemon for one job, derived from the responses that it received, incorrect ones included.
//!
//! They say which statuses the database must hold, when the job ended and is removed, and whether a poll is due.

use std::time::Duration;

use refwatch::core::failure::FailureReason;
use refwatch::core::job::{JobStatus, Snapshot};
use refwatch::core::limits::Limit;
use refwatch::core::time::Timestamp;

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about the responses")]
pub(crate) struct Expectation {
    /// The exact content of the database, in order.
    pub changes: Vec<Change>,
    /// When the job ended according to the response, at most the time of its arrival.
    pub ended_at: Option<Timestamp>,
    /// The end was reported again, perhaps with another time; the daemon may have dropped that response.
    pub end_repeated: bool,
    /// The last response was 404.
    pub not_found: bool,
    /// At least two consecutive responses were 404; a discovered job may be removed.
    pub not_found_twice: bool,
    /// Time of the last request; `None` while no poll is due.
    pub unpolled_since: Option<Duration>,
    /// One response said that an ended job runs. A second one counts.
    end_contradicted: bool,
    /// The request was rejected as invalid. The job is not polled until its watch changes.
    pub parked: bool,
    watch: Watch,
}

#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub status: JobStatus,
    /// The reported creation and completion time; `None` for changes restored from the database.
    pub times: Option<[Option<Timestamp>; 2]>,
}

/// Why a job is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    None,
    /// It has an entry.
    Configured,
    /// It was discovered in its store.
    Discovered,
}

impl Expectation {
    pub(crate) fn last(&self) -> Option<&JobStatus> {
        self.changes.last().map(|change| &change.status)
    }

    pub(crate) fn statuses(&self) -> Vec<JobStatus> {
        self.changes.iter().map(|change| change.status.clone()).collect()
    }

    /// A daemon starts with this database content.
    pub(crate) fn daemon_started(&mut self, recorded: &[JobStatus]) {
        self.changes = recorded.iter().map(|status| Change { status: status.clone(), times: None }).collect();
        (self.end_contradicted, self.parked, self.watch) = (false, false, Watch::None);
        self.end_repeated = false;
    }

    pub(crate) fn set_watch(&mut self, watch: Watch, now: Duration) {
        if watch != self.watch {
            (self.end_contradicted, self.parked, self.watch) = (false, false, watch);
        }
        let ended = self.last().is_some_and(JobStatus::is_terminal);
        self.unpolled_since = (watch != Watch::None && !ended && !self.parked).then_some(now);
    }

    pub(crate) fn request_sent(&mut self, now: Duration) {
        (self.unpolled_since, self.parked) = (Some(now), false);
        if self.watch == Watch::None {
            self.watch = Watch::Discovered;
        }
    }

    pub(crate) fn response_received(&mut self, snapshot: &Snapshot, now: Timestamp) {
        (self.not_found, self.not_found_twice) = (false, false);
        let ended = self.last().is_some_and(JobStatus::is_terminal);
        let ends = snapshot.status.is_terminal();
        if ended && !ends && !self.end_contradicted {
            // Its retention may expire before a second poll.
            (self.end_contradicted, self.unpolled_since) = (true, None);
            return;
        }
        self.end_contradicted = false;
        // Past the limit only the end of a live job is saved.
        let is_limited = self.changes.len() >= Limit::Transitions.max() && (ended || !ends);
        if is_limited && self.last() != Some(&snapshot.status) {
            if ended {
                self.unpolled_since = None;
            }
        } else if self.last() != Some(&snapshot.status) {
            let times = Some([snapshot.created_at, snapshot.completed_at]);
            self.changes.push(Change { status: snapshot.status.clone(), times });
            self.ended_at = ends.then(|| snapshot.completed_at.map_or(now, |said| said.min(now)));
            self.end_repeated = false;
        } else if ends {
            self.end_repeated = true;
        }
        if ends {
            self.unpolled_since = None;
        }
    }

    pub(crate) fn request_failed(&mut self, reason: FailureReason) {
        if reason == FailureReason::Validation {
            (self.parked, self.unpolled_since) = (true, None);
        }
        // A listing that contradicts an end causes one poll only.
        if self.last().is_some_and(JobStatus::is_terminal) {
            self.unpolled_since = None;
        }
        if reason == FailureReason::NotFound && self.last().is_some() {
            (self.not_found, self.not_found_twice) = (true, self.not_found);
        }
        // A discovered job that returns 404 is removed until it is discovered again.
        if reason == FailureReason::NotFound && self.watch != Watch::Configured {
            self.unpolled_since = None;
        }
    }
}
