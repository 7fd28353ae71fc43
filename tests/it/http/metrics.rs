//! What a scrape shows.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use refwatch::board::ConfigError;

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
    ("refwatch_store_last_listed_timestamp_seconds", "gauge", "reference_store_id,target,watch"),
    ("refwatch_api_requests_total", "counter", "operation,target"),
    ("refwatch_api_request_failures_total", "counter", "operation,reason,target"),
    ("refwatch_api_request_duration_seconds", "histogram", "operation,target"),
    ("refwatch_quota_allowed_requests_per_second", "gauge", "operation,target"),
    ("refwatch_quota_configured_requests_per_second", "gauge", "operation,target"),
    ("refwatch_quota_wait_seconds", "histogram", "operation,target"),
    ("refwatch_detection_delay_seconds", "histogram", ""),
    ("refwatch_record_commits_total", "counter", ""),
    ("refwatch_record_failures_total", "counter", ""),
    ("refwatch_record_set_aside_total", "counter", ""),
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
    server.board.publish_store(store_view("1234567890", None));
    server.board.publish_store(StoreView { listed_at: None, ..store_view("1234567891", Some("denied")) });
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
    let last_listed = "refwatch_store_last_listed_timestamp_seconds";
    assert_eq!(value(last_listed, "reference_store_id", "1234567890"), Some(1_772_352_360.0));
    assert_eq!(value(last_listed, "reference_store_id", "1234567891"), None, "it was never listed");
    assert_eq!(value("refwatch_watches", "state", "live"), Some(1.0));
    assert_eq!(value("refwatch_jobs", "status", "COMPLETED"), Some(1.0));
    assert_eq!(value("refwatch_jobs", "status", "FAILED"), Some(0.0));
    assert!(text.contains("\nrefwatch_config_last_reload_successful 1\n"));
    server.board.update_daemon(|daemon| {
        daemon.config_error = Some(ConfigError { in_force: "", summary: String::new(), details: "line 3".to_owned() });
    });
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

#[tokio::test]
async fn fault_107_scrapes_that_come_together_are_served_by_one_rendering() {
    let server = Server::with(Limits { connections: 200, ..Limits::default() }, []).await;
    for job in 0..2_000_u32 {
        server.board.publish(view(&format!("{}", 1_000_000_000 + job), JobStatus::InProgress));
    }
    // A rendering shows the number of the moment at which it was made, so two have the same only by being one.
    let (board, stop) = (server.board.clone(), CancellationToken::new());
    let (stopped, started) = (stop.clone(), at("2026-03-01T08:00:00Z"));
    let counting = std::thread::spawn(move || {
        for millis in (1..).take_while(|_| !stopped.is_cancelled()) {
            let moment = started.checked_add(Duration::from_millis(millis)).unwrap();
            board.update_daemon(|daemon| daemon.config_loaded_at = Some(moment));
        }
    });
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(server.connect().await);
        streams.last_mut().unwrap().write_all(request).await.unwrap();
    }
    let mut moments = BTreeSet::new();
    for stream in &mut streams {
        let answer = Answer::parse(&read_to_end(stream).await);
        assert_eq!(answer.status, 200);
        let line =
            answer.body.lines().find(|line| line.starts_with("refwatch_config_last_reload_success_timestamp_seconds "));
        moments.insert(line.unwrap().to_owned());
    }
    stop.cancel();
    counting.join().unwrap();
    assert!(moments.len() <= 10, "{} renderings for 100 scrapes", moments.len());
}
