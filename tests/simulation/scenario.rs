//! What happens in one run: jobs and their lives, the configuration, and what goes wrong. `draw` draws it from a seed.

use std::ops::Range;
use std::time::Duration;

use refwatch::config::{PollConfig, Quota};
use refwatch::core::job::{JobKey, JobStatus};
use refwatch::core::tracker::{PollPolicy, RETRY_AFTER_MAX};

use crate::fate::Faults;

/// Everything that decides about a run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub seed: u64,
    pub jobs: Vec<Job>,
    /// How the jobs are found in their stores, where they appear over time, if they are.
    pub found: Option<Found>,
    /// Daemons that watch the same jobs under the same quota, each with a database of its own.
    pub daemons: usize,
    pub configured: Quota,
    pub poll: PollConfig,
    /// The service's quota for each operation, in requests per second, and since when; the first stands from the start.
    pub quota: Vec<(Duration, f64)>,
    /// Whether Get and List share one bucket of that quota.
    pub shared_quota: bool,
    /// How long a request takes.
    pub latency: Range<Duration>,
    /// The deadline of a request.
    pub timeout: Duration,
    /// How much of what is asked comes to nothing, or to a lie.
    pub faults: Faults,
    pub outages: Vec<Outage>,
    pub listing: Listing,
    /// Whether the role may ask for single jobs.
    pub gets: bool,
    /// What is done to the daemons, in the order of time.
    pub events: Vec<(Duration, Event)>,
    /// When the run ends, whatever goes on.
    pub end: Duration,
    /// Whether every request is reported.
    pub keeps_calls: bool,
}

/// How jobs are found in their stores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// How old they may be when the search begins.
    pub since: Duration,
    /// How long they stay in sight after their ends.
    pub remove_after: Duration,
}

/// A job and its whole life.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub key: JobKey,
    /// Since when it has which status, the first one from its creation on.
    pub life: Vec<(Duration, JobStatus)>,
    /// Its own interval.
    pub interval: Option<Duration>,
}

/// A time in which nothing is answered.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub during: Range<Duration>,
    /// Whether connections are refused at once, or requests hang until their deadline.
    pub refused: bool,
}

/// What a listing is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// It shows jobs as they were this long ago.
    Lags(Duration),
    /// The role may not list.
    Denied,
    /// It fails, and asks to be left alone for this long.
    Busy(Duration),
    /// Each request in so many is throttled.
    Throttles(u64),
}

/// What is done to a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is killed, and started again at once.
    Kill,
    /// It is stopped, and started again at once.
    Restart,
    /// Its watch list leaves out the jobs at these places; where jobs are found, these have entries of their own.
    Reload(Vec<usize>),
    /// The machine sleeps for this long.
    Suspend(Duration),
}

impl Outage {
    pub(crate) fn lasts(&self) -> Duration {
        self.during.end.saturating_sub(self.during.start)
    }
}

impl Job {
    /// The `nth` job, in the `store`th store.
    pub(crate) fn new(store: usize, nth: usize, life: Vec<(Duration, JobStatus)>) -> Self {
        let key = format!("{}/{}", 1_000_000_000 + store, 5_000_000_000_usize + nth);
        Self { key: key.parse().expect("two ids"), life, interval: None }
    }

    /// How it is polled where others are polled as `poll` says.
    pub(crate) fn policy(&self, poll: PollConfig) -> PollPolicy {
        PollConfig { interval: self.interval.or(poll.interval), ..poll }.policy()
    }

    /// Its status at `time` since the run began.
    pub(crate) fn at(&self, time: Duration) -> &JobStatus {
        let reached = self.life.partition_point(|(since, _)| *since <= time);
        &self.life[reached.saturating_sub(1)].1
    }

    /// When it ended and how, if it ever does.
    pub(crate) fn end(&self) -> Option<&(Duration, JobStatus)> {
        self.life.last().filter(|(_, status)| status.is_terminal())
    }
}

impl Scenario {
    /// Of jobs that are watched without any trouble, under HealthOmics' default quota and all of it.
    pub(crate) fn calm(seed: u64, jobs: Vec<Job>, end: Duration) -> Self {
        Self {
            seed,
            jobs,
            found: None,
            daemons: 1,
            configured: Quota { share: 1.0, ..Quota::default() },
            poll: PollConfig::default(),
            quota: vec![(Duration::ZERO, Quota::default().requests_per_second)],
            shared_quota: false,
            latency: Duration::from_millis(20)..Duration::from_millis(120),
            timeout: Duration::from_secs(20),
            faults: Faults::default(),
            outages: Vec::new(),
            listing: Listing::Lags(Duration::ZERO),
            gets: true,
            events: Vec::new(),
            end,
            keeps_calls: true,
        }
    }

    /// The longest that a watched job may go without a poll while the daemon works.
    pub(crate) fn patience(&self) -> Duration {
        if !self.gets {
            // It may be forgotten.
            return self.end;
        }
        let quota = self.quota.iter().map(|(_, rate)| *rate).fold(f64::INFINITY, f64::min);
        // A pacer that has to find a lower quota uses nine tenths of it, or less where each of its few requests is news to it;
        // several daemons share it.
        let used = if quota < 1.0 { 0.5 } else { 0.9 };
        let found = if quota < self.configured.allowed() { used * quota } else { self.configured.allowed() };
        let rate = found / as_f64(self.daemons);
        let jobs = as_f64(self.jobs.len());
        let intervals = self.jobs.iter().map(|job| job.policy(self.poll).interval);
        let interval = intervals.max().unwrap_or_default();
        let safety = refwatch::core::listing::safety_interval(self.jobs.len(), self.configured.allowed());
        let fresh = interval.max(if self.poll.use_list { safety } else { Duration::ZERO });
        let mut queue = Duration::from_secs_f64(2.0 * jobs / rate);
        if self.faults.failures > 0.0 {
            // Of a throttle that no quota asked for the pacer takes its time to recover.
            queue *= 2;
        }
        if self.faults.lies > 0.0 && self.poll.use_list {
            // A page of lies has every job asked for, before those that wait in their turn.
            queue *= 2;
        }
        let calm = fresh + queue + 2 * self.latency.end;
        let trouble = self.faults.some()
            // An entry is there before its job.
            || self.jobs.iter().any(|job| !job.life[0].0.is_zero())
            || !self.outages.is_empty()
            || self.quota.len() > 1
            || self.daemons > 1
            || quota < self.configured.allowed();
        if !trouble {
            return calm;
        }
        let outages: Duration = self.outages.iter().map(Outage::lasts).sum();
        // One throttle or failure after another makes the backoff as long as it gets, and one more may follow that.
        let asked = if self.faults.asks_for_time { RETRY_AFTER_MAX } else { Duration::ZERO };
        calm + 2 * self.poll.backoff.max + asked + outages + 2 * self.timeout
    }
}

/// A count as a number to reckon with.
pub(crate) fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("not that many"))
}
