//! What becomes of one request, drawn from the seed: an answer, a failure of any class, silence, or a lie.

use std::time::Duration;

use fastrand::Rng;
use refwatch::core::failure::FailureReason;
use refwatch::core::job::{JobStatus, Snapshot, Sources};
use refwatch::core::time::Timestamp;
use refwatch::healthomics::ListedJob;

/// How much of what is asked comes to nothing, or to a lie. Each is a part of all requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// They fail, for any reason that there is.
    pub failures: f64,
    /// They are not answered before their deadline.
    pub hangs: f64,
    /// They are answered with something that is not so.
    pub lies: f64,
    /// Whether a failure may ask for a wait (`Retry-After`).
    pub asks_for_time: bool,
    /// From when on there are none.
    pub until: Duration,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Truth,
    Lie,
    Failure(FailureReason),
    Hangs,
}

impl Faults {
    /// Whether there are any.
    pub(crate) fn some(&self) -> bool {
        self.failures + self.hangs + self.lies > 0.0
    }

    /// The fate of a request that is answered at `now`.
    pub(crate) fn fate(&self, rng: &mut Rng, now: Duration) -> Fate {
        if !self.some() || now >= self.until {
            return Fate::Truth;
        }
        let at = rng.f64();
        if at < self.failures {
            Fate::Failure(rng.choice(FailureReason::ALL).expect("one of them"))
        } else if at < self.failures + self.hangs {
            Fate::Hangs
        } else if at < self.failures + self.hangs + self.lies {
            Fate::Lie
        } else {
            Fate::Truth
        }
    }

    /// How long a failure asks to be left alone, if it does: seconds, or absurdly long.
    pub(crate) fn wait(&self, rng: &mut Rng) -> Option<Duration> {
        let asks = self.asks_for_time && rng.u8(0..4) == 0;
        asks.then(|| Duration::from_secs(rng.choice([0, 1, 30, 600, 7200, u64::MAX]).expect("one of them")))
    }
}

/// A status that the API does not have.
const UNHEARD_OF: &str = "PAUSED";

/// Makes an answer untrue in one way. An end is not made up for a job that has none, so that a run does not run out of jobs.
pub(crate) fn lie(snapshot: &mut Snapshot, rng: &mut Rng, ends: bool, now: Timestamp) {
    let some_time = |rng: &mut Rng| {
        let away = Duration::from_secs(rng.u64(0..200_000));
        if rng.bool() { now + away } else { now - away }
    };
    match rng.u8(0..20) {
        0..3 => snapshot.status = JobStatus::from(UNHEARD_OF),
        // Stages back, or stages skipped.
        3..9 => {
            let stages = [JobStatus::Submitted, JobStatus::InProgress, JobStatus::Cancelling];
            snapshot.status = rng.choice(stages).expect("one of them");
        }
        9 if ends => {
            let ends: Vec<JobStatus> = JobStatus::KNOWN.into_iter().filter(JobStatus::is_terminal).collect();
            snapshot.status = rng.choice(ends).expect("one of them");
        }
        9..12 => snapshot.sources = Sources::default(),
        12..14 => snapshot.completed_at = None,
        14..16 => snapshot.completed_at = Some(some_time(rng)),
        16..18 => snapshot.created_at = Some(some_time(rng)),
        18 => snapshot.created_at = None,
        _ => snapshot.status_message = Some(format!("a remark of {now}")),
    }
}

/// Makes a page untrue: jobs are missing, or have another status, or no time of creation.
pub(crate) fn lie_of_page(jobs: &mut Vec<ListedJob>, rng: &mut Rng) {
    match rng.u8(0..3) {
        0 => jobs.retain(|_| rng.bool()),
        1 => jobs.iter_mut().for_each(|job| job.status = rng.choice(JobStatus::KNOWN).expect("one of them")),
        _ => jobs.iter_mut().for_each(|job| job.created_at = None),
    }
}
