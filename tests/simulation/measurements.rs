//! Measurements on the simulation: the delay between the end of a job and its commit, and the use of the quota.
//!
//! `main.rs` asserts bounds on them, `benches/detection.rs` prints them.

use std::iter;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use refwatch::config::Quota;
use refwatch::core::failure::{FailureReason, Operation};
use refwatch::core::job::JobStatus;
use refwatch::core::kind::JobKind;
use refwatch::simulator::SinkFault;

use crate::run::{End, Report, run};
use crate::scenario::{Discovery, Event, Job, Listing, Outage, Scenario, as_f64};
use crate::service::Call;

/// The least number of ends to measure. There are as many runs as that takes.
const MIN_ENDS: usize = 400;

/// One job in this many ends during a measurement. The others stay live and keep the load constant.
const ENDING: usize = 5;

/// Delay from the end of a job to its commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    pub mean: Duration,
    /// 99th percentile.
    pub p99: Duration,
    pub worst: Duration,
    /// Fraction of all requests.
    pub throttled: f64,
}

/// The delays of `jobs` live jobs in `stores` stores of one target with HealthOmics' default quota.
pub(crate) fn delays(jobs: usize, stores: usize, use_list: bool) -> Delays {
    let ending = jobs.div_ceil(ENDING);
    let runs = MIN_ENDS.div_ceil(ending);
    let reports: Vec<Report> = (0..runs)
        .map(|seed| {
            let mut scenario = live(seed as u64, jobs, stores);
            scenario.poll.use_list = use_list;
            run_of(&scenario)
        })
        .collect();
    let ends: Vec<End> = reports.iter().flat_map(|report| &report.ends).copied().collect();
    let calls: Vec<Call> = reports.into_iter().flat_map(|report| report.calls).collect();
    of(ends, throttled(&calls))
}

/// The delays of 200 live jobs with listings. Get and List share a quota of 10 requests a second.
pub(crate) fn delays_with_shared_quota() -> Delays {
    let reports: Vec<Report> = (0..MIN_ENDS.div_ceil(200 / ENDING))
        .map(|seed| {
            let mut scenario = Scenario { shared_quota: true, ..live(seed as u64, 200, 1) };
            scenario.configured = Quota { requests_per_second: 10.0, ..Quota::default() };
            scenario.quota = vec![(Duration::ZERO, 10.0)];
            run_of(&scenario)
        })
        .collect();
    let ends: Vec<End> = reports.iter().flat_map(|report| &report.ends).copied().collect();
    let calls: Vec<Call> = reports.into_iter().flat_map(|report| report.calls).collect();
    of(ends, throttled(&calls))
}

/// The delays of 100 live jobs, with listings. With a fault, each daemon has sinks and every request to them fails.
pub(crate) fn delays_with_failing_sinks(sink_fault: Option<SinkFault>) -> Delays {
    let reports: Vec<Report> = (0..MIN_ENDS.div_ceil(100 / ENDING))
        .map(|seed| run_of(&Scenario { has_sinks: sink_fault.is_some(), sink_fault, ..live(seed as u64, 100, 1) }))
        .collect();
    let ends: Vec<End> = reports.iter().flat_map(|report| &report.ends).copied().collect();
    let calls: Vec<Call> = reports.into_iter().flat_map(|report| report.calls).collect();
    of(ends, throttled(&calls))
}

/// Polls a second of 250 jobs with one in ten listings throttled, and the rate of routine polls.
pub(crate) fn polls_with_throttled_listings() -> [f64; 2] {
    let mut scenario = endless(250, Duration::from_mins(20));
    scenario.poll.use_list = true;
    scenario.listing = Listing::Throttles(10);
    let during = Duration::from_mins(5)..scenario.end;
    let polls = as_f64(within(&run_of(&scenario).calls, during.clone()).count());
    let interval = refwatch::core::listing::routine_interval(250, scenario.configured.configured_rate());
    [polls / during.end.saturating_sub(during.start).as_secs_f64(), 250.0 / interval.as_secs_f64()]
}

/// The best mean delay that polling alone can reach: half of the time that one poll of each job takes.
pub(crate) fn bound(jobs: usize) -> Duration {
    let scenario = Scenario::without_faults(0, Vec::new(), Duration::ZERO);
    let round = Duration::from_secs_f64(as_f64(jobs) / scenario.configured.configured_rate());
    round.max(scenario.poll.min_interval) / 2
}

pub(crate) fn of(ends: Vec<End>, throttled: f64) -> Delays {
    let mut delays: Vec<Duration> =
        ends.into_iter().map(|end| end.detected.checked_sub(end.ended).expect("detected after the end")).collect();
    delays.sort();
    let mean = delays.iter().sum::<Duration>() / u32::try_from(delays.len()).expect("fits");
    let p99 = delays[delays.len() * 99 / 100];
    Delays { mean, p99, worst: delays[delays.len() - 1], throttled }
}

/// Live jobs, some of which end at random times after each was polled.
pub(crate) fn live(seed: u64, jobs: usize, stores: usize) -> Scenario {
    let mut rng = Rng::with_seed(seed);
    let begin = 3 * bound(jobs);
    let end = begin + (10 * bound(jobs)).max(Duration::from_mins(10));
    let ending = jobs.div_ceil(ENDING);
    let mut order: Vec<usize> = (0..jobs).collect();
    rng.shuffle(&mut order);
    let job = |(place, nth): (usize, usize)| {
        let mut timeline = vec![(Duration::ZERO, JobStatus::InProgress)];
        if place < ending {
            timeline.push((begin + end.saturating_sub(begin).mul_f64(rng.f64()), JobStatus::Completed));
        }
        Job::new(nth % stores, nth, timeline)
    };
    let jobs: Vec<Job> = order.into_iter().enumerate().map(job).collect();
    let wait = 3 * bound(jobs.len());
    Scenario::without_faults(seed, jobs, end + wait)
}

pub(crate) fn run_of(scenario: &Scenario) -> Report {
    run(scenario).unwrap_or_else(|violation| panic!("{violation}"))
}

/// The fraction of throttled requests.
pub(crate) fn throttled<'a>(calls: impl IntoIterator<Item = &'a Call>) -> f64 {
    let (mut all, mut throttled) = (0, 0);
    for call in calls {
        all += 1;
        throttled += usize::from(call.failure == Some(FailureReason::Throttled));
    }
    as_f64(throttled) / as_f64(all)
}

/// The shortest and longest gap between two polls of a job: first for 20 jobs with `interval = "30s"`, then for 1,000 jobs without.
pub(crate) fn rounds() -> [Range<Duration>; 2] {
    let mut scenario = endless(1_020, Duration::from_mins(30));
    for job in &mut scenario.jobs[..20] {
        job.interval = Some(Duration::from_secs(30));
    }
    let calls = run_of(&scenario).calls;
    let gaps = |jobs: &[Job]| {
        let mut gaps = Vec::new();
        for job in jobs {
            let polls = within(&calls, Duration::ZERO..scenario.end);
            let sent: Vec<Duration> =
                polls.filter(|call| call.job.as_ref() == Some(&job.key)).map(|call| call.sent).collect();
            gaps.extend(sent.windows(2).map(|pair| pair[1].saturating_sub(pair[0])));
        }
        gaps.sort();
        gaps[0]..gaps[gaps.len() - 1]
    };
    [gaps(&scenario.jobs[..20]), gaps(&scenario.jobs[20..])]
}

/// How the rate follows a change of the service's quota.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedQuota {
    /// Fraction of polls, from one minute after the quota was lowered until it was raised.
    pub throttled: f64,
    /// Fraction of the raised quota that is in use five minutes later.
    pub used: f64,
}

/// Lowers the quota from 5 to 2 requests a second for one hour.
pub(crate) fn changed_quota() -> ChangedQuota {
    let (lowered, raised) = (Duration::from_mins(10), Duration::from_mins(70));
    let mut scenario = endless(100, raised + Duration::from_mins(10));
    scenario.quota.extend([(lowered, 2.0), (raised, 5.0)]);
    let calls = run_of(&scenario).calls;
    let later = raised + Duration::from_mins(5);
    ChangedQuota {
        throttled: throttled(within(&calls, lowered + Duration::from_mins(1)..raised)),
        used: successes_per_second(within(&calls, later..scenario.end), later..scenario.end) / 5.0,
    }
}

/// Two daemons on one quota, each configured to use all of it. Returns the fraction that each gets.
pub(crate) fn two_daemons(seed: u64) -> [f64; 2] {
    let scenario = Scenario { seed, daemons: 2, ..endless(200, Duration::from_mins(65)) };
    let calls = run_of(&scenario).calls;
    let during = Duration::from_mins(5)..scenario.end;
    [0, 1].map(|daemon| {
        let own = within(&calls, during.clone()).filter(|call| call.daemon == daemon);
        successes_per_second(own, during.clone()) / 5.0
    })
}

/// The effect of an outage of ten minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AfterOutage {
    /// Requests during the outage, as a fraction of those in the ten minutes before it.
    pub calls: f64,
    /// Time from the end of the outage until each job has been polled successfully.
    pub fresh: Duration,
}

/// Connections are `refused`, or hang otherwise.
pub(crate) fn outage(jobs: usize, refused: bool, use_list: bool) -> AfterOutage {
    let lasts = Duration::from_mins(10);
    let mut scenario = endless(jobs, Duration::from_mins(50));
    scenario.poll.use_list = use_list;
    let during = Duration::from_mins(30)..Duration::from_mins(30) + lasts;
    scenario.outages = vec![Outage { during: during.clone(), refused }];
    let calls = run_of(&scenario).calls;
    let sent_in = |time: Range<Duration>| as_f64(calls.iter().filter(|call| time.contains(&call.sent)).count());
    let healthy = sent_in(during.start.saturating_sub(lasts)..during.start);
    let fresh = scenario.jobs.iter().map(|job| {
        let mut successes = within(&calls, during.end..scenario.end);
        let first = successes.find(|call| call.job.as_ref() == Some(&job.key) && call.failure.is_none());
        first.map_or(Duration::MAX, |call| call.sent.saturating_sub(during.end))
    });
    AfterOutage { calls: sent_in(during.clone()) / healthy, fresh: fresh.max().unwrap_or_default() }
}

/// Polls of 100 jobs after a suspension of eight hours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AfterSleep {
    /// The largest number of polls in one second, within ten minutes.
    pub in_a_second: usize,
    /// Time until each job has been polled.
    pub caught_up: Duration,
    /// Polls until then.
    pub polls: usize,
}

pub(crate) fn after_sleep() -> AfterSleep {
    let (begin, asleep) = (Duration::from_mins(30), Duration::from_hours(8));
    let awake = begin + asleep;
    let mut scenario = endless(100, awake + Duration::from_mins(20));
    scenario.events = vec![(begin, Event::Suspend(asleep))];
    let calls = run_of(&scenario).calls;
    let after: Vec<&Call> = within(&calls, awake..awake + Duration::from_mins(10)).collect();
    let second = |from: &Call| {
        after.iter().filter(|call| call.sent >= from.sent && call.sent < from.sent + Duration::from_secs(1)).count()
    };
    let first = |job: &Job| after.iter().find(|call| call.job.as_ref() == Some(&job.key)).map(|call| call.sent);
    let last = scenario.jobs.iter().map(|job| first(job).unwrap_or(Duration::MAX)).max().unwrap_or_default();
    AfterSleep {
        in_a_second: after.iter().map(|call| second(call)).max().unwrap_or_default(),
        caught_up: last.saturating_sub(awake),
        polls: after.iter().filter(|call| call.sent <= last).count(),
    }
}

/// Time from the creation of a job to its first poll, in a store with 1,500 jobs that ended long ago.
pub(crate) fn first_poll_of_a_new_job() -> Duration {
    let created = Duration::from_mins(1);
    let mut jobs = finished(1_500, Duration::ZERO, Duration::from_millis(1));
    jobs.push(Job::new(0, 9_999, vec![(created, JobStatus::InProgress)]));
    let scenario =
        Scenario { discovery: Some(DISCOVERY), ..Scenario::without_faults(1, jobs.clone(), Duration::from_mins(8)) };
    let polls = run_of(&scenario).calls;
    let mut polls = within(&polls, Duration::ZERO..scenario.end);
    let first = polls.find(|call| call.job.as_ref() == Some(&jobs[1_500].key)).expect("a poll");
    first.sent.saturating_sub(created)
}

/// Pages listed in one hour of a store where one job has hung for 25 hours and 450 later jobs have ended.
pub(crate) fn pages_an_hour_with_a_hanging_job() -> usize {
    let mut jobs = finished(450, Duration::from_secs(10), Duration::from_mins(5));
    jobs.push(Job::new(0, 9_999, vec![(Duration::ZERO, JobStatus::InProgress)]));
    let hour = Duration::from_hours(25)..Duration::from_hours(26);
    let mut scenario = Scenario { discovery: Some(DISCOVERY), ..Scenario::without_faults(1, jobs, hour.end) };
    scenario.poll.min_interval = Duration::from_mins(1);
    let calls = run_of(&scenario).calls;
    calls
        .iter()
        .filter(|call| call.operation == Operation::List(JobKind::ReferenceImport) && hour.contains(&call.sent))
        .count()
}

/// Watches left after two hours in a store of ten jobs where Get is denied.
pub(crate) fn retained_with_get_denied() -> usize {
    let without_faults =
        Scenario::without_faults(1, finished(10, Duration::ZERO, Duration::from_mins(1)), Duration::from_hours(2));
    let denied = vec![Operation::Get(JobKind::ReferenceImport)];
    run_of(&Scenario { discovery: Some(DISCOVERY), denied, ..without_faults }).retained
}

/// Watches after a restart, shortly after the end of a job that is too old to be discovered again.
pub(crate) fn retained_after_restart() -> usize {
    let jobs = finished(1, Duration::ZERO, Duration::from_mins(150));
    let mut scenario = Scenario::without_faults(1, jobs, Duration::from_hours(3));
    scenario.discovery = Some(Discovery { since: Duration::from_hours(1), ..DISCOVERY });
    scenario.events = vec![(Duration::from_mins(155), Event::Restart)];
    run_of(&scenario).retained
}

/// Listings in one hour when each response carries `Retry-After: 600`.
pub(crate) fn listings_with_retry_after() -> usize {
    let without_faults = Scenario::without_faults(1, Vec::new(), Duration::from_hours(1));
    let listing = Listing::Busy(Duration::from_mins(10));
    let jobs = vec![Job::new(0, 0, vec![(Duration::ZERO, JobStatus::InProgress)])];
    run_of(&Scenario { jobs, discovery: Some(DISCOVERY), listing, ..without_faults }).calls.len()
}

const DISCOVERY: Discovery = Discovery { since: Duration::from_hours(7 * 24), remove_after: Duration::from_hours(1) };

/// Jobs created `apart` from each other that end after `length`.
fn finished(jobs: usize, apart: Duration, length: Duration) -> Vec<Job> {
    let job = |(nth, created)| {
        Job::new(0, nth, vec![(created, JobStatus::InProgress), (created + length, JobStatus::Completed)])
    };
    let created = iter::successors(Some(Duration::ZERO), |created| Some(*created + apart));
    (0..jobs).zip(created).map(job).collect()
}

/// Live jobs, polled without listings.
fn endless(jobs: usize, end: Duration) -> Scenario {
    let timeline = vec![(Duration::ZERO, JobStatus::InProgress)];
    let mut scenario =
        Scenario::without_faults(1, (0..jobs).map(|nth| Job::new(0, nth, timeline.clone())).collect(), end);
    scenario.poll.use_list = false;
    scenario
}

/// The polls sent in `time`.
fn within(calls: &[Call], time: Range<Duration>) -> impl Iterator<Item = &Call> {
    let polls = calls.iter().filter(|call| call.operation == Operation::Get(JobKind::ReferenceImport));
    polls.filter(move |call| time.contains(&call.sent))
}

fn successes_per_second<'a>(calls: impl Iterator<Item = &'a Call>, time: Range<Duration>) -> f64 {
    as_f64(calls.filter(|call| call.failure.is_none()).count()) / time.end.saturating_sub(time.start).as_secs_f64()
}
