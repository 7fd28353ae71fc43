//! The body and the id of a notification: a CloudEvents 1.0 object, or one line of text for Slack.
//!
//! Pure. An event that is sent again has the same id and, unless `http.external_url` has changed, the same body.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::transport::Notification;
use crate::config::SinkFormat;
use crate::core::event::EventType;
use crate::core::job::{Item, ItemStatus, TargetJob};
use crate::core::sanitize::{Sanitized, excerpt};
use crate::core::time::Timestamp;
use crate::database::{Event, Row};

/// The largest body. Failed items that do not fit are left out. The other parts are always smaller.
const BODY_BYTES_MAX: usize = 16 * 1024;

const FAILED_ITEMS_MAX: usize = 20;

/// The longest text from AWS in a body, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// The id has this many bytes of the hash. Two of a billion events have the same id with a probability below 1 to 10^20.
const ID_BYTES: usize = 16;

/// The characters of a path segment in `source` that are percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The notification of an event, at the time `now`.
pub(super) fn notification(
    event: &Event,
    format: SinkFormat,
    external_url: Option<&Uri>,
    now: Timestamp,
) -> Notification {
    let page = external_url.map(|url| job_page(url, event));
    let body = match format {
        SinkFormat::CloudEvents => cloud_event(event, page.as_deref()),
        SinkFormat::Slack => slack_message(event, page.as_deref()),
    };
    new_notification(format, event_id(event), &body, now)
}

/// A notification that concerns no job.
pub(super) fn test_notification(format: SinkFormat, now: Timestamp) -> Notification {
    let id = format!("evt_test_{}", now.as_millisecond());
    let body = match format {
        SinkFormat::CloudEvents => json!({ "specversion": "1.0", "id": id, "source": "/refwatch",
            "type": "io.refwatch.test.v1", "time": format!("{now:.3}"), "datacontenttype": "application/json", "data": {} }),
        SinkFormat::Slack => json!({ "text": "refwatch: this is a test" }),
    };
    new_notification(format, id, &body, now)
}

fn new_notification(format: SinkFormat, id: String, body: &Value, now: Timestamp) -> Notification {
    let content_type = match format {
        SinkFormat::CloudEvents => "application/cloudevents+json",
        SinkFormat::Slack => "application/json",
    };
    Notification { id, timestamp: now.as_second(), content_type, body: body.to_string().into_bytes() }
}

/// The id of an event. It is derived from the job and the nth time of its event type, so it is the same after a restart, a replay, or
/// with another database, and for another daemon that watches the same job.
fn event_id(event: &Event) -> String {
    let Event { target_job: TargetJob { key, .. }, watch, event_type, occurrence, .. } = event;
    let identity =
        format!("{}/{}/{}/{}/{}/{occurrence}", watch.region, key.kind, key.store, key.job, event_type.as_str());
    let hash = Sha256::digest(identity);
    hash[..ID_BYTES].iter().fold("evt_".to_owned(), |id, byte| id + &format!("{byte:02x}"))
}

/// The body of a CloudEvents notification. `page` is the URL of the job's page.
fn cloud_event(event: &Event, page: Option<&str>) -> Value {
    let Event { id, target_job, event_type, observed_at, transition, watch, items, .. } = event;
    let row = Row { id: *id, target_job: target_job.clone(), value: transition.clone() };
    // Rows have texts, numbers and a map of texts. They are always serialized.
    let mut data = serde_json::to_value(row).unwrap_or_default();
    // An unknown status may be long.
    for key in ["from_status", "to_status", "status_message"] {
        if let Some(text) = data[key].as_str() {
            data[key] = excerpt(text, TEXT_CHARS_MAX).into();
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for item in items.values() {
        *counts.entry(item.status.label()).or_default() += 1;
    }
    data["items"] = json!(counts);
    data["failed_items"] = failed_items(event).take(FAILED_ITEMS_MAX).collect();
    if let Some(page) = page {
        data["url"] = page.into();
    }
    let encoded = |text| utf8_percent_encode(text, ENCODED);
    let key = &target_job.key;
    let mut body = json!({
        "specversion": "1.0",
        "id": event_id(event),
        "source": format!("/refwatch/{}/{}", encoded(&target_job.target), encoded(&watch.region)),
        "type": format!("io.refwatch.job.{}.v1", event_type.as_str().to_lowercase()),
        "subject": format!("{}/{}/{}", key.kind, key.store, key.job),
        "time": format!("{observed_at:.3}"),
        "datacontenttype": "application/json",
        "data": data,
    });
    while body.to_string().len() > BODY_BYTES_MAX {
        if body["data"]["failed_items"].as_array_mut().and_then(Vec::pop).is_none() {
            break;
        }
    }
    body
}

fn failed_items(event: &Event) -> impl Iterator<Item = Value> {
    let failed = event.items.iter().filter(|(_, item)| item.status == ItemStatus::Failed);
    failed.map(|(key, Item { status_message, .. })| {
        let message = status_message.as_deref().map(|message| excerpt(message, TEXT_CHARS_MAX));
        json!({ "name": excerpt(&key.name, TEXT_CHARS_MAX), "status_message": message })
    })
}

/// The body of a notification for Slack, and for Mattermost and Teams workflows, which accept the same: name, status, duration, what
/// failed, and a link.
fn slack_message(event: &Event, page: Option<&str>) -> Value {
    let Event { target_job, event_type, transition, watch, items, .. } = event;
    let key = target_job.key.to_string();
    // The default name of a job is its key.
    let name = if ["", &key].contains(&&*watch.name) { key } else { format!("{} ({key})", watch.name) };
    let duration = match (event_type, transition.created_at, transition.completed_at) {
        (EventType::Status(_), Some(created), Some(completed)) => Duration::try_from(completed.duration_since(created))
            .ok()
            .map(|duration| format!(" after {}", humantime::format_duration(Duration::from_secs(duration.as_secs())))),
        _ => None,
    };
    let failed = items.values().filter(|item| item.status == ItemStatus::Failed);
    let count = failed.clone().count();
    let failures = (count > 0).then(|| format!(", {count} of {} items failed", items.len()));
    let first_message = || failed.clone().find_map(|item| item.status_message.as_deref());
    let message = transition.status_message.as_deref().or_else(first_message);
    let message = message.map(|message| format!(": {}", escaped(&excerpt(message, TEXT_CHARS_MAX))));
    let link = page.map(|page| format!(" <{page}|details>"));
    let parts = [duration, failures, message, link].into_iter().flatten();
    let text = format!("{}: *{}*", escaped(&name), escaped(event_type.as_str())) + &parts.collect::<String>();
    json!({ "text": text })
}

/// Slack's control characters are escaped. Invisible characters are shown.
fn escaped(text: &str) -> String {
    Sanitized(text).to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The URL of the job's page below `http.external_url`.
fn job_page(external_url: &Uri, event: &Event) -> String {
    let key = &event.target_job.key;
    let base = external_url.to_string();
    format!("{}/jobs/{}/{}/{}", base.trim_end_matches('/'), key.kind, key.store, key.job)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::job::{ItemKey, Items, JobStatus};
    use crate::core::transition::{Transition, WatchInfo};

    fn event() -> Event {
        let watch = Arc::new(WatchInfo {
            region: "us-west-2".into(),
            name: "GRCh38".into(),
            labels: Arc::new([("project".to_owned(), "atlas".to_owned())].into()),
        });
        let transition = Transition {
            from: Some(JobStatus::InProgress),
            to: JobStatus::CompletedWithFailures,
            observed_at: "2026-01-31T12:00:01.5Z".parse().expect("a time"),
            not_before: None,
            status_message: Some("1 of 2 sources <failed> & more".to_owned()),
            created_at: Some("2026-01-31T11:00:00Z".parse().expect("a time")),
            completed_at: Some("2026-01-31T11:59:59Z".parse().expect("a time")),
            anomaly: None,
            watch: Some(Arc::clone(&watch)),
        };
        let item = |name: &str, status, message: Option<&str>| {
            let key = ItemKey { name: name.into(), source_file: "s3://a/b".into(), nth: 0 };
            (key, Item { status, status_message: message.map(Into::into) })
        };
        let items =
            [item("chr1", ItemStatus::Finished, None), item("chr2", ItemStatus::Failed, Some("not a FASTA file"))];
        Event {
            id: 7,
            target_job: TargetJob { target: "lab 1".into(), key: "1234567890/9876543210".parse().expect("a job") },
            event_type: EventType::Status(JobStatus::CompletedWithFailures),
            occurrence: 1,
            observed_at: transition.observed_at,
            transition,
            watch,
            items: items.into(),
        }
    }

    #[test]
    fn a_cloud_event_has_the_row_the_labels_the_items_and_the_page() {
        let external_url: Uri = "https://ops.lab.example/refwatch/".parse().expect("a URL");
        let body = cloud_event(&event(), Some(&job_page(&external_url, &event())));
        let expected = json!({
            "specversion": "1.0",
            "id": event_id(&event()),
            "source": "/refwatch/lab%201/us-west-2",
            "type": "io.refwatch.job.completed_with_failures.v1",
            "subject": "reference_import/1234567890/9876543210",
            "time": "2026-01-31T12:00:01.500Z",
            "datacontenttype": "application/json",
            "data": {
                "id": 7, "target": "lab 1", "kind": "reference_import", "store_id": "1234567890", "job_id": "9876543210",
                "from_status": "IN_PROGRESS", "to_status": "COMPLETED_WITH_FAILURES",
                "observed_at": "2026-01-31T12:00:01.500Z", "not_before": null,
                "status_message": "1 of 2 sources <failed> & more",
                "created_at": "2026-01-31T11:00:00Z", "completed_at": "2026-01-31T11:59:59Z", "anomaly": null,
                "region": "us-west-2", "watch": "GRCh38", "labels": { "project": "atlas" },
                "items": { "FINISHED": 1, "FAILED": 1 },
                "failed_items": [{ "name": "chr2", "status_message": "not a FASTA file" }],
                "url": "https://ops.lab.example/refwatch/jobs/reference_import/1234567890/9876543210",
            },
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn an_id_depends_on_region_job_event_type_and_occurrence_only() {
        let id = event_id(&event());
        assert_eq!(id.len(), "evt_".len() + 2 * ID_BYTES);
        assert!(!id.contains('.'));
        let mut same = event();
        (same.id, same.target_job.target, same.items) = (8, "other".into(), Items::new());
        same.transition.status_message = None;
        assert_eq!(event_id(&same), id);
        let mut again = event();
        again.occurrence = 2;
        let mut vanished = event();
        vanished.event_type = EventType::Vanished;
        let mut other_job = event();
        other_job.target_job.key = "1234567890/9876543211".parse().expect("a job");
        let mut other_region = event();
        other_region.watch = Arc::default();
        for other in [again, vanished, other_job, other_region] {
            assert_ne!(event_id(&other), id, "{other:?}");
        }
    }

    #[test]
    fn a_body_stays_below_16_kib_whatever_the_texts() {
        let mut large = event();
        let text = "\u{1}".repeat(10_000);
        large.transition.status_message = Some(text.clone());
        large.items = (0..1_000)
            .map(|nth| {
                let key = ItemKey { name: text.as_str().into(), source_file: "".into(), nth };
                (key, Item { status: ItemStatus::Failed, status_message: Some(text.as_str().into()) })
            })
            .collect();
        let labels: BTreeMap<_, _> = (0..16).map(|nth| (format!("{nth:0128}"), "\u{1f9ec}".repeat(128))).collect();
        large.watch = Arc::new(WatchInfo { labels: labels.into(), ..WatchInfo::default() });
        large.transition.watch = Some(Arc::clone(&large.watch));
        let body = cloud_event(&large, None);
        assert!(body.to_string().len() <= BODY_BYTES_MAX, "{body}");
        assert_eq!(body["data"]["items"]["FAILED"], 1_000);
        assert!(slack_message(&large, None).to_string().len() <= BODY_BYTES_MAX);
    }

    #[test]
    fn a_slack_message_is_one_line_with_escaped_text() {
        let message = slack_message(&event(), Some("https://ops.lab.example/jobs/x"));
        let expected = "GRCh38 (1234567890/9876543210): *COMPLETED_WITH_FAILURES* after 59m 59s, 1 of 2 items failed: \
                        1 of 2 sources &lt;failed&gt; &amp; more <https://ops.lab.example/jobs/x|details>";
        assert_eq!(message, json!({ "text": expected }));
    }
}
