//! What happens in one run, drawn from its seed: jobs and their lives, the configuration, and what goes wrong.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use refwatch::config::{PollConfig, Quota};
use refwatch::core::job::{JobKey, JobStatus};
use refwatch::core::watch::PollPolicy;

/// Everything that decides about a run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub seed: u64,
    pub jobs: Vec<Job>,
    /// How the jobs are found in their stores, where they appear over time, if they are.
    pub found: Option<Found>,
    /// Daemons that watch the same jobs under the same quota, each with a record of its own.
    pub daemons: usize,
    pub configured: Quota,
    pub poll: PollConfig,
    /// The service's quota for each operation, in requests per second, and since when; the first stands from the start.
    pub quota: Vec<(Duration, f64)>,
    /// How long a request takes.
    pub latency: Range<Duration>,
    /// The deadline of a request.
    pub timeout: Duration,
    /// The part of requests that the service fails to answer.
    pub failures: f64,
    pub outages: Vec<Outage>,
    pub listing: Listing,
    /// Whether the role may ask for single jobs.
    pub gets: bool,
    /// What is done to the daemons, in the order of time.
    pub events: Vec<(Duration, Event)>,
    /// When the run ends, whatever goes on.
    pub end: Duration,
}

/// How jobs are found in their stores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// How old they may be when the search begins.
    pub since: Duration,
    /// How long they stay in sight after their ends.
    pub forget_after: Duration,
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
    fn lasts(&self) -> Duration {
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
            latency: Duration::from_millis(20)..Duration::from_millis(120),
            timeout: Duration::from_secs(20),
            failures: 0.0,
            outages: Vec::new(),
            listing: Listing::Lags(Duration::ZERO),
            gets: true,
            events: Vec::new(),
            end,
        }
    }

    /// What `seed` draws.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rate = rng.choice([0.5, 1.0, 2.0, 5.0, 5.0, 20.0]).expect("one of them");
        let share = rng.choice([0.5, 0.8, 1.0]).expect("one of them");
        let mut jobs = draw_jobs(&mut rng);
        let found = draw_found(&mut Rng::with_seed(!seed), &mut jobs);
        let last = jobs.iter().filter_map(Job::end).map(|(end, _)| *end).max().unwrap_or(Duration::from_hours(1));
        let poll = draw_poll(&mut rng, &jobs);
        for job in &mut jobs {
            job.interval = (rng.u8(0..8) == 0).then(|| poll.min_interval.mul_f64(1.0 + rng.f64()));
        }
        let configured = Quota { requests_per_second: rate, share };
        let base =
            Self { found, configured, poll, quota: vec![(Duration::ZERO, rate)], ..Self::calm(seed, jobs, last) };
        let troubled = rng.f64() < 0.7;
        let mut scenario = if troubled { base.with_trouble(&mut rng, last) } else { base };
        let asleep = |event: &Event| if let Event::Suspend(asleep) = event { *asleep } else { Duration::ZERO };
        let asleep: Duration = scenario.events.iter().map(|(_, event)| asleep(event)).sum();
        if let Some(found) = &mut scenario.found {
            // Nothing that appears while a daemon sleeps, or cannot list, is too old when it looks again.
            let outages: Duration = scenario.outages.iter().map(Outage::lasts).sum();
            found.since += asleep + outages + Duration::from_hours(1);
        }
        scenario.end = last + asleep + scenario.patience() + Duration::from_hours(1);
        scenario
    }

    fn with_trouble(mut self, rng: &mut Rng, last: Duration) -> Self {
        let some = |rng: &mut Rng, most: usize| (0..rng.usize(0..=most)).map(|_| last.mul_f64(rng.f64())).collect();
        let times: Vec<Duration> = some(rng, 2);
        let rate = self.configured.requests_per_second;
        self.quota.extend(times.into_iter().map(|time| (time, rate * rng.choice([0.3, 0.6, 1.0]).unwrap_or(1.0))));
        self.quota.sort_by_key(|(since, _)| *since);
        let times: Vec<Duration> = some(rng, 2);
        self.outages = times.into_iter().map(|from| outage(rng, from)).collect();
        self.failures = rng.choice([0.0, 0.0, 0.01, 0.1]).unwrap_or(0.0);
        self.listing = match rng.u8(0..4) {
            // Nothing else tells what there is.
            0 if self.found.is_none() => Listing::Denied,
            1 => Listing::Lags(Duration::from_secs(rng.u64(1..120))),
            _ => Listing::Lags(Duration::ZERO),
        };
        self.latency = Duration::from_millis(10)..Duration::from_millis(rng.u64(20..3000));
        let times: Vec<Duration> = some(rng, 4);
        let count = self.jobs.len();
        self.events = times.into_iter().map(|time| (time, event(rng, count))).collect();
        self.events.sort_by_key(|(time, _)| *time);
        // Every job's end is to be seen in the end.
        self.events.push((last + Duration::from_mins(10), Event::Reload(Vec::new())));
        self
    }

    /// The longest that a watched job may go without a poll while the daemon works.
    pub(crate) fn patience(&self) -> Duration {
        if !self.gets {
            // It may be forgotten.
            return self.end;
        }
        let quota = self.quota.iter().map(|(_, rate)| *rate).fold(f64::INFINITY, f64::min);
        // A pacer that has to find a lower quota uses nine tenths of it; several daemons share it.
        let found = if quota < self.configured.allowed() { 0.9 * quota } else { self.configured.allowed() };
        let rate = found / as_f64(self.daemons);
        let jobs = as_f64(self.jobs.len());
        let intervals = self.jobs.iter().map(|job| job.policy(self.poll).interval);
        let interval = intervals.max().unwrap_or_default();
        let safety = refwatch::core::sweep::safety_interval(self.jobs.len(), self.configured.allowed());
        let fresh = interval.max(if self.poll.sweep { safety } else { Duration::ZERO });
        let queue = Duration::from_secs_f64(2.0 * jobs / rate);
        let calm = fresh + queue + 2 * self.latency.end;
        let trouble = self.failures > 0.0
            || !self.outages.is_empty()
            || self.quota.len() > 1
            || self.daemons > 1
            || quota < self.configured.allowed();
        if !trouble {
            return calm;
        }
        let outages: Duration = self.outages.iter().map(Outage::lasts).sum();
        // One throttle or failure after another makes the backoff as long as it gets, and one more may follow that.
        calm + 2 * self.poll.backoff.max + outages + 2 * self.timeout
    }
}

fn draw_jobs(rng: &mut Rng) -> Vec<Job> {
    let stores = rng.usize(1..=3);
    let count = rng.choice([1, 2, 5, 12, 40]).expect("one of them");
    let longest = rng.choice([0.5, 2.0, 12.0]).expect("one of them");
    let life = |rng: &mut Rng| {
        let length = Duration::from_secs_f64(longest * 3600.0 * (0.02 + 0.98 * rng.f64()));
        let begun = length.mul_f64(0.3 * rng.f64());
        let mut life = vec![(Duration::ZERO, JobStatus::Submitted), (begun, JobStatus::InProgress)];
        match rng.u8(0..10) {
            0 => {
                life.push((begun + length.saturating_sub(begun).mul_f64(rng.f64()), JobStatus::Cancelling));
                life.push((length, JobStatus::Cancelled));
            }
            1 => life.push((length, JobStatus::Failed)),
            2 => life.push((length, JobStatus::CompletedWithFailures)),
            3 => {}
            _ => life.push((length, JobStatus::Completed)),
        }
        life
    };
    (0..count).map(|nth| Job::new(rng.usize(0..stores), nth, life(rng))).collect()
}

/// In a third of the runs: how jobs are found. They then appear over time.
fn draw_found(rng: &mut Rng, jobs: &mut [Job]) -> Option<Found> {
    if rng.u8(0..3) > 0 {
        return None;
    }
    let spread = jobs.iter().filter_map(Job::end).map(|(end, _)| *end).max().unwrap_or_default();
    for Job { life, .. } in jobs {
        let created = spread.mul_f64(rng.f64());
        for (since, _) in life {
            *since += created;
        }
    }
    let forget_after = Duration::from_secs(rng.u64(1..7200));
    Some(Found { since: Duration::from_secs(rng.u64(1..7200)), forget_after })
}

/// Polls about as often as `jobs` can be followed with some thousand polls.
fn draw_poll(rng: &mut Rng, jobs: &[Job]) -> PollConfig {
    let lived: Duration = jobs.iter().filter_map(Job::end).map(|(end, _)| *end).sum();
    let least = (lived / rng.u32(500..4000)).max(Duration::from_secs(5));
    let interval = (rng.u8(0..4) == 0).then(|| least.mul_f64(1.0 + rng.f64()));
    PollConfig { interval, min_interval: least, sweep: rng.bool(), ..PollConfig::default() }
}

fn outage(rng: &mut Rng, from: Duration) -> Outage {
    Outage { during: from..from + Duration::from_secs(rng.u64(1..1800)), refused: rng.bool() }
}

fn event(rng: &mut Rng, jobs: usize) -> Event {
    match rng.u8(0..4) {
        0 => Event::Kill,
        1 => Event::Restart,
        2 => Event::Reload((0..jobs).filter(|_| rng.u8(0..4) == 0).collect()),
        _ => Event::Suspend(Duration::from_secs(rng.u64(60..8 * 3600))),
    }
}

/// A count as a number to reckon with.
pub(crate) fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("not that many"))
}
