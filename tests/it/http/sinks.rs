//! Sinks in `/api/v1/sinks` and on the pages, and the sinks that other tests publish.

use std::collections::BTreeSet;

use refwatch::core::event::{EventFilter, EventType};
use refwatch::database::{DeliveryOutcome, DeliveryStep};
use refwatch::state::{SinkState, SinkStatus};

use super::*;
use crate::process::open_when_unlocked;

/// With one time for all.
pub(super) fn publish_daemon(Server { shared, .. }: &Server, time: &str) {
    let time = Some(at(time));
    shared.update_daemon(|daemon| (daemon.config_loaded_at, daemon.certificate_expires_at) = (time, time));
}

/// Three sinks: `chat` works, `old` is disabled, `pipeline` is paused.
pub(super) fn publish_sinks(server: &Server) {
    let sink = |name: &str| SinkStatus {
        name: name.to_owned(),
        url: format!("https://{name}.example"),
        ..SinkStatus::default()
    };
    for status in [
        SinkStatus { last_delivered_at: Some(at("2026-03-01T08:04:00Z")), ..sink("chat") },
        SinkStatus {
            waiting: 1,
            oldest_waiting_at: Some(at("2026-03-01T08:00:00Z")),
            state: SinkState::Disabled,
            disabled_at: Some(at("2026-03-01T08:01:00Z")),
            last_error: Some("HTTP status 410".to_owned()),
            ..sink("old")
        },
        SinkStatus {
            waiting: 2,
            failed: 3,
            oldest_waiting_at: Some(at("2026-03-01T08:05:00.5Z")),
            state: SinkState::Paused,
            paused_since: Some(at("2026-03-01T08:06:00Z")),
            next_attempt_at: Some(at("2026-03-01T08:08:00Z")),
            last_error: Some("HTTP status 503".to_owned()),
            ..sink("pipeline")
        },
    ] {
        server.instruments.add_sink(&status.name);
        server.shared.publish_sink(status);
    }
}

/// A disabled sink with hostile text in each field.
pub(super) fn hostile_sink() -> SinkStatus {
    SinkStatus {
        name: HOSTILE.to_owned(),
        url: HOSTILE.to_owned(),
        state: SinkState::Disabled,
        last_error: Some(HOSTILE.to_owned()),
        ..SinkStatus::default()
    }
}

#[tokio::test]
async fn the_api_returns_all_fields_of_a_sink() {
    let server = Server::start().await;
    publish_sinks(&server);
    let expected = serde_json::json!([
        {"name": "chat", "url": "https://chat.example", "state": "up", "waiting": 0, "failed": 0,
         "oldest_waiting_at": null, "paused_since": null, "next_attempt_at": null, "disabled_at": null,
         "last_delivered_at": "2026-03-01T08:04:00.000Z", "last_error": null},
        {"name": "old", "url": "https://old.example", "state": "disabled", "waiting": 1, "failed": 0,
         "oldest_waiting_at": "2026-03-01T08:00:00.000Z", "paused_since": null, "next_attempt_at": null,
         "disabled_at": "2026-03-01T08:01:00.000Z", "last_delivered_at": null, "last_error": "HTTP status 410"},
        {"name": "pipeline", "url": "https://pipeline.example", "state": "paused", "waiting": 2, "failed": 3,
         "oldest_waiting_at": "2026-03-01T08:05:00.500Z", "paused_since": "2026-03-01T08:06:00.000Z",
         "next_attempt_at": "2026-03-01T08:08:00.000Z", "disabled_at": null, "last_delivered_at": null,
         "last_error": "HTTP status 503"},
    ]);
    assert_eq!(server.get("/api/v1/sinks").await.json(), expected);
}

#[tokio::test]
async fn the_status_page_has_a_row_per_sink_and_counts_those_that_are_down() {
    let server = Server::start().await;
    assert!(!server.get("/").await.body.contains("Notifications"));
    publish_sinks(&server);
    let page = server.get("/").await.body;
    assert!(page.contains("<title>(2) ") && page.contains("/icon-attention.svg\""), "{page}");
    let section = page.split("data-part=\"sinks\"").nth(1).expect("a section");
    let rows: Vec<&str> = section.split("<tr>").skip(2).take(3).collect();
    for (row, parts) in rows.iter().zip([
        ["chat<small>https://chat.example</small>", r#"<span class="badge good">up"#, r#"Error"></td>"#],
        [r#"Last delivery">none"#, r#"<span class="badge bad">disabled"#, r#"Error">HTTP status 410"#],
        [r#"Waiting">2</td>"#, r#"<span class="badge mixed">paused"#, r#"Failed"><span class="bad">3</span>"#],
    ]) {
        for part in parts {
            assert!(row.contains(part), "{part} in {row}");
        }
    }
}

#[tokio::test]
async fn the_page_of_a_job_shows_its_notifications_that_wait_or_have_failed() {
    let server = Server::start().await;
    let database = open_when_unlocked(&server.database, &server.instruments).unwrap();
    let now = at("2026-03-01T09:00:00Z");
    let sink: Arc<str> = "pipeline".into();
    database.synchronize_sinks([(Arc::clone(&sink), "1".to_owned())].into(), now).await.unwrap();
    for (id, change) in [
        row("2222222222", None, "SUBMITTED", "2026-03-01T09:00:01.000Z"),
        row("2222222222", Some("SUBMITTED"), "FAILED", "2026-03-01T09:00:02.000Z"),
        row("3333333333", None, "CANCELLED", "2026-03-01T09:00:03.000Z"),
    ] {
        database.append(&id, &change).await.unwrap();
    }
    let mut step = DeliveryStep {
        sink,
        config_hash: "1".to_owned(),
        filter: EventFilter { types: EventType::documented().collect(), watches: vec![] },
        now,
        outcomes: vec![],
        in_flight: BTreeSet::new(),
        limit: 8,
        rotation: 0,
    };
    let due = database.step_deliveries(step.clone()).await.unwrap().due;
    let reason = "HTTP status 400".to_owned();
    step.outcomes = vec![(due[0].event.id, DeliveryOutcome::Rejected { reason, next_attempt_at: None })];
    database.step_deliveries(step).await.unwrap();
    database.close().await;

    let path = "/jobs/reference_import/1234567890/2222222222";
    let past = server.get(path).await.body;
    server.shared.publish(view("2222222222", JobStatus::Failed));
    for page in [past, server.get(path).await.body] {
        let table = page.split("<caption>Notifications").nth(1).expect("a table");
        let rows: Vec<&str> = table.split("<tr>").skip(2).collect();
        for part in
            ["pipeline", "SUBMITTED", r#"<span class="badge bad">failed"#, r#"Rejections">1"#, "HTTP status 400"]
        {
            assert!(rows[0].contains(part), "{part} in {}", rows[0]);
        }
        for part in ["pipeline", "FAILED", r#"<span class="badge waiting">waiting"#, r#"Rejections">0"#] {
            assert!(rows[1].contains(part), "{part} in {}", rows[1]);
        }
        assert!(!table.contains("CANCELLED"), "{table}");
    }
}
