//! Faults 50 to 70: what the service says, and what it says that cannot be.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use refwatch::clock::Clock;
use refwatch::core::transition::Transition;
use refwatch::database::DatabaseReader;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::service::{Asked, JOB, STORE, Service, config, job, response};
use crate::process::{Process, Scene, eventually, get, json as api, metric};
use crate::truth::{TransitionRow, transitions};

const FAILURES: &str = "refwatch_api_request_failures_total";

/// A daemon that follows one job, of which the service says one thing after the other, and the last one again and again.
struct Story {
    scene: Scene,
    service: Service,
    daemon: Process,
    address: SocketAddr,
}

impl Story {
    fn of<const N: usize>(says: [Value; N]) -> Self {
        let scene = Scene::new();
        let service = Service::new(move |asked| job(asked, &says[asked.nth.min(N - 1)]));
        let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
        let (daemon, address) = scene.daemon(&scene.write("refwatch.toml", &text));
        // The last of it was asked for again, so all before that was taken in.
        service.wait_for(1);
        Self { scene, service, daemon, address }
    }

    /// Waits for these rows of the database, each as `from>to anomaly`, and for another answer after them.
    #[track_caller]
    fn leads_to(&self, expected: &[&str]) -> Vec<TransitionRow> {
        let rows = eventually("the database", || Some(self.rows()).filter(|rows| rows.len() >= expected.len()));
        if !rows.last().is_some_and(|row| refwatch::core::job::JobStatus::from(&*row.to_status).is_terminal()) {
            let so_far = self.service.asked().len();
            self.service.wait_for(so_far + 3);
        }
        let told: Vec<String> = self.rows().iter().map(told).collect();
        assert_eq!(told, expected, "{}", self.daemon.stderr());
        rows
    }

    fn rows(&self) -> Vec<TransitionRow> {
        transitions(&self.scene.path("refwatch.db"))
    }

    fn watch(&self) -> Value {
        api(self.address, "/api/v1/jobs")[0].clone()
    }

    /// Every value of a column of a table of the database.
    fn column(&self, column: &str, table: &str) -> Vec<String> {
        let database = rusqlite::Connection::open(self.scene.path("refwatch.db")).expect("the database");
        let mut rows = database.prepare(&format!("SELECT {column} FROM {table} ORDER BY id")).expect("a table");
        let rows = rows.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("texts")
    }
}

fn told(row: &TransitionRow) -> String {
    let TransitionRow { from_status, to_status, anomaly, .. } = row;
    let anomaly = anomaly.as_ref().map(|anomaly| format!(" {anomaly}")).unwrap_or_default();
    format!("{}>{to_status}{anomaly}", from_status.as_deref().unwrap_or_default())
}

fn status(status: &str) -> Value {
    json!({ "status": status })
}

/// An end just now: one that is long past is soon forgotten.
fn ended(status: &str) -> Value {
    json!({ "status": status, "completionTime": now() })
}

fn now() -> String {
    Clock::system().now().wall.to_string()
}

#[test]
fn fault_050_a_status_that_nobody_knows_is_kept_word_for_word_and_is_no_end() {
    let story = Story::of([status("IN_PROGRESS"), status("PAUSED")]);
    story.leads_to(&[">IN_PROGRESS", "IN_PROGRESS>PAUSED"]);
    assert_eq!(metric(story.address, "refwatch_job_status", &["status=\"UNKNOWN\""]), Some(1.0));
    assert!(!get(story.address, "/metrics").1.contains("PAUSED"));
    let watch = story.watch();
    assert_eq!((&watch["status"], &watch["state"]), (&"PAUSED".into(), &"live".into()));
}

#[test]
fn fault_051_a_status_that_goes_back_is_recorded_and_marked() {
    let story = Story::of([status("IN_PROGRESS"), status("SUBMITTED")]);
    story.leads_to(&[">IN_PROGRESS", "IN_PROGRESS>SUBMITTED regressed"]);
    assert!(story.daemon.stderr().contains("anomaly=\"regressed\""));
}

/// A store with one job that had ended and then, with `listed`, is listed as if not: what is asked for once more is `after`.
fn after_the_end(listed: &'static str, after: [Value; 3], expected: &[&str]) {
    let scene = Scene::new();
    let (over, polls) = (Arc::new(AtomicBool::new(true)), AtomicUsize::new(0));
    let still_over = Arc::clone(&over);
    let service = Service::new(move |asked| {
        let over = still_over.load(Ordering::SeqCst);
        if asked.head.starts_with("POST") {
            let listed = if over { "FAILED" } else { listed };
            let listed = json!({"id": JOB, "referenceStoreId": STORE, "status": listed, "creationTime": now(),
                "roleArn": "arn:aws:iam::123456789012:role/omics"});
            return response("200 OK", "", &json!({ "importJobs": [listed] }).to_string());
        }
        if over {
            return job(asked, &ended("FAILED"));
        }
        job(asked, &after[polls.fetch_add(1, Ordering::SeqCst).min(2)])
    });
    let text = config(&[("default", service.address, "")], &[]);
    let text = format!("{text}[[store]]\nreference_store_id = \"{STORE}\"\n");
    let (daemon, address) = scene.daemon(&scene.write("refwatch.toml", &text));
    let finished = || metric(address, "refwatch_watches", &["finished"]);
    eventually("the end", || (finished() == Some(1.0)).then_some(()));
    over.store(false, Ordering::SeqCst);
    let rows = eventually("what follows", || {
        Some(transitions(&scene.path("refwatch.db")))
            .filter(|rows| rows.len() >= expected.len() && finished() == Some(1.0))
    });
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), expected, "{}", daemon.stderr());
}

#[test]
fn fault_052_an_end_that_is_taken_back_is_confirmed_by_a_second_poll_and_the_job_goes_on() {
    let after = [status("IN_PROGRESS"), status("IN_PROGRESS"), ended("COMPLETED")];
    after_the_end("IN_PROGRESS", after, &[">FAILED", "FAILED>IN_PROGRESS reopened", "IN_PROGRESS>COMPLETED"]);
}

#[test]
fn fault_053_another_end_after_an_end_is_recorded_and_marked() {
    let after = [(); 3].map(|()| ended("COMPLETED"));
    after_the_end("COMPLETED", after, &[">FAILED", "FAILED>COMPLETED end_changed"]);
}

#[test]
fn fault_054_states_that_nobody_saw_are_no_anomaly() {
    Story::of([status("SUBMITTED"), ended("COMPLETED")]).leads_to(&[">SUBMITTED", "SUBMITTED>COMPLETED"]);
}

#[test]
fn fault_055_a_job_that_is_being_cancelled_may_complete() {
    Story::of([status("CANCELLING"), ended("COMPLETED")]).leads_to(&[">CANCELLING", "CANCELLING>COMPLETED"]);
}

#[test]
fn fault_056_completed_with_failures_is_an_end_of_its_own_and_tells_the_sources_that_failed() {
    let source = |name: &str, status: &str| json!({"name": name, "sourceFile": "s3://b/c", "status": status});
    let mut end = ended("COMPLETED_WITH_FAILURES");
    end["sources"] = json!([source("good", "FINISHED"), source("bad", "FAILED")]);
    let story = Story::of([end]);
    story.leads_to(&[">COMPLETED_WITH_FAILURES"]);
    assert_eq!(story.column("name || '>' || to_status", "item_transitions"), ["bad>FAILED", "good>FINISHED"]);
    let watch = eventually("the end", || Some(story.watch()).filter(|watch| watch["state"] == "finished"));
    assert_eq!(
        (&watch["sources"]["listed"][0]["name"], &watch["sources"]["by_status"]["FAILED"]),
        (&"bad".into(), &1.into())
    );
}

#[test]
fn fault_057_058_an_answer_about_something_else_or_about_nothing_is_dropped_and_counted() {
    let wrong = [
        json!({"id": "1111111111", "status": "FAILED"}),
        json!({"referenceStoreId": "1111111111", "status": "FAILED"}),
        json!({"id": null, "status": "FAILED"}),
        json!({ "status": null }),
    ];
    let [other_job, other_store, no_id, no_status] = wrong;
    let story = Story::of([status("SUBMITTED"), other_job, other_store, no_id, no_status, status("IN_PROGRESS")]);
    story.leads_to(&[">SUBMITTED", "SUBMITTED>IN_PROGRESS"]);
    let counted = metric(story.address, FAILURES, &["GetReferenceImportJob", "reason=\"protocol\""]);
    assert_eq!(counted, Some(4.0));
    let log = story.daemon.stderr();
    assert!(log.contains("the answer is about job"), "{log}");
    let failures = story.watch()["recent_failures"].to_string();
    assert!(failures.contains("the answer has no status"), "{failures}");
}

#[test]
fn fault_059_065_sources_are_told_apart_whatever_their_order_and_number_and_the_last_known_are_kept() {
    let sources = |sources: &[(&str, &str)]| -> Value {
        sources.iter().map(|(name, status)| json!({"name": name, "sourceFile": "s3://b/c", "status": status})).collect()
    };
    let told = |told: &[(&str, &str)]| json!({"status": "IN_PROGRESS", "sources": sources(told)});
    let story = Story::of([
        told(&[("b", "NOT_STARTED"), ("a", "NOT_STARTED"), ("a", "IN_PROGRESS")]),
        json!({"status": "IN_PROGRESS", "sources": null}),
        told(&[("a", "NOT_STARTED"), ("a", "IN_PROGRESS"), ("b", "NOT_STARTED")]),
        told(&[("c", "IN_PROGRESS"), ("b", "NOT_STARTED")]),
        told(&[("b", "FAILED"), ("a", "NOT_STARTED"), ("a", "IN_PROGRESS")]),
    ]);
    story.leads_to(&[">IN_PROGRESS"]);
    let seen =
        || story.column("name || nth || ' ' || coalesce(from_status, '') || '>' || to_status", "item_transitions");
    let expected =
        ["a0 >NOT_STARTED", "a1 >IN_PROGRESS", "b0 >NOT_STARTED", "c0 >IN_PROGRESS", "b0 NOT_STARTED>FAILED"];
    eventually("all of them", || (seen() == expected).then_some(()));
    eventually("the board", || (story.watch()["sources"]["total"] == 4).then_some(()));
}

#[test]
fn fault_060_061_062_times_that_cannot_be_are_kept_and_nothing_counts_from_them() {
    let no_calendar_has_it = "9999-12-31T23:59:59Z";
    for time in ["2999-01-01T00:00:00Z", "1901-01-01T00:00:00Z", "0001-01-01T00:00:00Z", no_calendar_has_it] {
        let of = |status: &str| json!({"status": status, "creationTime": time, "completionTime": time});
        let story = Story::of([of("IN_PROGRESS"), of("IN_PROGRESS"), of("IN_PROGRESS"), of("FAILED")]);
        let (kept, anomaly) = if time == no_calendar_has_it { (None, " no_completion_time") } else { (Some(time), "") };
        let rows = story.leads_to(&[">IN_PROGRESS", &format!("IN_PROGRESS>FAILED{anomaly}")]);
        assert!(
            rows.iter().all(|row| row.created_at.as_deref() == kept && row.completed_at.as_deref() == kept),
            "{rows:?}"
        );
        eventually("the end", || (story.watch()["state"] == "finished").then_some(()));
        let delay = metric(story.address, "refwatch_detection_delay_seconds_sum", &[]).expect("a sum");
        assert!(delay >= 0.0, "{time}: {delay}");
        let page = get(story.address, &format!("/jobs/reference_import/{STORE}/{JOB}"));
        assert!(page.0 == 200 && !page.1.contains(">-"), "{page:?}");
        assert_eq!(get(story.address, "/").0, 200);
        assert!(!story.daemon.stderr().contains("panicked"), "{}", story.daemon.stderr());
    }
}

#[test]
fn fault_063_an_end_without_its_time_is_dated_by_when_it_was_seen_and_marked() {
    let rows = Story::of([status("FAILED")]).leads_to(&[">FAILED no_completion_time"]);
    assert!(rows[0].completed_at.is_none() && !rows[0].observed_at.is_empty(), "{rows:?}");
}

#[test]
fn fault_064_067_another_message_or_creation_time_is_a_detail_and_no_transition() {
    let of = |message: &str, day: u8| {
        let created = format!("2026-01-0{day}T00:00:00Z");
        json!({"status": "IN_PROGRESS", "statusMessage": message, "creationTime": created})
    };
    let story = Story::of([of("first", 1), of("second", 1), of("second", 2)]);
    story.leads_to(&[">IN_PROGRESS"]);
    let details = || story.column("kind || ' ' || value", "details");
    let expected = ["status_message second", "creation_time_changed 2026-01-02T00:00:00Z"];
    eventually("both", || (details() == expected).then_some(()));
    eventually("the board", || (story.watch()["status_message"] == "second").then_some(()));
}

#[test]
fn fault_066_thousands_of_sources_are_counted_whole_and_listed_in_part() {
    const SOURCES: usize = 11_500;
    let source = |nth: usize| {
        let status = if nth.is_multiple_of(1_000) { "FAILED" } else { "FINISHED" };
        json!({"name": format!("reference {nth}"), "sourceFile": format!("s3://bucket/prefix/{nth}.fa"), "status": status})
    };
    let mut end = ended("COMPLETED_WITH_FAILURES");
    end["sources"] = (0..SOURCES).map(source).collect();
    assert!((1_000_000..1024 * 1024).contains(&end.to_string().len()), "{}", end.to_string().len());
    let story = Story::of([end]);
    story.leads_to(&[">COMPLETED_WITH_FAILURES"]);
    assert_eq!(story.column("name", "item_transitions").len(), SOURCES);
    let watch = eventually("the end", || Some(story.watch()).filter(|watch| watch["state"] == "finished"));
    let sources = &watch["sources"];
    assert_eq!((&sources["total"], &sources["by_status"]["FAILED"]), (&SOURCES.into(), &12.into()));
    let listed = sources["listed"].as_array().expect("an array");
    assert_eq!(listed.len(), 100);
    assert_eq!(listed.iter().filter(|source| source["status"] == "FAILED").count(), 12, "those that failed first");
    let page = get(story.address, &format!("/jobs/reference_import/{STORE}/{JOB}")).1;
    assert!(page.contains("(100 of 11500, those that failed first)") && page.len() < 100_000, "{}", page.len());
}

/// A service that holds every answer back but the first one of a job, until it is told to let go.
fn held() -> (Service, Arc<AtomicBool>) {
    let held = Arc::new(AtomicBool::new(true));
    let holds = Arc::clone(&held);
    let service = Service::new(move |asked: &Asked| {
        if asked.nth > 0 && holds.load(Ordering::SeqCst) {
            eventually("to be let go", || (!holds.load(Ordering::SeqCst)).then_some(()));
            return job(asked, &ended("FAILED"));
        }
        job(asked, &json!({}))
    });
    (service, held)
}

#[test]
fn fault_068_there_is_no_second_request_for_a_job_while_one_is_under_way_and_what_comes_too_late_is_dropped() {
    let scene = Scene::new();
    let (service, held) = held();
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let file = scene.write("refwatch.toml", &text);
    let (daemon, address) = scene.daemon(&file);
    service.wait_for(2);
    // A reload starts the watch anew, so a newer request is answered before the older one is.
    scene.write("refwatch.toml", &text.replace("name = \"default", "name = \"renamed"));
    daemon.signal(Signal::HUP);
    service.wait_for(3);
    assert_eq!(metric(address, "refwatch_watches", &["live"]), Some(1.0));
    assert_eq!(service.asked().len(), 3, "the one that was dropped, and the one under way");
    let timeouts = || metric(address, FAILURES, &["GetReferenceImportJob", "timeout"]);
    eventually("the deadline", || timeouts().filter(|count| *count >= 1.0));
    let rows = transitions(&scene.path("refwatch.db"));
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), [">IN_PROGRESS"]);
    held.store(false, Ordering::SeqCst);
    eventually("answers again", || timeouts().filter(|_| service.asked().len() > 4));
    assert_eq!(transitions(&scene.path("refwatch.db")), rows, "what was held back came too late");
}

#[test]
fn fault_069_an_answer_for_which_nobody_waits_any_more_is_dropped() {
    let scene = Scene::new();
    let (service, held) = held();
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let file = scene.write("refwatch.toml", &text);
    let (mut daemon, address) = scene.daemon(&file);
    let database = scene.path("refwatch.db");
    service.wait_for(2);
    let without = text.split("[[job]]").next().expect("what comes before");
    fs::write(&file, without).expect("a file");
    daemon.signal(Signal::HUP);
    eventually("an empty board", || (metric(address, "refwatch_watches", &["live"]) == Some(0.0)).then_some(()));
    held.store(false, Ordering::SeqCst);
    assert_eq!(transitions(&database).len(), 1);

    held.store(true, Ordering::SeqCst);
    let so_far = service.asked().len();
    fs::write(&file, &text).expect("a file");
    daemon.signal(Signal::HUP);
    service.wait_for(so_far + 1);
    daemon.signal(Signal::TERM);
    eventually("the stop", || daemon.stderr().contains("event=\"stopping\"").then_some(()));
    held.store(false, Ordering::SeqCst);
    assert!(daemon.end().success(), "{}", daemon.stderr());
    assert_eq!(transitions(&database).len(), 1, "{}", daemon.stderr());
    assert!(DatabaseReader::new(&database).rows::<Transition>(&refwatch::database::Filter::default()).is_ok());
}

#[test]
fn fault_070_a_job_twice_in_the_configuration_is_refused_with_both_places() {
    let scene = Scene::new();
    let entry = |name: &str| format!("[[job]]\nname = \"{name}\"\nreference_store_id = \"{STORE}\"\nid = \"{JOB}\"\n");
    fs::create_dir(scene.path("conf.d")).expect("a folder");
    scene.write("conf.d/other.toml", &entry("b"));
    let file = scene.write("refwatch.toml", &format!("include = [\"conf.d/*.toml\"]\n{}{}", entry("a"), entry("c")));
    let (status, out, said) = scene.run(&["--config", file.to_str().expect("text"), "check"]);
    assert_eq!(status, 78, "{out}{said}");
    for place in ["refwatch.toml:5", "refwatch.toml:9", "conf.d/other.toml:4"] {
        assert!(said.contains(place), "{place}: {said}");
    }
}
