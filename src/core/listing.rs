//! The rules of listings: which watched jobs look changed, which jobs are new, how rarely the other jobs are polled, and what a
//! failed listing means.

use std::collections::BTreeMap;
use std::time::Duration;

use super::failure::{FailureClass, PollFailure, QuotaEvidence, Scope};
use super::job::{ImportJobId, JobStatus};
use super::time::Timestamp;
use super::tracker::JobState;

/// The share of the quota that polls jobs without a hint. It keeps their sources fresh and covers what a listing does not
/// show. Hinted jobs are polled first.
const SAFETY_SHARE: f64 = 0.5;

/// The greatest age of a job whose polls a listing replaces. Imports take hours at most. If a job hangs for days, listing back
/// to its creation would take more and more pages.
const LISTED_AGE_MAX: Duration = Duration::from_hours(24);

/// True if listings replace the polls of a live job.
#[must_use]
pub fn is_listed(known: Option<&JobState>, now: Timestamp) -> bool {
    let Some(known) = known else { return true };
    let age = known.created_at.and_then(|created| Duration::try_from(now.duration_since(created)).ok());
    known.vanished_at.is_none() && age.is_none_or(|age| age <= LISTED_AGE_MAX)
}

/// How long a job without a hint may go without a poll, if `live` jobs share `polls_per_second`. It moves in powers of two, so
/// it does not change with every job that ends.
#[must_use]
pub fn safety_interval(live: usize, polls_per_second: f64) -> Duration {
    let live = u32::try_from(live).ok().and_then(u32::checked_next_power_of_two).map_or(f64::from(u32::MAX), f64::from);
    let seconds = live / (polls_per_second * SAFETY_SHARE);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// What follows from a failed listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingFailure {
    /// The same page is requested with the next permit. Jobs are not polled more often meanwhile.
    RepeatRequest,
    /// The store is listed again after a backoff. Jobs are not polled more often meanwhile.
    RetryLater,
    /// The jobs are polled one by one until a listing succeeds.
    EndListing,
}

/// Consecutive failures after which listing ends.
const LASTING_FAILURES: u32 = 4;

/// The longest `Retry-After` that the jobs wait out without polls of their own.
const SHORT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What follows from the `consecutive`th failed request in a row.
#[must_use]
pub fn after_failure(failure: &PollFailure, consecutive: u32) -> ListingFailure {
    let long_wait = failure.retry_after.is_some_and(|wait| wait > SHORT_RETRY_AFTER);
    match failure.reason.class() {
        _ if long_wait => ListingFailure::EndListing,
        FailureClass { quota: QuotaEvidence::Exceeded, .. } => ListingFailure::RepeatRequest,
        FailureClass { scope: Scope::Target, .. } if consecutive < LASTING_FAILURES => ListingFailure::RetryLater,
        _ => ListingFailure::EndListing,
    }
}

/// The jobs whose listed status differs from the known one. Either may lag behind the other, so such a job is hinted again and
/// again: at the first listing, the second, the fourth, the eighth, and so on.
#[derive(Debug, Default)]
pub struct StatusDifferences {
    /// The listed status, `None` if the job was not listed; and the number of listings that showed it.
    differing: BTreeMap<ImportJobId, (Option<JobStatus>, u32)>,
}

impl StatusDifferences {
    /// True if a job needs a hint. `listed` is `None` if the job was not listed.
    pub fn looks_changed(&mut self, job: &ImportJobId, known: Option<&JobStatus>, listed: Option<&JobStatus>) -> bool {
        let changed = match (known, listed) {
            // The first poll is in the queue, and is urgent only if the job has ended.
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

    /// True if an ended job that is listed with another status needs a hint. It gets one hint: such a listing usually lags behind.
    pub fn looks_reopened(&mut self, job: &ImportJobId, known: &JobStatus, listed: &JobStatus) -> bool {
        self.looks_changed(job, Some(known), Some(listed))
            && self.differing.get(job).is_some_and(|(_, times)| *times == 1)
    }

    pub fn retain(&mut self, watched: impl Fn(&ImportJobId) -> bool) {
        self.differing.retain(|job, _| watched(job));
    }
}

/// A job may appear in listings this much later than a younger job. AWS does not document whether listings lag.
const LISTING_LAG: Duration = Duration::from_mins(10);

/// The search for jobs of one store that are not watched yet. Its times are the service's, except the first.
#[derive(Debug)]
pub struct DiscoveryWindow {
    /// Jobs created earlier are ignored.
    from: Timestamp,
    /// The latest creation time in a complete listing.
    newest: Option<Timestamp>,
    /// The same before the last listing. Listings begin here, so a job that one listing leaves out is not lost.
    newest_before: Option<Timestamp>,
    /// The jobs handed to the supervisor: creation time and listed status.
    handed_over: BTreeMap<ImportJobId, (Option<Timestamp>, JobStatus)>,
}

impl DiscoveryWindow {
    #[must_use]
    pub fn new(from: Timestamp) -> Self {
        Self { from, newest: None, newest_before: None, handed_over: BTreeMap::new() }
    }

    /// The creation time to list from, so that no new job and no live job is missed. `oldest_live` is the creation time of the
    /// oldest live job.
    #[must_use]
    pub fn list_from(&self, oldest_live: Option<Timestamp>) -> Timestamp {
        let new = self
            .newest_before
            .and_then(|newest| newest.checked_sub(LISTING_LAG).ok())
            .map_or(self.from, |new| new.max(self.from));
        oldest_live.map_or(new, |live| live.min(new))
    }

    /// True if a listed job that is not watched should be watched. An ended job is handed over once.
    #[must_use]
    pub fn is_new(&self, job: &ImportJobId, created_at: Option<Timestamp>, status: &JobStatus) -> bool {
        created_at.is_none_or(|created| created >= self.from)
            && !(status.is_terminal() && self.handed_over.contains_key(job))
    }

    /// Records that a job was handed over.
    pub fn hand_over(&mut self, job: ImportJobId, created_at: Option<Timestamp>, status: JobStatus) {
        self.handed_over.insert(job, (created_at, status));
    }

    /// The listed status of a job when it was handed over.
    #[must_use]
    pub fn status_at_hand_over(&self, job: &ImportJobId) -> Option<&JobStatus> {
        self.handed_over.get(job).map(|(_, status)| status)
    }

    /// Records that all jobs created since `from` were listed at `now` and handed over. The newest was created at `newest`.
    pub fn listed(&mut self, from: Timestamp, newest: Option<Timestamp>, now: Timestamp) {
        // A creation time in the future must not hide later jobs.
        self.newest_before = self.newest;
        self.newest = self.newest.max(newest.map(|newest| newest.min(now)));
        // Jobs that are not listed any more cannot be new.
        self.handed_over.retain(|_, (created_at, _)| created_at.is_none_or(|created| created >= from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::failure::FailureReason;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 60 * minutes).expect("in range")
    }

    #[test]
    fn a_discovery_window_starts_at_its_beginning_and_then_at_the_oldest_job_that_is_live_or_may_be_new() {
        let mut search = DiscoveryWindow::new(at(0));
        assert_eq!(search.list_from(None), at(0));
        assert_eq!(search.list_from(Some(at(-60))), at(-60), "a live job that is older must not seem to be gone");
        search.listed(at(0), None, at(60));
        assert_eq!(search.list_from(None), at(0), "an empty store says nothing of the service's time");
        for _ in 0..2 {
            search.listed(at(0), Some(at(5)), at(60));
            assert_eq!(search.list_from(None), at(0), "never before its beginning");
        }
        search.listed(at(0), Some(at(999)), at(60));
        assert_eq!(search.list_from(None), at(0), "one listing may leave a job out");
        search.listed(at(0), None, at(60));
        assert_eq!(search.list_from(None), at(50), "nothing was created after it was listed");
        assert_eq!(search.list_from(Some(at(30))), at(30));
        assert_eq!(search.list_from(Some(at(55))), at(50));
        search.listed(at(50), Some(at(40)), at(60));
        assert_eq!(search.list_from(None), at(50), "what was seen stays seen");
    }

    #[test]
    fn an_ended_job_is_handed_over_once() {
        let job: ImportJobId = "9876543210".parse().expect("an id");
        let mut search = DiscoveryWindow::new(at(0));
        let is_new = |search: &DiscoveryWindow, created| search.is_new(&job, created, &JobStatus::Completed);
        assert!(!is_new(&search, Some(at(-1))));
        assert!(is_new(&search, Some(at(0))) && is_new(&search, None));
        search.hand_over(job.clone(), Some(at(3)), JobStatus::Completed);
        search.listed(at(0), Some(at(60)), at(60));
        assert!(!is_new(&search, Some(at(3))));
        assert!(search.is_new(&job, Some(at(3)), &JobStatus::InProgress), "it goes on, and nobody watches it");
        assert_eq!(search.status_at_hand_over(&job), Some(&JobStatus::Completed));
        search.listed(at(50), Some(at(60)), at(60));
        assert_eq!(search.status_at_hand_over(&job), None, "what is not listed any more takes no room");
    }

    #[test]
    fn a_job_with_another_listed_status_is_hinted_at_growing_intervals() {
        let job: ImportJobId = "9876543210".parse().expect("an id");
        let mut differences = StatusDifferences::default();
        let script = [
            // JobState, listed, hint.
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
            let hinted = differences.looks_changed(&job, status(known).as_ref(), status(listed).as_ref());
            assert_eq!(hinted, hint, "step {step}: {known} {listed}");
        }
    }

    #[test]
    fn differences_of_jobs_that_are_not_live_are_removed() {
        let [gone, live]: [ImportJobId; 2] = ["9876543210", "9876543211"].map(|id| id.parse().expect("an id"));
        let mut differences = StatusDifferences::default();
        let hints = |differences: &mut StatusDifferences, job| {
            differences.looks_changed(job, Some(&JobStatus::Submitted), None)
        };
        for job in [&gone, &live] {
            assert!((0..2).all(|_| hints(&mut differences, job)) && !hints(&mut differences, job));
        }
        differences.retain(|job| *job == live);
        assert!(hints(&mut differences, &gone) && hints(&mut differences, &gone), "it begins anew");
        assert!(hints(&mut differences, &live) && !hints(&mut differences, &live), "the fourth, and the fifth");
    }

    #[test]
    fn an_ended_job_with_another_listed_status_is_hinted_once() {
        let job: ImportJobId = "9876543210".parse().expect("an id");
        let (mut differences, known) = (StatusDifferences::default(), JobStatus::Failed);
        let listed = [JobStatus::Failed, JobStatus::InProgress, JobStatus::InProgress, JobStatus::Completed];
        let hints = listed.map(|listed| differences.looks_reopened(&job, &known, &listed));
        assert_eq!(hints, [false, true, false, true]);
    }

    #[test]
    fn a_throttled_listing_is_repeated_and_denial_absence_or_lasting_failure_ends_listing() {
        use ListingFailure::{EndListing, RepeatRequest, RetryLater};
        let minute = Some(Duration::from_mins(1));
        for (reason, retry_after, consecutive, expected) in [
            (FailureReason::Throttled, None, 1, RepeatRequest),
            (FailureReason::Throttled, None, 3, RepeatRequest),
            (FailureReason::Throttled, None, 9, RepeatRequest),
            (FailureReason::Throttled, Some(Duration::from_secs(1)), 1, RepeatRequest),
            (FailureReason::Throttled, minute, 1, EndListing),
            (FailureReason::Internal, None, 1, RetryLater),
            (FailureReason::Connect, None, 3, RetryLater),
            (FailureReason::Connect, None, 4, EndListing),
            (FailureReason::Internal, minute, 1, EndListing),
            (FailureReason::AccessDenied, None, 1, EndListing),
            (FailureReason::NotFound, None, 1, EndListing),
            (FailureReason::Validation, None, 1, EndListing),
        ] {
            let failure = PollFailure { reason, message: String::new(), retry_after };
            assert_eq!(after_failure(&failure, consecutive), expected, "{failure:?} {consecutive}");
        }
    }

    #[test]
    fn the_safety_interval_uses_half_of_the_quota_and_changes_in_powers_of_two() {
        assert_eq!(safety_interval(8, 4.0), Duration::from_secs(4));
        assert_eq!(safety_interval(1_000, 4.0), Duration::from_secs(512));
        assert_eq!(safety_interval(1_000, 5.0), safety_interval(600, 5.0));
    }

    #[test]
    fn listings_do_not_replace_polls_of_old_or_vanished_jobs() {
        let known = |hours: i64, vanished_at| JobState {
            status: JobStatus::InProgress,
            status_message: None,
            created_at: Some(at(-60 * hours)),
            completed_at: None,
            sources: BTreeMap::new(),
            since: at(0),
            last_seen: at(0),
            vanished_at,
        };
        assert!(is_listed(None, at(0)) && is_listed(Some(&known(24, None)), at(0)));
        assert!(!is_listed(Some(&known(25, None)), at(0)) && !is_listed(Some(&known(1, Some(at(0)))), at(0)));
        assert!(is_listed(Some(&known(-9_000, None)), at(0)), "a clock that is ahead");
    }
}
