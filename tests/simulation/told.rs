//! What one daemon was told of one job, lies included, and what of that it owes: to the database, to the board, and a next question.

use std::time::Duration;

use refwatch::core::failure::FailureReason;
use refwatch::core::job::{JobStatus, Snapshot};
use refwatch::core::time::Timestamp;

/// What was told of a job.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is something that was told or not, and none excludes another")]
pub(crate) struct Told {
    /// What the database has to hold, in this order and nothing else.
    pub changes: Vec<Change>,
    /// When the job ended, as far as was told: no later than that was heard.
    pub ended_at: Option<Timestamp>,
    /// The end was told once more, perhaps with another time, by an answer that may have come too late.
    pub retold: bool,
    /// Whether the last that was said is that there is no such job.
    pub vanished: bool,
    /// Whether that was said more than once, so that a job that was found may be given up.
    pub gone: bool,
    /// Since when it was not asked for; `None` while no question is owed.
    pub unasked_since: Option<Duration>,
    /// An ended job was told to go on. That counts when it is told once more.
    doubted: bool,
    /// The question was called wrong: it is not asked again before the watch changes.
    pub parked: bool,
    watch: Watch,
}

/// One status that was told after another.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub status: JobStatus,
    /// When the job was created and completed, as it was told with it; unknown where a daemon starts from its database.
    pub times: Option<[Option<Timestamp>; 2]>,
}

/// By what a job is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    None,
    /// An entry of its own.
    Own,
    /// It was found in its store.
    Found,
}

impl Told {
    /// The last status that counts.
    pub(crate) fn last(&self) -> Option<&JobStatus> {
        self.changes.last().map(|change| &change.status)
    }

    /// The statuses that count.
    pub(crate) fn statuses(&self) -> Vec<JobStatus> {
        self.changes.iter().map(|change| change.status.clone()).collect()
    }

    /// A daemon starts, and knows what is recorded.
    pub(crate) fn start(&mut self, recorded: &[JobStatus]) {
        self.changes = recorded.iter().map(|status| Change { status: status.clone(), times: None }).collect();
        (self.doubted, self.parked, self.watch) = (false, false, Watch::None);
        self.retold = false;
    }

    /// The job is watched from `now` on as it is said, if it was not before.
    pub(crate) fn watch(&mut self, watch: Watch, now: Duration) {
        if watch != self.watch {
            (self.doubted, self.parked, self.watch) = (false, false, watch);
        }
        let ended = self.last().is_some_and(JobStatus::is_terminal);
        self.unasked_since = (watch != Watch::None && !ended && !self.parked).then_some(now);
    }

    /// The job is asked for.
    pub(crate) fn ask(&mut self, now: Duration) {
        (self.unasked_since, self.parked) = (Some(now), false);
        if self.watch == Watch::None {
            self.watch = Watch::Found;
        }
    }

    /// An answer.
    pub(crate) fn hear(&mut self, snapshot: &Snapshot, now: Timestamp) {
        (self.vanished, self.gone) = (false, false);
        let ended = self.last().is_some_and(JobStatus::is_terminal);
        let ends = snapshot.status.is_terminal();
        if ended && !ends && !self.doubted {
            // Its time in sight may be over before it can be asked once more.
            (self.doubted, self.unasked_since) = (true, None);
            return;
        }
        self.doubted = false;
        if self.last() != Some(&snapshot.status) {
            let times = Some([snapshot.created_at, snapshot.completed_at]);
            self.changes.push(Change { status: snapshot.status.clone(), times });
            self.ended_at = ends.then(|| snapshot.completed_at.map_or(now, |said| said.min(now)));
            self.retold = false;
        } else if ends {
            self.retold = true;
        }
        if ends {
            self.unasked_since = None;
        }
    }

    /// No answer.
    pub(crate) fn fail(&mut self, reason: FailureReason) {
        if reason == FailureReason::Validation {
            (self.parked, self.unasked_since) = (true, None);
        }
        // That a listing shows an ended job otherwise is worth one question.
        if self.last().is_some_and(JobStatus::is_terminal) {
            self.unasked_since = None;
        }
        if reason == FailureReason::NotFound && self.last().is_some() {
            (self.vanished, self.gone) = (true, self.vanished);
        }
        // What is found is forgotten where it is not there, until it is found again.
        if reason == FailureReason::NotFound && self.watch != Watch::Own {
            self.unasked_since = None;
        }
    }
}
