//! Faults of the sources in a response: equal sources in another order, and sources that come and go.

use std::net::SocketAddr;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::service::{JOB, STORE, Service, config, job};
use crate::process::{Workspace, eventually, json as api};

/// Items with the same name and file, and these statuses.
fn equal_sources(statuses: &[&str]) -> Value {
    statuses.iter().map(|status| json!({"name": "a", "sourceFile": "s3://b/a", "status": status})).collect()
}

/// The total and the number of finished sources in the API.
fn items(address: SocketAddr) -> (Value, Value) {
    let items = &api(address, "/api/v1/jobs")[0]["items"];
    (items["total"].clone(), items["by_status"]["FINISHED"].clone())
}

#[test]
fn fault_146_equal_sources_in_another_order_cause_no_transition() {
    let workspace = Workspace::new();
    let service = Service::new(|request| {
        let mut statuses = ["FINISHED", "FAILED", "IN_PROGRESS"];
        statuses.rotate_left(request.nth % 3);
        job(request, &json!({"sources": equal_sources(&statuses)}))
    });
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
    service.wait_for(8);
    let database = Connection::open(workspace.path("refwatch.db")).expect("the database");
    let rows: i64 = database.query_one("SELECT count(*) FROM item_transitions", [], |row| row.get(0)).expect("a count");
    assert_eq!(rows, 3, "{}", daemon.stderr());
    assert_eq!(items(address), (3.into(), 1.into()));
}

#[test]
fn fault_146_a_doubled_or_shortened_response_changes_the_sources_only_until_the_next_one() {
    let workspace = Workspace::new();
    let service = Service::new(|request| {
        let all = ["FINISHED", "FINISHED", "IN_PROGRESS"];
        let (status, statuses) = match request.nth {
            0 => ("IN_PROGRESS", all.repeat(2)),
            1 => ("IN_PROGRESS", all[..2].to_vec()),
            2 => ("IN_PROGRESS", all.to_vec()),
            _ => ("COMPLETED", vec!["FINISHED"; 3]),
        };
        let ended = (request.nth > 2).then_some("2026-01-02T04:04:05Z");
        job(request, &json!({"status": status, "completionTime": ended, "sources": equal_sources(&statuses)}))
    });
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let file = workspace.write("refwatch.toml", &text);
    let (mut daemon, address) = workspace.daemon(&file);
    eventually("the end", || (api(address, "/api/v1/jobs")[0]["status"] == "COMPLETED").then_some(()));
    assert_eq!(items(address), (3.into(), 3.into()), "{}", daemon.stderr());
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success(), "{}", daemon.stderr());
    let (_daemon, address) = workspace.daemon(&file);
    assert_eq!(items(address), (3.into(), 3.into()), "a restart restores the same sources");
}
