//! The daemon as a process: fifty jobs to their ends across a kill, signals, reloads, exit statuses, what systemd is told.

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Scene, between, eventually, get, json, metric};
use crate::truth::{TransitionRow, assert_true, ended, transitions};

#[test]
fn fault_093_fifty_jobs_reach_their_ends_and_a_kill_half_way_loses_and_doubles_nothing() {
    let scene = Scene::new();
    let (_simulator, simulator, config) =
        scene.simulate(&["--jobs", "50", "--seed", "7", "--quota", "5", "--mean-seconds", "16"]);
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));

    let (killed, _) = scene.daemon(&config);
    eventually("half of the ends", || (ended(&transitions(&database)) >= 25).then_some(()));
    killed.signal(Signal::KILL);
    drop(killed);
    let before = transitions(&database);

    let (daemon, address) = scene.daemon(&config);
    eventually("the other ends", || (metric(address, "refwatch_watches", &["finished"]) == Some(50.0)).then_some(()));
    let after = transitions(&database);
    for to in ["COMPLETED", "COMPLETED_WITH_FAILURES", "FAILED", "CANCELLED"] {
        let new = after[before.len()..].iter().filter(|row| row.to_status == to).count();
        let counted = metric(address, "refwatch_transitions_total", &[&*format!("to=\"{to}\"")]);
        assert_eq!(
            counted.map(|count| format!("{count}")),
            Some(new.to_string()),
            "transitions to {to} since the start"
        );
    }
    assert_eq!(after[..before.len()], before, "what was recorded before the kill stands as it was");

    assert_true(after, simulator);
    // Nobody else uses this quota, so a client that keeps to it is never throttled.
    assert_eq!(json(simulator, "/-/calls")["GetReferenceImportJob"]["throttled"], 0);
    assert!(daemon.stderr().contains("event=\"transition\""));
}

#[test]
fn fault_093_faults_of_every_kind_and_kills_among_them_lose_and_double_nothing() {
    let scene = Scene::new();
    let faults = [
        "throttling=0.05",
        "internal=0.03",
        "request_timeout=0.02",
        "access_denied=0.02",
        "unavailable_html=0.02",
        "html=0.02",
        "empty=0.02",
        "truncated=0.02",
        "hang=0.01",
        "reset=0.03",
        "cut_off=0.03",
        "huge=0.01",
        "slow=0.01",
        "wrong_job=0.03",
    ];
    let mut arguments = vec!["--jobs", "24", "--seed", "11", "--quota", "20", "--mean-seconds", "12"];
    arguments.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
    let (_simulator, simulator, config) = scene.simulate(&arguments);
    let config =
        config.replace("[poll]\n", "[poll]\ntimeout = \"1s\"\nbackoff_initial = \"200ms\"\nbackoff_max = \"2s\"\n");
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let mut recorded = Vec::new();
    for killed_at in [6, 16, 28, 40] {
        let (daemon, _) = scene.daemon(&config);
        eventually("more transitions", || (transitions(&database).len() >= killed_at).then_some(()));
        daemon.signal(Signal::KILL);
        drop(daemon);
        let rows = transitions(&database);
        assert_eq!(rows[..recorded.len()], recorded, "what was recorded before a kill stands as it was");
        recorded = rows;
    }
    let (_daemon, address) = scene.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(24.0)).then_some(()));
    assert_true(transitions(&database), simulator);
}

#[test]
fn a_job_that_ended_is_not_polled_again_after_a_restart() {
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "3", "--mean-seconds", "1"]);
    let config = scene.write("refwatch.toml", &config);
    let (mut first, address) = scene.daemon(&config);
    eventually("three ends", || (metric(address, "refwatch_watches", &["finished"]) == Some(3.0)).then_some(()));
    first.signal(Signal::TERM);
    assert!(first.end().success());
    let calls = json(simulator, "/-/calls");
    let (_second, address) = scene.daemon(&config);
    assert_eq!(metric(address, "refwatch_watches", &["finished"]), Some(3.0));
    assert_eq!(json(simulator, "/-/calls"), calls);
    let watches = json(address, "/api/v1/jobs");
    assert!(watches.as_array().expect("an array").iter().all(|watch| watch["state"] == "finished"), "{watches}");
}

#[test]
fn a_change_after_a_restart_lies_after_the_last_sight_before_it() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "1", "--mean-seconds", "8"]);
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let (mut first, address) = scene.daemon(&config);
    let time = |watch: &serde_json::Value, field: &str| watch[field].as_str().map(str::to_owned);
    eventually("a second sight of one status", || {
        let watch = &json(address, "/api/v1/jobs")[0];
        (time(watch, "last_seen")? > time(watch, "since")?).then_some(())
    });
    first.signal(Signal::TERM);
    assert!(first.end().success());
    let before = transitions(&database);
    let (_second, _) = scene.daemon(&config);
    let change = eventually("the next change", || transitions(&database).into_iter().nth(before.len()));
    let last = before.last().expect("a sighting");
    assert_eq!(change.from_status.as_ref(), Some(&last.to_status));
    assert!(change.not_before > Some(last.observed_at.clone()), "{change:?} after {last:?}");
}

#[test]
fn fault_092_a_stop_is_clean_and_a_second_one_is_immediate() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "4"]);
    let config = scene.write("refwatch.toml", &config);
    for signal in [Signal::TERM, Signal::INT] {
        let (mut daemon, address) = scene.daemon(&config);
        daemon.signal(signal);
        assert!(daemon.end().success(), "{}", daemon.stderr());
        assert!(std::net::TcpStream::connect(address).is_err(), "the listener is gone");
    }

    // A request that never ends keeps a stop waiting for its deadline, but not the second one.
    let (mut daemon, address) = scene.daemon(&config);
    let mut unfinished = std::net::TcpStream::connect(address).expect("it listens");
    unfinished.write_all(b"GET / HTTP/1.1\r\nHost: loc").expect("it reads");
    // Connections are taken in turn, so once a later one was served the unfinished one is under way.
    assert_eq!(get(address, "/-/healthy").0, 200);
    daemon.signal(Signal::TERM);
    eventually("the stop", || daemon.stderr().contains("event=\"stopping\"").then_some(()));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().code(), Some(1), "{}", daemon.stderr());
    let database = rusqlite::Connection::open(scene.path("refwatch.db")).expect("a database");
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
    assert_eq!(whole, "ok");
}

#[test]
fn fault_075_what_is_not_in_the_record_is_nowhere_to_be_seen() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "12"]);
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let (daemon, address) = scene.daemon(&config);
    eventually("first sightings", || (transitions(&database).len() >= 2).then_some(()));

    // Somebody else holds the database, so what the daemon sees cannot be written.
    let other = rusqlite::Connection::open(&database).expect("a database");
    eventually("the database to ourselves", || other.execute_batch("BEGIN IMMEDIATE").ok());
    eventually("a commit that fails", || {
        (metric(address, "refwatch_database_failures_total", &[])? > 0.0).then_some(())
    });
    let told = |rows: &[TransitionRow]| {
        for row in rows.iter().filter(|row| !rows.iter().any(|later| follows(later, row))) {
            let watches = json(address, "/api/v1/jobs");
            let shown = watches.as_array()?.iter().find(|watch| watch["job_id"] == row.job_id)?;
            let labels = [&*format!("job_id=\"{}\"", row.job_id), &*format!("status=\"{}\"", row.to_status)];
            let measured = metric(address, "refwatch_job_status", &labels);
            (shown["status"] == row.to_status && measured == Some(1.0)).then_some(())?;
        }
        (daemon.stderr().matches("event=\"transition\"").count() == rows.len()).then_some(())
    };
    assert_eq!(told(&transitions(&database)), Some(()), "{}", daemon.stderr());
    assert_eq!(get(address, "/-/ready").0, 503);

    other.execute_batch("ROLLBACK").expect("our own transaction");
    eventually("both ends", || (ended(&transitions(&database)) == 2).then_some(()));
    eventually("all of it to be told", || told(&transitions(&database)));
    eventually("the daemon to be ready again", || (get(address, "/-/ready").0 == 200).then_some(()));
    assert_eq!(daemon.stderr().matches("event=\"record_failed\"").count(), 1, "{}", daemon.stderr());
}

/// Whether `later` is the same job's next row.
fn follows(later: &TransitionRow, row: &TransitionRow) -> bool {
    later.job_id == row.job_id && later.id > row.id
}

#[test]
fn a_record_that_is_moved_away_is_noticed() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let (daemon, address) = scene.daemon(&config);
    eventually("first sightings", || (transitions(&database).len() >= 2).then_some(()));
    std::fs::rename(&database, scene.path("elsewhere.db")).expect("a database");
    let (_, reason) = eventually("the loss", || Some(get(address, "/-/ready")).filter(|(status, _)| *status == 503));
    assert!(reason.contains("refwatch.db"), "{reason}");
    std::fs::rename(scene.path("elsewhere.db"), &database).expect("a database");
    eventually("the database again", || (get(address, "/-/ready").0 == 200).then_some(()));
    assert!(daemon.stderr().contains("event=\"record_recovered\""));
}

#[test]
fn a_reload_moves_to_the_new_list_and_leaves_what_did_not_change_alone() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "3", "--mean-seconds", "600"]);
    let jobs: Vec<&str> = config.split("[[job]]").collect();
    let [head, first, second, third] = jobs.as_slice() else { panic!("three jobs in {config}") };
    let list = |jobs: &[&str]| format!("{head}[[job]]{}", jobs.join("[[job]]"));
    let id = |job: &str| between(job, "\nid = \"", "\"").to_owned();

    let file = scene.write("refwatch.toml", &list(&[first, second]));
    let (daemon, address) = scene.daemon(&file);
    let listed = || -> Vec<String> {
        let watches = json(address, "/api/v1/jobs");
        let ids = watches.as_array().expect("an array").iter().map(|w| w["job_id"].as_str().expect("text").to_owned());
        ids.collect()
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    eventually("first polls", || (json(address, "/api/v1/transitions").as_array()?.len() >= 2).then_some(()));
    let seen_before = json(address, "/api/v1/transitions");

    scene.write("refwatch.toml", &list(&[second, third]));
    daemon.signal(Signal::HUP);
    eventually("the new list", || (sorted(listed()) == sorted(vec![id(second), id(third)])).then_some(()));
    eventually("the new job's first sighting", || {
        let rows = json(address, "/api/v1/transitions");
        rows.as_array()?.iter().any(|row| row["job_id"] == id(third)).then_some(())
    });
    let of_second = |rows: &serde_json::Value| -> Vec<serde_json::Value> {
        rows.as_array().expect("an array").iter().filter(|row| row["job_id"] == id(second)).cloned().collect()
    };
    assert_eq!(of_second(&json(address, "/api/v1/transitions")), of_second(&seen_before), "it is not seen anew");
    assert_eq!(metric(address, "refwatch_config_last_reload_successful", &[]), Some(1.0));

    scene.write("refwatch.toml", &list(&[first]).replace("[[job]]", "[[jop]]"));
    daemon.signal(Signal::HUP);
    eventually("the refusal", || {
        (metric(address, "refwatch_config_last_reload_successful", &[]) == Some(0.0)).then_some(())
    });
    assert_eq!(sorted(listed()), sorted(vec![id(second), id(third)]), "the old list stays in force");
    let (_, page) = get(address, "/");
    assert!(page.contains("jop"), "the page says why: {page}");
    assert!(daemon.stderr().contains("event=\"reload_failed\""), "so does the log");

    scene.write("refwatch.toml", &list(&[first]));
    daemon.signal(Signal::HUP);
    eventually("the mended list", || (listed() == [id(first)]).then_some(()));
    assert_eq!(metric(address, "refwatch_config_last_reload_successful", &[]), Some(1.0));
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0));
}

#[test]
fn a_mistake_in_an_included_file_ends_no_watch() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (head, included) = config.rsplit_once("[[job]]").expect("two jobs");
    let file = scene.write("refwatch.toml", &format!("include = [\"conf.d/*.toml\"]\n{head}"));
    std::fs::create_dir(scene.path("conf.d")).expect("a folder");
    scene.write("conf.d/import.toml", &format!("[[job]]{included}"));
    let (daemon, address) = scene.daemon(&file);
    let live = || metric(address, "refwatch_watches", &["live"]);
    assert_eq!(live(), Some(2.0));

    let mistake = scene.write("conf.d/import.toml", &format!("[[job]]{included}\nnmae = \"a\"\n"));
    daemon.signal(Signal::HUP);
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    eventually("the mistake", || (reload() == Some(0.0)).then_some(()));
    assert_eq!(live(), Some(2.0));
    let goes_on = "their jobs and stores from before are still watched";
    assert!(daemon.stderr().contains(goes_on) && get(address, "/").1.contains(goes_on), "{}", daemon.stderr());

    std::fs::remove_file(scene.path("conf.d/import.toml")).expect("a file");
    daemon.signal(Signal::HUP);
    eventually("the file's job to leave", || (live() == Some(1.0) && reload() == Some(1.0)).then_some(()));
    drop(daemon);

    std::fs::write(mistake, "nmae = \"a\"\n").expect("a file");
    let log = scene.daemon(&file).0.stderr();
    assert!(log.contains("the rest is in force"), "{log}");
}

#[test]
fn fault_078_what_cannot_start_says_why_with_its_exit_status() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let file = scene.write("refwatch.toml", &config);
    let path = file.to_str().expect("text");
    let (daemon, address) = scene.daemon(&file);

    let (status, _, said) = scene.run(&["--config", path, "run"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("the database is in use by process"), "{said}");

    let other_record = config.replace("refwatch.db", "other.db").replace("127.0.0.1:0", &address.to_string());
    let other = scene.write("other.toml", &other_record);
    let (status, _, said) = scene.run(&["--config", other.to_str().expect("text"), "run"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("http.listen") && said.contains("in use"), "{said}");
    drop(daemon);

    let database = rusqlite::Connection::open(scene.path("refwatch.db")).expect("the database");
    database.pragma_update(None, "user_version", 1_000).expect("a newer schema");
    drop(database);
    let newer = std::fs::read(scene.path("refwatch.db")).expect("the database");
    let (status, _, said) = scene.run(&["--config", path, "run"]);
    assert_eq!(status, 78, "{said}");
    assert!(std::fs::read(scene.path("refwatch.db")).expect("the database") == newer, "it is as it was");
    assert!(said.contains("version 1000"), "{said}");

    let nowhere =
        scene.write("nowhere.toml", &config.replace("refwatch.db", "third.db").replace("region = ", "# region = "));
    let (status, _, said) = scene.run(&["--config", nowhere.to_str().expect("text"), "run"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("has no AWS region"), "{said}");

    for (arguments, expected) in [(["--config", "/nonexistent", "run"], 78), (["--config", path, "fly"], 64)] {
        let (status, _, said) = scene.run(&arguments);
        assert_eq!(status, expected, "{said}");
    }
}

#[test]
fn systemd_is_told_of_every_step() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let config = scene.write("refwatch.toml", &config);
    let socket = UnixDatagram::bind(scene.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_mins(2))).expect("a timeout");
    let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("NOTIFY_SOCKET", scene.path("notify")).env("WATCHDOG_USEC", "400000");
    let mut daemon = scene.spawn(command);
    let hear = |wanted: &str| loop {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.contains(wanted) {
            return message;
        }
    };
    assert!(hear("READY=1").contains("STATUS=2 jobs: "));
    hear("WATCHDOG=1");
    hear("last poll");
    daemon.signal(Signal::HUP);
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    scene.write("refwatch.toml", "nonsense = 1\n");
    daemon.signal(Signal::HUP);
    hear("RELOADING=1");
    assert!(hear("READY=1").contains("STATUS=configuration: "));
    daemon.signal(Signal::TERM);
    hear("STOPPING=1");
    assert!(daemon.end().success());
}
