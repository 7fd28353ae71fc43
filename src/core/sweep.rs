//! What a listing says of jobs that are watched: which of them look changed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::job::{ImportJobId, JobStatus};

/// The part of the polls' quota that goes to jobs of which a sweep sees no change: it keeps their sources fresh, and finds what
/// a listing does not tell. Hinted jobs go before them, so it costs those nothing.
const SAFETY_SHARE: f64 = 0.5;

/// How long a job of a swept store may go without a poll, where `live` jobs share `polls_per_second`. It steps by doubling, so
/// that it does not become another whenever a job ends.
#[must_use]
pub fn safety_interval(live: usize, polls_per_second: f64) -> Duration {
    let live = u32::try_from(live).ok().and_then(u32::checked_next_power_of_two).map_or(f64::from(u32::MAX), f64::from);
    let seconds = live / (polls_per_second * SAFETY_SHARE);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// What was seen of the jobs of one store that a listing shows otherwise than it is known. A listing may lag behind a poll, or a
/// poll behind a listing, so such a job is hinted again and again, ever more rarely: at the first sweep, the second, the fourth,
/// the eighth, and so on.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The listed status, `None` where the job was not listed at all; and at how many sweeps it was seen.
    differing: BTreeMap<ImportJobId, (Option<JobStatus>, u32)>,
}

impl Sweep {
    /// Whether to hint a job whose last known status is `known` and that is listed with the status `listed`, or not at all.
    pub fn looks_changed(&mut self, job: &ImportJobId, known: Option<&JobStatus>, listed: Option<&JobStatus>) -> bool {
        let changed = match (known, listed) {
            // Its first poll is on its way, and urgent only if there is an end to be seen.
            (None, listed) => listed.is_some_and(JobStatus::is_terminal),
            (Some(known), listed) => listed != Some(known),
        };
        if !changed {
            self.differing.remove(job);
            return false;
        }
        let (seen, times) = self.differing.entry(job.clone()).or_default();
        if *times == 0 || seen.as_ref() != listed {
            (*seen, *times) = (listed.cloned(), 0);
        }
        *times = times.saturating_add(1);
        times.is_power_of_two()
    }

    /// Forgets the jobs that are not `live`.
    pub fn retain(&mut self, live: impl Fn(&ImportJobId) -> bool) {
        self.differing.retain(|job, _| live(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_listed_otherwise_than_known_is_hinted_ever_more_rarely() {
        let job: ImportJobId = "9876543210".parse().expect("an id");
        let mut sweep = Sweep::default();
        let script = [
            // Known, listed, hint.
            ("", "SUBMITTED", false),
            ("", "COMPLETED", true),
            ("", "COMPLETED", true),
            ("", "COMPLETED", false),
            ("", "COMPLETED", true),
            ("SUBMITTED", "SUBMITTED", false),
            ("SUBMITTED", "IN_PROGRESS", true),
            ("SUBMITTED", "FAILED", true),
            ("SUBMITTED", "FAILED", true),
            ("SUBMITTED", "FAILED", false),
            ("SUBMITTED", "SUBMITTED", false),
            ("SUBMITTED", "FAILED", true),
            ("IN_PROGRESS", "", true),
            ("IN_PROGRESS", "", true),
            ("IN_PROGRESS", "", false),
            ("IN_PROGRESS", "IN_PROGRESS", false),
            ("", "", false),
        ];
        for (step, (known, listed, hint)) in script.into_iter().enumerate() {
            let status = |text: &str| (!text.is_empty()).then(|| JobStatus::from(text));
            let hinted = sweep.looks_changed(&job, status(known).as_ref(), status(listed).as_ref());
            assert_eq!(hinted, hint, "step {step}: {known} {listed}");
        }
    }

    #[test]
    fn the_safety_net_takes_half_of_the_polls_and_does_not_change_with_every_job() {
        assert_eq!(safety_interval(8, 4.0), Duration::from_secs(4));
        assert_eq!(safety_interval(1_000, 4.0), Duration::from_secs(512));
        assert_eq!(safety_interval(1_000, 5.0), safety_interval(600, 5.0));
    }
}
