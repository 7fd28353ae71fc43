//! The rules of listings: which watched jobs get a hint, which jobs are new, how rarely unhinted jobs are polled, and what follows
//! from a failed listing.
//!
//! A hint asks for an early poll of a job. Listings never change the status of a job; only polls do. `tasks::lister` sends the
//! requests and the hints.

use std::collections::BTreeMap;
use std::time::Duration;

use super::failure::{FailureInfo, QuotaEvidence, RequestFailure, Scope};
use super::job::{JobId, JobStatus};
use super::time::Timestamp;
use super::tracker::JobState;

/// The greatest share of the quota for routine polls, those without a hint, while listings replace polls. They find changes that
/// listings do not show, such as the status of an item.
const ROUTINE_SHARE: f64 = 0.5;

/// The greatest age of a job whose polls listings replace. Imports take hours at most. If a job hangs for days, listings back
/// to its creation would need more and more pages.
const LISTED_AGE_MAX: Duration = Duration::from_hours(24);

/// True if listings replace the polls of a live job.
#[must_use]
pub fn listing_can_replace_poll(state: Option<&JobState>, now: Timestamp) -> bool {
    let Some(state) = state else { return true };
    let age = state.created_at.and_then(|created| Duration::try_from(now.duration_since(created)).ok());
    state.vanished_at.is_none() && age.is_none_or(|age| age <= LISTED_AGE_MAX)
}

/// The time between routine polls of a job, if `live` jobs share `polls_per_second`. The number of jobs is rounded up to a power of
/// two, so the interval does not change with every job that ends.
#[must_use]
pub fn routine_interval(live: usize, polls_per_second: f64) -> Duration {
    let live = u32::try_from(live).ok().and_then(u32::checked_next_power_of_two).map_or(f64::from(u32::MAX), f64::from);
    let seconds = live / (polls_per_second * ROUTINE_SHARE);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// How to continue after a failed request for a page of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// The same page is requested again when `Retry-After` and the quota allow it. Listings still replace polls.
    RepeatRequest,
    /// The store is listed again after a backoff. Listings still replace polls.
    RetryLater,
    /// The store is listed again later. Until a listing succeeds, the jobs are polled one by one.
    PollOneByOne,
}

/// From this many failed requests in a row, a failure of the whole target means [`AfterFailure::PollOneByOne`]. A throttle means
/// it only with a long `Retry-After`; any other failure means it at once.
const LASTING_FAILURES: u32 = 4;

/// The longest `Retry-After` for which listings still replace polls.
const SHORT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Decides how to continue after the `consecutive`th failed listing in a row.
#[must_use]
pub fn after_failure(failure: &RequestFailure, consecutive: u32) -> AfterFailure {
    let long_wait = failure.retry_after.is_some_and(|wait| wait > SHORT_RETRY_AFTER);
    match failure.reason.info() {
        _ if long_wait => AfterFailure::PollOneByOne,
        FailureInfo { quota: QuotaEvidence::Exceeded, .. } => AfterFailure::RepeatRequest,
        FailureInfo { scope: Scope::Target, .. } if consecutive < LASTING_FAILURES => AfterFailure::RetryLater,
        _ => AfterFailure::PollOneByOne,
    }
}

/// The watched jobs whose listed status differs from the known status.
#[derive(Debug, Default)]
pub struct StatusDifferences {
    /// The listed status, `None` if the job was not listed; and the number of listings that showed it.
    differing: BTreeMap<JobId, (Option<JobStatus>, u32)>,
}

impl StatusDifferences {
    /// Records the `listed` status of a live job, `None` if the job was not listed. Returns true if the job needs a hint. The known
    /// `status` or the listing may be outdated, so a lasting difference gives a hint at the 1st, 2nd, 4th, 8th … listing.
    pub fn should_hint(&mut self, job: &JobId, status: Option<&JobStatus>, listed: Option<&JobStatus>) -> bool {
        let differs = match status {
            // The first poll of the job is queued anyway. It is urgent only if the job has ended.
            None => listed.is_some_and(JobStatus::is_terminal),
            Some(_) => listed != status,
        };
        if !differs {
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

    /// The same for a finished job. Returns true only at the first listing of each other status: more hints would be useless,
    /// because such a listing is usually outdated.
    pub fn should_hint_finished(&mut self, job: &JobId, status: &JobStatus, listed: &JobStatus) -> bool {
        self.should_hint(job, Some(status), Some(listed))
            && self.differing.get(job).is_some_and(|(_, times)| *times == 1)
    }

    pub fn retain(&mut self, watched: impl Fn(&JobId) -> bool) {
        self.differing.retain(|job, _| watched(job));
    }
}

/// The assumed maximum time between the creation of a job and its first appearance in listings. AWS documents none.
const LISTING_LAG: Duration = Duration::from_mins(10);

/// The search for jobs of one store that are not watched yet.
#[derive(Debug)]
pub struct DiscoveryWindow {
    /// Jobs created earlier are ignored. The time is from refwatch's clock.
    discover_from: Timestamp,
    /// The latest creation time in recorded listings, but not later than the listing itself by refwatch's clock.
    newest_seen: Option<Timestamp>,
    /// `newest_seen` before the last recorded listing. [`Self::list_from`] uses it, so that the next listing contains a job that
    /// the last listing left out.
    newest_before_last_listing: Option<Timestamp>,
    /// Jobs that were given to `tasks::supervisor` to watch: creation time and listed status.
    handed_over: BTreeMap<JobId, (Option<Timestamp>, JobStatus)>,
}

impl DiscoveryWindow {
    #[must_use]
    pub fn new(discover_from: Timestamp) -> Self {
        Self { discover_from, newest_seen: None, newest_before_last_listing: None, handed_over: BTreeMap::new() }
    }

    /// The creation time from which a listing must start to contain all new jobs and all live jobs. `oldest_live` is the creation
    /// time of the oldest live job.
    #[must_use]
    pub fn list_from(&self, oldest_live: Option<Timestamp>) -> Timestamp {
        let new = self
            .newest_before_last_listing
            .and_then(|newest| newest.checked_sub(LISTING_LAG).ok())
            .map_or(self.discover_from, |new| new.max(self.discover_from));
        oldest_live.map_or(new, |live| live.min(new))
    }

    /// True if a listed, unwatched job should be handed over. An ended job is handed over once.
    #[must_use]
    pub fn is_new(&self, job: &JobId, created_at: Option<Timestamp>, status: &JobStatus) -> bool {
        created_at.is_none_or(|created| created >= self.discover_from)
            && !(status.is_terminal() && self.handed_over.contains_key(job))
    }

    pub fn record_handed_over(&mut self, job: JobId, created_at: Option<Timestamp>, status: JobStatus) {
        self.handed_over.insert(job, (created_at, status));
    }

    /// The number of jobs that were handed over and may still be listed.
    #[must_use]
    pub fn handed_over_count(&self) -> usize {
        self.handed_over.len()
    }

    /// The listed status of a job when it was handed over.
    #[must_use]
    pub fn status_at_hand_over(&self, job: &JobId) -> Option<&JobStatus> {
        self.handed_over.get(job).map(|(_, status)| status)
    }

    /// Records a listing of the jobs created since `from`, after its new jobs were handed over. `newest` is the latest creation
    /// time in the listing.
    pub fn record_listing(&mut self, from: Timestamp, newest: Option<Timestamp>, now: Timestamp) {
        self.newest_before_last_listing = self.newest_seen;
        // A creation time in the future must not hide later jobs.
        self.newest_seen = self.newest_seen.max(newest.map(|newest| newest.min(now)));
        // Later listings rarely start earlier. A job without a creation time may be in any listing, so it is kept.
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
    fn listings_start_at_the_oldest_job_that_is_live_or_may_be_new() {
        let mut window = DiscoveryWindow::new(at(0));
        assert_eq!(window.list_from(None), at(0));
        assert_eq!(window.list_from(Some(at(-60))), at(-60), "the oldest live job is listed");
        window.record_listing(at(0), None, at(60));
        assert_eq!(window.list_from(None), at(0), "an empty listing changes nothing");
        for _ in 0..2 {
            window.record_listing(at(0), Some(at(5)), at(60));
            assert_eq!(window.list_from(None), at(0), "not before `discover_from`");
        }
        window.record_listing(at(0), Some(at(999)), at(60));
        assert_eq!(window.list_from(None), at(0), "one listing may leave a job out");
        window.record_listing(at(0), None, at(60));
        assert_eq!(window.list_from(None), at(50), "a creation time in the future counts as the time of the listing");
        assert_eq!(window.list_from(Some(at(30))), at(30));
        assert_eq!(window.list_from(Some(at(55))), at(50));
        window.record_listing(at(50), Some(at(40)), at(60));
        assert_eq!(window.list_from(None), at(50), "an older listing changes nothing");
    }

    #[test]
    fn an_ended_job_is_handed_over_once() {
        let job: JobId = "9876543210".parse().expect("an id");
        let mut window = DiscoveryWindow::new(at(0));
        let is_new = |window: &DiscoveryWindow, created| window.is_new(&job, created, &JobStatus::Completed);
        assert!(!is_new(&window, Some(at(-1))));
        assert!(is_new(&window, Some(at(0))) && is_new(&window, None));
        window.record_handed_over(job.clone(), Some(at(3)), JobStatus::Completed);
        window.record_handed_over("9876543211".parse().expect("an id"), None, JobStatus::Submitted);
        window.record_listing(at(0), Some(at(60)), at(60));
        assert_eq!(window.handed_over_count(), 2);
        assert!(!is_new(&window, Some(at(3))));
        assert!(window.is_new(&job, Some(at(3)), &JobStatus::InProgress), "a live job is handed over again");
        assert_eq!(window.status_at_hand_over(&job), Some(&JobStatus::Completed));
        window.record_listing(at(50), Some(at(60)), at(60));
        assert_eq!(window.status_at_hand_over(&job), None, "it is too old to be listed");
        assert_eq!(window.handed_over_count(), 1, "a job without a creation time is kept");
    }

    #[test]
    fn a_live_job_with_another_listed_status_is_hinted_at_growing_intervals() {
        let job: JobId = "9876543210".parse().expect("an id");
        let mut differences = StatusDifferences::default();
        let script = [
            // Known status, listed status, hint.
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
            let hinted = differences.should_hint(&job, status(known).as_ref(), status(listed).as_ref());
            assert_eq!(hinted, hint, "step {step}: {known} {listed}");
        }
    }

    #[test]
    fn differences_of_jobs_that_are_not_retained_are_removed() {
        let [gone, live]: [JobId; 2] = ["9876543210", "9876543211"].map(|id| id.parse().expect("an id"));
        let mut differences = StatusDifferences::default();
        let hints =
            |differences: &mut StatusDifferences, job| differences.should_hint(job, Some(&JobStatus::Submitted), None);
        for job in [&gone, &live] {
            assert!((0..2).all(|_| hints(&mut differences, job)) && !hints(&mut differences, job));
        }
        differences.retain(|job| *job == live);
        assert!(hints(&mut differences, &gone) && hints(&mut differences, &gone), "its count restarts");
        assert!(hints(&mut differences, &live) && !hints(&mut differences, &live), "the 4th and the 5th listing");
    }

    #[test]
    fn an_ended_job_is_hinted_once_for_each_other_listed_status() {
        let job: JobId = "9876543210".parse().expect("an id");
        let (mut differences, known) = (StatusDifferences::default(), JobStatus::Failed);
        let listed = [JobStatus::Failed, JobStatus::InProgress, JobStatus::InProgress, JobStatus::Completed];
        let hints = listed.map(|listed| differences.should_hint_finished(&job, &known, &listed));
        assert_eq!(hints, [false, true, false, true]);
    }

    #[test]
    fn a_throttled_page_is_repeated_and_jobs_are_polled_one_by_one_after_denial_absence_or_lasting_failure() {
        use AfterFailure::{PollOneByOne, RepeatRequest, RetryLater};
        let [short, long] = [5, 6].map(|seconds| Some(Duration::from_secs(seconds)));
        for (reason, retry_after, consecutive, expected) in [
            (FailureReason::Throttled, None, 1, RepeatRequest),
            (FailureReason::Throttled, None, 3, RepeatRequest),
            (FailureReason::Throttled, None, 9, RepeatRequest),
            (FailureReason::Throttled, short, 1, RepeatRequest),
            (FailureReason::Throttled, long, 1, PollOneByOne),
            (FailureReason::Internal, None, 1, RetryLater),
            (FailureReason::Connect, None, 3, RetryLater),
            (FailureReason::Connect, None, 4, PollOneByOne),
            (FailureReason::Internal, long, 1, PollOneByOne),
            (FailureReason::AccessDenied, None, 1, PollOneByOne),
            (FailureReason::NotFound, None, 1, PollOneByOne),
            (FailureReason::Validation, None, 1, PollOneByOne),
        ] {
            let failure = RequestFailure { reason, message: String::new(), retry_after };
            assert_eq!(after_failure(&failure, consecutive), expected, "{failure:?} {consecutive}");
        }
    }

    #[test]
    fn the_routine_interval_uses_at_most_half_of_the_quota_and_changes_by_factors_of_two() {
        assert_eq!(routine_interval(8, 4.0), Duration::from_secs(4));
        assert_eq!(routine_interval(1_000, 4.0), Duration::from_secs(512));
        assert_eq!(routine_interval(1_000, 5.0), routine_interval(600, 5.0));
    }

    #[test]
    fn listings_do_not_replace_polls_of_old_or_vanished_jobs() {
        let state = |hours: i64, vanished_at| JobState {
            status: JobStatus::InProgress,
            status_message: None,
            created_at: Some(at(-60 * hours)),
            completed_at: None,
            items: BTreeMap::new().into(),
            transition_count: 1,
            changes_towards_limit: 0,
            since: at(0),
            last_seen: at(0),
            vanished_at,
            ended_once: false,
        };
        assert!(listing_can_replace_poll(None, at(0)) && listing_can_replace_poll(Some(&state(24, None)), at(0)));
        assert!(!listing_can_replace_poll(Some(&state(25, None)), at(0)), "old");
        assert!(!listing_can_replace_poll(Some(&state(1, Some(at(0)))), at(0)), "vanished");
        assert!(listing_can_replace_poll(Some(&state(-9_000, None)), at(0)), "a clock that is ahead");
    }
}
