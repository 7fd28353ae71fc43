//! The scenario of one run: jobs and their timelines, the configuration, faults and events. `draw` draws one from a seed.

use std::ops::Range;
use std::time::Duration;

use refwatch::config::{PollConfig, Quota};
use refwatch::core::failure::Operation;
use refwatch::core::job::{JobKey, JobStatus};
use refwatch::core::tracker::{PollPolicy, RETRY_AFTER_MAX};
use refwatch::simulator::SinkFault;

use crate::response::Faults;

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub seed: u64,
    pub jobs: Vec<Job>,
    /// How jobs are discovered; without it each job has an entry.
    pub discovery: Option<Discovery>,
    /// Daemons that watch the same jobs under the same quota, each with its own database.
    pub daemons: usize,
    pub configured: Quota,
    pub poll: PollConfig,
    /// The service's quota per operation in requests per second, with the time from which it applies.
    pub quota: Vec<(Duration, f64)>,
    /// Whether Get and List share one bucket.
    pub shared_quota: bool,
    pub latency: Range<Duration>,
    /// Deadline of a request.
    pub timeout: Duration,
    pub faults: Faults,
    pub outages: Vec<Outage>,
    pub listing: Listing,
    /// The operations that the role may not call.
    pub denied: Vec<Operation>,
    /// Events in the order of time.
    pub events: Vec<(Duration, Event)>,
    /// The run ends here at the latest.
    pub end: Duration,
    /// Whether each daemon has sinks.
    pub has_sinks: bool,
    /// Every request to a sink fails in this way. Without it, the faults of sinks are drawn.
    pub sink_fault: Option<SinkFault>,
    /// Whether the report contains each request.
    pub records_calls: bool,
}

/// Discovery of jobs in their stores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Discovery {
    /// The greatest age of a job when discovery begins.
    pub since: Duration,
    /// Retention after a job's end.
    pub remove_after: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub key: JobKey,
    /// Each status with the time from which it holds, beginning with the creation.
    pub timeline: Vec<(Duration, JobStatus)>,
    /// An interval configured for this job.
    pub interval: Option<Duration>,
}

/// A time without responses.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub during: Range<Duration>,
    /// Connections are refused at once, or else hang until the deadline.
    pub refused: bool,
}

/// The behaviour of List.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// Shows jobs as they were this long ago.
    Lags(Duration),
    /// The role may not list.
    Denied,
    /// Fails with this `Retry-After`.
    Busy(Duration),
    /// Each nth request is throttled.
    Throttles(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Killed and started again at once.
    Kill,
    /// Stopped and started again at once.
    Restart,
    /// The watch list leaves out the jobs with these indexes. With discovery, these jobs get entries of their own instead.
    Reload(Vec<usize>),
    /// The machine is suspended for this long.
    Suspend(Duration),
}

impl Outage {
    pub(crate) fn lasts(&self) -> Duration {
        self.during.end.saturating_sub(self.during.start)
    }
}

impl Job {
    pub(crate) fn new(store: usize, nth: usize, timeline: Vec<(Duration, JobStatus)>) -> Self {
        let key = format!("{}/{}", 1_000_000_000 + store, 5_000_000_000_usize + nth);
        Self { key: key.parse().expect("two ids"), timeline, interval: None }
    }

    /// Its policy, given the default for all jobs.
    pub(crate) fn policy(&self, poll: PollConfig) -> PollPolicy {
        PollConfig { interval: self.interval.or(poll.interval), ..poll }.policy()
    }

    pub(crate) fn at(&self, time: Duration) -> &JobStatus {
        let reached = self.timeline.partition_point(|(since, _)| *since <= time);
        &self.timeline[reached.saturating_sub(1)].1
    }

    /// When and how it ends, if it ever does.
    pub(crate) fn end(&self) -> Option<&(Duration, JobStatus)> {
        self.timeline.last().filter(|(_, status)| status.is_terminal())
    }
}

impl Scenario {
    /// No faults; HealthOmics' default quota, used in full.
    pub(crate) fn without_faults(seed: u64, jobs: Vec<Job>, end: Duration) -> Self {
        Self {
            seed,
            jobs,
            discovery: None,
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
            has_sinks: false,
            sink_fault: None,
            denied: Vec::new(),
            events: Vec::new(),
            end,
            records_calls: true,
        }
    }

    /// The longest time that a watched job may go without a poll while the daemon runs.
    pub(crate) fn max_poll_gap(&self) -> Duration {
        if self.denied.iter().any(|operation| matches!(operation, Operation::Get(_))) {
            // Such jobs may be removed.
            return self.end;
        }
        let quota = self.quota.iter().map(|(_, rate)| *rate).fold(f64::INFINITY, f64::min);
        // The pacer uses nine tenths of a quota that it has to discover, or half of a very low one. Several daemons share it.
        let used = if quota < 1.0 { 0.5 } else { 0.9 };
        let discovery =
            if quota < self.configured.configured_rate() { used * quota } else { self.configured.configured_rate() };
        let rate = discovery / as_f64(self.daemons);
        let jobs = as_f64(self.jobs.len());
        let intervals = self.jobs.iter().map(|job| job.policy(self.poll).interval);
        let interval = intervals.max().unwrap_or_default();
        let routine = refwatch::core::listing::routine_interval(self.jobs.len(), self.configured.configured_rate());
        let fresh = interval.max(if self.poll.use_list { routine } else { Duration::ZERO });
        let mut queue = Duration::from_secs_f64(2.0 * jobs / rate);
        if self.faults.failures > 0.0 {
            // Throttling without a lowered quota reduces the rate as well.
            queue *= 2;
        }
        if self.faults.incorrect > 0.0 && self.poll.use_list {
            // An incorrect page gives each job a hint, and hints go first.
            queue *= 2;
        }
        let without_faults = fresh + queue + 2 * self.latency.end;
        let has_faults = self.faults.some()
            // An entry may exist before its job.
            || self.jobs.iter().any(|job| !job.timeline[0].0.is_zero())
            || !self.outages.is_empty()
            || self.quota.len() > 1
            || self.daemons > 1
            || quota < self.configured.configured_rate();
        if !has_faults {
            return without_faults;
        }
        let outages: Duration = self.outages.iter().map(Outage::lasts).sum();
        // Consecutive failures lead to the longest backoff, and one more may follow.
        let retry_after = if self.faults.sends_retry_after { RETRY_AFTER_MAX } else { Duration::ZERO };
        without_faults + 2 * self.poll.backoff.max + retry_after + outages + 2 * self.timeout
    }
}

pub(crate) fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("fits"))
}
