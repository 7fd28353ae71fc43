//! Faults 50 to 70: unusual and invalid content of responses.
//!
//! A scripted service returns a sequence of responses for one job. The tests check the stored transitions, the API, the page and
//! the metrics.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use refwatch::clock::Clock;
use refwatch::core::transition::Transition;
use refwatch::database::DatabaseReader;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::service::{JOB, Request, STORE, Service, config, job, response};
use crate::process::{Process, Workspace, eventually, get, json as api, metric};
use crate::transition_rows::{TransitionRow, transitions};

const FAILURES: &str = "refwatch_api_request_failures_total";

/// A daemon that watches one job. The service returns each response once and then repeats the last one.
struct Script {
    workspace: Workspace,
    service: Service,
    daemon: Process,
    address: SocketAddr,
}

impl Script {
    fn of<const N: usize>(responses: [Value; N]) -> Self {
        let workspace = Workspace::new();
        let service = Service::new(move |request| job(request, &responses[request.nth.min(N - 1)]));
        let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
        let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
        // The first response was processed if there is a second request.
        service.wait_for(1);
        Self { workspace, service, daemon, address }
    }

    /// Waits for these rows, each as `from>to anomaly`, and for further polls if the last status is not terminal.
    #[track_caller]
    fn expect_transitions(&self, expected: &[&str]) -> Vec<TransitionRow> {
        let rows = eventually("the rows", || Some(self.rows()).filter(|rows| rows.len() >= expected.len()));
        if !rows.last().is_some_and(|row| refwatch::core::job::JobStatus::from(&*row.to_status).is_terminal()) {
            let count = self.service.requests().len();
            self.service.wait_for(count + 3);
        }
        let describe: Vec<String> = self.rows().iter().map(describe).collect();
        assert_eq!(describe, expected, "{}", self.daemon.stderr());
        rows
    }

    fn rows(&self) -> Vec<TransitionRow> {
        transitions(&self.workspace.path("refwatch.db"))
    }

    fn watch(&self) -> Value {
        api(self.address, "/api/v1/jobs")[0].clone()
    }

    /// All values of a column, by row id.
    fn column(&self, column: &str, table: &str) -> Vec<String> {
        let database = rusqlite::Connection::open(self.workspace.path("refwatch.db")).expect("the database");
        let mut rows = database.prepare(&format!("SELECT {column} FROM {table} ORDER BY id")).expect("a table");
        let rows = rows.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("texts")
    }
}

fn describe(row: &TransitionRow) -> String {
    let TransitionRow { from_status, to_status, anomaly, .. } = row;
    let anomaly = anomaly.as_ref().map(|anomaly| format!(" {anomaly}")).unwrap_or_default();
    format!("{}>{to_status}{anomaly}", from_status.as_deref().unwrap_or_default())
}

fn status(status: &str) -> Value {
    json!({ "status": status })
}

/// A recent end: old ones are removed at once.
fn ended(status: &str) -> Value {
    json!({ "status": status, "completionTime": now() })
}

fn now() -> String {
    Clock::system().now().wall.to_string()
}

#[test]
fn fault_050_an_unknown_status_is_stored_verbatim_and_is_not_terminal() {
    let script = Script::of([status("IN_PROGRESS"), status("PAUSED")]);
    script.expect_transitions(&[">IN_PROGRESS", "IN_PROGRESS>PAUSED"]);
    assert_eq!(metric(script.address, "refwatch_job_status", &["status=\"UNKNOWN\""]), Some(1.0));
    assert!(!get(script.address, "/metrics").1.contains("PAUSED"));
    let watch = script.watch();
    assert_eq!((&watch["status"], &watch["state"]), (&"PAUSED".into(), &"live".into()));
}

#[test]
fn fault_051_a_regressed_status_is_stored_and_marked() {
    let script = Script::of([status("IN_PROGRESS"), status("SUBMITTED")]);
    script.expect_transitions(&[">IN_PROGRESS", "IN_PROGRESS>SUBMITTED regressed"]);
    assert!(script.daemon.stderr().contains("anomaly=\"regressed\""));
}

/// A store with one failed job. A later listing shows it as `listed`, and later polls return `later`.
fn responses_after_an_end(listed: &'static str, later: [Value; 3], expected: &[&str]) {
    let workspace = Workspace::new();
    let (ended_before, polls) = (Arc::new(AtomicBool::new(true)), AtomicUsize::new(0));
    let flag = Arc::clone(&ended_before);
    let service = Service::new(move |request| {
        let ended_before = flag.load(Ordering::SeqCst);
        if request.head.starts_with("POST") {
            let listed = if ended_before { "FAILED" } else { listed };
            let listed = json!({"id": JOB, "referenceStoreId": STORE, "status": listed, "creationTime": now(),
                "roleArn": "arn:aws:iam::123456789012:role/omics"});
            return response("200 OK", "", &json!({ "importJobs": [listed] }).to_string());
        }
        if ended_before {
            return job(request, &ended("FAILED"));
        }
        job(request, &later[polls.fetch_add(1, Ordering::SeqCst).min(2)])
    });
    let text = config(&[("default", service.address, "")], &[]);
    let text = format!("{text}[[store]]\nreference_store_id = \"{STORE}\"\n");
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
    let finished = || metric(address, "refwatch_watches", &["finished"]);
    eventually("the end", || (finished() == Some(1.0)).then_some(()));
    ended_before.store(false, Ordering::SeqCst);
    let rows = eventually("the later transitions", || {
        Some(transitions(&workspace.path("refwatch.db")))
            .filter(|rows| rows.len() >= expected.len() && finished() == Some(1.0))
    });
    assert_eq!(rows.iter().map(describe).collect::<Vec<_>>(), expected, "{}", daemon.stderr());
    let logged = || (daemon.stderr().matches("event=\"transition\"").count() == expected.len()).then_some(());
    eventually("the log", logged);
    // Only the first end, which is also the first observation, has a duration.
    let durations = |status| metric(address, "refwatch_job_duration_seconds_count", &[status]);
    assert_eq!((durations("\"FAILED\""), durations("\"COMPLETED\"")), (Some(1.0), Some(0.0)));
}

#[test]
fn fault_052_a_reopened_job_is_confirmed_by_a_second_poll_and_watched_again() {
    let later = [status("IN_PROGRESS"), status("IN_PROGRESS"), ended("COMPLETED")];
    responses_after_an_end("IN_PROGRESS", later, &[">FAILED", "FAILED>IN_PROGRESS reopened", "IN_PROGRESS>COMPLETED"]);
}

#[test]
fn fault_053_a_changed_terminal_status_is_stored_and_marked() {
    let later = [(); 3].map(|()| ended("COMPLETED"));
    responses_after_an_end("COMPLETED", later, &[">FAILED", "FAILED>COMPLETED end_changed"]);
}

#[test]
fn fault_054_skipped_statuses_are_not_an_anomaly() {
    Script::of([status("SUBMITTED"), ended("COMPLETED")]).expect_transitions(&[">SUBMITTED", "SUBMITTED>COMPLETED"]);
}

#[test]
fn fault_055_a_cancelling_job_may_complete() {
    Script::of([status("CANCELLING"), ended("COMPLETED")]).expect_transitions(&[">CANCELLING", "CANCELLING>COMPLETED"]);
}

#[test]
fn fault_056_completed_with_failures_is_terminal_and_shows_the_failed_sources() {
    let source = |name: &str, status: &str| json!({"name": name, "sourceFile": "s3://b/c", "status": status});
    let mut end = ended("COMPLETED_WITH_FAILURES");
    end["sources"] = json!([source("good", "FINISHED"), source("bad", "FAILED")]);
    let script = Script::of([end]);
    script.expect_transitions(&[">COMPLETED_WITH_FAILURES"]);
    assert_eq!(script.column("name || '>' || to_status", "item_transitions"), ["bad>FAILED", "good>FINISHED"]);
    let watch = eventually("the end", || Some(script.watch()).filter(|watch| watch["state"] == "finished"));
    assert_eq!(
        (&watch["items"]["listed"][0]["name"], &watch["items"]["by_status"]["FAILED"]),
        (&"bad".into(), &1.into())
    );
}

#[test]
fn fault_057_058_a_response_with_wrong_or_missing_ids_is_dropped_and_counted() {
    let wrong = [
        json!({"id": "1111111111", "status": "FAILED"}),
        json!({"referenceStoreId": "1111111111", "status": "FAILED"}),
        json!({"id": null, "status": "FAILED"}),
        json!({ "status": null }),
    ];
    let [other_job, other_store, no_id, no_status] = wrong;
    let script = Script::of([status("SUBMITTED"), other_job, other_store, no_id, no_status, status("IN_PROGRESS")]);
    script.expect_transitions(&[">SUBMITTED", "SUBMITTED>IN_PROGRESS"]);
    let counted = metric(script.address, FAILURES, &["GetReferenceImportJob", "reason=\"protocol\""]);
    assert_eq!(counted, Some(4.0));
    script.daemon.log_with("the response is about job");
    let failures = script.watch()["recent_failures"].to_string();
    assert!(failures.contains("the response has no status"), "{failures}");
}

#[test]
fn fault_059_065_named_sources_replace_the_known_ones_and_a_missing_list_keeps_them() {
    let sources = |sources: &[(&str, &str)]| -> Value {
        sources.iter().map(|(name, status)| json!({"name": name, "sourceFile": "s3://b/c", "status": status})).collect()
    };
    let describe = |describe: &[(&str, &str)]| json!({"status": "IN_PROGRESS", "sources": sources(describe)});
    let script = Script::of([
        describe(&[("b", "NOT_STARTED"), ("a", "NOT_STARTED"), ("a", "IN_PROGRESS")]),
        json!({"status": "IN_PROGRESS", "sources": null}),
        describe(&[("a", "NOT_STARTED"), ("a", "IN_PROGRESS"), ("b", "NOT_STARTED")]),
        describe(&[("c", "IN_PROGRESS"), ("b", "NOT_STARTED")]),
        describe(&[("b", "FAILED"), ("a", "NOT_STARTED"), ("a", "IN_PROGRESS")]),
    ]);
    script.expect_transitions(&[">IN_PROGRESS"]);
    let seen = || {
        script.column(
            "name || nth || ' ' || coalesce(from_status, '') || '>' || coalesce(to_status, '')",
            "item_transitions",
        )
    };
    let expected = [
        ["a0 >NOT_STARTED", "a1 >IN_PROGRESS", "b0 >NOT_STARTED"].as_slice(),
        &["c0 >IN_PROGRESS", "a0 NOT_STARTED>", "a1 IN_PROGRESS>"],
        &["a0 >NOT_STARTED", "a1 >IN_PROGRESS", "b0 NOT_STARTED>FAILED", "c0 IN_PROGRESS>"],
    ];
    eventually("all source transitions", || (seen() == expected.concat()).then_some(()));
    eventually("the API", || (script.watch()["items"]["total"] == 3).then_some(()));
}

#[test]
fn fault_060_061_062_impossible_times_are_stored_and_not_used_for_measurements() {
    let unrepresentable = "9999-12-31T23:59:59Z";
    for time in ["2999-01-01T00:00:00Z", "1901-01-01T00:00:00Z", "0001-01-01T00:00:00Z", unrepresentable] {
        let of = |status: &str| json!({"status": status, "creationTime": time, "completionTime": time});
        let script = Script::of([of("IN_PROGRESS"), of("IN_PROGRESS"), of("IN_PROGRESS"), of("FAILED")]);
        let (kept, anomaly) = if time == unrepresentable { (None, " no_completion_time") } else { (Some(time), "") };
        let rows = script.expect_transitions(&[">IN_PROGRESS", &format!("IN_PROGRESS>FAILED{anomaly}")]);
        assert!(
            rows.iter().all(|row| row.created_at.as_deref() == kept && row.completed_at.as_deref() == kept),
            "{rows:?}"
        );
        eventually("the end", || (script.watch()["state"] == "finished").then_some(()));
        let delay = metric(script.address, "refwatch_detection_delay_seconds_sum", &[]).expect("a sum");
        assert!(delay >= 0.0, "{time}: {delay}");
        let page = get(script.address, &format!("/jobs/reference_import/{STORE}/{JOB}"));
        assert!(page.0 == 200 && !page.1.contains(">-"), "{page:?}");
        assert_eq!(get(script.address, "/").0, 200);
        assert!(!script.daemon.stderr().contains("panicked"), "{}", script.daemon.stderr());
    }
}

#[test]
fn fault_063_an_end_without_completion_time_gets_the_observation_time_and_is_marked() {
    let rows = Script::of([status("FAILED")]).expect_transitions(&[">FAILED no_completion_time"]);
    assert!(rows[0].completed_at.is_none() && !rows[0].observed_at.is_empty(), "{rows:?}");
}

#[test]
fn fault_064_067_a_changed_message_or_creation_time_is_a_detail_and_not_a_transition() {
    let of = |message: &str, day: u8| {
        let created = format!("2026-01-0{day}T00:00:00Z");
        json!({"status": "IN_PROGRESS", "statusMessage": message, "creationTime": created})
    };
    let script = Script::of([of("first", 1), of("second", 1), of("second", 2)]);
    script.expect_transitions(&[">IN_PROGRESS"]);
    let details = || script.column("detail || ' ' || value", "details");
    let expected = ["status_message second", "creation_time_changed 2026-01-02T00:00:00Z"];
    eventually("both details", || (details() == expected).then_some(()));
    eventually("the API", || (script.watch()["status_message"] == "second").then_some(()));
}

#[test]
fn fault_066_thousands_of_sources_are_counted_and_the_first_100_are_listed() {
    const SOURCES: usize = 11_500;
    let source = |nth: usize| {
        let status = if nth.is_multiple_of(1_000) { "FAILED" } else { "FINISHED" };
        json!({"name": format!("reference {nth}"), "sourceFile": format!("s3://bucket/prefix/{nth}.fa"), "status": status})
    };
    let mut end = ended("COMPLETED_WITH_FAILURES");
    end["sources"] = (0..SOURCES).map(source).collect();
    assert!((1_000_000..1024 * 1024).contains(&end.to_string().len()), "{}", end.to_string().len());
    let script = Script::of([end]);
    script.expect_transitions(&[">COMPLETED_WITH_FAILURES"]);
    assert_eq!(script.column("name", "item_transitions").len(), SOURCES);
    let watch = eventually("the end", || Some(script.watch()).filter(|watch| watch["state"] == "finished"));
    let sources = &watch["items"];
    assert_eq!((&sources["total"], &sources["by_status"]["FAILED"]), (&SOURCES.into(), &12.into()));
    let listed = sources["listed"].as_array().expect("an array");
    assert_eq!(listed.len(), 100);
    assert_eq!(listed.iter().filter(|source| source["status"] == "FAILED").count(), 12, "failed sources first");
    let page = get(script.address, &format!("/jobs/reference_import/{STORE}/{JOB}")).1;
    assert!(page.contains("(100 of 11500, failed sources first)") && page.len() < 100_000, "{}", page.len());
}

/// A service that holds all responses but the first until the flag is cleared.
fn held_responses() -> (Service, Arc<AtomicBool>) {
    let held = Arc::new(AtomicBool::new(true));
    let holds = Arc::clone(&held);
    let service = Service::new(move |request: &Request| {
        if request.nth > 0 && holds.load(Ordering::SeqCst) {
            eventually("the release", || (!holds.load(Ordering::SeqCst)).then_some(()));
            return job(request, &ended("FAILED"));
        }
        job(request, &json!({}))
    });
    (service, held)
}

#[test]
fn fault_068_a_job_has_one_request_in_flight_and_late_responses_are_dropped() {
    let workspace = Workspace::new();
    let (service, held) = held_responses();
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let file = workspace.write("refwatch.toml", &text);
    let (daemon, address) = workspace.daemon(&file);
    service.wait_for(2);
    // The reload restarts the watch. Its new request is answered before the old one.
    workspace.write("refwatch.toml", &text.replace("name = \"default", "name = \"renamed"));
    daemon.signal(Signal::HUP);
    service.wait_for(3);
    assert_eq!(metric(address, "refwatch_watches", &["live"]), Some(1.0));
    assert_eq!(service.requests().len(), 3, "the cancelled request and the one in flight");
    let timeouts = || metric(address, FAILURES, &["GetReferenceImportJob", "timeout"]);
    eventually("the deadline", || timeouts().filter(|count| *count >= 1.0));
    let rows = transitions(&workspace.path("refwatch.db"));
    assert_eq!(rows.iter().map(describe).collect::<Vec<_>>(), [">IN_PROGRESS"]);
    held.store(false, Ordering::SeqCst);
    eventually("further responses", || timeouts().filter(|_| service.requests().len() > 4));
    assert_eq!(transitions(&workspace.path("refwatch.db")), rows, "late responses add no row");
}

#[test]
fn fault_069_a_response_for_a_removed_watch_is_dropped() {
    let workspace = Workspace::new();
    let (service, held) = held_responses();
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let file = workspace.write("refwatch.toml", &text);
    let (mut daemon, address) = workspace.daemon(&file);
    let database = workspace.path("refwatch.db");
    service.wait_for(2);
    let without_job = text.split("[[job]]").next().expect("the head");
    fs::write(&file, without_job).expect("a file");
    daemon.signal(Signal::HUP);
    eventually("no live watch", || (metric(address, "refwatch_watches", &["live"]) == Some(0.0)).then_some(()));
    held.store(false, Ordering::SeqCst);
    assert_eq!(transitions(&database).len(), 1);

    held.store(true, Ordering::SeqCst);
    let count = service.requests().len();
    fs::write(&file, &text).expect("a file");
    daemon.signal(Signal::HUP);
    service.wait_for(count + 1);
    daemon.signal(Signal::TERM);
    eventually("the stop", || daemon.stderr().contains("event=\"stopping\"").then_some(()));
    held.store(false, Ordering::SeqCst);
    assert!(daemon.end().success(), "{}", daemon.stderr());
    assert_eq!(transitions(&database).len(), 1, "{}", daemon.stderr());
    assert!(DatabaseReader::new(&database).rows::<Transition>(&refwatch::database::Filter::default()).is_ok());
}

#[test]
fn fault_070_a_duplicate_job_in_the_configuration_is_rejected_with_both_locations() {
    let workspace = Workspace::new();
    let entry = |name: &str| format!("[[job]]\nname = \"{name}\"\nreference_store_id = \"{STORE}\"\nid = \"{JOB}\"\n");
    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/other.toml", &entry("b"));
    let file =
        workspace.write("refwatch.toml", &format!("include = [\"conf.d/*.toml\"]\n{}{}", entry("a"), entry("c")));
    let (status, out, error) = workspace.run(&["--config", file.to_str().expect("text"), "check"]);
    assert_eq!(status, 78, "{out}{error}");
    for location in ["refwatch.toml:5", "refwatch.toml:9", "conf.d/other.toml:4"] {
        assert!(error.contains(location), "{location}: {error}");
    }
}
