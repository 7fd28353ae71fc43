//! Draws a scenario of 24 hours from a seed: jobs, configuration, faults and events.
//!
//! Faults end after 20 hours. Quotas and responses are back to normal after 21, and the remaining three hours suffice for each
//! daemon to see the end of each job.

use std::time::Duration;

use fastrand::Rng;
use refwatch::config::{PollConfig, Quota};
use refwatch::core::job::JobStatus;
use refwatch::core::kind::JobKind;

use crate::response::Faults;
use crate::scenario::{Discovery, Event, Job, Listing, Outage, Scenario, as_f64};

/// Length of a run.
const DAY: Duration = Duration::from_hours(24);

/// Quota and responses are normal from here on. The rest of the day is for the daemons to see the remaining ends.
const RECOVERY: Duration = Duration::from_hours(21);

/// Outages and events begin before this.
const LAST_FAULT_START: Duration = Duration::from_hours(20);

/// One seed in this many spends the whole default quota on listings, one a second.
const DENSE: u8 = 60;

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let discovery = draw_discovery(&mut rng);
        let (use_list, dense) = (rng.bool(), rng.u8(0..DENSE) == 0);
        let mut jobs = draw_jobs(&mut rng, use_list);
        let share = rng.choice([0.5, 0.8, 1.0]).expect("not empty");
        let requests_per_second = match (use_list, dense) {
            (_, true) => Quota::default().requests_per_second,
            // Listings follow each other as fast as the quota allows.
            (true, false) => as_f64(jobs.len()).max(4.0) / 100.0,
            (false, false) => rng.choice([0.5, 1.0, 2.0, 5.0, 20.0]).expect("not empty"),
        };
        let poll = PollConfig { use_list, ..draw_poll(&mut rng, &jobs) };
        for job in &mut jobs {
            job.interval = (rng.u8(0..8) == 0).then(|| poll.min_interval.mul_f64(1.0 + rng.f64()));
        }
        let configured = Quota { requests_per_second, share };
        let quota = vec![(Duration::ZERO, requests_per_second)];
        let without_faults = Self { has_sinks: true, records_calls: false, ..Self::without_faults(seed, jobs, DAY) };
        let mut scenario = Self { discovery, configured, poll, quota, ..without_faults };
        if rng.u8(0..5) > 0 {
            scenario.add_faults(&mut rng);
        }
        let outages: Duration = scenario.outages.iter().map(Outage::lasts).sum();
        let recovery = scenario.max_poll_gap().saturating_sub(outages);
        assert!(RECOVERY + recovery < DAY, "the day is too short: recovery takes {recovery:?}");
        if let Some(discovery) = &mut scenario.discovery {
            // Jobs created during a suspension or an outage must not be too old for the next discovery.
            let asleep = |event: &Event| if let Event::Suspend(asleep) = event { *asleep } else { Duration::ZERO };
            let asleep: Duration = scenario.events.iter().map(|(_, event)| asleep(event)).sum();
            discovery.since += asleep + outages + Duration::from_hours(2);
            if scenario.faults.failures > 0.0 {
                // Nor may jobs that were parked before their first response.
                discovery.since = DAY;
            }
        }
        scenario
    }

    fn add_faults(&mut self, rng: &mut Rng) {
        let some = |rng: &mut Rng, most: usize| -> Vec<Duration> {
            (0..rng.usize(0..=most)).map(|_| LAST_FAULT_START.mul_f64(rng.f64())).collect()
        };
        let rate = self.configured.requests_per_second;
        for time in some(rng, 3) {
            self.quota.push((time, rate * rng.choice([0.3, 0.6, 1.0]).expect("not empty")));
        }
        self.quota.sort_by_key(|(since, _)| *since);
        self.quota.push((RECOVERY, rate));
        self.outages = some(rng, 3).into_iter().map(|from| outage(rng, from)).collect();
        let part = |rng: &mut Rng| rng.choice([0.0, 0.0, 0.003, 0.02, 0.1]).expect("not empty");
        self.faults = Faults {
            failures: part(rng),
            hangs: part(rng),
            incorrect: part(rng),
            sends_retry_after: rng.bool(),
            until: RECOVERY,
        };
        self.listing = match rng.u8(0..4) {
            // A store without discovery needs no listing. With discovery, listing is the only source of jobs.
            0 if self.discovery.is_none() => Listing::Denied,
            1 => Listing::Lags(Duration::from_secs(rng.u64(1..120))),
            _ => Listing::Lags(Duration::ZERO),
        };
        self.latency = Duration::from_millis(10)..Duration::from_millis(rng.u64(20..3000));
        let times = some(rng, 6);
        self.events = events(rng, times, self.jobs.len());
    }
}

/// Jobs created throughout the day. One never ends; two with listings, way that listing pays off.
fn draw_jobs(rng: &mut Rng, use_list: bool) -> Vec<Job> {
    let endless = if use_list { 2 } else { 1 };
    let stores = rng.usize(1..=3);
    let count = rng.choice([2, 5, 12, 24]).expect("not empty");
    let longest = rng.choice([0.2, 2.0, 12.0]).expect("not empty");
    (0..count)
        .map(|nth| {
            if nth < endless {
                let begun = Duration::from_mins(1);
                return Job::new(0, nth, vec![(Duration::ZERO, JobStatus::Submitted), (begun, JobStatus::InProgress)]);
            }
            let created = LAST_FAULT_START.mul_f64(rng.f64());
            let length = Duration::from_secs_f64(longest * 3600.0 * (0.02 + 0.98 * rng.f64()));
            let store = rng.usize(0..stores);
            let mut job = Job::new(store, nth, timeline(rng, created, length.min(RECOVERY.saturating_sub(created))));
            // The first store is a reference store, the others are sequence stores.
            if store > 0 {
                let [_, kinds @ ..] = JobKind::ALL;
                job.key.kind = kinds[nth % kinds.len()];
            }
            job
        })
        .collect()
}

fn timeline(rng: &mut Rng, created: Duration, length: Duration) -> Vec<(Duration, JobStatus)> {
    let begun = length.mul_f64(0.3 * rng.f64());
    let mut timeline = vec![(created, JobStatus::Submitted), (created + begun, JobStatus::InProgress)];
    let end = created + length;
    match rng.u8(0..10) {
        0 => {
            let cancelling = begun + length.saturating_sub(begun).mul_f64(rng.f64());
            timeline.push((created + cancelling, JobStatus::Cancelling));
            timeline.push((end, JobStatus::Cancelled));
        }
        1 => timeline.push((end, JobStatus::Failed)),
        2 => timeline.push((end, JobStatus::CompletedWithFailures)),
        3 => {}
        _ => timeline.push((end, JobStatus::Completed)),
    }
    timeline
}

/// A third of the runs discover jobs.
fn draw_discovery(rng: &mut Rng) -> Option<Discovery> {
    let discovery =
        Discovery { since: Duration::from_secs(rng.u64(1..7200)), remove_after: Duration::from_secs(rng.u64(1..7200)) };
    (rng.u8(0..3) == 0).then_some(discovery)
}

/// Intervals of about one second, one minute or several minutes.
fn draw_poll(rng: &mut Rng, jobs: &[Job]) -> PollConfig {
    let lived: Duration =
        jobs.iter().map(|job| job.end().map_or(DAY, |(end, _)| *end).saturating_sub(job.timeline[0].0)).sum();
    let polls = 24 * rng.choice([20, 60, 200]).expect("not empty");
    let least = (lived / polls).max(Duration::from_secs(5));
    let interval = (rng.u8(0..4) == 0).then(|| least.mul_f64(1.0 + rng.f64()));
    PollConfig { interval, min_interval: least, ..PollConfig::default() }
}

fn outage(rng: &mut Rng, from: Duration) -> Outage {
    Outage { during: from..from + Duration::from_secs(rng.u64(1..1800)), refused: rng.bool() }
}

/// The events at these times, then a restart and a reload that let each daemon see each end.
fn events(rng: &mut Rng, mut times: Vec<Duration>, jobs: usize) -> Vec<(Duration, Event)> {
    times.sort();
    let mut awake = Duration::ZERO;
    let mut events = Vec::new();
    for time in times {
        awake = awake.max(time);
        let mut event = match rng.u8(0..4) {
            0 => Event::Kill,
            1 => Event::Restart,
            2 => Event::Reload((0..jobs).filter(|_| rng.u8(0..4) == 0).collect()),
            _ => Event::Suspend(Duration::from_secs(rng.u64(60..8 * 3600))),
        };
        if let Event::Suspend(asleep) = &mut event {
            *asleep = (*asleep).min(LAST_FAULT_START.saturating_sub(awake));
            awake += *asleep;
        }
        events.push((time, event));
    }
    // The restart resumes parked jobs, the reload restores removed ones.
    events.extend([(RECOVERY, Event::Restart), (RECOVERY, Event::Reload(Vec::new()))]);
    events
}
