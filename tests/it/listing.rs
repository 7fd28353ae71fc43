//! Sweeps: one listing in place of many polls, and polls where there can be no listing.

use crate::process::{Scene, eventually, json, metric};
use crate::truth::{assert_true, transitions, truth};

#[test]
fn a_swept_store_is_followed_with_fewer_polls() {
    let scene = Scene::new();
    let (_simulator, simulator, config) =
        scene.simulate(&["--jobs", "40", "--seed", "3", "--quota", "10", "--mean-seconds", "30"]);
    let config = scene.write("refwatch.toml", &config);
    let (daemon, address) = scene.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(40.0)).then_some(()));
    let rows = transitions(&scene.path("refwatch.db"));
    let calls = json(simulator, "/-/calls");
    let polls = calls["GetReferenceImportJob"]["answered"].as_u64().expect("a count");
    // Polling alone would use its quota of 8 a second throughout; sweeps leave half of it to what is hinted, and to others.
    let changes = u64::try_from(rows.len()).expect("small");
    assert!(changes <= polls && polls <= 2 * changes, "{polls} polls for {changes} transitions");
    // Polls as rare as these would skip statuses, were it not for the hints.
    let lived: usize = truth(simulator).values().map(Vec::len).sum();
    assert!(rows.len() * 5 >= lived * 4, "{changes} of {lived} transitions were seen");
    assert_true(rows, simulator);
    for operation in ["GetReferenceImportJob", "ListReferenceImportJobs"] {
        assert_eq!(calls[operation]["throttled"], 0);
    }
    assert!(!daemon.stderr().contains("WARN"), "{}", daemon.stderr());
}

#[test]
fn where_listing_is_denied_the_jobs_are_polled_one_by_one_and_that_is_said_once() {
    let scene = Scene::new();
    let (_simulator, simulator, config) =
        scene.simulate(&["--jobs", "6", "--mean-seconds", "4", "--fault", "list_denied=1"]);
    let config = scene.write("refwatch.toml", &config);
    let (daemon, address) = scene.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(6.0)).then_some(()));
    assert_true(transitions(&scene.path("refwatch.db")), simulator);
    let log = daemon.stderr();
    assert_eq!(log.matches("event=\"sweep_failed\"").count(), 1, "{log}");
    assert!(log.contains("omics:ListReferenceImportJobs"), "{log}");
    assert_eq!(json(simulator, "/-/calls")["ListReferenceImportJobs"]["faulted"], 1);
}

#[test]
fn sweeps_can_be_switched_off() {
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "4", "--mean-seconds", "1"]);
    let config = scene.write("refwatch.toml", &config.replace("[poll]\n", "[poll]\nsweep = false\n"));
    let (_daemon, address) = scene.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(4.0)).then_some(()));
    assert_eq!(json(simulator, "/-/calls")["ListReferenceImportJobs"]["answered"], 0);
}
