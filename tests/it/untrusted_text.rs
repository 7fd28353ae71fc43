//! Fault 113: untrusted text from the service and the configuration.
//!
//! Nothing that reads it may panic. Log, pages, metrics and tables must contain no control or bidirectional characters from it, keep
//! it on one line, and parse back. `fuzz/` runs the same checks, so this file uses no other test file outside `mod tests`.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use refwatch::cli::{history, status};
use refwatch::clock::Clock;
use refwatch::config::{LogFormat, Quota, TargetConfig};
use refwatch::core::failure::FailureReason;
use refwatch::core::job::{Item, ItemKey, ItemStatus, Items, JobKey, JobStatus, TargetJob};
use refwatch::core::sanitize::{Sanitized, is_unsafe_to_display};
use refwatch::core::time::Timestamp;
use refwatch::core::tracker::JobState;
use refwatch::core::transition::Transition;
use refwatch::database::{DatabaseReader, Row};
use refwatch::healthomics::{AwsFactory, Priority, Target};
use refwatch::http::jobs::JobInfo;
use refwatch::http::server::{Access, Limits, serve};
use refwatch::http::{AppState, Renderer, client};
use refwatch::instruments::Instruments;
use refwatch::logging;
use refwatch::metrics::Metrics;
use refwatch::state::{FailedPoll, SharedState, WatchState, WatchStatus};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;

const JOB: &str = "1234567890/9876543210";

/// HTML elements without an end tag.
const VOID_TAGS: [&str; 6] = ["input", "meta", "link", "br", "hr", "wbr"];

/// A service with a settable response body, a client for it, and a server that shows the state.
struct Fixture {
    runtime: Runtime,
    response_body: Arc<Mutex<Vec<u8>>>,
    target: Target,
    shared: SharedState,
    address: SocketAddr,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let response_body = Arc::new(Mutex::new(Vec::new()));
        let (clock, instruments) = (Clock::system(), Instruments::new().expect("metrics"));
        let config = TargetConfig {
            region: Some("us-west-2".to_owned()),
            endpoint_url: Some(format!("http://{}", service(Arc::clone(&response_body)))),
            quota: Quota { requests_per_second: 1_000_000.0, ..TargetConfig::new("default").quota },
            timeout: Duration::from_mins(1),
            simulated: true,
            ..TargetConfig::new("default")
        };
        let target =
            runtime.block_on(Target::new(&config, &AwsFactory::new(clock), clock, &instruments)).expect("a target");
        let shared = SharedState::default();
        let metrics = Metrics::new(shared.clone(), &instruments, Timestamp::UNIX_EPOCH);
        let state = AppState {
            shared: shared.clone(),
            metrics: Arc::new(metrics),
            instruments: instruments.clone(),
            renderer: Renderer::default(),
            database: DatabaseReader::new("/nonexistent/database".as_ref()),
            clock,
            host_names: Some([].into()),
            external_path: "".into(),
        };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = runtime.handle().clone();
        std::thread::spawn(move || {
            server.block_on(serve(listener, Access::default(), state, Limits::default(), CancellationToken::new()));
        });
        Fixture { runtime, response_body, target, shared, address }
    })
}

/// Responds to each request with 200 and the current body.
fn service(response_body: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                head.push(byte[0]);
            }
            let body = response_body.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // The client may have closed the connection; the caller checks its result.
            drop(stream.write_all(&[head.as_bytes(), &body].concat()));
        }
    });
    address
}

/// The checks share the fixture and run one at a time.
fn lock() -> std::sync::MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks `text` as a configuration.
pub(crate) fn check_configuration(text: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("refwatch.toml");
    std::fs::write(&path, text).expect("a file");
    match refwatch::config::load(&path) {
        Ok(loaded) => drop(loaded.config.to_redacted_toml()),
        Err(problems) => {
            assert_sanitized(&problems.render(false), "diagnostics");
            assert!(!problems.is_empty() && !problems.summary().chars().any(is_unsafe_to_display), "{problems:?}");
        }
    }
}

/// Checks `body` as the response for a job and for a store, and the texts that result.
pub(crate) fn check_response(body: &[u8]) {
    let cases = {
        let _lock = lock();
        let (fixture, key) = (fixture(), JOB.parse::<JobKey>().expect("a job"));
        *fixture.response_body.lock().unwrap_or_else(PoisonError::into_inner) = body.to_vec();
        fixture.runtime.block_on(async {
            let permit = fixture.target.poll_permit(&key, Priority::Routine).await;
            let cases = match fixture.target.poll(&key, permit).await {
                Ok(snapshot) => vec![snapshot.status.to_string(), snapshot.status_message.unwrap_or_default()],
                Err(failure) => vec![failure.message],
            };
            match fixture.target.list(key.kind, &key.store, None, None).await {
                Ok(page) => cases.into_iter().chain(page.jobs.iter().map(|job| job.status.to_string())).collect(),
                Err(failure) => [cases, vec![failure.message]].concat(),
            }
        })
    };
    cases.iter().take(4).for_each(|text| check_pages(text));
}

/// Checks pages, JSON and metrics with `text` in each untrusted field.
pub(crate) fn check_pages(text: &str) {
    let _lock = lock();
    let fixture = fixture();
    fixture.shared.publish(view(text));
    let pages = ["/", "/jobs/reference_import/1234567890/9876543210", "/metrics", "/api/v1/jobs"].map(|path| {
        let body = fixture
            .runtime
            .block_on(client::get(&client::DaemonAddress::Listener(fixture.address.to_string()), path))
            .expect(path);
        let body = String::from_utf8(body.to_vec()).expect(path);
        assert_sanitized(&body, path);
        body
    });
    let [page, job, metrics, watches] = &pages;
    assert_well_formed(page);
    assert_well_formed(job);
    let printable = Sanitized(text).to_string();
    for label in ["watch", "label_project"] {
        let labels = metrics.lines().filter(|line| !line.starts_with('#')).flat_map(labels);
        let values: Vec<String> = labels.filter(|(name, _)| name == label).map(|(_, value)| value).collect();
        assert!(!values.is_empty() && values.iter().all(|value| *value == printable), "{printable:?} in {values:?}");
    }
    let watches: Vec<JobInfo> = serde_json::from_str(watches).expect("JSON");
    assert_eq!((watches[0].watch.as_str(), watches[0].status_message.as_deref()), (text, Some(text)));
}

/// Checks the log, the journal and the tables of the commands with `text`.
pub(crate) fn check_logs(text: &str) {
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = logged(text, |log| logging::layer(format, move || log.clone()));
        assert_sanitized(&line, "the log");
        assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line:?}");
        if format == LogFormat::Json {
            let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!([&event["status_message"], &event["message"]], [text, text]);
        }
        let entry = logged(text, |log| logging::journal_layer(format, move || log.clone()));
        assert_sanitized(&entry, "the journal");
        let names: Vec<&str> = entry.lines().map(|line| line.split('=').next().unwrap_or_default()).collect();
        assert_eq!(names, ["PRIORITY", "MESSAGE", "SYSLOG_IDENTIFIER", "REFWATCH_STATUS_MESSAGE"], "{entry:?}");
    }
    let own = || text.to_owned();
    let value = Transition {
        from: None,
        to: JobStatus::from(text),
        observed_at: Timestamp::UNIX_EPOCH,
        not_before: None,
        status_message: Some(own()),
        created_at: None,
        completed_at: None,
        anomaly: None,
        watch: None,
    };
    let key = "1234567890/9876543210".parse().expect("two ids");
    let row = Row { id: 1, target_job: TargetJob { target: own().into(), key }, value };
    let watch: JobInfo = serde_json::from_value(serde_json::json!({
        "watch": text, "target": text, "aws_region": text, "kind": "reference_import", "store_id": text, "job_id": text, "status": text,
        "state": text, "parked_reason": text, "vanished": false, "labels": {}, "since": text, "next_poll": text, "recent_failures": [],
    }))
    .expect("a watch");
    for width in [20, 80, usize::MAX] {
        let history = history::table(std::slice::from_ref(&row), width);
        let status = status::table(std::slice::from_ref(&watch), Timestamp::UNIX_EPOCH, width);
        assert_sanitized(&history, "history");
        assert_sanitized(&status, "status");
        assert!(
            history.lines().count() <= 5 && status.lines().count() <= 6 + 2 * text.matches('/').count(),
            "{history:?} {status:?}"
        );
    }
}

/// The line that a log layer writes for `text`.
fn logged(text: &str, layer: impl FnOnce(Log) -> Box<dyn Layer<Registry> + Send + Sync>) -> String {
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(layer(log.clone()));
    tracing::subscriber::with_default(subscriber, || tracing::error!(status_message = text, "{text}"));
    let check_logs = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8(check_logs).expect("text")
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn view(text: &str) -> WatchStatus {
    let own = || text.to_owned();
    let key: JobKey = JOB.parse().expect("a job");
    let source = Item { status: ItemStatus::from(text), status_message: Some(own().into()) };
    let known = JobState {
        status: JobStatus::from(text),
        status_message: Some(own()),
        created_at: None,
        completed_at: None,
        items: Items::from_iter([(ItemKey { name: own().into(), source_file: own().into(), nth: 0 }, source)]).into(),
        transition_count: 1,
        changes_towards_limit: 0,
        since: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        vanished_at: None,
        ended_once: false,
    };
    let failure = FailedPoll { at: Timestamp::UNIX_EPOCH, reason: FailureReason::Other, message: own() };
    WatchStatus {
        id: Arc::new(TargetJob { target: "default".into(), key }),
        name: text.into(),
        labels: Arc::new([("project".to_owned(), own())].into()),
        aws_region: text.into(),
        state: WatchState::Parked(own()),
        known: Some(known.into()),
        up: Some(false),
        last_successful_poll: None,
        next_poll: None,
        recent_failures: [failure].into(),
    }
}

/// Checks that `text` contains no character that acts on a display, except line ends.
fn assert_sanitized(text: &str, place: &str) {
    let hostile = text.chars().find(|c| is_unsafe_to_display(*c) && *c != '\n');
    assert_eq!(hostile, None, "{place}: {text:?}");
}

/// Checks that tags are closed, attributes quoted, and texts escaped.
fn assert_well_formed(html: &str) {
    let script = concat!("<script>", include_str!("../../src/http/ui/page.js"), "</script>");
    let html = html.replace(script, "");
    let mut open = Vec::new();
    for piece in html.strip_prefix("<!DOCTYPE html><").expect("a page").split('<') {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("an unclosed tag: {piece:?} in {html}"));
        assert!(!text.contains(['>', '"']), "{text:?} in {html}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag:?} in {html}");
        let name = tag.split(' ').next().unwrap_or_default();
        assert!(name.trim_start_matches('/').chars().all(|c| c.is_ascii_alphanumeric()), "{tag:?} in {html}");
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{html}"),
            None if VOID_TAGS.contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} in {html}");
}

/// The labels of a line in the text exposition.
fn labels(line: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    let Some((_, mut rest)) = line.split_once('{') else { return labels };
    while let Some((name, after)) = rest.split_once("=\"") {
        let (mut value, mut characters) = (String::new(), after.char_indices());
        let end = loop {
            match characters.next().unwrap_or_else(|| panic!("an unclosed label: {line}")) {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, c @ ('\\' | '"'))) => c,
                    other => panic!("an unknown escape: {other:?} in {line}"),
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        rest = &after[end + 1..];
    }
    let value = rest.strip_prefix("} ").unwrap_or_else(|| panic!("no value: {line}"));
    assert!(value.parse::<f64>().is_ok(), "{line}");
    labels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNTRUSTED: &str = "(?s)(.|[\n\r\t\u{0}\u{2028}\u{202e}\u{1b}\u{e0041}\"'\\\\<>&{}=,]|</td>|<script>){0,20}";

    /// A response with `text` in each string, sometimes with damaged bytes.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let damage = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)];
        (UNTRUSTED, damage).prop_map(|(text, damage)| {
            let job = serde_json::json!({
                "id": "9876543210", "referenceStoreId": "1234567890", "roleArn": text, "status": text,
                "statusMessage": text, "creationTime": "2026-01-02T03:04:05.678Z",
                "sources": [{"name": text, "sourceFile": text, "status": text, "statusMessage": text}],
            });
            let mut check_response = job.clone();
            check_response["importJobs"] = serde_json::json!([job]);
            let mut bytes = check_response.to_string().into_bytes();
            for (index, byte) in damage {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    fn cases() -> u32 {
        crate::campaigns::env_number("FOREIGN_TEXTS").map_or(64, |cases| cases.try_into().expect("fits"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

        #[test]
        fn fault_113_untrusted_text_from_the_service_is_sanitized_and_parses_back(body in body(), text in UNTRUSTED) {
            check_response(&body);
            check_pages(&text);
            check_logs(&text);
        }
    }
}
