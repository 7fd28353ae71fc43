//! Stores of which every job is watched: found as they appear, followed to their ends, forgotten.

use std::net::SocketAddr;

use refwatch::clock::Clock;
use refwatch::core::job::WatchId;
use refwatch::core::transition::Detail;
use refwatch::database::{Database, DatabaseReader, Filter};
use refwatch::instruments::Instruments;
use rustix::process::Signal;

use crate::process::{Scene, between, eventually, get, json, metric};
use crate::truth::{assert_true, assert_true_to, ended, transitions, truth};

const LAST_LISTED: &str = "refwatch_store_last_listed_timestamp_seconds";

/// The configuration of a simulator, with a store in place of its jobs; the store's id; the jobs' entries.
fn of_store(config: &str, keys: &str) -> (String, String, Vec<String>) {
    let mut parts = config.split("[[job]]\n");
    let head = parts.next().expect("what comes before the jobs");
    let store = between(config, "reference_store_id = \"", "\"").to_owned();
    let jobs = parts.map(|job| format!("\n[[job]]\n{job}")).collect();
    (format!("{head}\n[[store]]\nreference_store_id = \"{store}\"\n{keys}"), store, jobs)
}

/// The watches on the board: each `watch` label with the job's id.
fn watches(daemon: SocketAddr) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let watches = json(daemon, "/api/v1/jobs");
    watches.as_array().expect("an array").iter().map(|it| (text(&it["watch"]), text(&it["job_id"]))).collect()
}

fn calls(simulator: SocketAddr, operation: &str) -> u64 {
    json(simulator, "/-/calls")[operation]["answered"].as_u64().expect("a count")
}

#[test]
fn jobs_of_a_store_are_followed_to_their_ends_and_so_are_those_that_appear_later() {
    let scene = Scene::new();
    let arguments =
        ["--jobs", "5", "--arrivals-per-minute", "60", "--mean-seconds", "4", "--quota", "20", "--seed", "5"];
    let (_simulator, simulator, config) = scene.simulate(&arguments);
    assert!(config.contains("[[store]]") && !config.contains("[[job]]"), "{config}");
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let (daemon, address) = scene.daemon(&config);
    let there =
        eventually("jobs that were not there at the start", || Some(truth(simulator)).filter(|jobs| jobs.len() >= 15));
    let rows = eventually("the ends of all that is there", || {
        let mut rows = transitions(&database);
        rows.retain(|row| there.contains_key(&row.job_id));
        (ended(&rows) == there.len()).then_some(rows)
    });
    // Sweeps hint, so hardly any status is skipped.
    let lived: usize = there.values().map(Vec::len).sum();
    assert!(rows.len() * 5 >= lived * 4, "{} of {lived} transitions were seen", rows.len());
    assert_true_to(rows, &there);
    let store = between(&daemon.stderr(), " store_id=", " ").to_owned();
    assert!(watches(address).iter().all(|(watch, _)| *watch == store), "they have the store's name");
    for operation in ["GetReferenceImportJob", "ListReferenceImportJobs"] {
        assert_eq!(json(simulator, "/-/calls")[operation]["throttled"], 0);
    }
    assert!(!daemon.stderr().contains("WARN"), "{}", daemon.stderr());
}

#[test]
fn what_has_ended_is_polled_once_and_forgotten_and_stays_so_after_a_restart() {
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "6", "--mean-seconds", "1"]);
    let (config, store, _) = of_store(&config, "remove_after = \"1s\"\n");
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let ends = truth(simulator).into_values().map(|life| life.last().expect("an end").1).max().expect("six jobs");
    eventually("every end", || (Clock::system().now().wall > ends).then_some(()));

    let listed_again = |address| {
        let operation = "operation=\"ListReferenceImportJobs\"";
        eventually("three sweeps", || {
            (metric(address, "refwatch_api_requests_total", &[operation])? >= 3.0).then_some(())
        });
    };
    let (daemon, address) = scene.daemon(&config);
    eventually("every job on database", || (ended(&transitions(&database)) == 6).then_some(()));
    eventually("an empty board", || watches(address).is_empty().then_some(()));
    listed_again(address);
    assert_true(transitions(&database), simulator);
    assert_eq!(calls(simulator, "GetReferenceImportJob"), 6);
    assert!(get(address, "/").1.contains("No import job is in sight in "), "the page has no watch to show");
    let (status, shown, said) = scene.run(&["status", "--address", &address.to_string()]);
    assert_eq!((status, shown.as_str()), (0, "No import job is in sight."), "{said}");
    let last_listed = metric(address, LAST_LISTED, &[&store]).expect("a time");
    assert!(last_listed > ends.as_duration().as_secs_f64(), "{last_listed}");
    drop(daemon);

    let (_daemon, address) = scene.daemon(&config);
    listed_again(address);
    assert_eq!(calls(simulator, "GetReferenceImportJob"), 6, "the database knows that they are to be forgotten");
    assert_eq!(watches(address), []);
}

#[test]
fn a_job_with_an_entry_of_its_own_keeps_it_and_stays_when_the_others_are_forgotten() {
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "4", "--mean-seconds", "2"]);
    let (config, _, jobs) = of_store(&config, "name = \"all\"\nforget_after = \"2s\"\n");
    let own = between(&jobs[0], "\nid = \"", "\"").to_owned();
    let config = config.replace("[poll]\n", "[poll]\nsweep = false\n");
    let config = scene.write("refwatch.toml", &format!("{config}{}", jobs[0]));
    let (_daemon, address) = scene.daemon(&config);
    let found = eventually("every job", || Some(watches(address)).filter(|watches| watches.len() == 4));
    for (watch, job) in found {
        assert_eq!(watch == "all", job != own, "{watch}: {job}");
    }
    eventually("all others to be forgotten", || (watches(address).len() == 1).then_some(()));
    assert_eq!(watches(address)[0].1, own);
    let database = scene.path("refwatch.db");
    eventually("every end", || (ended(&transitions(&database)) == 4).then_some(()));
    assert_true(transitions(&database), simulator);
}

#[test]
fn a_store_that_cannot_be_listed_is_said_once_in_the_log_and_first_on_the_page() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600", "--fault", "list_denied=1"]);
    let (config, store, jobs) = of_store(&config, "name = \"shared references\"\n");
    let config = scene.write("refwatch.toml", &format!("{config}{}", jobs[0]));
    let (daemon, address) = scene.daemon(&config);
    let said = format!("No new job of the store shared references ({store}) can be found");
    eventually("the alert", || get(address, "/").1.contains(&said).then_some(()));
    eventually("the job with an entry of its own", || {
        (json(address, "/api/v1/transitions").as_array()?.len() == 1).then_some(())
    });
    eventually("another try", || {
        (metric(address, "refwatch_api_request_failures_total", &["access_denied", "List"])? >= 2.0).then_some(())
    });
    let (log, page) = (daemon.stderr(), get(address, "/").1);
    assert_eq!(log.matches("event=\"sweep_failed\"").count(), 1, "{log}");
    assert!(log.contains("none of its jobs can be found until it can be listed"), "{log}");
    for told in [&log, &page] {
        assert!(told.contains("omics:ListReferenceImportJobs"), "what to do: {told}");
    }
    assert!(page.find("role=\"alert\"") < page.find("<h1>"), "{page}");
    let stores = json(address, "/api/v1/stores");
    let trouble = stores[0]["trouble"].as_str().expect("text");
    assert_eq!((&stores[0]["watch"], &stores[0]["last_listed_at"]), (&"shared references".into(), &().into()));
    assert_eq!(metric(address, LAST_LISTED, &[&store]), None, "never");
    let (_, shown, _) = scene.run(&["status", "--address", &address.to_string()]);
    let last = format!("No new job of the store shared references ({store}) can be found: {trouble}");
    assert_eq!(shown.lines().last(), Some(&*last), "{shown}");
}

#[test]
fn a_reload_moves_jobs_between_their_own_entry_and_the_stores_and_a_store_that_left_takes_its_watches_along() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "3", "--mean-seconds", "600"]);
    let (with_store, _, jobs) = of_store(&config, "name = \"all\"\n");
    let head = with_store.split("[[store]]").next().expect("what comes before").to_owned();
    let included = with_store.strip_prefix(&*head).expect("the store").to_owned();
    let own = between(&jobs[0], "\nid = \"", "\"").to_owned();
    let names = |address| {
        let mut names: Vec<String> = watches(address).into_iter().map(|(watch, _)| watch).collect();
        names.sort();
        names
    };
    std::fs::create_dir(scene.path("conf.d")).expect("a folder");
    scene.write("conf.d/store.toml", &included);
    let file = scene.write("refwatch.toml", &head);
    let (status, said, _) = scene.run(&["--config", file.to_str().expect("text"), "check"]);
    assert!(status == 0 && said.contains("0 jobs and 1 store on 1 target"), "{said}");
    let (mut daemon, address) = scene.daemon(&file);
    let rows = || transitions(&scene.path("refwatch.db")).len();
    eventually("first sightings", || (rows() == 3).then_some(()));
    assert_eq!(names(address), ["all", "all", "all"]);

    let name = between(&jobs[0], "name = \"", "\"");
    scene.write("refwatch.toml", &format!("{head}{}", jobs[0]));
    daemon.signal(Signal::HUP);
    eventually("the job under its own name", || (names(address) == [name, "all", "all"]).then_some(()));
    assert!(watches(address).contains(&(name.to_owned(), own.clone())));
    let details =
        DatabaseReader::new(&scene.path("refwatch.db")).rows::<Detail>(&Filter::default()).expect("the database");
    let still_seen: Vec<_> = details.iter().map(|row| row.job.key.job.as_str()).collect();
    assert_eq!(still_seen, [&own], "its watch was stopped, and no other");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
    let (daemon, address) = scene.daemon(&file);
    assert_eq!(names(address), [name, "all", "all"], "the database has all three as going on");

    scene.write("conf.d/store.toml", &format!("{included}nmae = \"a\"\n"));
    scene.write("refwatch.toml", &head);
    daemon.signal(Signal::HUP);
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    eventually("the mistake", || (reload() == Some(0.0)).then_some(()));
    assert_eq!(names(address), [name, "all", "all"], "a mistake in an included file ends no watch");

    scene.write("conf.d/store.toml", &included);
    daemon.signal(Signal::HUP);
    eventually("the job back in the store", || (names(address) == ["all", "all", "all"]).then_some(()));

    scene.write("conf.d/store.toml", &included.replace("\"all\"", "\"every one\""));
    daemon.signal(Signal::HUP);
    eventually("the new name", || (names(address) == ["every one", "every one", "every one"]).then_some(()));

    std::fs::remove_file(scene.path("conf.d/store.toml")).expect("a file");
    daemon.signal(Signal::HUP);
    eventually("an empty board", || names(address).is_empty().then_some(()));
    assert_eq!(rows(), 3, "nothing is seen anew on the way");
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0));
}

#[test]
fn only_jobs_that_are_young_enough_are_found_but_one_that_goes_on_is_never_too_old_to_be_watched_on() {
    let scene = Scene::new();
    // Created minutes ago, in part, and far from their ends.
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "8", "--mean-seconds", "6000", "--seed", "7"]);
    let (config, _, _) = of_store(&config, "created_within = \"1m\"\n");
    let minute_ago = Clock::system().now().wall - jiff::SignedDuration::from_mins(1);
    let young = truth(simulator).into_iter().filter(|(_, life)| life[0].1 > minute_ago).map(|(job, _)| job);
    let young: Vec<String> = young.collect();
    assert!((1..8).contains(&young.len()), "of this seed some are young and some are not: {young:?}");

    let longer = config.replace("\"1m\"", "\"1h\"");
    let file = scene.write("refwatch.toml", &config);
    let (daemon, address) = scene.daemon(&file);
    let jobs = || watches(address).into_iter().map(|(_, job)| job).collect::<Vec<_>>();
    let rows = || transitions(&scene.path("refwatch.db")).len();
    eventually("the young ones on database", || (rows() == young.len()).then_some(()));
    assert_eq!(jobs(), young);
    scene.write("refwatch.toml", &longer);
    daemon.signal(Signal::HUP);
    eventually("all of them on database", || (rows() == 8).then_some(()));

    scene.write("refwatch.toml", &config);
    daemon.signal(Signal::HUP);
    eventually("the reload", || (daemon.stderr().matches("event=\"reloaded\"").count() == 2).then_some(()));
    assert_eq!(jobs().len(), 8, "the database knows that they go on");
    drop(daemon);
    let (_daemon, address) = scene.daemon(&file);
    assert_eq!(watches(address).len(), 8, "after a restart, too");
    assert_eq!(rows(), 8);
}

#[test]
fn rows_of_a_job_that_is_in_sight_stay_however_long_ago_it_ended() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let config = config.replace("[database]\n", "[database]\nkeep = \"1d\"\n");
    let (file, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let (store, listed) = (between(&config, "reference_store_id = \"", "\""), between(&config, "\nid = \"", "\""));
    let mut change = crate::database::transition(None, "COMPLETED", 0);
    let transition = change.transition.as_mut().expect("a transition");
    transition.observed_at = Clock::system().now().wall - jiff::SignedDuration::from_hours(48);
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
        let made = Database::open(&database, &Instruments::new().expect("names")).expect("a database");
        for job in [listed, "1000000001"] {
            let key = format!("{store}/{job}").parse().expect("two ids");
            made.append(&WatchId { target: "default".into(), key }, &change).await.expect("a commit");
        }
        made.close().await;
    });
    let (_daemon, address) = scene.daemon(&file);
    eventually("the job's end in sight", || {
        (metric(address, "refwatch_watches", &["finished"]) == Some(1.0)).then_some(())
    });
    eventually("the other job's row to go", || (transitions(&database).len() == 1).then_some(()));
    assert_eq!(transitions(&database)[0].job_id, listed);
}
