//! Listing: one List request in place of many polls, and single polls if listing is denied or switched off.

use crate::process::{Workspace, eventually, json, metric};
use crate::transition_rows::{assert_matches_simulator, timelines, transitions};

#[test]
fn a_listed_store_needs_fewer_polls() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) =
        workspace.simulate(&["--jobs", "40", "--seed", "3", "--quota", "10", "--mean-seconds", "20"]);
    let config = workspace.write("refwatch.toml", &config);
    let (daemon, address) = workspace.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(40.0)).then_some(()));
    let rows = transitions(&workspace.path("refwatch.db"));
    let calls = json(simulator, "/-/calls");
    let polls = calls["GetReferenceImportJob"]["answered"].as_u64().expect("a count");
    // Polling alone would use 8 requests a second throughout. With listings, half of them remain for jobs with hints.
    let changes = u64::try_from(rows.len()).expect("small");
    // A busy machine sees fewer transitions, so the limit is 2.5 polls for each.
    assert!(changes <= polls && 2 * polls <= 5 * changes, "{polls} polls for {changes} transitions");
    // With so few polls statuses would be skipped if there were no hints.
    let total: usize = timelines(simulator).values().map(Vec::len).sum();
    assert!(rows.len() * 5 >= total * 4, "{changes} of {total} transitions were seen");
    assert_matches_simulator(rows, simulator);
    for operation in ["GetReferenceImportJob", "ListReferenceImportJobs"] {
        assert_eq!(calls[operation]["throttled"], 0);
    }
    let is_warning = |line: &&str| line.contains("WARN") && !line.contains("event=\"transition\"");
    assert_eq!(daemon.stderr().lines().find(is_warning), None);
}

#[test]
fn if_listing_is_denied_jobs_are_polled_and_one_event_is_logged() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) =
        workspace.simulate(&["--jobs", "6", "--mean-seconds", "4", "--fault", "list_denied=1"]);
    let config = workspace.write("refwatch.toml", &config);
    let (daemon, address) = workspace.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(6.0)).then_some(()));
    assert_matches_simulator(transitions(&workspace.path("refwatch.db")), simulator);
    let log = daemon.log_with("event=\"listing_failed\"");
    assert_eq!(log.matches("event=\"listing_failed\"").count(), 1, "{log}");
    assert!(log.contains("omics:ListReferenceImportJobs"), "{log}");
    assert_eq!(json(simulator, "/-/calls")["ListReferenceImportJobs"]["faulted"], 1);
}

#[test]
fn listing_can_be_switched_off() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "4", "--mean-seconds", "1"]);
    let config = workspace.write("refwatch.toml", &config.replace("[poll]\n", "[poll]\nuse_list = false\n"));
    let (_daemon, address) = workspace.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(4.0)).then_some(()));
    assert_eq!(json(simulator, "/-/calls")["ListReferenceImportJobs"]["answered"], 0);
}
