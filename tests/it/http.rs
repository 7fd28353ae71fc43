//! What the daemon shows, over real sockets, from a board filled by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use refwatch::board::{FailedPoll, StatusBoard, WatchState, WatchView};
use refwatch::clock::Clock;
use refwatch::core::job::{Change, JobKey, JobStatus, Source, SourceKey, SourceStatus, Transition, WatchId};
use refwatch::core::outcome::{FailureReason, Operation};
use refwatch::core::time::Timestamp;
use refwatch::core::watch::Known;
use refwatch::http::server::{Limits, serve};
use refwatch::http::watches::Watch;
use refwatch::http::{AppState, client};
use refwatch::instruments::Instruments;
use refwatch::metrics::Metrics;
use refwatch::record::{Record, RecordReader};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine, short enough to end a test that hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a person on call could find in a strange name or message.
const HOSTILE: &str = "<script>alert(1)</script>\n\"quoted\" & \u{202e}turned\u{2028}\u{1b}[31m\\";

const STORE: &str = "1234567890";

/// A server on a free port of loopback, stopped when dropped.
struct Server {
    address: SocketAddr,
    board: StatusBoard,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// The record is in it.
    _folder: TempDir,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Server {
    async fn start() -> Self {
        Self::with(Limits::default(), []).await
    }

    async fn with(limits: Limits, rows: impl IntoIterator<Item = (WatchId, Change)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (board, stop) = (StatusBoard::default(), CancellationToken::new());
        let instruments = Instruments::new().unwrap();
        for operation in Operation::ALL {
            let _ = instruments.operation("default", operation);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refwatch.db");
        let record = Record::open(&path, &instruments).unwrap();
        for (id, change) in rows {
            record.append(&id, &change).await.unwrap();
        }
        record.close().await;
        let state = AppState {
            board: board.clone(),
            metrics: Arc::new(Metrics::new(board.clone(), &instruments).unwrap()),
            record: RecordReader::new(&path),
            clock: Clock::system(),
            host_names: ["refwatch.example".to_owned()].into(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, state, limits, stop.clone()));
        Self { address, board, stop, tasks, _folder: folder }
    }

    /// Sends these bytes and reads until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn request(&self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        Answer::parse(&self.raw(&request).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).await
    }

    async fn watches(&self) -> Vec<Watch> {
        serde_json::from_str(&self.get("/api/v1/watches").await.body).unwrap()
    }
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
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
    // A connection that is cut ends with an error; what came before it counts.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8(bytes).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn watch_id(job: &str) -> WatchId {
    let key = JobKey { store: STORE.parse().unwrap(), job: job.parse().unwrap() };
    WatchId { target: "default".into(), key }
}

fn known(status: JobStatus) -> Known {
    let source = |name: &str, status| {
        let key = SourceKey { name: name.to_owned(), source_file: format!("s3://refs/{name}.fa"), nth: 0 };
        (key, Source { status, status_message: None })
    };
    Known {
        status,
        status_message: Some("as the service says".to_owned()),
        created_at: Some(at("2026-03-01T08:00:00Z")),
        completed_at: None,
        sources: [source("chr1", SourceStatus::Finished), source("chr2", SourceStatus::Failed)].into(),
        since: at("2026-03-01T08:05:00.25Z"),
        last_seen: at("2026-03-01T08:06:00Z"),
        vanished: false,
    }
}

fn view(job: &str, status: JobStatus) -> WatchView {
    WatchView {
        id: watch_id(job),
        name: format!("watch {job}").into(),
        aws_region: "us-west-2".into(),
        state: if status.is_terminal() { WatchState::Finished } else { WatchState::Live },
        known: Some(known(status)),
        up: Some(true),
        last_successful_poll: Some(at("2026-03-01T08:06:00Z")),
        next_poll: Some(at("2026-03-01T08:07:00Z")),
        transitions: [1, 1, 0, 0, 0, 0, 0, 0],
        recent_failures: VecDeque::new(),
    }
}

/// A watch with hostile text in every place that others write.
fn hostile_view() -> WatchView {
    let text = || HOSTILE.to_owned();
    let mut known = known(JobStatus::from(HOSTILE));
    known.status_message = Some(text());
    let key = SourceKey { name: text(), source_file: text(), nth: 0 };
    let source = Source { status: SourceStatus::from(HOSTILE), status_message: Some(text()) };
    known.sources = [(key, source)].into();
    let failure = FailedPoll { at: at("2026-03-01T08:06:00Z"), reason: FailureReason::Internal, message: text() };
    WatchView {
        id: WatchId { target: HOSTILE.into(), ..watch_id("1111111111") },
        name: HOSTILE.into(),
        aws_region: HOSTILE.into(),
        state: WatchState::Parked(text()),
        known: Some(known),
        recent_failures: [failure].into(),
        ..view("1111111111", JobStatus::Submitted)
    }
}

fn row(job: &str, from: Option<&str>, to: &str, observed_at: &str) -> (WatchId, Change) {
    let transition = Transition {
        from: from.map(JobStatus::from),
        to: JobStatus::from(to),
        observed_at: at(observed_at),
        not_before: None,
        status_message: None,
        created_at: None,
        completed_at: None,
        anomaly: None,
    };
    (watch_id(job), Change { transition: Some(transition), ..Change::default() })
}

#[tokio::test]
async fn every_endpoint_answers_with_its_type_and_the_headers_of_all() {
    let server = Server::start().await;
    server.board.publish(view("2222222222", JobStatus::InProgress));
    server.board.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z"));
        daemon.config_in_force = "[http]\nlisten = \"127.0.0.1:10210\"".to_owned();
    });
    for (path, content_type, content) in [
        ("/", "text/html; charset=utf-8", "<!DOCTYPE html>"),
        ("/watch/1234567890/2222222222", "text/html; charset=utf-8", "watch 2222222222"),
        ("/style.css", "text/css; charset=utf-8", "prefers-color-scheme"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "# TYPE"),
        ("/-/healthy", "text/plain; charset=utf-8", "healthy\n"),
        ("/-/ready", "text/plain; charset=utf-8", "ready\n"),
        ("/api/v1/watches", "application/json", "2222222222"),
        ("/api/v1/transitions", "application/json", "[]"),
        ("/config", "text/plain; charset=utf-8", "[http]\nlisten = \"127.0.0.1:10210\"\n"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, content_type), "{path}");
        assert!(answer.body.contains(content), "{path}: {}", answer.body);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'; style-src 'self';"));

        let head = server.request("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "HEAD {path}");
        assert_eq!(head.headers["content-type"], content_type, "HEAD {path}");
    }
}

#[tokio::test]
async fn ready_says_why_the_daemon_is_not() {
    let server = Server::start().await;
    let answer = server.get("/-/ready").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "no configuration is in force yet\n"));
    server.board.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z"));
        daemon.record_error = Some("disk full".to_owned());
    });
    let answer = server.get("/-/ready").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "the record cannot be written: disk full\n"));
    assert_eq!(server.get("/-/healthy").await.status, 200);
}

#[tokio::test]
async fn fault_105_a_path_that_is_none_is_not_found() {
    let server = Server::start().await;
    server.board.publish(view("2222222222", JobStatus::InProgress));
    for path in [
        "/..",
        "/../etc/passwd",
        "//",
        "//metrics",
        "/%2f",
        "/%2e%2e/metrics",
        "/%00",
        "/metrics/",
        "/style.css%00",
        "/watch/1234567890",
        "/watch/1234567890/..",
        "/watch/1234567890/2222222222%2f..",
        "/watch/1234567890/9999999999",
        "/watch/%3Cscript%3E/2222222222",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn fault_106_a_host_that_is_not_this_server_is_refused() {
    let server = Server::start().await;
    let port = server.address.port();
    for (host, status) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        ("Host: localhost\r\n".to_owned(), 200),
        ("Host: LocalHost:1\r\n".to_owned(), 200),
        ("Host: [::1]:80\r\n".to_owned(), 200),
        ("Host: 192.0.2.7\r\n".to_owned(), 200),
        ("Host: refwatch.example:443\r\n".to_owned(), 200),
        ("Host: attacker.example\r\n".to_owned(), 421),
        ("Host: localhost.attacker.example\r\n".to_owned(), 421),
        ("Host: 127.0.0.1.attacker.example\r\n".to_owned(), 421),
        (String::new(), 400),
        ("Host:\r\n".to_owned(), 400),
        ("Host: localhost\r\nHost: attacker.example\r\n".to_owned(), 400),
    ] {
        let answer = server.raw(&format!("GET /-/healthy HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await;
        assert_eq!(Answer::parse(&answer).status, status, "{host}");
    }
    let absolute = "GET http://attacker.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(Answer::parse(&server.raw(absolute).await).status, 400);
}

#[tokio::test]
async fn fault_104_108_109_only_get_and_head_without_a_body_are_taken() {
    let server = Server::start().await;
    for (method, path) in [("POST", "/"), ("DELETE", "/metrics"), ("TRACE", "/"), ("OPTIONS", "/"), ("PUT", "/none")] {
        let answer = server.request(method, path).await;
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, HEAD"), "{method} {path}");
    }
    for (body, status) in [
        ("Content-Length: 9000000000\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ] {
        // No `Connection: close` here: the server has to close by itself.
        let answer = server.raw(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{body}")).await;
        assert_eq!(Answer::parse(&answer).status, status, "{body}");
    }
}

#[tokio::test]
async fn fault_099_100_headers_that_do_not_come_end_the_connection() {
    let limits = Limits { header_read: Duration::from_millis(50), ..Limits::default() };
    let server = Server::with(limits, []).await;
    for beginning in ["", "GET / HTTP/1.1\r\nHost: local"] {
        let answer = server.raw(beginning).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn fault_102_headers_without_end_are_refused() {
    let server = Server::start().await;
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(100));
    for request in [long, many] {
        let answer = server.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test]
async fn fault_103_a_reader_that_does_not_read_is_cut() {
    let limits =
        Limits { connection_age: Duration::from_millis(100), drain: Duration::from_millis(100), ..Limits::default() };
    let server = Server::with(limits, []).await;
    // More than the socket buffers of both ends can take.
    let config = "# a line of the configuration in force\n".repeat(1_000_000);
    server.board.update_daemon(|daemon| daemon.config_in_force.clone_from(&config));
    let mut stream = server.connect().await;
    stream.write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // Waits, without reading, until the server has cut the connection: writing to it fails then.
    let cut = async {
        while stream.write_all(b"\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, cut).await.expect("the server cuts the connection");
    assert!(read_to_end(&mut stream).await.len() < config.len());
    assert_eq!(server.get("/-/healthy").await.status, 200);
}

#[tokio::test]
async fn fault_101_connections_over_the_cap_wait_for_their_turn() {
    let server = Server::with(Limits { connections: 2, ..Limits::default() }, []).await;
    let keep_alive = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(keep_alive).await.unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        held.push(stream);
    }
    let mut third = server.connect().await;
    third.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    // A negative cannot be waited for; a cap that fails lets the answer through well within this.
    let early = tokio::time::timeout(Duration::from_millis(200), third.read_u8()).await;
    assert!(early.is_err(), "answered over the cap: {early:?}");
    held.pop();
    assert!(read_to_end(&mut third).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_the_server() {
    let mut server = Server::start().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(idle.read_u8().await.unwrap(), b'H');
    server.stop.cancel();
    tokio::time::timeout(DEADLINE, server.tasks.join_next()).await.expect("it ends").unwrap().unwrap();
    assert!(read_to_end(&mut idle).await.starts_with("TTP/1.1 200 OK"));
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn transitions_are_filtered_and_a_wrong_parameter_is_named() {
    let rows = [
        row("2222222222", None, "SUBMITTED", "2026-03-01T08:00:00.000Z"),
        row("3333333333", None, "FAILED", "2026-03-01T08:01:00.000Z"),
        row("2222222222", Some("SUBMITTED"), "COMPLETED", "2026-03-01T08:02:00.000Z"),
    ];
    let server = Server::with(Limits::default(), rows).await;
    let seen = async |query: &str| -> Vec<String> {
        let json = server.get(&format!("/api/v1/transitions{query}")).await.json();
        let rows = json.as_array().unwrap();
        rows.iter().map(|row| row["to_status"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(seen("").await, ["SUBMITTED", "FAILED", "COMPLETED"]);
    assert_eq!(seen("?reference_store_id=1234567890&import_job_id=2222222222").await, ["SUBMITTED", "COMPLETED"]);
    assert_eq!(seen("?since=2026-03-01T08:01:00Z").await, ["FAILED", "COMPLETED"]);
    assert_eq!(seen("?limit=1").await, ["COMPLETED"]);
    for (query, named) in [
        ("?since=yesterday", "since"),
        ("?limit=0", "limit"),
        ("?limit=10001", "limit"),
        ("?import_job_id=abc", "import_job_id"),
        ("?reference_store_id=", "reference_store_id"),
        ("?limt=3", "limt"),
        ("?since=%FF", "since"),
    ] {
        let answer = server.get(&format!("/api/v1/transitions{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["error"].as_str().unwrap().contains(named), "{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_page_shows_what_the_api_says_and_what_needs_attention_first() {
    let server = Server::start().await;
    server.board.publish(view("2222222222", JobStatus::Completed));
    server.board.publish(view("3333333333", JobStatus::InProgress));
    server.board.publish(view("4444444444", JobStatus::Failed));
    server.board.publish(WatchView { known: None, up: None, ..view("5555555555", JobStatus::Submitted) });
    let page = server.get("/").await.body;
    assert!(
        page.contains("4 jobs: 1 not seen yet, 1 in progress, 2 finished. <strong>1 needs attention</strong>"),
        "{page}"
    );
    let rows: Vec<&str> = page.split("<tr").skip(2).collect();
    assert!(rows[0].contains("4444444444"), "{page}");
    for watch in server.watches().await {
        let name = format!(">{}</a>", watch.watch);
        let row = rows.iter().find(|row| row.contains(&name)).expect("a row for each watch");
        let status = watch.status.as_deref().unwrap_or("not seen yet");
        assert!(row.contains(&format!(">{status}</span>")), "{row}");
        let since = watch.since.map(|since| format!("datetime=\"{since}\"")).unwrap_or_default();
        assert!(row.contains(&since), "{row}");
        let job = server.get(&format!("/watch/{}/{}", watch.reference_store_id, watch.import_job_id)).await.body;
        assert!(job.contains(&format!(">{status}</span>")) && job.contains(&since), "{job}");
    }
    assert!(page.contains("http-equiv=\"refresh\""));
}

#[tokio::test]
async fn the_api_gives_all_that_is_known_of_a_watch() {
    let server = Server::start().await;
    let failure = FailedPoll {
        at: at("2026-03-01T08:06:30Z"),
        reason: FailureReason::Throttled,
        message: "over the quota".to_owned(),
    };
    let mut watch = view("2222222222", JobStatus::CompletedWithFailures);
    watch.recent_failures.push_back(failure);
    server.board.publish(watch);
    let expected = serde_json::json!([{
        "watch": "watch 2222222222", "target": "default", "aws_region": "us-west-2",
        "reference_store_id": "1234567890", "import_job_id": "2222222222",
        "status": "COMPLETED_WITH_FAILURES", "state": "finished", "parked_reason": null, "vanished": false,
        "status_message": "as the service says",
        "created_at": "2026-03-01T08:00:00.000Z", "completed_at": null,
        "since": "2026-03-01T08:05:00.250Z", "last_seen": "2026-03-01T08:06:00.000Z",
        "sources": {
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
    assert_eq!(server.get("/api/v1/watches").await.json(), expected);
    let body = client::get(&server.address.to_string(), "/api/v1/watches").await.unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
    let refused = client::get(&server.address.to_string(), "/none").await;
    assert!(matches!(refused, Err(client::GetError::Status(status)) if status == 404), "{refused:?}");
}

#[tokio::test]
async fn a_job_known_to_several_targets_is_shown_through_each() {
    let server = Server::with(Limits::default(), [row("2222222222", None, "FAILED", "2026-03-01T08:01:00.000Z")]).await;
    server.board.publish(view("2222222222", JobStatus::InProgress));
    let other = WatchId { target: "other".into(), ..watch_id("2222222222") };
    server.board.publish(WatchView { id: other, ..view("2222222222", JobStatus::Failed) });
    let page = server.get("/watch/1234567890/2222222222").await.body;
    for shown in ["Target default", "Target other", ">IN_PROGRESS</span>", "first seen", "2026-03-01 08:01:00 UTC"] {
        assert!(page.contains(shown), "{shown} is missing in {page}");
    }
    assert!(!page.contains("http-equiv=\"refresh\""));
}

#[tokio::test]
async fn fault_113_hostile_text_reaches_no_reader_as_it_is() {
    let mut hostile = row("1111111111", Some(HOSTILE), HOSTILE, "2026-03-01T08:00:00.000Z");
    hostile.1.transition.as_mut().unwrap().status_message = Some(HOSTILE.to_owned());
    let rows = [hostile, row("1111111111", None, "SUBMITTED", "2026-03-01T08:01:00.000Z")];
    let server = Server::with(Limits::default(), rows).await;
    server.board.publish(hostile_view());
    server.board.update_daemon(|daemon| {
        daemon.config_error = Some(HOSTILE.to_owned());
        daemon.record_error = Some(HOSTILE.to_owned());
        daemon.config_in_force = HOSTILE.to_owned();
        daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z"));
    });
    for path in [
        "/",
        "/watch/1234567890/1111111111",
        "/metrics",
        "/api/v1/watches",
        "/api/v1/transitions",
        "/api/v1/transitions?since=%E2%80%AE%1B",
        "/config",
        "/-/ready",
    ] {
        let answer = server.get(path).await;
        let acting = answer.body.chars().find(|c| refwatch::core::text::is_hostile(*c) && *c != '\n');
        assert_eq!(acting, None, "{path}: {}", answer.body);
        if answer.headers["content-type"].starts_with("text/html") {
            assert!(!answer.body.contains("<script") && !answer.body.contains("\"quoted\""), "{path}");
            assert!(answer.body.contains("&lt;script&gt;"), "{path}");
        }
    }
    // To whoever parses the JSON it is the same text still.
    let watch = &server.watches().await[0];
    assert_eq!([&watch.watch, &watch.target, &watch.recent_failures[0].message], [HOSTILE; 3]);
    let metrics = server.get("/metrics").await.body;
    let label = r#"watch="<script>alert(1)</script>\\u000a\"quoted\" & \\u202eturned\\u2028\\u001b[31m\\","#;
    assert!(metrics.contains(label), "{metrics}");
}

/// The families of the contract, and the labels that their series must have.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("refwatch_import_job_info", "gauge", "aws_region,import_job_id,reference_store_id,target,watch"),
    ("refwatch_import_job_status", "gauge", "import_job_id,reference_store_id,status,target,watch"),
    ("refwatch_import_job_sources", "gauge", "import_job_id,reference_store_id,status,target,watch"),
    ("refwatch_import_job_up", "gauge", "import_job_id,reference_store_id,target,watch"),
    ("refwatch_import_job_transitions_total", "counter", "import_job_id,reference_store_id,target,to,watch"),
    ("refwatch_import_job_created_timestamp_seconds", "gauge", "import_job_id,reference_store_id,target,watch"),
    ("refwatch_import_job_completed_timestamp_seconds", "gauge", "import_job_id,reference_store_id,target,watch"),
    ("refwatch_import_job_last_transition_timestamp_seconds", "gauge", "import_job_id,reference_store_id,target,watch"),
    (
        "refwatch_import_job_last_successful_poll_timestamp_seconds",
        "gauge",
        "import_job_id,reference_store_id,target,watch",
    ),
    ("refwatch_import_job_next_poll_timestamp_seconds", "gauge", "import_job_id,reference_store_id,target,watch"),
    ("refwatch_watches", "gauge", "state"),
    ("refwatch_jobs", "gauge", "status"),
    ("refwatch_api_requests_total", "counter", "operation,target"),
    ("refwatch_api_request_failures_total", "counter", "operation,reason,target"),
    ("refwatch_api_request_duration_seconds", "histogram", "operation,target"),
    ("refwatch_quota_allowed_requests_per_second", "gauge", "operation,target"),
    ("refwatch_quota_wait_seconds", "histogram", "operation,target"),
    ("refwatch_detection_delay_seconds", "histogram", ""),
    ("refwatch_record_commits_total", "counter", ""),
    ("refwatch_record_failures_total", "counter", ""),
    ("refwatch_task_restarts_total", "counter", ""),
    ("refwatch_config_last_reload_successful", "gauge", ""),
    ("refwatch_config_last_reload_success_timestamp_seconds", "gauge", ""),
    ("refwatch_build_info", "gauge", "arch,os,version"),
    ("refwatch_log_lines_dropped_total", "counter", ""),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_open_fds", "gauge", ""),
    ("process_max_fds", "gauge", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_virtual_memory_bytes", "gauge", ""),
    ("process_start_time_seconds", "gauge", ""),
    ("process_threads", "gauge", ""),
];

/// The series of a text exposition whose label values hold no comma, brace or quote: name, labels by name, value.
fn series(text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        };
        (name.to_owned(), labels.map(label).collect(), value.parse().unwrap())
    };
    lines.map(parse).collect()
}

#[tokio::test]
async fn the_metrics_are_those_of_the_contract() {
    let server = Server::start().await;
    let mut watch = view("2222222222", JobStatus::Completed);
    watch.known = watch.known.map(|known| Known { completed_at: Some(at("2026-03-01T08:04:00.5Z")), ..known });
    server.board.publish(watch);
    server.board.publish(WatchView {
        known: None,
        up: None,
        last_successful_poll: None,
        next_poll: None,
        ..view("3333333333", JobStatus::Submitted)
    });
    server.board.update_daemon(|daemon| daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z")));
    let text = server.get("/metrics").await.body;
    let series = series(&text);

    let declared: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let contract: Vec<String> = FAMILIES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    assert_eq!(declared, contract.iter().map(String::as_str).collect());
    for (name, kind, labels) in FAMILIES {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        let sample = if *kind == "histogram" { format!("{name}_count") } else { (*name).to_owned() };
        let mut of_family = series.iter().filter(|(name, ..)| *name == sample).peekable();
        assert!(of_family.peek().is_some(), "{name} has no series");
        for (_, found, _) in of_family {
            let found: Vec<&str> = found.keys().map(String::as_str).collect();
            assert_eq!(found.join(","), *labels, "{name}");
        }
    }

    let value = |name: &str, label: &str, of: &str| {
        let found = series
            .iter()
            .find(|(found, labels, _)| found == name && labels.get(label).is_some_and(|value| value == of));
        found.map(|(.., value)| *value)
    };
    let statuses = |job: &str| -> Vec<f64> {
        let of_job = |name: &str, labels: &BTreeMap<String, String>| {
            name == "refwatch_import_job_status" && labels["import_job_id"] == job
        };
        series.iter().filter(|(name, labels, _)| of_job(name, labels)).map(|(.., value)| *value).collect()
    };
    assert_eq!(value("refwatch_import_job_status", "status", "COMPLETED"), Some(1.0));
    assert_eq!(statuses("2222222222"), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(statuses("3333333333"), [0.0; 8]);
    assert_eq!(value("refwatch_import_job_sources", "status", "FAILED"), Some(1.0));
    assert_eq!(value("refwatch_import_job_transitions_total", "to", "SUBMITTED"), Some(1.0));
    let completed = "refwatch_import_job_completed_timestamp_seconds";
    assert_eq!(value(completed, "import_job_id", "2222222222"), Some(1_772_352_240.5));
    assert_eq!(value(completed, "import_job_id", "3333333333"), None);
    assert_eq!(value("refwatch_import_job_up", "import_job_id", "3333333333"), None);
    assert_eq!(value("refwatch_watches", "state", "live"), Some(1.0));
    assert_eq!(value("refwatch_jobs", "status", "COMPLETED"), Some(1.0));
    assert_eq!(value("refwatch_jobs", "status", "FAILED"), Some(0.0));
    assert!(text.contains("\nrefwatch_config_last_reload_successful 1\n"));
    server.board.update_daemon(|daemon| daemon.config_error = Some("line 3".to_owned()));
    let text = server.get("/metrics").await.body;
    assert!(text.contains("\nrefwatch_config_last_reload_successful 0\n"));
}

#[tokio::test]
async fn a_watch_that_leaves_the_board_leaves_the_metrics() {
    let server = Server::start().await;
    server.board.publish(view("2222222222", JobStatus::InProgress));
    assert!(server.get("/metrics").await.body.contains("2222222222"));
    server.board.remove(&watch_id("2222222222"));
    let text = server.get("/metrics").await.body;
    assert!(!text.contains("2222222222") && text.contains("refwatch_watches{state=\"live\"} 0\n"), "{text}");
}
