//! Stores: jobs are discovered as they appear, watched to their ends, and removed when their retention expires.

use std::net::SocketAddr;

use refwatch::clock::Clock;
use refwatch::core::job::TargetJob;
use refwatch::core::transition::Detail;
use refwatch::database::{Database, DatabaseReader, Filter};
use refwatch::instruments::Instruments;
use rustix::process::Signal;

use crate::process::{Workspace, between, eventually, get, json, metric};
use crate::transition_rows::{assert_matches_simulator, assert_matches_timelines, ended, timelines, transitions};

const LAST_LISTED: &str = "refwatch_store_last_listed_timestamp_seconds";

/// Replaces the jobs of a simulator's configuration by their store. Returns the configuration, the store's id and the jobs' entries.
fn with_store(config: &str, keys: &str) -> (String, String, Vec<String>) {
    let mut parts = config.split("[[job]]\n");
    let head = parts.next().expect("the head");
    let store = between(config, "reference_store_id = \"", "\"").to_owned();
    let jobs = parts.map(|job| format!("\n[[job]]\n{job}")).collect();
    (format!("{head}\n[[store]]\nreference_store_id = \"{store}\"\n{keys}"), store, jobs)
}

/// The `watch` label and job id of each watch.
fn watches(daemon: SocketAddr) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let watches = json(daemon, "/api/v1/jobs");
    watches.as_array().expect("an array").iter().map(|it| (text(&it["watch"]), text(&it["job_id"]))).collect()
}

fn calls(simulator: SocketAddr, operation: &str) -> u64 {
    json(simulator, "/-/calls")[operation]["answered"].as_u64().expect("a count")
}

#[test]
fn present_and_later_jobs_of_a_store_are_watched_to_their_ends() {
    let workspace = Workspace::new();
    let arguments =
        ["--jobs", "5", "--arrivals-per-minute", "60", "--mean-seconds", "8", "--quota", "20", "--seed", "5"];
    let (_simulator, simulator, config) = workspace.simulate(&arguments);
    assert!(config.contains("[[store]]") && !config.contains("[[job]]"), "{config}");
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let (daemon, address) = workspace.daemon(&config);
    let jobs = eventually("later jobs", || Some(timelines(simulator)).filter(|jobs| jobs.len() >= 15));
    let rows = eventually("the end of each job", || {
        let mut rows = transitions(&database);
        rows.retain(|row| jobs.contains_key(&row.job_id));
        (ended(&rows) == jobs.len()).then_some(rows)
    });
    // Listings give hints, so few statuses are skipped.
    let total: usize = jobs.values().map(Vec::len).sum();
    assert!(rows.len() * 5 >= total * 4, "{} of {total} transitions were seen", rows.len());
    assert_matches_timelines(rows, &jobs);
    let store = between(&daemon.stderr(), " store_id=", " ").to_owned();
    assert!(watches(address).iter().all(|(watch, _)| *watch == store), "watches have the store's name");
    for operation in ["GetReferenceImportJob", "ListReferenceImportJobs"] {
        assert_eq!(json(simulator, "/-/calls")[operation]["throttled"], 0);
    }
    // Ends other than COMPLETED are warnings.
    let is_warning = |line: &&str| line.contains("WARN") && !line.contains("event=\"transition\"");
    assert_eq!(daemon.stderr().lines().find(is_warning), None);
}

#[test]
fn an_ended_job_is_polled_once_and_removed_also_after_a_restart() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "6", "--mean-seconds", "1"]);
    let (config, store, _) = with_store(&config, "remove_after = \"1s\"\n");
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let ends =
        timelines(simulator).into_values().map(|timeline| timeline.last().expect("an end").1).max().expect("six jobs");
    eventually("every end", || (Clock::system().now().wall > ends).then_some(()));

    let listed_again = |address| {
        let operation = "operation=\"ListReferenceImportJobs\"";
        eventually("three listings", || {
            (metric(address, "refwatch_api_requests_total", &[operation])? >= 3.0).then_some(())
        });
    };
    let (daemon, address) = workspace.daemon(&config);
    eventually("a row for each job", || (ended(&transitions(&database)) == 6).then_some(()));
    eventually("no watch", || watches(address).is_empty().then_some(()));
    listed_again(address);
    assert_matches_simulator(transitions(&database), simulator);
    assert_eq!(calls(simulator, "GetReferenceImportJob"), 6);
    assert!(get(address, "/").1.contains("No job was discovered yet in "), "the page shows no watch");
    let (status, shown, error) = workspace.run(&["status", "--address", &address.to_string()]);
    assert_eq!((status, shown.as_str()), (0, "No job was discovered yet."), "{error}");
    let last_listed = metric(address, LAST_LISTED, &[&store]).expect("a time");
    assert!(last_listed > ends.as_duration().as_secs_f64(), "{last_listed}");
    drop(daemon);

    let (_daemon, address) = workspace.daemon(&config);
    listed_again(address);
    assert_eq!(calls(simulator, "GetReferenceImportJob"), 6, "a restart does not poll ended jobs");
    assert_eq!(watches(address), []);
}

#[test]
fn a_job_with_its_own_entry_is_retained_when_others_are_removed() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "4", "--mean-seconds", "2"]);
    let (config, _, jobs) = with_store(&config, "name = \"all\"\nremove_after = \"2s\"\n");
    let own = between(&jobs[0], "\nid = \"", "\"").to_owned();
    let config = config.replace("[poll]\n", "[poll]\nuse_list = false\n");
    let config = workspace.write("refwatch.toml", &format!("{config}{}", jobs[0]));
    let (_daemon, address) = workspace.daemon(&config);
    let discovered = eventually("every job", || Some(watches(address)).filter(|watches| watches.len() == 4));
    for (watch, job) in discovered {
        assert_eq!(watch == "all", job != own, "{watch}: {job}");
    }
    eventually("all others to be removed", || (watches(address).len() == 1).then_some(()));
    assert_eq!(watches(address)[0].1, own);
    let database = workspace.path("refwatch.db");
    eventually("every end", || (ended(&transitions(&database)) == 4).then_some(()));
    assert_matches_simulator(transitions(&database), simulator);
}

#[test]
fn a_store_that_cannot_be_listed_is_logged_once_and_shown_first_on_the_page() {
    let workspace = Workspace::new();
    let (_simulator, _, config) =
        workspace.simulate(&["--jobs", "2", "--mean-seconds", "600", "--fault", "list_denied=1"]);
    let (config, store, jobs) = with_store(&config, "name = \"shared references\"\n");
    let config = workspace.write("refwatch.toml", &format!("{config}{}", jobs[0]));
    let (daemon, address) = workspace.daemon(&config);
    let error = format!("New reference_import jobs of the store shared references ({store}) cannot be discovered");
    eventually("the alert", || get(address, "/").1.contains(&error).then_some(()));
    eventually("the job with an entry of its own", || {
        (json(address, "/api/v1/transitions").as_array()?.len() == 1).then_some(())
    });
    eventually("a retry", || {
        (metric(address, "refwatch_api_request_failures_total", &["access_denied", "List"])? >= 2.0).then_some(())
    });
    let (log, page) = (daemon.stderr(), get(address, "/").1);
    assert_eq!(log.matches("event=\"listing_failed\"").count(), 1, "{log}");
    assert!(log.contains("its jobs cannot be discovered"), "{log}");
    for text in [&log, &page] {
        assert!(text.contains("omics:ListReferenceImportJobs"), "advice: {text}");
    }
    assert!(page.find("role=\"alert\"") < page.find("<h1>"), "{page}");
    let stores = json(address, "/api/v1/stores");
    let reason = stores[0]["error"].as_str().expect("text");
    assert_eq!((&stores[0]["watch"], &stores[0]["last_listed_at"]), (&"shared references".into(), &().into()));
    assert_eq!(metric(address, LAST_LISTED, &[&store]), None, "never");
    let (_, shown, _) = workspace.run(&["status", "--address", &address.to_string()]);
    let last =
        format!("New reference_import jobs of the store shared references ({store}) cannot be discovered: {reason}");
    assert!(shown.lines().any(|line| line == last), "{shown}");
}

#[test]
fn a_reload_moves_jobs_between_job_and_store_entries_and_a_removed_store_removes_its_watches() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "3", "--mean-seconds", "600"]);
    let (with_store, _, jobs) = with_store(&config, "name = \"all\"\n");
    let head = with_store.split("[[store]]").next().expect("the head").to_owned();
    let included = with_store.strip_prefix(&*head).expect("the store").to_owned();
    let own = between(&jobs[0], "\nid = \"", "\"").to_owned();
    let names = |address| {
        let mut names: Vec<String> = watches(address).into_iter().map(|(watch, _)| watch).collect();
        names.sort();
        names
    };
    std::fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/store.toml", &included);
    let file = workspace.write("refwatch.toml", &head);
    let (status, error, _) = workspace.run(&["--config", file.to_str().expect("text"), "check"]);
    assert!(status == 0 && error.contains("0 jobs and 1 store on 1 target"), "{error}");
    let (mut daemon, address) = workspace.daemon(&file);
    let rows = || transitions(&workspace.path("refwatch.db")).len();
    eventually("first observations", || (rows() == 3).then_some(()));
    assert_eq!(names(address), ["all", "all", "all"]);

    let name = between(&jobs[0], "name = \"", "\"");
    workspace.write("refwatch.toml", &format!("{head}{}", jobs[0]));
    daemon.signal(Signal::HUP);
    eventually("the job under its own name", || (names(address) == [name, "all", "all"]).then_some(()));
    assert!(watches(address).contains(&(name.to_owned(), own.clone())));
    let details =
        DatabaseReader::new(&workspace.path("refwatch.db")).rows::<Detail>(&Filter::default()).expect("the database");
    let still_seen: Vec<_> = details.iter().map(|row| row.target_job.key.job.as_str()).collect();
    assert_eq!(still_seen, [&own], "only its watch was stopped");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
    let (daemon, address) = workspace.daemon(&file);
    assert_eq!(names(address), [name, "all", "all"], "all three are live in the database");

    workspace.write("conf.d/store.toml", &format!("{included}nmae = \"a\"\n"));
    workspace.write("refwatch.toml", &head);
    daemon.signal(Signal::HUP);
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    eventually("the failed reload", || (reload() == Some(0.0)).then_some(()));
    assert_eq!(names(address), [name, "all", "all"], "an error in an included file removes no watch");

    workspace.write("conf.d/store.toml", &included);
    daemon.signal(Signal::HUP);
    eventually("the job back in the store", || (names(address) == ["all", "all", "all"]).then_some(()));

    workspace.write("conf.d/store.toml", &included.replace("\"all\"", "\"every one\""));
    daemon.signal(Signal::HUP);
    eventually("the new name", || (names(address) == ["every one", "every one", "every one"]).then_some(()));

    std::fs::remove_file(workspace.path("conf.d/store.toml")).expect("a file");
    daemon.signal(Signal::HUP);
    eventually("no watch", || names(address).is_empty().then_some(()));
    assert_eq!(rows(), 3, "no transition was added");
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0));
}

#[test]
fn only_recent_jobs_are_discovered_and_a_live_job_is_retained_at_any_age() {
    let workspace = Workspace::new();
    // Some jobs were created minutes ago, and all are far from their ends.
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "8", "--mean-seconds", "6000", "--seed", "7"]);
    let (config, _, _) = with_store(&config, "created_within = \"1m\"\n");
    let minute_ago = Clock::system().now().wall - jiff::SignedDuration::from_mins(1);
    let recent =
        timelines(simulator).into_iter().filter(|(_, timeline)| timeline[0].1 > minute_ago).map(|(job, _)| job);
    let recent: Vec<String> = recent.collect();
    assert!((1..8).contains(&recent.len()), "this seed has recent and older jobs: {recent:?}");

    let longer = config.replace("\"1m\"", "\"1h\"");
    let file = workspace.write("refwatch.toml", &config);
    let (daemon, address) = workspace.daemon(&file);
    let jobs = || watches(address).into_iter().map(|(_, job)| job).collect::<Vec<_>>();
    let rows = || transitions(&workspace.path("refwatch.db")).len();
    eventually("rows of the recent jobs", || (rows() == recent.len()).then_some(()));
    assert_eq!(jobs(), recent);
    workspace.write("refwatch.toml", &longer);
    daemon.signal(Signal::HUP);
    eventually("rows of all jobs", || (rows() == 8).then_some(()));

    workspace.write("refwatch.toml", &config);
    daemon.signal(Signal::HUP);
    eventually("the reload", || (daemon.stderr().matches("event=\"reloaded\"").count() == 2).then_some(()));
    assert_eq!(jobs().len(), 8, "live jobs are retained");
    drop(daemon);
    let (_daemon, address) = workspace.daemon(&file);
    assert_eq!(watches(address).len(), 8, "after a restart, too");
    assert_eq!(rows(), 8);
}

#[test]
fn rows_of_a_retained_job_are_kept_however_long_ago_it_ended() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let config = config.replace("[database]\n", "[database]\nretention = \"1d\"\n");
    let (file, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let (store, listed) = (between(&config, "reference_store_id = \"", "\""), between(&config, "\nid = \"", "\""));
    let mut change = crate::database::transition(None, "COMPLETED", 0);
    let transition = change.transition.as_mut().expect("a transition");
    transition.observed_at = Clock::system().now().wall - jiff::SignedDuration::from_hours(48);
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
        let made = Database::open(&database, &Instruments::new().expect("names")).expect("a database");
        for job in ["1000000001", listed] {
            let key = format!("{store}/{job}").parse().expect("two ids");
            made.append(&TargetJob { target: "default".into(), key }, &change).await.expect("a commit");
        }
        made.close().await;
    });
    let (_daemon, address) = workspace.daemon(&file);
    eventually("the retained end", || (metric(address, "refwatch_watches", &["finished"]) == Some(1.0)).then_some(()));
    eventually("the other job's row to be deleted", || (transitions(&database).len() == 1).then_some(()));
    assert_eq!(transitions(&database)[0].job_id, listed);
}
