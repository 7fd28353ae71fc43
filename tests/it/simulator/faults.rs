//! Each fault of the simulator produces the response or connection failure that its name says.

use super::*;
use crate::process::expect_closed;
use refwatch::simulator::{Fault, FaultRate};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

async fn start_with(fault: Fault) -> Simulator {
    start(Options { faults: vec![FaultRate { fault, rate: 1.0 }], ..options() }).await
}

/// The reply to a poll under a fault that sends one.
async fn reply_with(fault: Fault) -> (Simulator, Reply) {
    let simulator = start_with(fault).await;
    let reply = get(&simulator, &path_of_first(&simulator)).await;
    (simulator, reply)
}

#[tokio::test]
async fn faults_cover_every_error_of_the_api() {
    let errors = [
        (Fault::Throttling, (429, "ThrottlingException")),
        (Fault::Internal, (500, "InternalServerException")),
        (Fault::RequestTimeout, (408, "RequestTimeoutException")),
        (Fault::AccessDenied, (403, "AccessDeniedException")),
        (Fault::NotFound, (404, "ResourceNotFoundException")),
        (Fault::Validation, (400, "ValidationException")),
    ];
    for (fault, expected) in errors {
        let (simulator, reply) = reply_with(fault).await;
        assert_eq!(reply.error(), expected);
        assert_eq!(list(&simulator, "", &json!({})).await.error(), expected);
        let calls = get(&simulator, "/-/calls").await.json();
        assert_eq!(
            (&calls["GetReferenceImportJob"]["faulted"], &calls["ListReferenceImportJobs"]["faulted"]),
            (&json!(1), &json!(1))
        );
    }
}

#[tokio::test]
async fn faults_cover_retry_after() {
    let (_, seconds) = reply_with(Fault::RetryAfterSeconds).await;
    assert_eq!(
        (seconds.error(), seconds.headers["retry-after"].as_bytes()),
        ((429, "ThrottlingException"), b"2".as_slice())
    );
    let (_, date) = reply_with(Fault::RetryAfterDate).await;
    let until = jiff::fmt::rfc2822::parse(date.headers["retry-after"].to_str().expect("text")).expect("a date");
    let wait = until.timestamp().duration_since(Clock::system().now().wall);
    assert!(date.status == 503 && wait.as_secs().abs() <= 30, "{wait}");
    let (_, absurd) = reply_with(Fault::RetryAfterAbsurd).await;
    assert_eq!(absurd.error(), (429, "ThrottlingException"));
    assert!(absurd.headers["x-amz-retry-after"].to_str().expect("text").starts_with("-9"));
}

#[tokio::test]
async fn faults_cover_invalid_bodies() {
    let pages = [
        (Fault::ThrottlingHtml, 429),
        (Fault::RequestTimeoutHtml, 408),
        (Fault::BadGatewayHtml, 502),
        (Fault::UnavailableHtml, 503),
        (Fault::GatewayTimeoutHtml, 504),
        (Fault::UnknownHttp, 599),
        (Fault::Redirect, 307),
        (Fault::Html, 200),
    ];
    for (fault, status) in pages {
        let (_, reply) = reply_with(fault).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-type"]),
            (status, &"text/html".parse().expect("a type"))
        );
        assert!(reply.body.starts_with(b"<html>") && !reply.headers.contains_key(ERROR_TYPE));
        assert_eq!(reply.headers.contains_key("location"), fault == Fault::Redirect);
    }
    let (_, empty) = reply_with(Fault::Empty).await;
    assert_eq!((empty.status.as_u16(), empty.body.len()), (200, 0));
    let (_, cut) = reply_with(Fault::Truncated).await;
    let error = serde_json::from_slice::<Value>(&cut.body).expect_err("truncated JSON");
    assert!(cut.status == 200 && error.is_eof(), "{error}");
    let (_, huge) = reply_with(Fault::Huge).await;
    assert!(huge.body.len() > 1 << 20);
    check_members(&huge.json());
    let (_, bomb) = reply_with(Fault::GzipBomb).await;
    assert!(
        bomb.headers["content-encoding"] == "gzip" && bomb.body.starts_with(b"\x1f\x8b") && bomb.body.len() < 1 << 20
    );
}

#[tokio::test]
async fn faults_cover_unusual_but_valid_bodies() {
    let (_, plain) = reply_with(Fault::WrongType).await;
    assert_eq!(plain.headers["content-type"], "text/plain");
    check_members(&serde_json::from_slice(&plain.body).expect("JSON"));
    let (_, twice) = reply_with(Fault::DuplicateKeys).await;
    let text = String::from_utf8_lossy(&twice.body);
    assert!(text.starts_with(r#"{"status":"PAUSED","#) && text.matches("\"status\":\"").count() > 1, "{text}");
    check_members(&twice.json());
    let (_, deep) = reply_with(Fault::Deep).await;
    let text = String::from_utf8_lossy(&deep.body);
    assert!(text.contains(&"[".repeat(1000)) && text.contains(&"]".repeat(1000)), "{text}");
    let (_, broken) = reply_with(Fault::InvalidUtf8).await;
    let error = std::str::from_utf8(&broken.body).expect_err("no UTF-8");
    assert!(error.error_len().is_some() && broken.body.ends_with(b"}"), "{error}");
}

#[tokio::test]
async fn faults_cover_wrong_content() {
    let (simulator, reply) = reply_with(Fault::WrongJob).await;
    let (wrong, job) = (reply.json(), simulator.jobs().next().expect("a job"));
    check_members(&wrong);
    assert!(wrong["id"] != job.id.as_str() && wrong["id"].as_str().is_some_and(|id| id.len() == job.id.len()));
    assert_eq!(wrong["referenceStoreId"], job.store_id.as_str());

    let (_, reply) = reply_with(Fault::StatusBack).await;
    assert_eq!(reply.json()["status"], "SUBMITTED");
    let (simulator, reply) = reply_with(Fault::UnknownStatus).await;
    assert_eq!(reply.json()["status"], "PAUSED");
    let listed = list(&simulator, "", &json!({})).await.json();
    assert!(listed["importJobs"].as_array().is_some_and(|jobs| jobs.iter().all(|job| job["status"] == "PAUSED")));
}

#[tokio::test]
async fn faults_cover_failing_connections() {
    let reset = start_with(Fault::Reset).await;
    let outcome = start_request(reset.address(), signed(Method::GET, &path_of_first(&reset), "")).await;
    let error = outcome.err().expect("a failed request");
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");

    let closed = start_with(Fault::Closed).await;
    let mut stream = TcpStream::connect(closed.address()).await.expect("a listener");
    let head = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nauthorization: any\r\n\r\n", path_of_first(&closed));
    stream.write_all(head.as_bytes()).await.expect("a reader");
    let mut response = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut response)).await.expect("it closes").expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with('}'), "{response}");
    assert!(!response.to_lowercase().contains("connection:"), "{response}");

    let endless = start_with(Fault::EndlessHeaders).await;
    let mut stream = TcpStream::connect(endless.address()).await.expect("a listener");
    stream.write_all(head.as_bytes()).await.expect("a reader");
    let mut lines = tokio::io::BufReader::new(stream).lines();
    for expected in ["HTTP/1.1 200 OK", "x-more: to come", "x-more: to come"] {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("in time").expect("a line");
        assert_eq!(line.as_deref(), Some(expected));
    }

    let cut_off = start_with(Fault::CutOff).await;
    let started =
        start_request(cut_off.address(), signed(Method::GET, &path_of_first(&cut_off), "")).await.expect("a response");
    assert_eq!(started.response.status(), 200);
    let error = started.response.into_body().collect().await.expect_err("the body does not end");
    assert!(error.is_incomplete_message() || format!("{error:?}").contains("UnexpectedEof"), "{error:?}");
}

#[tokio::test]
async fn faults_cover_slow_bodies() {
    let slow = start_with(Fault::Slow).await;
    let mut started =
        start_request(slow.address(), signed(Method::GET, &path_of_first(&slow), "")).await.expect("a response");
    let length: usize = started.response.headers()["content-length"].to_str().expect("text").parse().expect("a number");
    assert!(length > 100);
    for byte in ["{", "\""] {
        let frame = tokio::time::timeout(DEADLINE, started.response.body_mut().frame()).await.expect("in time");
        let data = frame.expect("more").expect("no error").into_data().expect("data");
        assert_eq!(data, byte);
    }
}

#[tokio::test]
async fn a_hanging_request_ends_with_the_simulator_and_frees_the_port() {
    let simulator = start_with(Fault::Hang).await;
    let address = simulator.address();
    let mut hanging = JoinSet::new();
    hanging.spawn(start_request(address, signed(Method::GET, &path_of_first(&simulator), "")));
    let received = async {
        while get(&simulator, "/-/calls").await.json()["GetReferenceImportJob"]["faulted"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, received).await.expect("the request arrives");
    assert!(hanging.try_join_next().is_none(), "the request hangs");
    tokio::time::timeout(DEADLINE, simulator.stop()).await.expect("it stops");
    let outcome = tokio::time::timeout(DEADLINE, hanging.join_next()).await.expect("the request ends");
    assert!(outcome.expect("a request").expect("no panic").is_err(), "no response");
    expect_closed(address);
}
