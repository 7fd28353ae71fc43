//! A scenario of a whole day, drawn from its seed.

use std::time::Duration;

use fastrand::Rng;
use refwatch::config::{PollConfig, Quota};
use refwatch::core::job::JobStatus;

use crate::fate::Faults;
use crate::scenario::{Event, Found, Job, Listing, Outage, Scenario, as_f64};

/// How long a run lasts.
const DAY: Duration = Duration::from_hours(24);

/// When nothing changes any more, and all is well: what is left of the day is for the ends to be seen.
const EVENING: Duration = Duration::from_hours(21);

/// When the last trouble begins.
const LAST_TROUBLE: Duration = Duration::from_hours(20);

/// One seed in so many has all of the default quota used for sweeps, one a second.
const DENSE: u8 = 60;

impl Scenario {
    /// What `seed` draws.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let found = draw_found(&mut rng);
        let (use_list, dense) = (rng.bool(), rng.u8(0..DENSE) == 0);
        let mut jobs = draw_jobs(&mut rng, use_list);
        let share = rng.choice([0.5, 0.8, 1.0]).expect("one of them");
        let requests_per_second = match (use_list, dense) {
            (_, true) => Quota::default().requests_per_second,
            // As fast as it may a use_list follows another.
            (true, false) => as_f64(jobs.len()).max(4.0) / 100.0,
            (false, false) => rng.choice([0.5, 1.0, 2.0, 5.0, 20.0]).expect("one of them"),
        };
        let poll = PollConfig { use_list, ..draw_poll(&mut rng, &jobs) };
        for job in &mut jobs {
            job.interval = (rng.u8(0..8) == 0).then(|| poll.min_interval.mul_f64(1.0 + rng.f64()));
        }
        let configured = Quota { requests_per_second, share };
        let quota = vec![(Duration::ZERO, requests_per_second)];
        let calm = Self { keeps_calls: false, ..Self::calm(seed, jobs, DAY) };
        let mut scenario = Self { found, configured, poll, quota, ..calm };
        if rng.u8(0..5) > 0 {
            scenario.add_trouble(&mut rng);
        }
        let outages: Duration = scenario.outages.iter().map(Outage::lasts).sum();
        let in_the_evening = scenario.patience().saturating_sub(outages);
        assert!(EVENING + in_the_evening < DAY, "the day is too short to wait {in_the_evening:?} in its evening");
        if let Some(found) = &mut scenario.found {
            // Nothing that appears while a daemon sleeps, or cannot list, is too old when it looks again.
            let asleep = |event: &Event| if let Event::Suspend(asleep) = event { *asleep } else { Duration::ZERO };
            let asleep: Duration = scenario.events.iter().map(|(_, event)| asleep(event)).sum();
            found.since += asleep + outages + Duration::from_hours(2);
            if scenario.faults.failures > 0.0 {
                // Nor what was parked before it was seen.
                found.since = DAY;
            }
        }
        scenario
    }

    fn add_trouble(&mut self, rng: &mut Rng) {
        let some = |rng: &mut Rng, most: usize| -> Vec<Duration> {
            (0..rng.usize(0..=most)).map(|_| LAST_TROUBLE.mul_f64(rng.f64())).collect()
        };
        let rate = self.configured.requests_per_second;
        for time in some(rng, 3) {
            self.quota.push((time, rate * rng.choice([0.3, 0.6, 1.0]).expect("one of them")));
        }
        self.quota.sort_by_key(|(since, _)| *since);
        self.quota.push((EVENING, rate));
        self.outages = some(rng, 3).into_iter().map(|from| outage(rng, from)).collect();
        let part = |rng: &mut Rng| rng.choice([0.0, 0.0, 0.003, 0.02, 0.1]).expect("one of them");
        self.faults = Faults {
            failures: part(rng),
            hangs: part(rng),
            lies: part(rng),
            asks_for_time: rng.bool(),
            until: EVENING,
        };
        self.listing = match rng.u8(0..4) {
            // Nothing else tells what there is.
            0 if self.found.is_none() => Listing::Denied,
            1 => Listing::Lags(Duration::from_secs(rng.u64(1..120))),
            _ => Listing::Lags(Duration::ZERO),
        };
        self.latency = Duration::from_millis(10)..Duration::from_millis(rng.u64(20..3000));
        let times = some(rng, 6);
        self.events = events(rng, times, self.jobs.len());
    }
}

/// Jobs that come all day long. One never ends, two where that is the only way to have something to list.
fn draw_jobs(rng: &mut Rng, use_list: bool) -> Vec<Job> {
    let endless = if use_list { 2 } else { 1 };
    let stores = rng.usize(1..=3);
    let count = rng.choice([2, 5, 12, 24]).expect("one of them");
    let longest = rng.choice([0.2, 2.0, 12.0]).expect("one of them");
    (0..count)
        .map(|nth| {
            if nth < endless {
                let begun = Duration::from_mins(1);
                return Job::new(0, nth, vec![(Duration::ZERO, JobStatus::Submitted), (begun, JobStatus::InProgress)]);
            }
            let created = LAST_TROUBLE.mul_f64(rng.f64());
            let length = Duration::from_secs_f64(longest * 3600.0 * (0.02 + 0.98 * rng.f64()));
            Job::new(rng.usize(0..stores), nth, life(rng, created, length.min(EVENING.saturating_sub(created))))
        })
        .collect()
}

fn life(rng: &mut Rng, created: Duration, length: Duration) -> Vec<(Duration, JobStatus)> {
    let begun = length.mul_f64(0.3 * rng.f64());
    let mut life = vec![(created, JobStatus::Submitted), (created + begun, JobStatus::InProgress)];
    let end = created + length;
    match rng.u8(0..10) {
        0 => {
            let cancelling = begun + length.saturating_sub(begun).mul_f64(rng.f64());
            life.push((created + cancelling, JobStatus::Cancelling));
            life.push((end, JobStatus::Cancelled));
        }
        1 => life.push((end, JobStatus::Failed)),
        2 => life.push((end, JobStatus::CompletedWithFailures)),
        3 => {}
        _ => life.push((end, JobStatus::Completed)),
    }
    life
}

/// In a third of the runs: how jobs are found.
fn draw_found(rng: &mut Rng) -> Option<Found> {
    let found =
        Found { since: Duration::from_secs(rng.u64(1..7200)), remove_after: Duration::from_secs(rng.u64(1..7200)) };
    (rng.u8(0..3) == 0).then_some(found)
}

/// Polls about so often that one a second, a minute or several minutes are sent.
fn draw_poll(rng: &mut Rng, jobs: &[Job]) -> PollConfig {
    let lived: Duration =
        jobs.iter().map(|job| job.end().map_or(DAY, |(end, _)| *end).saturating_sub(job.life[0].0)).sum();
    let polls = 24 * rng.choice([20, 60, 200]).expect("one of them");
    let least = (lived / polls).max(Duration::from_secs(5));
    let interval = (rng.u8(0..4) == 0).then(|| least.mul_f64(1.0 + rng.f64()));
    PollConfig { interval, min_interval: least, ..PollConfig::default() }
}

fn outage(rng: &mut Rng, from: Duration) -> Outage {
    Outage { during: from..from + Duration::from_secs(rng.u64(1..1800)), refused: rng.bool() }
}

/// What is done at these times, and what lets every job's end be seen at last.
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
            *asleep = (*asleep).min(LAST_TROUBLE.saturating_sub(awake));
            awake += *asleep;
        }
        events.push((time, event));
    }
    // The one takes up what is parked, the other what was left out.
    events.extend([(EVENING, Event::Restart), (EVENING, Event::Reload(Vec::new()))]);
    events
}
