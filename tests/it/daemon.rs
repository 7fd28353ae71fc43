//! The daemon as a process: kills, restarts, reloads, exit statuses and notifications to systemd.

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Workspace, between, eventually, get, json, metric};
use crate::transition_rows::{TransitionRow, assert_matches_simulator, ended, transitions};

#[test]
fn fault_093_a_kill_halfway_through_fifty_jobs_loses_and_duplicates_no_transition() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) =
        workspace.simulate(&["--jobs", "50", "--seed", "7", "--quota", "5", "--mean-seconds", "16"]);
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));

    let (killed, _) = workspace.daemon(&config);
    eventually("half of the ends", || (ended(&transitions(&database)) >= 25).then_some(()));
    killed.signal(Signal::KILL);
    drop(killed);
    let before = transitions(&database);

    let (daemon, address) = workspace.daemon(&config);
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
    assert_eq!(after[..before.len()], before, "rows from before the kill are unchanged");

    assert_matches_simulator(after, simulator);
    // No other client uses this quota, so nothing is throttled.
    assert_eq!(json(simulator, "/-/calls")["GetReferenceImportJob"]["throttled"], 0);
    daemon.log_with("event=\"transition\"");
}

#[test]
fn fault_093_faults_and_kills_lose_and_duplicate_no_transition() {
    let workspace = Workspace::new();
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
    let (_simulator, simulator, config) = workspace.simulate(&arguments);
    let config =
        config.replace("[poll]\n", "[poll]\ntimeout = \"1s\"\nbackoff_initial = \"200ms\"\nbackoff_max = \"2s\"\n");
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let mut recorded = Vec::new();
    for killed_at in [6, 16, 28, 40] {
        let (daemon, _) = workspace.daemon(&config);
        eventually("more transitions", || (transitions(&database).len() >= killed_at).then_some(()));
        daemon.signal(Signal::KILL);
        drop(daemon);
        let rows = transitions(&database);
        assert_eq!(rows[..recorded.len()], recorded, "rows from before a kill are unchanged");
        recorded = rows;
    }
    let (_daemon, address) = workspace.daemon(&config);
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(24.0)).then_some(()));
    assert_matches_simulator(transitions(&database), simulator);
}

#[test]
fn an_ended_job_is_not_polled_after_a_restart() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "3", "--mean-seconds", "1"]);
    let config = workspace.write("refwatch.toml", &config);
    let (mut first, address) = workspace.daemon(&config);
    eventually("three ends", || (metric(address, "refwatch_watches", &["finished"]) == Some(3.0)).then_some(()));
    first.signal(Signal::TERM);
    assert!(first.end().success());
    let calls = json(simulator, "/-/calls");
    let (_second, address) = workspace.daemon(&config);
    assert_eq!(metric(address, "refwatch_watches", &["finished"]), Some(3.0));
    assert_eq!(json(simulator, "/-/calls"), calls);
    let watches = json(address, "/api/v1/jobs");
    assert!(watches.as_array().expect("an array").iter().all(|watch| watch["state"] == "finished"), "{watches}");
}

#[test]
fn not_before_after_a_restart_is_the_last_observation_before_it() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "1", "--mean-seconds", "8"]);
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let (mut first, address) = workspace.daemon(&config);
    let time = |watch: &serde_json::Value, field: &str| watch[field].as_str().map(str::to_owned);
    eventually("a second observation of one status", || {
        let watch = &json(address, "/api/v1/jobs")[0];
        (time(watch, "last_seen")? > time(watch, "since")?).then_some(())
    });
    first.signal(Signal::TERM);
    assert!(first.end().success());
    let before = transitions(&database);
    let (_second, _) = workspace.daemon(&config);
    let change = eventually("the next change", || transitions(&database).into_iter().nth(before.len()));
    let last = before.last().expect("a transition");
    assert_eq!(change.from_status.as_ref(), Some(&last.to_status));
    assert!(change.not_before > Some(last.observed_at.clone()), "{change:?} after {last:?}");
}

#[test]
fn fault_092_a_stop_is_clean_and_a_second_one_is_immediate() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "4"]);
    let config = workspace.write("refwatch.toml", &config);
    for signal in [Signal::TERM, Signal::INT] {
        let (mut daemon, address) = workspace.daemon(&config);
        daemon.signal(signal);
        assert!(daemon.end().success(), "{}", daemon.stderr());
        assert!(std::net::TcpStream::connect(address).is_err(), "the listener is closed");
    }

    // An unfinished request delays the first stop until its deadline. A second signal stops at once.
    let (mut daemon, address) = workspace.daemon(&config);
    let mut unfinished = std::net::TcpStream::connect(address).expect("a listener");
    unfinished.write_all(b"GET / HTTP/1.1\r\nHost: loc").expect("a reader");
    // Connections are accepted in order, so the unfinished request is in progress now.
    assert_eq!(get(address, "/-/healthy").0, 200);
    daemon.signal(Signal::TERM);
    eventually("the stop", || daemon.stderr().contains("event=\"stopping\"").then_some(()));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().code(), Some(1), "{}", daemon.stderr());
    let database = rusqlite::Connection::open(workspace.path("refwatch.db")).expect("a database");
    let integrity: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a result");
    assert_eq!(integrity, "ok");
}

#[test]
fn fault_075_a_transition_is_not_shown_before_it_is_committed() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "12"]);
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let (daemon, address) = workspace.daemon(&config);
    eventually("first observations", || (transitions(&database).len() >= 2).then_some(()));

    // Another process holds the database, so nothing can be committed.
    let other = rusqlite::Connection::open(&database).expect("a database");
    eventually("our lock", || other.execute_batch("BEGIN IMMEDIATE").ok());
    eventually("a commit that fails", || {
        (metric(address, "refwatch_database_failures_total", &[])? > 0.0).then_some(())
    });
    let everything_shown = |rows: &[TransitionRow]| {
        for row in rows.iter().filter(|row| !rows.iter().any(|later| follows(later, row))) {
            let watches = json(address, "/api/v1/jobs");
            let shown = watches.as_array()?.iter().find(|watch| watch["job_id"] == row.job_id)?;
            let labels = [&*format!("job_id=\"{}\"", row.job_id), &*format!("status=\"{}\"", row.to_status)];
            let measured = metric(address, "refwatch_job_status", &labels);
            (shown["status"] == row.to_status && measured == Some(1.0)).then_some(())?;
        }
        (daemon.stderr().matches("event=\"transition\"").count() == rows.len()).then_some(())
    };
    assert_eq!(everything_shown(&transitions(&database)), Some(()), "{}", daemon.stderr());
    assert_eq!(get(address, "/-/ready").0, 503);

    other.execute_batch("ROLLBACK").expect("our own transaction");
    eventually("both ends", || (ended(&transitions(&database)) == 2).then_some(()));
    eventually("all transitions to be shown", || everything_shown(&transitions(&database)));
    eventually("the daemon to be ready again", || (get(address, "/-/ready").0 == 200).then_some(()));
    let log = daemon.log_with("event=\"database_recovered\"");
    assert_eq!(log.matches("event=\"database_failed\"").count(), 1, "{log}");
}

/// Whether `later` is a later row of the same job.
fn follows(later: &TransitionRow, row: &TransitionRow) -> bool {
    later.job_id == row.job_id && later.id > row.id
}

#[test]
fn a_moved_database_is_detected() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let (daemon, address) = workspace.daemon(&config);
    eventually("first observations", || (transitions(&database).len() >= 2).then_some(()));
    std::fs::rename(&database, workspace.path("elsewhere.db")).expect("a database");
    let (_, reason) = eventually("the loss", || Some(get(address, "/-/ready")).filter(|(status, _)| *status == 503));
    assert!(reason.contains("refwatch.db"), "{reason}");
    std::fs::rename(workspace.path("elsewhere.db"), &database).expect("a database");
    eventually("the database to be found", || (get(address, "/-/ready").0 == 200).then_some(()));
    daemon.log_with("event=\"database_recovered\"");
}

#[test]
fn a_reload_applies_the_new_list_and_keeps_unchanged_watches() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "3", "--mean-seconds", "600"]);
    let jobs: Vec<&str> = config.split("[[job]]").collect();
    let [head, first, second, third] = jobs.as_slice() else { panic!("three jobs in {config}") };
    let list = |jobs: &[&str]| format!("{head}[[job]]{}", jobs.join("[[job]]"));
    let id = |job: &str| between(job, "\nid = \"", "\"").to_owned();

    let file = workspace.write("refwatch.toml", &list(&[first, second]));
    let (daemon, address) = workspace.daemon(&file);
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
    let transitions_before = json(address, "/api/v1/transitions");

    workspace.write("refwatch.toml", &list(&[second, third]));
    daemon.signal(Signal::HUP);
    eventually("the new list", || (sorted(listed()) == sorted(vec![id(second), id(third)])).then_some(()));
    eventually("the new job's first transition", || {
        let rows = json(address, "/api/v1/transitions");
        rows.as_array()?.iter().any(|row| row["job_id"] == id(third)).then_some(())
    });
    let of_second = |rows: &serde_json::Value| -> Vec<serde_json::Value> {
        rows.as_array().expect("an array").iter().filter(|row| row["job_id"] == id(second)).cloned().collect()
    };
    assert_eq!(
        of_second(&json(address, "/api/v1/transitions")),
        of_second(&transitions_before),
        "it has no new transition"
    );
    assert_eq!(metric(address, "refwatch_config_last_reload_successful", &[]), Some(1.0));

    workspace.write("refwatch.toml", &list(&[first]).replace("[[job]]", "[[jop]]"));
    daemon.signal(Signal::HUP);
    eventually("the failed reload", || {
        (metric(address, "refwatch_config_last_reload_successful", &[]) == Some(0.0)).then_some(())
    });
    assert_eq!(sorted(listed()), sorted(vec![id(second), id(third)]), "the old list stays applied");
    let (_, page) = get(address, "/");
    assert!(page.contains("jop"), "the page shows the reason: {page}");
    daemon.log_with("event=\"reload_failed\"");

    workspace.write("refwatch.toml", &list(&[first]));
    daemon.signal(Signal::HUP);
    eventually("the corrected list", || (listed() == [id(first)]).then_some(()));
    assert_eq!(metric(address, "refwatch_config_last_reload_successful", &[]), Some(1.0));
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0));
}

#[test]
fn an_error_in_an_included_file_removes_no_watch() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (head, included) = config.rsplit_once("[[job]]").expect("two jobs");
    let file = workspace.write("refwatch.toml", &format!("include = [\"conf.d/*.toml\"]\n{head}"));
    std::fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/import.toml", &format!("[[job]]{included}"));
    let (daemon, address) = workspace.daemon(&file);
    let live = || metric(address, "refwatch_watches", &["live"]);
    assert_eq!(live(), Some(2.0));

    let mistake = workspace.write("conf.d/import.toml", &format!("[[job]]{included}\nnmae = \"a\"\n"));
    daemon.signal(Signal::HUP);
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    eventually("the failed reload", || (reload() == Some(0.0)).then_some(()));
    assert_eq!(live(), Some(2.0));
    let goes_on = "previously watched jobs and stores are still watched";
    let log = daemon.log_with(goes_on);
    assert!(get(address, "/").1.contains(goes_on), "{log}");

    std::fs::remove_file(workspace.path("conf.d/import.toml")).expect("a file");
    daemon.signal(Signal::HUP);
    eventually("the file's job to be removed", || (live() == Some(1.0) && reload() == Some(1.0)).then_some(()));
    drop(daemon);

    std::fs::write(mistake, "nmae = \"a\"\n").expect("a file");
    let log = workspace.daemon(&file).0.stderr();
    assert!(log.contains("the rest is applied"), "{log}");
}

#[test]
fn fault_078_a_failed_start_reports_the_reason_and_the_exit_status() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let file = workspace.write("refwatch.toml", &config);
    let path = file.to_str().expect("text");
    let (daemon, address) = workspace.daemon(&file);

    let (status, _, error) = workspace.run(&["--config", path, "run"]);
    assert_eq!(status, 1, "{error}");
    assert!(error.contains("the database is in use by process"), "{error}");

    let same_port = config.replace("refwatch.db", "other.db").replace("127.0.0.1:0", &address.to_string());
    let other = workspace.write("other.toml", &same_port);
    let (status, _, error) = workspace.run(&["--config", other.to_str().expect("text"), "run"]);
    assert_eq!(status, 1, "{error}");
    assert!(error.contains("http.listen") && error.contains("in use"), "{error}");
    drop(daemon);

    let database = rusqlite::Connection::open(workspace.path("refwatch.db")).expect("the database");
    database.pragma_update(None, "user_version", 1_000).expect("a newer schema");
    drop(database);
    let newer = std::fs::read(workspace.path("refwatch.db")).expect("the database");
    let (status, _, error) = workspace.run(&["--config", path, "run"]);
    assert_eq!(status, 78, "{error}");
    assert!(std::fs::read(workspace.path("refwatch.db")).expect("the database") == newer, "the file is unchanged");
    assert!(error.contains("version 1000"), "{error}");

    let no_region =
        workspace.write("nowhere.toml", &config.replace("refwatch.db", "third.db").replace("region = ", "# region = "));
    let (status, _, error) = workspace.run(&["--config", no_region.to_str().expect("text"), "run"]);
    assert_eq!(status, 78, "{error}");
    assert!(error.contains("has no AWS region"), "{error}");

    for (arguments, expected) in [(["--config", "/nonexistent", "run"], 78), (["--config", path, "fly"], 64)] {
        let (status, _, error) = workspace.run(&arguments);
        assert_eq!(status, expected, "{error}");
    }
}

#[test]
fn systemd_is_notified_of_each_state() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let config = workspace.write("refwatch.toml", &config);
    let socket = UnixDatagram::bind(workspace.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_mins(2))).expect("a timeout");
    let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("NOTIFY_SOCKET", workspace.path("notify")).env("WATCHDOG_USEC", "400000");
    let mut daemon = workspace.spawn(command);
    let expect_message = |wanted: &str| loop {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.contains(wanted) {
            return message;
        }
    };
    assert!(expect_message("READY=1").contains("STATUS=2 jobs: "));
    expect_message("WATCHDOG=1");
    expect_message("last poll");
    daemon.signal(Signal::HUP);
    assert!(expect_message("RELOADING=1").contains("MONOTONIC_USEC="));
    expect_message("READY=1");
    workspace.write("refwatch.toml", "nonsense = 1\n");
    daemon.signal(Signal::HUP);
    expect_message("RELOADING=1");
    assert!(expect_message("READY=1").contains("STATUS=configuration: "));
    daemon.signal(Signal::TERM);
    expect_message("STOPPING=1");
    assert!(daemon.end().success());
}
