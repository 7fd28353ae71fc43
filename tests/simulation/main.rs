//! The simulation: the real supervisor, watchers, sweepers and database against a simulated service, in time that passes as fast
//! as the machine can. What must hold is looked at in `service` and `run`, at every request and at every announcement.
//!
//! `SIMULATION_SEEDS` says how many seeds are run, `SIMULATION_SEED` which one alone.

mod bucket;
mod draw;
mod fate;
mod figures;
mod met;
mod run;
mod scenario;
mod service;
mod told;

use std::env;
use std::fmt;
use std::panic;
use std::thread;
use std::time::Duration;

use figures::{
    AfterOutage, AfterSleep, ChangedQuota, after_sleep, bound, changed_quota, delays, delays_on_shared_quota, outage,
    polls_with_throttled_listings, rounds, two_daemons,
};
use met::Met;
use run::run;
use scenario::Scenario;

/// Seeds that are run unless it is said how many.
const SEEDS: u64 = 40;

/// Seeds that found a bug, and are run beside these.
const FOUND_BUGS: [u64; 5] = [268, 1313, 1422, 1725, 7191];

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

#[test]
fn every_seed_goes_well_and_comes_out_the_same_each_time() {
    let seeds: Vec<u64> = match number("SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIMULATION_SEEDS").unwrap_or(SEEDS)).chain(FOUND_BUGS).collect(),
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let runs: Vec<Result<(Duration, Met), String>> = thread::scope(|scope| {
        let run_some = |first: usize| seeds.iter().skip(first).step_by(threads).map(|seed| run_twice(*seed)).collect();
        let runs: Vec<_> = (0..threads).map(|first| scope.spawn(move || -> Vec<_> { run_some(first) })).collect();
        runs.into_iter().flat_map(|run| run.join().unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    });
    let (went_well, failed): (Vec<_>, Vec<_>) = runs.into_iter().partition(Result::is_ok);
    let add = |(lasted, met), (its_time, its_met)| (lasted + its_time, met + its_met);
    let (lasted, met): (Duration, Met) = went_well.into_iter().flatten().fold(Default::default(), add);
    let hours = lasted.as_secs() / 3600;
    say(format_args!(
        "{} seeds, {hours} simulated hours, each twice with the same trace: {met}",
        seeds.len() - failed.len()
    ));
    let failed: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
}

#[expect(clippy::print_stdout, reason = "whoever asks for many seeds wants to see how many hours that was")]
fn say(what: fmt::Arguments<'_>) {
    println!("{what}");
}

/// How long it took in simulated time, and what it met; or what may not be and was, and how to see it again.
fn run_twice(seed: u64) -> Result<(Duration, Met), String> {
    let again =
        |wrong| format!("{wrong}\n  to see it again: SIMULATION_SEED={seed} cargo test --test simulation every_seed");
    let scenario = Scenario::draw(seed);
    let report = run(&scenario).map_err(again)?;
    let replayed = run(&scenario).map_err(again)?;
    let same = report.fingerprint == replayed.fingerprint;
    same.then_some((report.lasted, report.met)).ok_or_else(|| again("two runs differ".to_owned()))
}

#[test]
fn an_end_is_known_as_soon_as_polls_alone_allow() {
    for (jobs, stores) in [(10, 1), (100, 1), (1_000, 1)] {
        let (seen, bound) = (delays(jobs, stores, false), bound(jobs));
        assert!(seen.mean <= bound.mul_f64(1.15) && seen.worst <= 2 * bound.mul_f64(1.3), "{jobs} jobs: {seen:?}");
        assert!(seen.throttled < 0.01, "{jobs} jobs: {seen:?}");
    }
}

#[test]
fn with_sweeps_an_end_is_known_within_seconds() {
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
fn an_interval_of_its_own_is_a_minimum_and_no_job_waits_longer_than_a_round() {
    let [own, others] = rounds();
    let (interval, round) = (Duration::from_secs(30), Duration::from_secs_f64(1_020.0 / 5.0));
    assert!(own.start >= interval && own.end <= interval + round.mul_f64(1.1), "{own:?}");
    assert!(others.start >= round.mul_f64(0.8) && others.end <= round.mul_f64(1.1), "{others:?}, not {round:?}");
}

#[test]
fn with_one_quota_for_get_and_list_an_end_is_known_within_seconds() {
    let seen = delays_on_shared_quota();
    let (mean, p99) = (Duration::from_millis(1200), Duration::from_secs(3));
    assert!(seen.mean <= mean && seen.p99 <= p99 && seen.throttled <= 0.01, "{seen:?}");
}

#[test]
fn a_throttled_listing_does_not_send_the_jobs_back_to_single_polls() {
    let [polls, safety] = polls_with_throttled_listings();
    assert!(polls <= 1.15 * safety, "{polls} polls a second, and {safety} are for safety");
}

#[test]
fn fault_048_a_lowered_quota_is_found_within_a_minute_and_a_raised_one_within_five() {
    let ChangedQuota { throttled, used } = changed_quota();
    assert!(throttled < 0.05 && used > 0.95, "{throttled} {used}");
}

#[test]
fn fault_049_two_daemons_share_one_quota() {
    for seed in 1..=5 {
        let [one, other] = two_daemons(seed);
        let together = one + other;
        assert!(together >= 0.9 && one.min(other) >= 0.35 * together, "seed {seed}: {one} {other}");
    }
}

#[test]
fn fault_030_an_outage_costs_no_more_calls_than_health_and_every_job_is_fresh_soon_after_it() {
    for (refused, use_list) in [(true, false), (false, false), (true, true), (false, true)] {
        let AfterOutage { calls, fresh } = outage(1_000, refused, use_list);
        let round = 2 * bound(1_000);
        assert!(
            calls <= 1.0 && fresh <= round.mul_f64(1.1),
            "refused: {refused}, use_list: {use_list}: {calls} {fresh:?}"
        );
        // Few jobs back off for long, and come back together.
        let AfterOutage { calls, fresh } = outage(20, refused, use_list);
        assert!(
            calls <= 1.0 && fresh <= Duration::from_mins(1),
            "refused: {refused}, use_list: {use_list}: {calls} {fresh:?}"
        );
    }
}

#[test]
fn fault_084_a_machine_that_slept_catches_up_once_without_a_burst() {
    let AfterSleep { in_a_second, caught_up, polls } = after_sleep();
    assert!(in_a_second <= 6, "{in_a_second} polls in a second, where 5 are allowed");
    assert!(caught_up < bound(100) * 2 * 6 / 5, "{caught_up:?}");
    assert!(polls <= 120, "{polls} polls to ask once for each of 100 jobs");
}

#[test]
fn a_new_job_of_a_store_does_not_wait_behind_what_ended_long_ago() {
    let waits = figures::first_poll_of_a_new_job();
    assert!(waits < Duration::from_secs(10), "{waits:?}");
}

#[test]
fn a_job_that_hangs_for_days_does_not_have_all_listed_that_came_since() {
    let pages = figures::pages_an_hour_with_a_job_that_hangs();
    // One every `min_interval`.
    assert!((50..=60).contains(&pages), "{pages}");
}

#[test]
fn jobs_of_a_store_that_may_not_be_asked_for_do_not_stay_in_sight_for_ever() {
    assert_eq!(figures::in_sight_of_what_may_not_be_asked_for(), 0);
}

#[test]
fn a_job_that_ended_lately_is_in_sight_after_a_restart_however_old_it_is() {
    assert_eq!(figures::in_sight_of_what_ended_lately(), 1);
}

#[test]
fn a_service_that_asks_to_be_left_alone_is_listed_no_sooner() {
    let listings = figures::listings_of_a_busy_service();
    assert!((5..=7).contains(&listings), "{listings}");
}
