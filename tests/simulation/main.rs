//! Simulation: the real supervisor, watchers, listers and database against a simulated service, on paused time.
//!
//! Each seed draws a scenario and runs it twice; both runs must produce the same trace. `service` checks every request, `run`
//! every transition, the shared state and the database. `measurements` measures delays and rates of fixed scenarios.
//!
//! `SIMULATION_SEEDS` sets the number of seeds, `SIMULATION_SEED` runs one.

mod bucket;
mod counters;
mod draw;
mod expectations;
mod instance;
mod kinds;
mod measurements;
mod response;
mod run;
mod scenario;
mod service;
mod sinks;

use std::env;
use std::fmt;
use std::panic;
use std::thread;
use std::time::Duration;

use counters::Counters;
use kinds::{delays_beside_denied_exports, delays_of_two_kinds};
use measurements::{
    AfterOutage, AfterSleep, ChangedQuota, after_sleep, bound, changed_quota, delays, delays_with_failing_sinks,
    delays_with_shared_quota, outage, polls_with_throttled_listings, rounds, two_daemons,
};
use refwatch::core::failure::Operation;
use refwatch::core::kind::JobKind;
use refwatch::simulator::SinkFault;
use run::run;
use scenario::Scenario;

/// The default number of seeds.
const SEEDS: u64 = 40;

/// Seeds that once revealed a bug. They always run.
const REGRESSION_SEEDS: [u64; 5] = [268, 1313, 1422, 1725, 7191];

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

#[test]
fn every_seed_passes_all_checks_and_repeats_its_trace() {
    let seeds: Vec<u64> = match number("SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIMULATION_SEEDS").unwrap_or(SEEDS)).chain(REGRESSION_SEEDS).collect(),
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let runs: Vec<Result<(Duration, Counters), String>> = thread::scope(|scope| {
        let run_some = |first: usize| seeds.iter().skip(first).step_by(threads).map(|seed| run_twice(*seed)).collect();
        let runs: Vec<_> = (0..threads).map(|first| scope.spawn(move || -> Vec<_> { run_some(first) })).collect();
        runs.into_iter().flat_map(|run| run.join().unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    });
    let (passed, failed): (Vec<_>, Vec<_>) = runs.into_iter().partition(Result::is_ok);
    let add = |(lasted, counters), (more, other)| (lasted + more, counters + other);
    let (lasted, counters): (Duration, Counters) = passed.into_iter().flatten().fold(Default::default(), add);
    let hours = lasted.as_secs() / 3600;
    print_summary(format_args!(
        "{} seeds, {hours} simulated hours, each twice with the same trace: {counters}",
        seeds.len() - failed.len()
    ));
    let failed: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
}

#[expect(clippy::print_stdout, reason = "the summary of a campaign")]
fn print_summary(summary: fmt::Arguments<'_>) {
    println!("{summary}");
}

/// Returns the simulated time and the counters, or the violation and the command that reproduces it.
fn run_twice(seed: u64) -> Result<(Duration, Counters), String> {
    let with_command = |violation| {
        format!("{violation}\n  to reproduce: SIMULATION_SEED={seed} cargo test --test simulation every_seed")
    };
    let scenario = Scenario::draw(seed);
    let report = run(&scenario).map_err(with_command)?;
    let replayed = run(&scenario).map_err(with_command)?;
    let same = report.fingerprint == replayed.fingerprint;
    same.then_some((report.lasted, report.counters)).ok_or_else(|| with_command("two runs differ".to_owned()))
}

#[test]
fn polls_alone_detect_an_end_within_the_theoretical_bound() {
    for (jobs, stores) in [(10, 1), (100, 1), (1_000, 1)] {
        let (seen, bound) = (delays(jobs, stores, false), bound(jobs));
        assert!(seen.mean <= bound.mul_f64(1.15) && seen.worst <= 2 * bound.mul_f64(1.3), "{jobs} jobs: {seen:?}");
        assert!(seen.throttled < 0.01, "{jobs} jobs: {seen:?}");
    }
}

#[test]
fn with_listings_an_end_is_detected_within_seconds() {
    let alone = delays(10, 1, false);
    let cases = [
        (10, alone.mean, alone.p99),
        (100, Duration::from_millis(1500), Duration::from_secs(4)),
        (1_000, Duration::from_secs(3), Duration::from_secs(8)),
    ];
    for (jobs, mean, p99) in cases {
        let seen = delays(jobs, 1, true);
        assert!(seen.mean <= mean && seen.p99 <= p99 && seen.throttled < 0.01, "{jobs} jobs: {seen:?}");
    }
}

#[test]
fn many_read_set_imports_do_not_delay_reference_imports() {
    for (kind, seen) in delays_of_two_kinds(3) {
        assert!(seen.mean <= Duration::from_millis(1500) && seen.throttled <= 0.0, "{kind}: {seen:?}");
    }
}

#[test]
fn a_denied_get_or_list_of_one_kind_leaves_the_delays_of_other_kinds_unchanged() {
    let allowed = delays_beside_denied_exports(None);
    for denied in [Operation::Get(JobKind::ReadSetExport), Operation::List(JobKind::ReadSetExport)] {
        let seen = delays_beside_denied_exports(Some(denied));
        for (seen, allowed) in seen.iter().zip(&allowed) {
            let difference = seen.mean.abs_diff(allowed.mean);
            assert!(difference <= allowed.mean.mul_f64(0.05), "{denied:?}: {seen:?}, allowed: {allowed:?}");
            assert!(
                seen.worst <= allowed.worst.mul_f64(1.2) && seen.throttled <= 0.0,
                "{denied:?}: {seen:?}, allowed: {allowed:?}"
            );
        }
    }
}

#[test]
fn a_configured_interval_is_a_minimum_and_no_job_waits_longer_than_one_round() {
    let [configured_jobs, others] = rounds();
    let (interval, round) = (Duration::from_secs(30), Duration::from_secs_f64(1_020.0 / 5.0));
    assert!(
        configured_jobs.start >= interval && configured_jobs.end <= interval + round.mul_f64(1.1),
        "{configured_jobs:?}"
    );
    assert!(others.start >= round.mul_f64(0.8) && others.end <= round.mul_f64(1.1), "{others:?}, not {round:?}");
}

#[test]
fn with_a_quota_shared_by_get_and_list_an_end_is_detected_within_seconds() {
    let seen = delays_with_shared_quota();
    let (mean, p99) = (Duration::from_millis(1200), Duration::from_secs(3));
    assert!(seen.mean <= mean && seen.p99 <= p99 && seen.throttled <= 0.01, "{seen:?}");
}

#[test]
fn sinks_that_hang_or_are_down_change_no_detection_delay() {
    let without = delays_with_failing_sinks(None);
    for fault in [SinkFault::Hang, SinkFault::Down] {
        let seen = delays_with_failing_sinks(Some(fault));
        for (seen, without) in [(seen.mean, without.mean), (seen.p99, without.p99), (seen.worst, without.worst)] {
            let difference = seen.abs_diff(without);
            assert!(difference <= without.mul_f64(0.02), "{fault:?}: {seen:?}, without sinks: {without:?}");
        }
    }
}

#[test]
fn a_throttled_listing_does_not_make_jobs_fall_back_to_single_polls() {
    let [polls, routine] = polls_with_throttled_listings();
    assert!(polls <= 1.15 * routine, "{polls} polls a second; routine polls need {routine}");
}

#[test]
fn fault_048_a_lowered_quota_is_followed_within_one_minute_and_a_raised_quota_within_five() {
    let ChangedQuota { throttled, used } = changed_quota();
    assert!(throttled < 0.05 && used > 0.95, "{throttled} {used}");
}

#[test]
fn fault_049_two_daemons_share_one_quota_evenly() {
    for seed in 1..=5 {
        let [one, other] = two_daemons(seed);
        let together = one + other;
        assert!(together >= 0.9 && one.min(other) >= 0.35 * together, "seed {seed}: {one} {other}");
    }
}

#[test]
fn fault_030_an_outage_adds_no_requests_and_every_job_is_polled_soon_after_it() {
    for (refused, use_list) in [(true, false), (false, false), (true, true), (false, true)] {
        let AfterOutage { calls, fresh } = outage(1_000, refused, use_list);
        let round = 2 * bound(1_000);
        assert!(
            calls <= 1.0 && fresh <= round.mul_f64(1.1),
            "refused: {refused}, use_list: {use_list}: {calls} {fresh:?}"
        );
        // A few jobs back off for longer and resume together.
        let AfterOutage { calls, fresh } = outage(20, refused, use_list);
        assert!(
            calls <= 1.0 && fresh <= Duration::from_mins(1),
            "refused: {refused}, use_list: {use_list}: {calls} {fresh:?}"
        );
    }
}

#[test]
fn fault_084_after_a_suspension_each_job_is_polled_once_without_a_burst() {
    let AfterSleep { in_a_second, caught_up, polls } = after_sleep();
    assert!(in_a_second <= 6, "{in_a_second} polls in one second, 5 are allowed");
    assert!(caught_up < bound(100) * 2 * 6 / 5, "{caught_up:?}");
    assert!(polls <= 120, "{polls} polls for 100 jobs");
}

#[test]
fn a_new_job_is_polled_before_jobs_that_ended_long_ago() {
    let waits = measurements::first_poll_of_a_new_job();
    assert!(waits < Duration::from_secs(10), "{waits:?}");
}

#[test]
fn a_hanging_job_does_not_cause_listings_of_all_later_jobs() {
    let pages = measurements::pages_an_hour_with_a_hanging_job();
    // One per `min_interval`.
    assert!((50..=60).contains(&pages), "{pages}");
}

#[test]
fn unseen_ended_jobs_are_removed_when_get_is_denied() {
    assert_eq!(measurements::retained_with_get_denied(), 0);
}

#[test]
fn a_recently_ended_job_is_retained_after_a_restart_whatever_its_age() {
    assert_eq!(measurements::retained_after_restart(), 1);
}

#[test]
fn retry_after_delays_the_next_listing() {
    let listings = measurements::listings_with_retry_after();
    assert!((5..=7).contains(&listings), "{listings}");
}
