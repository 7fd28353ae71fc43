//! The content of `/metrics`: families, labels, values, formats and compression.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;

use super::sinks::{publish_daemon, publish_sinks};
use super::*;
use flate2::read::GzDecoder;
use futures_util::future::join_all;
use refwatch::state::ConfigError;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The headers of Prometheus 2.42.
const PROMETHEUS: &str = "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
     text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n";

/// The documented families and the labels of their series.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("refwatch_job_info", "gauge", "aws_region,job_id,kind,store_id,target,watch"),
    ("refwatch_job_labels", "gauge", "job_id,kind,label_project,store_id,target,watch"),
    ("refwatch_job_status", "gauge", "job_id,kind,status,store_id,target,watch"),
    ("refwatch_job_items", "gauge", "job_id,kind,status,store_id,target,watch"),
    ("refwatch_job_up", "gauge", "job_id,kind,store_id,target,watch"),
    ("refwatch_transitions_total", "counter", "kind,target,to"),
    ("refwatch_job_created_timestamp_seconds", "gauge", "job_id,kind,store_id,target,watch"),
    ("refwatch_job_completed_timestamp_seconds", "gauge", "job_id,kind,store_id,target,watch"),
    ("refwatch_job_last_transition_timestamp_seconds", "gauge", "job_id,kind,store_id,target,watch"),
    ("refwatch_job_last_successful_poll_timestamp_seconds", "gauge", "job_id,kind,store_id,target,watch"),
    ("refwatch_job_next_poll_timestamp_seconds", "gauge", "job_id,kind,store_id,target,watch"),
    ("refwatch_watches", "gauge", "state"),
    ("refwatch_jobs", "gauge", "kind,status"),
    ("refwatch_target_up", "gauge", "target"),
    ("refwatch_store_up", "gauge", "kind,store_id,target,watch"),
    ("refwatch_store_last_listed_timestamp_seconds", "gauge", "kind,store_id,target,watch"),
    ("refwatch_api_requests_total", "counter", "operation,target"),
    ("refwatch_api_request_failures_total", "counter", "operation,reason,target"),
    ("refwatch_api_request_duration_seconds", "histogram", "operation,target"),
    ("refwatch_quota_allowed_requests_per_second", "gauge", "operation,target"),
    ("refwatch_quota_configured_requests_per_second", "gauge", "operation,target"),
    ("refwatch_quota_wait_seconds", "histogram", "operation,target"),
    ("refwatch_job_duration_seconds", "histogram", "kind,status"),
    ("refwatch_detection_delay_seconds", "histogram", ""),
    ("refwatch_database_commits_total", "counter", ""),
    ("refwatch_database_failures_total", "counter", ""),
    ("refwatch_database_up", "gauge", ""),
    ("refwatch_database_quarantined_total", "counter", ""),
    ("refwatch_database_size_bytes", "gauge", ""),
    ("refwatch_database_wal_bytes", "gauge", ""),
    ("refwatch_task_restarts_total", "counter", ""),
    ("refwatch_config_last_reload_successful", "gauge", ""),
    ("refwatch_config_last_reload_success_timestamp_seconds", "gauge", ""),
    ("refwatch_tls_certificate_expiry_timestamp_seconds", "gauge", ""),
    ("refwatch_build_info", "gauge", "revision,version"),
    ("refwatch_http_requests_total", "counter", "code"),
    ("refwatch_listed_jobs_skipped_total", "counter", ""),
    ("refwatch_limit_exceeded_total", "counter", "limit"),
    ("refwatch_log_lines_dropped_total", "counter", ""),
    ("refwatch_http_login_failures_total", "counter", ""),
    ("refwatch_sink_up", "gauge", "sink"),
    ("refwatch_sink_disabled", "gauge", "sink"),
    ("refwatch_notify_backlog", "gauge", "sink"),
    ("refwatch_notify_oldest_undelivered_timestamp_seconds", "gauge", "sink"),
    ("refwatch_notify_delivered_total", "counter", "sink"),
    ("refwatch_notify_attempts_total", "counter", "result,sink"),
    ("refwatch_notify_failed_total", "counter", "sink"),
    ("refwatch_notify_delay_seconds", "histogram", "sink"),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_open_fds", "gauge", ""),
    ("process_max_fds", "gauge", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_virtual_memory_bytes", "gauge", ""),
    ("process_start_time_seconds", "gauge", ""),
    ("process_threads", "gauge", ""),
];

/// Parses series without commas, braces or quotes in label values: name, labels, value.
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

#[test]
fn the_guide_of_metrics_lists_every_family() {
    let guide = include_str!("../../../docs/metrics.md");
    let listed: BTreeSet<&str> = guide
        .split('`')
        .filter(|code| code.starts_with("refwatch_") || code.starts_with("process_"))
        .filter_map(|code| code.split('{').next())
        .collect();
    assert_eq!(listed, FAMILIES.iter().map(|(name, ..)| *name).collect());
}

#[tokio::test]
async fn each_sink_has_its_state_its_backlog_and_its_oldest_event() {
    let server = Server::start().await;
    publish_sinks(&server);
    let series = series(&server.get("/metrics").await.body);
    let value = |name: &str, sink: &str| {
        let of_sink =
            series.iter().find(|(other, labels, _)| other == name && labels.get("sink").is_some_and(|of| of == sink));
        of_sink.map(|(.., value)| *value)
    };
    let oldest = "refwatch_notify_oldest_undelivered_timestamp_seconds";
    for (sink, up, disabled, waiting, oldest_at) in [
        ("chat", 1.0, 0.0, 0.0, None),
        ("old", 0.0, 1.0, 1.0, Some(1_772_352_000.0)),
        ("pipeline", 0.0, 0.0, 2.0, Some(1_772_352_300.5)),
    ] {
        assert_eq!(value("refwatch_sink_up", sink), Some(up), "{sink}");
        assert_eq!(value("refwatch_sink_disabled", sink), Some(disabled), "{sink}");
        assert_eq!(value("refwatch_notify_backlog", sink), Some(waiting), "{sink}");
        assert_eq!(value(oldest, sink), oldest_at, "{sink}");
    }
}

#[tokio::test]
async fn the_metrics_are_the_documented_ones() {
    let server = Server::start().await;
    let mut watch = view("2222222222", JobStatus::Completed);
    let known = watch.known.as_deref().cloned();
    let completed_at = Some(at("2026-03-01T08:04:00.5Z"));
    watch.known = known.map(|known| JobState { completed_at, ..known }.into());
    server.shared.publish(watch);
    server.shared.publish(WatchStatus {
        labels: Arc::default(),
        known: None,
        up: None,
        last_successful_poll: None,
        next_poll: None,
        ..view("3333333333", JobStatus::Submitted)
    });
    server.shared.publish_store(store_view("1234567890", None));
    server.shared.publish_store(StoreStatus { listed_at: None, ..store_view("1234567891", Some("denied")) });
    publish_sinks(&server);
    publish_daemon(&server, "2026-03-01T08:00:00Z");
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
        let matches = |labels: &BTreeMap<String, String>| labels.get(label).is_some_and(|value| value == of);
        series.iter().find(|(other, labels, _)| other == name && matches(labels)).map(|(.., value)| *value)
    };
    let statuses = |job: &str| -> Vec<f64> {
        let of_job =
            |name: &str, labels: &BTreeMap<String, String>| name == "refwatch_job_status" && labels["job_id"] == job;
        series.iter().filter(|(name, labels, _)| of_job(name, labels)).map(|(.., value)| *value).collect()
    };
    assert_eq!(value("refwatch_job_status", "status", "COMPLETED"), Some(1.0));
    assert_eq!(statuses("2222222222"), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(statuses("3333333333"), [0.0; 8]);
    assert_eq!(value("refwatch_job_items", "status", "FAILED"), Some(1.0));
    assert_eq!(value("refwatch_transitions_total", "to", "SUBMITTED"), Some(0.0));
    let completed = "refwatch_job_completed_timestamp_seconds";
    assert_eq!(value(completed, "job_id", "2222222222"), Some(1_772_352_240.5));
    assert_eq!(value(completed, "job_id", "3333333333"), None);
    assert_eq!(value("refwatch_job_up", "job_id", "3333333333"), None);
    let last_listed = |store| value("refwatch_store_last_listed_timestamp_seconds", "store_id", store);
    assert_eq!(["1234567890", "1234567891"].map(last_listed), [Some(1_772_352_360.0), None]);
    assert_eq!(value("refwatch_store_up", "store_id", "1234567890"), Some(1.0));
    assert_eq!(value("refwatch_store_up", "store_id", "1234567891"), Some(0.0));
    assert_eq!(value("refwatch_target_up", "target", "default"), Some(1.0));
    assert_eq!(value("refwatch_watches", "state", "live"), Some(1.0));
    assert_eq!(value("refwatch_jobs", "status", "COMPLETED"), Some(1.0));
    assert_eq!(value("refwatch_jobs", "status", "FAILED"), Some(0.0));
    assert!(text.contains("\nrefwatch_config_last_reload_successful 1\n"));
}

#[tokio::test]
async fn errors_of_the_daemon_are_in_the_metrics() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::Completed));
    server.shared.update_daemon(|daemon| {
        daemon.config_error =
            Some(ConfigError { in_use: String::new(), summary: String::new(), details: "line 3".to_owned() });
        daemon.targets_down = [("default".into(), "no".to_owned())].into();
        daemon.database_error = Some("disk full".to_owned());
    });
    let text = server.get("/metrics").await.body;
    assert!(
        text.contains("\nrefwatch_target_up{target=\"default\"} 0\n") && text.contains("\nrefwatch_database_up 0\n")
    );
    assert!(text.contains("\nrefwatch_config_last_reload_successful 0\n"));
}

#[tokio::test]
async fn jobs_are_counted_by_kind_and_only_watched_kinds_have_series() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::Completed));
    let mut export = view("2222222222", JobStatus::Completed);
    let key = JobKey { kind: JobKind::ReadSetExport, ..export.id.key.clone() };
    export.id = TargetJob { key, ..TargetJob::clone(&export.id) }.into();
    server.shared.publish(export);
    let mut store = store_view("1234567891", None);
    store.id.kind = JobKind::ReadSetImport;
    server.shared.publish_store(store);
    let text = server.get("/metrics").await.body;
    let mut counts: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for (_, labels, count) in series(&text).into_iter().filter(|(name, ..)| name == "refwatch_jobs") {
        counts.entry((labels["kind"].clone(), labels["status"] == "COMPLETED")).or_default().push(count);
    }
    let expected = [("read_set_export", 1.0), ("read_set_import", 0.0), ("reference_import", 1.0)]
        .into_iter()
        .flat_map(|(kind, completed)| [((kind.into(), false), vec![0.0; 7]), ((kind.into(), true), vec![completed])]);
    assert_eq!(counts, expected.collect());
}

#[tokio::test]
async fn a_removed_watch_leaves_the_metrics() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    assert!(server.get("/metrics").await.body.contains("2222222222"));
    server.shared.remove(&target_job("2222222222"));
    let text = server.get("/metrics").await.body;
    assert!(!text.contains("2222222222") && text.contains("refwatch_watches{state=\"live\"} 0\n"), "{text}");
}

/// Sends a scrape with these headers.
async fn send_scrape(server: &Server, lines: &str) -> TcpStream {
    let mut stream = server.connect().await;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{lines}\r\n", server.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The headers and the decompressed text of a response.
async fn read_response(mut stream: TcpStream) -> (BTreeMap<String, String>, String) {
    let mut bytes = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete head") + 4;
    let response = Response::parse(str::from_utf8(&bytes[..head]).unwrap());
    assert_eq!((response.status, &*response.headers["content-length"]), (200, &*(bytes.len() - head).to_string()));
    let text = match response.headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => std::io::read_to_string(GzDecoder::new(&bytes[head..])).unwrap(),
        encoding => {
            assert_eq!(encoding, None);
            String::from_utf8(bytes.split_off(head)).unwrap()
        }
    };
    (response.headers, text)
}

async fn scrape(server: &Server, lines: &str) -> (BTreeMap<String, String>, String) {
    read_response(send_scrape(server, lines).await).await
}

#[tokio::test]
async fn a_scrape_gets_the_requested_format_and_encoding() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    for (lines, content_type, gzip) in [
        ("", TEXT, false),
        (PROMETHEUS, OPENMETRICS, true),
        ("Accept: application/openmetrics-text\r\n", OPENMETRICS, false),
        (
            "Accept: text/plain\r\nAccept: application/openmetrics-text;q=0.9\r\nAccept-Encoding: br, gzip\r\n",
            TEXT,
            true,
        ),
        ("Accept: */*\r\nAccept-Encoding: gzip;q=0, *\r\n", TEXT, false),
    ] {
        let (headers, text) = scrape(&server, lines).await;
        assert_eq!(headers["content-type"], content_type, "{lines}");
        assert_eq!(headers.contains_key("content-encoding"), gzip, "{lines}");
        assert_eq!(headers["vary"], "accept, accept-encoding");
        assert!(text.contains("job_id=\"2222222222\""), "{lines}: {text}");
        assert_eq!(text.ends_with("\n# EOF\n"), content_type == OPENMETRICS, "{lines}");
    }
}

#[tokio::test]
async fn openmetrics_has_the_series_of_the_text_format_with_its_own_metadata() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::Completed));
    server.shared.publish(hostile_view());
    server.shared.publish_store(store_view("1234567890", None));
    publish_sinks(&server);
    publish_daemon(&server, "2026-03-01T08:00:00.25Z");
    let (_, text) = scrape(&server, "").await;
    let (_, open) = scrape(&server, PROMETHEUS).await;

    // Process metrics and counted scrapes differ between scrapes. Bucket bounds are floats in OpenMetrics.
    let samples = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| {
            !["#", "process_", "refwatch_http_requests_total"].iter().any(|start| line.starts_with(start))
        });
        let canonical = |line: &str| match line.split_once("le=\"") {
            Some((before, bound)) if bound.split('"').next().unwrap().bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("{before}le=\"{}", bound.replacen('"', ".0\"", 1))
            }
            Some(_) | None => line.to_owned(),
        };
        lines.map(canonical).collect()
    };
    assert_eq!(samples(&text), samples(&open));
    assert!(open.contains("_bucket{operation=\"GetReferenceImportJob\",target=\"default\",le=\"5.0\"} 0\n"), "{open}");

    // Each family is contiguous: type, unit, help, series.
    let mut frame = Vec::new();
    for (name, kind, _) in FAMILIES.iter().filter(|(name, ..)| *name != "refwatch_job_completed_timestamp_seconds") {
        let (family, kind) = match (*kind, name.strip_suffix("_total"), name.strip_suffix("_info")) {
            ("counter", family, _) => (family.expect("counters end in _total"), "counter"),
            (_, _, Some(family)) => (family, "info"),
            (kind, _, None) => (*name, kind),
        };
        let unit = ["seconds", "bytes"].into_iter().find(|unit| family.ends_with(unit));
        let unit = unit.filter(|_| family != "refwatch_quota_allowed_requests_per_second");
        let unit = unit.map(|unit| format!("# UNIT {family} {unit}"));
        frame.extend([format!("# TYPE {family} {kind}")].into_iter().chain(unit));
    }
    let metadata_lines: BTreeSet<&str> =
        open.lines().filter(|line| line.starts_with("# TYPE") || line.starts_with("# UNIT")).collect();
    assert_eq!(metadata_lines, frame.iter().map(String::as_str).collect());
    let (mut family, mut suffixes) = ("", [""; 3]);
    for line in open.strip_suffix("# EOF\n").expect("an end").lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let words: Vec<&str> = metadata.splitn(3, ' ').collect();
            if words[0] == "TYPE" {
                family = words[1];
                suffixes = match words[2] {
                    "counter" => ["_total"; 3],
                    "info" => ["_info"; 3],
                    "histogram" => ["_bucket", "_count", "_sum"],
                    _ => [""; 3],
                };
            }
            assert_eq!(words[1], family, "{line}");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(family)), "{line} in {family}");
        }
    }
}

#[tokio::test]
async fn fault_107_concurrent_scrapes_share_one_rendering() {
    // With this limit no connection gets a shorter deadline.
    let server = Server::with(Limits { connections: 500, ..Limits::default() }, []).await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    // Each rendering contains the current counter value, so equal values mean one rendering. The first rendering waits for the lock.
    let (lock, locked) = mpsc::channel();
    let (unlock, unlocked) = mpsc::channel::<()>();
    let (shared, stop) = (server.shared.clone(), CancellationToken::new());
    let (stopped, started) = (stop.clone(), at("2026-03-01T08:00:00Z"));
    let counting = std::thread::spawn(move || {
        shared.update_daemon(|daemon| {
            daemon.config_loaded_at = Some(started);
            lock.send(()).unwrap();
            unlocked.recv().unwrap();
        });
        for millis in (1..).take_while(|_| !stopped.is_cancelled()) {
            let moment = started.checked_add(Duration::from_millis(millis)).unwrap();
            shared.update_daemon(|daemon| daemon.config_loaded_at = Some(moment));
        }
    });
    locked.recv().unwrap();
    let stop = stop.drop_guard();
    let mut streams = Vec::new();
    for scrape in 0..100 {
        streams.push(send_scrape(&server, if scrape % 2 == 0 { "" } else { PROMETHEUS }).await);
    }
    // The server reads requests in their order. This one needs no lock.
    assert_eq!(server.get("/style.css").await.status, 200);
    unlock.send(()).unwrap();
    let mut moments = BTreeSet::new();
    // Read at the same time: a client that does not read for long is disconnected.
    for (_, text) in join_all(streams.into_iter().map(read_response)).await {
        let line = text.lines().find(|line| line.starts_with("refwatch_config_last_reload_success_timestamp_seconds "));
        moments.insert(line.unwrap().to_owned());
    }
    drop(stop);
    counting.join().unwrap();
    assert!(moments.len() <= 2, "{} renderings for 100 scrapes of two formats", moments.len());
}
