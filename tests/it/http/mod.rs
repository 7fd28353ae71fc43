//! The HTTP server over real sockets with a state that the test publishes: endpoints, headers, pages, metrics and limits.

mod filters;
mod limits;
mod metrics;
mod page_parts;
mod pages;
mod sinks;
mod stores;
mod timelines;
mod transitions;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::config::PasswordHash;
use refwatch::core::failure::{FailureReason, Operation};
use refwatch::core::job::{Item, ItemKey, ItemStatus, Items, JobKey, JobStatus, TargetJob, TargetStore};
use refwatch::core::kind::JobKind;
use refwatch::core::time::Timestamp;
use refwatch::core::tracker::JobState;
use refwatch::core::transition::{Change, Transition};
use refwatch::database::{Database, DatabaseReader};
use refwatch::http::jobs::JobInfo;
use refwatch::http::server::{Access, Limits, serve};
use refwatch::http::{AppState, Renderer, client};
use refwatch::instruments::Instruments;
use refwatch::metrics::Metrics;
use refwatch::state::{ConfigError, FailedPoll, SharedState, StoreStatus, WatchState, WatchStatus};
use stores::store_view;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine, short enough to end a hanging test.
const DEADLINE: Duration = Duration::from_secs(20);

/// Hostile characters as they may occur in names and messages.
const HOSTILE: &str = "<script>alert(1)</script>\n\"quoted\" & \u{202e}turned\u{2028}\u{1b}[31m\\";

const STORE: &str = "1234567890";

/// A server on a free loopback port. Dropping it stops it.
struct Server {
    address: SocketAddr,
    shared: SharedState,
    instruments: Instruments,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    database: PathBuf,
    _directory: TempDir,
}

struct Response {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Server {
    async fn start() -> Self {
        Self::with(Limits::default(), []).await
    }

    async fn with(limits: Limits, rows: impl IntoIterator<Item = (TargetJob, Change)>) -> Self {
        Self::with_users(limits, rows, BTreeMap::new()).await
    }

    async fn with_users(
        limits: Limits,
        rows: impl IntoIterator<Item = (TargetJob, Change)>,
        users: BTreeMap<String, PasswordHash>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, stop) = (SharedState::default(), CancellationToken::new());
        let instruments = Instruments::new().unwrap();
        let _ =
            [Operation::Get, Operation::List].map(|of| instruments.operation("default", of(JobKind::ReferenceImport)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("refwatch.db");
        let database = Database::open(&path, &instruments).unwrap();
        for (id, change) in rows {
            database.append(&id, &change).await.unwrap();
        }
        database.close().await;
        let state = AppState {
            shared: shared.clone(),
            metrics: Arc::new(Metrics::new(shared.clone(), &instruments, Timestamp::UNIX_EPOCH)),
            instruments: instruments.clone(),
            renderer: Renderer::default(),
            database: DatabaseReader::new(&path),
            clock: Clock::system(),
            host_names: Some(["refwatch.example".to_owned()].into()),
            external_path: "/refwatch".into(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Access { tls: None, users }, state, limits, stop.clone()));
        Self { address, shared, instruments, stop, tasks, database: path, _directory: directory }
    }

    /// Sends the bytes and reads until the server closes the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn request(&self, method: &str, path: &str) -> Response {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        Response::parse(&self.raw(&request).await)
    }

    async fn get(&self, path: &str) -> Response {
        self.request("GET", path).await
    }

    async fn watches(&self) -> Vec<JobInfo> {
        serde_json::from_str(&self.get("/api/v1/jobs").await.body).unwrap()
    }
}

impl Response {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a complete response");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // An aborted connection ends with an error; the bytes before it count.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8(bytes).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn target_job(job: &str) -> TargetJob {
    let key = JobKey { kind: JobKind::ReferenceImport, store: STORE.parse().unwrap(), job: job.parse().unwrap() };
    TargetJob { target: "default".into(), key }
}

fn known(status: JobStatus) -> JobState {
    let source = |name: &str, status| {
        let key = ItemKey { name: name.into(), source_file: format!("s3://refs/{name}.fa").into(), nth: 0 };
        (key, Item { status, status_message: None })
    };
    JobState {
        ended_once: status.is_terminal(),
        status,
        status_message: Some("as the service says".to_owned()),
        created_at: Some(at("2026-03-01T08:00:00Z")),
        completed_at: None,
        items: Items::from_iter([source("chr1", ItemStatus::Finished), source("chr2", ItemStatus::Failed)]).into(),
        transition_count: 1,
        changes_towards_limit: 0,
        since: at("2026-03-01T08:05:00.25Z"),
        last_seen: at("2026-03-01T08:06:00Z"),
        vanished_at: None,
    }
}

fn view(job: &str, status: JobStatus) -> WatchStatus {
    WatchStatus {
        id: target_job(job).into(),
        name: format!("watch {job}").into(),
        labels: Arc::new([("project".to_owned(), "atlas".to_owned())].into()),
        aws_region: "us-west-2".into(),
        state: if status.is_terminal() { WatchState::Finished } else { WatchState::Live },
        known: Some(known(status).into()),
        up: Some(true),
        last_successful_poll: Some(at("2026-03-01T08:06:00Z")),
        next_poll: Some(at("2026-03-01T08:07:00Z")),
        recent_failures: VecDeque::new(),
    }
}

/// A watch with hostile text in each untrusted field.
fn hostile_view() -> WatchStatus {
    let text = || HOSTILE.to_owned();
    let mut known = JobState { status_message: Some(text()), ..known(JobStatus::from(HOSTILE)) };
    let key = ItemKey { name: text().into(), source_file: text().into(), nth: 0 };
    let source = Item { status: ItemStatus::from(HOSTILE), status_message: Some(text().into()) };
    known.items = Items::from_iter([(key, source)]).into();
    let failure = FailedPoll { at: at("2026-03-01T08:06:00Z"), reason: FailureReason::Internal, message: text() };
    WatchStatus {
        id: Arc::new(TargetJob { target: HOSTILE.into(), ..target_job("1111111111") }),
        name: HOSTILE.into(),
        labels: Arc::new([("project".to_owned(), text())].into()),
        aws_region: HOSTILE.into(),
        state: WatchState::Parked(text()),
        known: Some(known.into()),
        recent_failures: [failure].into(),
        ..view("1111111111", JobStatus::Submitted)
    }
}

fn row(job: &str, from: Option<&str>, to: &str, observed_at: &str) -> (TargetJob, Change) {
    let transition = Transition {
        from: from.map(JobStatus::from),
        to: JobStatus::from(to),
        observed_at: at(observed_at),
        not_before: None,
        status_message: None,
        created_at: None,
        completed_at: None,
        anomaly: None,
        watch: None,
    };
    (target_job(job), Change { transition: Some(transition), ..Change::default() })
}

#[tokio::test]
async fn every_endpoint_responds_with_its_type_and_the_common_headers() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    server.shared.publish_store(store_view(STORE, None));
    server.shared.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z"));
        daemon.effective_config = "[http]\nlisten = \"127.0.0.1:10210\"".into();
    });
    for (path, content_type, content) in [
        ("/", "text/html; charset=utf-8", "<!DOCTYPE html>"),
        ("/jobs/reference_import/1234567890/2222222222", "text/html; charset=utf-8", "watch 2222222222"),
        ("/history", "text/html; charset=utf-8", "No job ended"),
        ("/style.css", "text/css; charset=utf-8", "prefers-color-scheme"),
        ("/icon.svg", "image/svg+xml", "<svg"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "# TYPE"),
        ("/-/healthy", "text/plain; charset=utf-8", "healthy\n"),
        ("/-/ready", "text/plain; charset=utf-8", "ready\n"),
        ("/api/v1/jobs", "application/json", "2222222222"),
        ("/api/v1/stores", "application/json", "1234567890"),
        ("/api/v1/sinks", "application/json", "[]"),
        ("/api/v1/transitions", "application/json", "[]"),
        ("/config", "text/plain; charset=utf-8", "[http]\nlisten = \"127.0.0.1:10210\"\n"),
    ] {
        let response = server.get(path).await;
        assert_eq!((response.status, response.headers["content-type"].as_str()), (200, content_type), "{path}");
        assert!(response.body.contains(content), "{path}: {}", response.body);
        assert_eq!(response.headers["x-content-type-options"], "nosniff");
        assert_eq!(response.headers["referrer-policy"], "no-referrer");
        assert_eq!(response.headers["cache-control"], "no-store");
        assert!(response.headers["content-security-policy"].starts_with("default-src 'none'; style-src 'self';"));

        let head = server.request("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "HEAD {path}");
        assert_eq!(head.headers["content-type"], content_type, "HEAD {path}");
    }
}

#[tokio::test]
async fn ready_reports_why_the_daemon_is_not_ready() {
    let server = Server::start().await;
    let response = server.get("/-/ready").await;
    assert_eq!((response.status, response.body.as_str()), (503, "no configuration has been applied yet\n"));
    server.shared.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z"));
        daemon.database_error = Some("disk full".to_owned());
    });
    let response = server.get("/-/ready").await;
    assert_eq!((response.status, response.body.as_str()), (503, "the database cannot be written: disk full\n"));
    assert_eq!(server.get("/-/healthy").await.status, 200);
}

#[tokio::test]
async fn the_page_matches_the_api_and_shows_what_needs_attention_first() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::Completed));
    server.shared.publish(view("3333333333", JobStatus::InProgress));
    server.shared.publish(view("4444444444", JobStatus::Failed));
    server.shared.publish(WatchStatus { known: None, up: None, ..view("5555555555", JobStatus::Submitted) });
    let page = server.get("/").await.body;
    assert!(page.contains(r#"<h1>4 watches, <span class="bad nowrap">1 failed</span></h1>"#), "{page}");
    assert!(page.contains("1 not ended, 1 completed, 1 not seen yet. <strong>1 needs attention.</strong>"), "{page}");
    let rows: Vec<&str> = page.split("<tr").skip(2).collect();
    assert!(rows[0].contains("4444444444"), "{page}");
    for watch in server.watches().await {
        let name = format!(">{}</a>", watch.watch);
        let row = rows.iter().find(|row| row.contains(&name)).expect("a row for each watch");
        let status = format!(">{}</span>", watch.status.as_deref().unwrap_or("not seen yet"));
        assert!(row.contains(&status), "{row}");
        let since = watch.since.map(|since| format!("datetime=\"{since}\"")).unwrap_or_default();
        let job = server.get(&format!("/jobs/reference_import/{}/{}", watch.store_id, watch.job_id)).await.body;
        assert!(job.contains(&status) && job.contains(&since), "{job}");
    }
}

#[tokio::test]
async fn the_api_returns_all_fields_of_a_watch() {
    let server = Server::start().await;
    let (at, reason) = (at("2026-03-01T08:06:30Z"), FailureReason::Throttled);
    let failure = FailedPoll { at, reason, message: "over the quota".to_owned() };
    let mut watch = view("2222222222", JobStatus::CompletedWithFailures);
    watch.recent_failures.push_back(failure);
    server.shared.publish(watch);
    let expected = serde_json::json!([{
        "watch": "watch 2222222222", "target": "default", "aws_region": "us-west-2",
        "kind": "reference_import", "store_id": "1234567890", "job_id": "2222222222",
        "labels": {"project": "atlas"}, "status": "COMPLETED_WITH_FAILURES", "state": "finished", "parked_reason": null, "vanished": false,
        "status_message": "as the service says",
        "created_at": "2026-03-01T08:00:00.000Z", "completed_at": null,
        "since": "2026-03-01T08:05:00.250Z", "last_seen": "2026-03-01T08:06:00.000Z",
        "items": {
            "total": 2,
            "by_status": {"NOT_STARTED": 0, "IN_PROGRESS": 0, "FINISHED": 1, "FAILED": 1, "UNKNOWN": 0},
            "listed": [
                {"name": "chr2", "source_file": "s3://refs/chr2.fa", "status": "FAILED", "status_message": null},
                {"name": "chr1", "source_file": "s3://refs/chr1.fa", "status": "FINISHED", "status_message": null},
            ],
        },
        "up": true, "last_successful_poll": "2026-03-01T08:06:00.000Z", "next_poll": "2026-03-01T08:07:00.000Z",
        "recent_failures": [{"at": "2026-03-01T08:06:30.000Z", "reason": "throttled", "message": "over the quota"}],
    }]);
    assert_eq!(server.get("/api/v1/jobs").await.json(), expected);
    let body = client::get(&client::DaemonAddress::Listener(server.address.to_string()), "/api/v1/jobs").await.unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
    let refused = client::get(&client::DaemonAddress::Listener(server.address.to_string()), "/none").await;
    assert!(matches!(refused, Err(client::RequestError::Status { status, .. }) if status == 404), "{refused:?}");
}

#[tokio::test]
async fn fault_113_hostile_text_is_sanitized_on_every_endpoint() {
    let mut hostile = row("1111111111", Some(HOSTILE), HOSTILE, "2026-03-01T08:00:00.000Z");
    hostile.1.transition.as_mut().unwrap().status_message = Some(HOSTILE.to_owned());
    let rows = [hostile, row("1111111111", None, "SUBMITTED", "2026-03-01T08:01:00.000Z")];
    let server = Server::with(Limits::default(), rows).await;
    server.shared.publish(hostile_view());
    let id = TargetStore { target: HOSTILE.into(), ..target_job("1111111111").target_store() };
    server.shared.publish_store(StoreStatus { id, name: HOSTILE.into(), ..store_view(STORE, Some(HOSTILE)) });
    server.shared.publish_sink(sinks::hostile_sink());
    server.shared.update_daemon(|daemon| {
        daemon.config_error = Some(ConfigError {
            in_use: "the rest is applied".to_owned(),
            summary: HOSTILE.to_owned(),
            details: HOSTILE.to_owned(),
        });
        daemon.database_error = Some(HOSTILE.to_owned());
        daemon.effective_config = HOSTILE.into();
        daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z"));
    });
    for path in [
        "/",
        "/?q=%E2%80%AE%1B%3Cscript%3E%22quoted%22",
        "/?status=%E2%80%AE%1B%3Cscript%3E%22quoted%22",
        "/?sort=%E2%80%AE%1B%3Cscript%3E%22quoted%22",
        "/jobs/reference_import/1234567890/1111111111",
        "/metrics",
        "/api/v1/jobs",
        "/api/v1/stores",
        "/api/v1/sinks",
        "/api/v1/transitions",
        "/api/v1/transitions?since=%E2%80%AE%1B",
        "/history?since=%E2%80%AE%1B%3Cscript%3E%22quoted%22",
        "/config",
        "/-/ready",
    ] {
        let response = server.get(path).await;
        let hostile_char =
            response.body.chars().find(|c| refwatch::core::sanitize::is_unsafe_to_display(*c) && *c != '\n');
        assert_eq!(hostile_char, None, "{path}: {}", response.body);
        if response.headers["content-type"].starts_with("text/html") {
            let body = page_parts::without_script(&response.body);
            assert!(!body.contains("<script") && !body.contains("\"quoted\""), "{path}");
            assert!(body.contains("&lt;script&gt;"), "{path}");
        }
    }
    // A JSON parser returns the original text.
    let watch = &server.watches().await[0];
    let shown = [&watch.watch, &watch.target, &watch.labels["project"], &watch.recent_failures[0].message];
    assert_eq!(shown, [HOSTILE; 4]);
    let store = &server.get("/api/v1/stores").await.json()[0];
    assert_eq!([&store["watch"], &store["target"], &store["error"]], [HOSTILE; 3]);
    let metrics = server.get("/metrics").await.body;
    let label = r#"watch="<script>alert(1)</script>\\u000a\"quoted\" & \\u202eturned\\u2028\\u001b[31m\\","#;
    assert!(metrics.contains(label), "{metrics}");
}
