//! What the simulation measures: how late an end is known, and what becomes of the quota.

use std::iter;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use refwatch::config::Quota;
use refwatch::core::failure::{FailureReason, Operation};
use refwatch::core::job::JobStatus;

use crate::run::{End, Report, run};
use crate::scenario::{Event, Found, Job, Listing, Outage, Scenario, as_f64};
use crate::service::Call;

/// Ends that are measured at least, over as many runs as that takes.
const ENDS_LEAST: usize = 400;

/// One job in so many ends while it is measured. The others stay live, so that what is measured is that many jobs.
const ENDING: usize = 5;

/// How late the ends of jobs were known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    pub mean: Duration,
    /// Of a hundred ends ninety-nine were known as soon as this.
    pub p99: Duration,
    pub worst: Duration,
    /// The part of all requests that was throttled.
    pub throttled: f64,
}

/// The delays of `jobs` live jobs in `stores` stores of one target, with HealthOmics' default quota.
pub(crate) fn delays(jobs: usize, stores: usize, use_list: bool) -> Delays {
    let ending = jobs.div_ceil(ENDING);
    let runs = ENDS_LEAST.div_ceil(ending);
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

/// The delays of 200 live jobs with listings, where Get and List share a bucket of 10 requests a second.
pub(crate) fn delays_on_shared_quota() -> Delays {
    let reports: Vec<Report> = (0..ENDS_LEAST.div_ceil(200 / ENDING))
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

/// Polls a second of 250 jobs, where one listing request in ten is throttled; and as many as the safety interval asks for.
pub(crate) fn polls_with_throttled_listings() -> [f64; 2] {
    let mut scenario = endless(250, Duration::from_mins(20));
    scenario.poll.use_list = true;
    scenario.listing = Listing::Throttles(10);
    let during = Duration::from_mins(5)..scenario.end;
    let polls = as_f64(within(&run_of(&scenario).calls, during.clone()).count());
    let safety = refwatch::core::listing::safety_interval(250, scenario.configured.allowed());
    [polls / during.end.saturating_sub(during.start).as_secs_f64(), 250.0 / safety.as_secs_f64()]
}

/// The least mean that polling alone can reach: a job is asked for once in what all of them take.
pub(crate) fn bound(jobs: usize) -> Duration {
    let scenario = Scenario::calm(0, Vec::new(), Duration::ZERO);
    let round = Duration::from_secs_f64(as_f64(jobs) / scenario.configured.allowed());
    round.max(scenario.poll.min_interval) / 2
}

/// The delays of these ends.
pub(crate) fn of(ends: Vec<End>, throttled: f64) -> Delays {
    let mut delays: Vec<Duration> =
        ends.into_iter().map(|end| end.known.checked_sub(end.ended).expect("known once it is so")).collect();
    delays.sort();
    let mean = delays.iter().sum::<Duration>() / u32::try_from(delays.len()).expect("not that many");
    let p99 = delays[delays.len() * 99 / 100];
    Delays { mean, p99, worst: delays[delays.len() - 1], throttled }
}

/// Jobs that are live from the start, some of which end at random times once each was asked for.
fn live(seed: u64, jobs: usize, stores: usize) -> Scenario {
    let mut rng = Rng::with_seed(seed);
    let begin = 3 * bound(jobs);
    let end = begin + (10 * bound(jobs)).max(Duration::from_mins(10));
    let ending = jobs.div_ceil(ENDING);
    let mut order: Vec<usize> = (0..jobs).collect();
    rng.shuffle(&mut order);
    let job = |(place, nth): (usize, usize)| {
        let mut life = vec![(Duration::ZERO, JobStatus::InProgress)];
        if place < ending {
            life.push((begin + end.saturating_sub(begin).mul_f64(rng.f64()), JobStatus::Completed));
        }
        Job::new(nth % stores, nth, life)
    };
    let jobs: Vec<Job> = order.into_iter().enumerate().map(job).collect();
    let wait = 3 * bound(jobs.len());
    Scenario::calm(seed, jobs, end + wait)
}

fn run_of(scenario: &Scenario) -> Report {
    run(scenario).unwrap_or_else(|violation| panic!("{violation}"))
}

/// The part of requests that was throttled.
fn throttled<'a>(calls: impl IntoIterator<Item = &'a Call>) -> f64 {
    let (mut all, mut throttled) = (0, 0);
    for call in calls {
        all += 1;
        throttled += usize::from(call.failure == Some(FailureReason::Throttled));
    }
    as_f64(throttled) / as_f64(all)
}

/// From one poll to the next: the shortest and the longest, of the jobs with an interval of their own and of the others. There
/// are 20 of the former, with 30 s each, and 1,000 of the latter.
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

/// What becomes of the rate when the service's quota changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedQuota {
    /// The part of polls that was throttled from a minute after the quota was lowered until it was raised.
    pub throttled: f64,
    /// The part of the raised quota that was used five minutes after that.
    pub used: f64,
}

/// The quota goes from 5 a second to 2 for an hour, and back.
pub(crate) fn changed_quota() -> ChangedQuota {
    let (lowered, raised) = (Duration::from_mins(10), Duration::from_mins(70));
    let mut scenario = endless(100, raised + Duration::from_mins(10));
    scenario.quota.extend([(lowered, 2.0), (raised, 5.0)]);
    let calls = run_of(&scenario).calls;
    let later = raised + Duration::from_mins(5);
    ChangedQuota {
        throttled: throttled(within(&calls, lowered + Duration::from_mins(1)..raised)),
        used: answered_per_second(within(&calls, later..scenario.end), later..scenario.end) / 5.0,
    }
}

/// Two daemons on one quota, each configured to use all of it: the part of the quota that was answered to each of them.
pub(crate) fn two_daemons(seed: u64) -> [f64; 2] {
    let scenario = Scenario { seed, daemons: 2, ..endless(200, Duration::from_mins(65)) };
    let calls = run_of(&scenario).calls;
    let during = Duration::from_mins(5)..scenario.end;
    [0, 1].map(|daemon| {
        let of_one = within(&calls, during.clone()).filter(|call| call.daemon == daemon);
        answered_per_second(of_one, during.clone()) / 5.0
    })
}

/// What an outage of ten minutes does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AfterOutage {
    /// Requests during the outage, as a part of those in the ten minutes before it.
    pub calls: f64,
    /// From its end until each job had been answered about.
    pub fresh: Duration,
}

/// An outage in which connections are `refused`, or else hang.
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
        let mut answers = within(&calls, during.end..scenario.end);
        let answer = answers.find(|call| call.job.as_ref() == Some(&job.key) && call.failure.is_none());
        answer.map_or(Duration::MAX, |call| call.sent.saturating_sub(during.end))
    });
    AfterOutage { calls: sent_in(during.clone()) / healthy, fresh: fresh.max().unwrap_or_default() }
}

/// What 100 jobs cost once the machine has slept for eight hours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AfterSleep {
    /// The most polls in a second, in the ten minutes after it.
    pub in_a_second: usize,
    /// Until each job had been asked for.
    pub caught_up: Duration,
    /// The polls until then.
    pub polls: usize,
}

/// The machine sleeps for eight hours.
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

/// From a job's creation to its first poll, in a store where 1,500 jobs had ended before anybody looked.
pub(crate) fn first_poll_of_a_new_job() -> Duration {
    let created = Duration::from_mins(1);
    let mut jobs = finished(1_500, Duration::ZERO, Duration::from_millis(1));
    jobs.push(Job::new(0, 9_999, vec![(created, JobStatus::InProgress)]));
    let scenario = Scenario { found: Some(FOUND), ..Scenario::calm(1, jobs.clone(), Duration::from_mins(8)) };
    let polls = run_of(&scenario).calls;
    let mut polls = within(&polls, Duration::ZERO..scenario.end);
    let first = polls.find(|call| call.job.as_ref() == Some(&jobs[1_500].key)).expect("a poll");
    first.sent.saturating_sub(created)
}

/// Pages listed in an hour of a store in which one job has hung for over a day, and 450 have come and gone since it began.
pub(crate) fn pages_an_hour_with_a_job_that_hangs() -> usize {
    let mut jobs = finished(450, Duration::from_secs(10), Duration::from_mins(5));
    jobs.push(Job::new(0, 9_999, vec![(Duration::ZERO, JobStatus::InProgress)]));
    let hour = Duration::from_hours(25)..Duration::from_hours(26);
    let mut scenario = Scenario { found: Some(FOUND), ..Scenario::calm(1, jobs, hour.end) };
    scenario.poll.min_interval = Duration::from_mins(1);
    let calls = run_of(&scenario).calls;
    calls
        .iter()
        .filter(|call| call.operation == Operation::ListReferenceImportJobs && hour.contains(&call.sent))
        .count()
}

/// Watches in sight after two hours in a store of ten jobs of which none may be asked for.
pub(crate) fn in_sight_of_what_may_not_be_asked_for() -> usize {
    let calm = Scenario::calm(1, finished(10, Duration::ZERO, Duration::from_mins(1)), Duration::from_hours(2));
    run_of(&Scenario { found: Some(FOUND), gets: false, ..calm }).in_sight
}

/// Watches in sight once a daemon was started again, soon after the end of a job that is too old to be found again.
pub(crate) fn in_sight_of_what_ended_lately() -> usize {
    let jobs = finished(1, Duration::ZERO, Duration::from_mins(150));
    let mut scenario = Scenario::calm(1, jobs, Duration::from_hours(3));
    scenario.found = Some(Found { since: Duration::from_hours(1), ..FOUND });
    scenario.events = vec![(Duration::from_mins(155), Event::Restart)];
    run_of(&scenario).in_sight
}

/// Listings in an hour in which each answer asks for ten minutes without another.
pub(crate) fn listings_of_a_busy_service() -> usize {
    let calm = Scenario::calm(1, Vec::new(), Duration::from_hours(1));
    let listing = Listing::Busy(Duration::from_mins(10));
    let jobs = vec![Job::new(0, 0, vec![(Duration::ZERO, JobStatus::InProgress)])];
    run_of(&Scenario { jobs, found: Some(FOUND), listing, ..calm }).calls.len()
}

const FOUND: Found = Found { since: Duration::from_hours(7 * 24), remove_after: Duration::from_hours(1) };

/// Jobs that begin so far apart and end after `length`.
fn finished(jobs: usize, apart: Duration, length: Duration) -> Vec<Job> {
    let job = |(nth, created)| {
        Job::new(0, nth, vec![(created, JobStatus::InProgress), (created + length, JobStatus::Completed)])
    };
    let created = iter::successors(Some(Duration::ZERO), |created| Some(*created + apart));
    (0..jobs).zip(created).map(job).collect()
}

/// Jobs that stay live, polled one by one as fast as the quota allows.
fn endless(jobs: usize, end: Duration) -> Scenario {
    let life = vec![(Duration::ZERO, JobStatus::InProgress)];
    let mut scenario = Scenario::calm(1, (0..jobs).map(|nth| Job::new(0, nth, life.clone())).collect(), end);
    scenario.poll.use_list = false;
    scenario
}

/// The polls that were sent in a time.
fn within(calls: &[Call], time: Range<Duration>) -> impl Iterator<Item = &Call> {
    let polls = calls.iter().filter(|call| call.operation == Operation::GetReferenceImportJob);
    polls.filter(move |call| time.contains(&call.sent))
}

fn answered_per_second<'a>(calls: impl Iterator<Item = &'a Call>, time: Range<Duration>) -> f64 {
    as_f64(calls.filter(|call| call.failure.is_none()).count()) / time.end.saturating_sub(time.start).as_secs_f64()
}
