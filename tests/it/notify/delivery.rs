//! Receivers get every end once, signed, valid by the schema, in the format and selection of the entry, also after reloads.

use refwatch::simulator::SignatureCheck;

use super::schema::assert_is_valid;
use super::{Host, accepted, body, entry, job_and_type, job_id};
use crate::faults::service::STORE;
use crate::process::{get, json, metric};

const ENDS: [&str; 5] = ["COMPLETED", "COMPLETED_WITH_FAILURES", "FAILED", "CANCELLED", "vanished"];

#[test]
fn a_receiver_gets_every_end_once_signed_and_valid_by_the_schema() {
    let host = Host::new(5);
    let receiver = host.receiver(Vec::new());
    let (_daemon, address) = host.start(&[entry("pipeline", &receiver, "")]);
    for (nth, status) in (1..).zip(ENDS) {
        host.end(nth, status);
    }
    let events = accepted(&receiver, ENDS.len());
    let mut ends: Vec<_> = events.iter().map(job_and_type).collect();
    ends.sort();
    let expected: Vec<_> = (1..).zip(ENDS).map(|(nth, status)| (nth, status.to_lowercase())).collect();
    assert_eq!(ends, expected);
    for received in &events {
        let event = body(received);
        assert_is_valid(&event);
        assert_eq!((received.signature, received.attempt), (SignatureCheck::Verified, 1));
        assert_eq!(received.headers["content-type"], "application/cloudevents+json");
        assert_eq!(event["id"], *received.id);
        let job = &event["data"]["job_id"];
        assert_eq!(event["data"]["watch"], format!("default/{STORE}/{}", job.as_str().expect("an id")));
        assert_eq!(event["data"]["labels"], serde_json::json!({ "project": "atlas" }));
        let page = format!("https://ops.lab.example/refwatch/jobs/{}", event["subject"].as_str().expect("a job"));
        assert_eq!(event["data"]["url"], page);
        if event["data"]["to_status"] == "FAILED" {
            let failed = serde_json::json!([{ "name": "a", "status_message": "not a FASTA file" }]);
            assert_eq!(event["data"]["failed_items"], failed);
        }
    }
    assert_eq!(metric(address, "refwatch_notify_delivered_total", &["pipeline"]), Some(5.0));
}

#[test]
fn a_slack_message_has_name_status_failure_and_link() {
    let host = Host::new(1);
    let receiver = host.receiver(Vec::new());
    let (_daemon, _) = host.start(&[entry("chat", &receiver, "format = \"slack\"")]);
    host.end(1, "FAILED");
    let event = accepted(&receiver, 1).remove(0);
    assert_eq!(
        (event.signature, &event.headers["content-type"]),
        (SignatureCheck::Verified, &"application/json".parse().expect("a value"))
    );
    let body = body(&event);
    let text = body["text"].as_str().expect("a text");
    let job = format!("{STORE}/{}", job_id(1));
    assert!(text.starts_with(&format!("default/{job} ({job}): *FAILED* after ")), "{text}");
    let end = format!(
        ", 1 of 1 items failed: 1 of 1 sources failed <https://ops.lab.example/refwatch/jobs/reference_import/{job}|details>"
    );
    assert!(text.ends_with(&end), "{text}");
}

#[test]
fn a_reload_adds_changes_and_removes_sinks() {
    let host = Host::new(5);
    let (changed, added) = (host.receiver(Vec::new()), host.receiver(Vec::new()));
    let (daemon, address) = host.start(&[entry("changed", &changed, "")]);
    host.end(1, "COMPLETED");
    accepted(&changed, 1);
    // The added sink receives no past events.
    let only_failed = entry("changed", &changed, "on = [\"FAILED\"]");
    host.reload(&[only_failed, entry("added", &added, "")]);
    host.end(2, "COMPLETED");
    accepted(&added, 1);
    host.end(3, "FAILED");
    let jobs = |events: Vec<_>| events.iter().map(|event| job_and_type(event).0).collect::<Vec<_>>();
    assert_eq!(jobs(accepted(&changed, 2)), [1, 3]);
    assert_eq!(jobs(accepted(&added, 2)), [2, 3]);
    host.reload(&[entry("added", &added, "")]);
    host.end(4, "FAILED");
    assert_eq!(jobs(accepted(&added, 3)), [2, 3, 4]);
    let sinks = json(address, "/api/v1/sinks");
    assert_eq!((sinks.as_array().map(Vec::len), &sinks[0]["name"]), (Some(1), &"added".into()));
    assert!(!get(address, "/metrics").1.contains("sink=\"changed\""), "a removed sink leaves the metrics");
    // A sink that is added again starts at the present.
    host.reload(&[entry("changed", &changed, ""), entry("added", &added, "")]);
    host.end(5, "FAILED");
    assert_eq!(jobs(accepted(&added, 4)), [2, 3, 4, 5]);
    assert_eq!(jobs(accepted(&changed, 3)), [1, 3, 5], "{}", daemon.stderr());
}
