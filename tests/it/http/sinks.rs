//! Sinks in `/api/v1/sinks` and on the pages, and the sinks that other tests publish.

use refwatch::state::{PausedSink, SinkStatus};

use super::*;

/// Three sinks: `chat` works, `old` is disabled, `pipeline` is paused.
pub(super) fn publish_sinks(server: &Server) {
    let sink = |name: &str| SinkStatus::new(name.into(), format!("https://{name}.example"));
    let paused = PausedSink { since: at("2026-03-01T08:06:00Z"), next_attempt_at: at("2026-03-01T08:08:00Z") };
    for status in [
        SinkStatus { last_delivered_at: Some(at("2026-03-01T08:04:00Z")), ..sink("chat") },
        SinkStatus {
            waiting: 1,
            oldest: Some(at("2026-03-01T08:00:00Z")),
            disabled_at: Some(at("2026-03-01T08:01:00Z")),
            last_error: Some("HTTP status 410".to_owned()),
            ..sink("old")
        },
        SinkStatus {
            waiting: 2,
            failed: 3,
            oldest: Some(at("2026-03-01T08:05:00.5Z")),
            paused: Some(paused),
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
        disabled_at: Some(at("2026-03-01T08:01:00Z")),
        last_error: Some(HOSTILE.to_owned()),
        ..SinkStatus::new(HOSTILE.into(), HOSTILE.to_owned())
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
