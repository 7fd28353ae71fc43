//! What a listing says of jobs: which of those that are watched look changed, and which are there that nobody watches.

use std::collections::BTreeMap;
use std::time::Duration;

use super::job::{ImportJobId, JobStatus};
use super::time::Timestamp;
use super::tracker::Known;

/// The part of the polls' quota that goes to jobs of which a sweep sees no change: it keeps their sources fresh, and finds what
/// a listing does not tell. Hinted jobs go before them, so it costs those nothing.
const SAFETY_SHARE: f64 = 0.5;

/// How old a job may be for sweeps to take the place of its polls. A listing goes back to the oldest of these, and imports take
/// hours at most: one that hangs for days is left to its own polls, so that not every sweep has to list what came since.
const SWEPT_AGE_MAX: Duration = Duration::from_hours(24);

/// Whether sweeps take the place of polls for a live job of which this is known, if anything.
#[must_use]
pub fn is_swept(known: Option<&Known>, now: Timestamp) -> bool {
    let Some(known) = known else { return true };
    let age = known.created_at.and_then(|created| Duration::try_from(now.duration_since(created)).ok());
    known.vanished_at.is_none() && age.is_none_or(|age| age <= SWEPT_AGE_MAX)
}

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

    /// Whether to hint a job that ended as `known` and is listed otherwise: once, for such a listing most often lags behind.
    pub fn looks_reopened(&mut self, job: &ImportJobId, known: &JobStatus, listed: &JobStatus) -> bool {
        self.looks_changed(job, Some(known), Some(listed))
            && self.differing.get(job).is_some_and(|(_, times)| *times == 1)
    }

    /// Forgets the jobs that are not `watched`.
    pub fn retain(&mut self, watched: impl Fn(&ImportJobId) -> bool) {
        self.differing.retain(|job, _| watched(job));
    }
}

/// How long after a younger one a job may first be listed. Whether a listing can lag behind is not documented.
const LATE: Duration = Duration::from_mins(10);

/// The search for jobs of one store that nobody watches yet. Its times are the service's, but for the first.
#[derive(Debug)]
pub struct Search {
    /// Jobs created before this are not looked for.
    from: Timestamp,
    /// The latest creation that a whole listing told.
    newest: Option<Timestamp>,
    /// The same, but for the last listing. What is listed begins there, so that one listing that leaves a job out loses none.
    newest_before: Option<Timestamp>,
    /// The jobs told to whoever watches: when they were created, and how they were listed then.
    told: BTreeMap<ImportJobId, (Option<Timestamp>, JobStatus)>,
}

impl Search {
    /// A search for jobs created at `from` or later.
    #[must_use]
    pub fn new(from: Timestamp) -> Self {
        Self { from, newest: None, newest_before: None, told: BTreeMap::new() }
    }

    /// From which creation on jobs have to be listed, so that no new one is missed, and none that is live, of which the oldest was
    /// created at `oldest_live`.
    #[must_use]
    pub fn list_from(&self, oldest_live: Option<Timestamp>) -> Timestamp {
        let new = self
            .newest_before
            .and_then(|newest| newest.checked_sub(LATE).ok())
            .map_or(self.from, |new| new.max(self.from));
        oldest_live.map_or(new, |live| live.min(new))
    }

    /// Whether a listed job that nobody watches has to be told: once where it has ended.
    #[must_use]
    pub fn is_new(&self, job: &ImportJobId, created_at: Option<Timestamp>, status: &JobStatus) -> bool {
        created_at.is_none_or(|created| created >= self.from) && !(status.is_terminal() && self.told.contains_key(job))
    }

    /// Takes note that a job was told, so that it is not told again however often it is listed.
    pub fn told(&mut self, job: ImportJobId, created_at: Option<Timestamp>, status: JobStatus) {
        self.told.insert(job, (created_at, status));
    }

    /// How a job was listed when it was told.
    #[must_use]
    pub fn status_when_told(&self, job: &ImportJobId) -> Option<&JobStatus> {
        self.told.get(job).map(|(_, status)| status)
    }

    /// Takes note that all jobs created at `from` or later were listed at `now`, each told, the newest created at `newest`.
    pub fn listed(&mut self, from: Timestamp, newest: Option<Timestamp>, now: Timestamp) {
        // A creation in the future must not hide those that are still to come.
        self.newest_before = self.newest;
        self.newest = self.newest.max(newest.map(|newest| newest.min(now)));
        // What is no longer listed cannot be new.
        self.told.retain(|_, (created_at, _)| created_at.is_none_or(|created| created >= from));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 60 * minutes).expect("in range")
    }

    #[test]
    fn a_search_lists_from_its_beginning_and_then_only_what_may_be_new_or_is_live() {
        let mut search = Search::new(at(0));
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
    fn a_job_is_told_once_for_as_long_as_it_is_listed() {
        let job: ImportJobId = "9876543210".parse().expect("an id");
        let mut search = Search::new(at(0));
        let is_new = |search: &Search, created| search.is_new(&job, created, &JobStatus::Completed);
        assert!(!is_new(&search, Some(at(-1))));
        assert!(is_new(&search, Some(at(0))) && is_new(&search, None));
        search.told(job.clone(), Some(at(3)), JobStatus::Completed);
        search.listed(at(0), Some(at(60)), at(60));
        assert!(!is_new(&search, Some(at(3))));
        assert!(search.is_new(&job, Some(at(3)), &JobStatus::InProgress), "it goes on, and nobody watches it");
        assert_eq!(search.status_when_told(&job), Some(&JobStatus::Completed));
        search.listed(at(50), Some(at(60)), at(60));
        assert_eq!(search.status_when_told(&job), None, "what is not listed any more takes no room");
    }

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
    fn what_was_seen_of_a_job_that_is_no_longer_live_is_forgotten() {
        let [gone, live]: [ImportJobId; 2] = ["9876543210", "9876543211"].map(|id| id.parse().expect("an id"));
        let mut sweep = Sweep::default();
        let hints = |sweep: &mut Sweep, job| sweep.looks_changed(job, Some(&JobStatus::Submitted), None);
        for job in [&gone, &live] {
            assert!((0..2).all(|_| hints(&mut sweep, job)) && !hints(&mut sweep, job));
        }
        sweep.retain(|job| *job == live);
        assert!(hints(&mut sweep, &gone) && hints(&mut sweep, &gone), "it begins anew");
        assert!(hints(&mut sweep, &live) && !hints(&mut sweep, &live), "the fourth, and the fifth");
    }

    #[test]
    fn an_ended_job_that_is_listed_otherwise_is_hinted_once() {
        let job: ImportJobId = "9876543210".parse().expect("an id");
        let (mut sweep, known) = (Sweep::default(), JobStatus::Failed);
        let listed = [JobStatus::Failed, JobStatus::InProgress, JobStatus::InProgress, JobStatus::Completed];
        let hints = listed.map(|listed| sweep.looks_reopened(&job, &known, &listed));
        assert_eq!(hints, [false, true, false, true]);
    }

    #[test]
    fn the_safety_net_takes_half_of_the_polls_and_does_not_change_with_every_job() {
        assert_eq!(safety_interval(8, 4.0), Duration::from_secs(4));
        assert_eq!(safety_interval(1_000, 4.0), Duration::from_secs(512));
        assert_eq!(safety_interval(1_000, 5.0), safety_interval(600, 5.0));
    }

    #[test]
    fn a_job_that_hangs_for_days_or_is_gone_is_left_to_its_own_polls() {
        let known = |hours: i64, vanished_at| Known {
            status: JobStatus::InProgress,
            status_message: None,
            created_at: Some(at(-60 * hours)),
            completed_at: None,
            sources: Arc::default(),
            since: at(0),
            last_seen: at(0),
            vanished_at,
        };
        assert!(is_swept(None, at(0)) && is_swept(Some(&known(24, None)), at(0)));
        assert!(!is_swept(Some(&known(25, None)), at(0)) && !is_swept(Some(&known(1, Some(at(0)))), at(0)));
        assert!(is_swept(Some(&known(-9_000, None)), at(0)), "a clock that is ahead");
    }
}
