//! The response to one request, drawn from the seed: correct, incorrect, failed or none.

use std::time::Duration;

use fastrand::Rng;
use refwatch::core::failure::FailureReason;
use refwatch::core::job::{ItemStatus, Items, JobStatus, Snapshot};
use refwatch::core::time::Timestamp;
use refwatch::healthomics::ListedJob;

/// Fault rates. Each is a fraction of all requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub failures: f64,
    /// Requests without a response before their deadline.
    pub hangs: f64,
    /// Responses with wrong content.
    pub incorrect: f64,
    /// Whether a failure may carry `Retry-After`.
    pub sends_retry_after: bool,
    /// No faults from this time on.
    pub until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Truth,
    Lie,
    Failure(FailureReason),
    Hangs,
}

impl Faults {
    pub(crate) fn some(&self) -> bool {
        self.failures + self.hangs + self.incorrect > 0.0
    }

    /// Draws the response to a request that arrives at `now`.
    pub(crate) fn response(&self, rng: &mut Rng, now: Duration) -> Response {
        if !self.some() || now >= self.until {
            return Response::Truth;
        }
        let at = rng.f64();
        if at < self.failures {
            Response::Failure(rng.choice(FailureReason::ALL).expect("not empty"))
        } else if at < self.failures + self.hangs {
            Response::Hangs
        } else if at < self.failures + self.hangs + self.incorrect {
            Response::Lie
        } else {
            Response::Truth
        }
    }

    /// Draws a `Retry-After`: none, seconds, or absurdly long.
    pub(crate) fn wait(&self, rng: &mut Rng) -> Option<Duration> {
        let asks = self.sends_retry_after && rng.u8(0..4) == 0;
        asks.then(|| Duration::from_secs(rng.choice([0, 1, 30, 600, 7200, u64::MAX]).expect("not empty")))
    }
}

/// The API has no such status.
const UNKNOWN_STATUS: &str = "PAUSED";

/// Changes one field of a snapshot. A job without an end gets no invented end, or a run would run out of live jobs.
pub(crate) fn corrupt_snapshot(snapshot: &mut Snapshot, rng: &mut Rng, ends: bool, now: Timestamp) {
    let some_time = |rng: &mut Rng| {
        let away = Duration::from_secs(rng.u64(0..200_000));
        if rng.bool() { now + away } else { now - away }
    };
    match rng.u8(0..20) {
        0..3 => snapshot.status = JobStatus::from(UNKNOWN_STATUS),
        // A status that goes back or skips stages.
        3..9 => {
            let stages = [JobStatus::Submitted, JobStatus::InProgress, JobStatus::Cancelling];
            snapshot.status = rng.choice(stages).expect("not empty");
        }
        9 if ends => {
            let ends: Vec<JobStatus> = JobStatus::DOCUMENTED.into_iter().filter(JobStatus::is_terminal).collect();
            snapshot.status = rng.choice(ends).expect("not empty");
        }
        9..12 => snapshot.items = Items::default(),
        12..14 => snapshot.completed_at = None,
        14..16 => snapshot.completed_at = Some(some_time(rng)),
        16..18 => snapshot.created_at = Some(some_time(rng)),
        18 => snapshot.created_at = None,
        _ => snapshot.status_message = Some(format!("a remark of {now}")),
    }
}

/// Changes a page: jobs missing, statuses wrong, or creation times missing.
pub(crate) fn corrupt_page(jobs: &mut Vec<ListedJob>, rng: &mut Rng) {
    match rng.u8(0..3) {
        0 => jobs.retain(|_| rng.bool()),
        1 => jobs.iter_mut().for_each(|job| job.status = rng.choice(JobStatus::DOCUMENTED).expect("not empty")),
        _ => jobs.iter_mut().for_each(|job| job.created_at = None),
    }
}

/// The status of a job's only source.
pub(crate) fn item_status(status: &JobStatus) -> ItemStatus {
    match status {
        JobStatus::Submitted => ItemStatus::NotStarted,
        JobStatus::InProgress | JobStatus::Cancelling | JobStatus::Unknown(_) => ItemStatus::InProgress,
        JobStatus::Completed => ItemStatus::Finished,
        JobStatus::Cancelled | JobStatus::Failed | JobStatus::CompletedWithFailures => ItemStatus::Failed,
    }
}
