//! Faults of an endpoint whose responses grow without end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use refwatch::clock::Clock;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::service::{JOB, STORE, Service, config, job, response};
use crate::process::{Workspace, eventually, get, json as api, metric};

fn exceeded(address: SocketAddr, limit: &str) -> f64 {
    let limit = format!("limit=\"{limit}\"");
    // A busy machine may respond 503 to a scrape.
    eventually("a scrape", || metric(address, "refwatch_limit_exceeded_total", &[&limit]))
}

/// A daemon that watches one job. Waits until the limit is exceeded twice. Returns the job in the API, the number of rows of its
/// sources, and the number of warnings.
fn exceed(limit: &str, members: impl Fn(usize) -> Value + Send + Sync + 'static) -> (Value, i64, usize) {
    let workspace = Workspace::new();
    let service = Service::new(move |request| job(request, &members(request.nth)));
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let text = text.replace("timeout = \"1s\"", "timeout = \"30s\"");
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
    eventually(limit, || (exceeded(address, limit) >= 2.0).then_some(()));
    let database = Connection::open(workspace.path("refwatch.db")).expect("the database");
    let rows = database.query_one("SELECT count(*) FROM item_transitions", [], |row| row.get(0)).expect("a count");
    (api(address, "/api/v1/jobs")[0].clone(), rows, daemon.stderr().matches("event=\"limit_exceeded\"").count())
}

#[test]
fn fault_131_texts_and_sources_of_a_response_are_cut_at_their_limits() {
    let long = "m".repeat(900_000);
    let (job, _, warnings) = exceed("text_bytes", move |_| json!({ "statusMessage": long }));
    assert_eq!((job["status_message"].as_str().map(str::len), warnings), (Some(4096), 1));

    let sources = vec![json!({"status": "FINISHED"}); 30_000];
    let (job, rows, warnings) = exceed("items", move |_| json!({ "sources": sources }));
    assert_eq!((&job["items"]["total"], rows, warnings), (&20_000.into(), 20_000, 1));
}

#[test]
fn fault_131_sources_that_change_in_every_response_fill_the_database_only_to_a_limit() {
    let (job, rows, warnings) = exceed("changes", |nth| {
        let source = |source| json!({"status": "FINISHED", "name": format!("{nth} {source}")});
        json!({ "sources": (0..15_000).map(source).collect::<Vec<_>>() })
    });
    // 15,000 are new, then 15,000 are new and 15,000 gone.
    assert_eq!((&job["items"]["total"], rows, warnings), (&15_000.into(), 45_000, 1));
    assert_eq!(job["up"], true, "the job is still polled");
}

#[test]
fn fault_131_a_status_that_alternates_is_saved_only_to_a_limit_and_the_end_is_saved_nevertheless() {
    let (workspace, ends) = (Workspace::new(), Arc::new(AtomicBool::new(false)));
    let has_ended = Arc::clone(&ends);
    let service = Service::new(move |request| {
        let live = ["SUBMITTED", "IN_PROGRESS"][request.nth % 2];
        let status = if has_ended.load(Ordering::SeqCst) { "COMPLETED" } else { live };
        job(request, &json!({"status": status, "completionTime": "2026-01-02T03:05:05.678Z"}))
    });
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let text =
        workspace.write("refwatch.toml", &text.replace("requests_per_second = 20.0", "requests_per_second = 100.0"));
    let rows = || {
        let database = Connection::open(workspace.path("refwatch.db")).expect("the database");
        database.query_one("SELECT count(*) FROM transitions", [], |row| row.get::<_, i64>(0)).expect("a count")
    };
    let status = |address| api(address, "/api/v1/jobs")[0]["status"].clone();

    let (mut daemon, address) = workspace.daemon(&text);
    eventually("the limit", || (exceeded(address, "transitions") >= 2.0).then_some(()));
    assert_eq!((rows(), status(address)), (100, "IN_PROGRESS".into()));
    assert_eq!(daemon.stderr().matches("event=\"limit_exceeded\"").count(), 1);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());

    // The limit holds after a restart.
    let (_daemon, address) = workspace.daemon(&text);
    eventually("the limit", || (exceeded(address, "transitions") >= 2.0).then_some(()));
    assert_eq!(rows(), 100);
    ends.store(true, Ordering::SeqCst);
    eventually("the end", || (status(address) == "COMPLETED").then_some(()));
    assert_eq!(rows(), 101);
}

#[test]
fn fault_131_the_discovered_jobs_of_a_store_are_limited() {
    /// Far more than `maxResults` allows.
    const JOBS_OF_A_PAGE: u64 = 300;
    let workspace = Workspace::new();
    let next = AtomicU64::new(1_000_000_000);
    let service = Service::new(move |request| {
        if !request.head.starts_with("POST") {
            return job(request, &json!({}));
        }
        let first = next.fetch_add(JOBS_OF_A_PAGE, Ordering::SeqCst);
        let created = Clock::system().now().wall.to_string();
        let listed = |id: u64| {
            json!({"id": id.to_string(), "referenceStoreId": STORE, "status": "IN_PROGRESS",
            "creationTime": created, "roleArn": "arn:aws:iam::123456789012:role/omics"})
        };
        let jobs: Vec<Value> = (first..first + JOBS_OF_A_PAGE).map(listed).collect();
        response("200 OK", "", &json!({"importJobs": jobs, "nextToken": first.to_string()}).to_string())
    });
    let text = config(&[("default", service.address, "")], &[]);
    let text = text.replace("requests_per_second = 20.0", "requests_per_second = 100.0");
    let text = format!("{text}[[store]]\nreference_store_id = \"{STORE}\"\n");
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
    eventually("the limit", || (exceeded(address, "discovered_jobs") >= 1.0).then_some(()));
    // On a busy machine a scrape of so many watches may get 503.
    let watches = eventually("a scrape", || metric(address, "refwatch_watches", &["live"]));
    assert_eq!(watches.to_string(), "50000");
    let memory = eventually("a scrape", || metric(address, "process_resident_memory_bytes", &[]));
    // Less than the unit's MemoryMax=1G, with the scrapes of this test.
    assert!(memory < 800e6, "{memory} bytes");
    assert!(exceeded(address, "page_jobs") >= 500.0 && get(address, "/-/healthy").0 == 200);
    for limit in ["discovered_jobs", "page_jobs"] {
        let log = daemon.log_with(&format!("limit=\"{limit}\""));
        assert_eq!(log.matches(&format!("limit=\"{limit}\"")).count(), 1, "{limit}");
    }
}
