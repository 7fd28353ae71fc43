//! Single responses and connections, byte for byte, and the delay of the next poll.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::core::backoff::BackoffPolicy;
use refwatch::core::failure::{FailureReason, RequestFailure};
use refwatch::core::tracker::{JobTracker, NextAction, PollPolicy, RETRY_AFTER_MAX};
use tokio::net::TcpSocket;

use super::head;
use crate::healthomics::{LONG, job_response, poll, poll_target, response, serve, target, target_at};

/// The longest backoff of [`retry_delay`].
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// The delay after a job's first failed poll; `None` if the job is parked.
fn retry_delay(failure: RequestFailure) -> Option<Duration> {
    let backoff = BackoffPolicy { initial: Duration::from_secs(1), max: BACKOFF_MAX };
    let policy = PollPolicy { interval: Duration::from_secs(5), is_interval_set: false, backoff };
    let now = Clock::system().now();
    let decision = JobTracker::new(policy, None, 1).handle(Err(failure), now);
    assert!(decision.change.is_empty(), "{:?}", decision.change);
    match decision.next {
        NextAction::PollAt(at) => Some(at.since(now.monotonic)),
        NextAction::Parked(_) => None,
        NextAction::Finished(status) => panic!("ended as {status}"),
    }
}

/// Handles each connection with `serve` and counts them.
fn serve_connections(serve: impl Fn(usize, TcpStream) + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, count) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(counted.fetch_add(1, Ordering::SeqCst), stream.expect("a connection"));
        }
    });
    (address, count)
}

/// A valid response on a persistent connection.
fn keep_alive_response() -> String {
    job_response(&[]).replace("Connection: close\r\n", "")
}

#[tokio::test]
async fn fault_003_004_retry_after_is_honoured_up_to_15_minutes_and_ignored_when_invalid() {
    let seconds = Duration::from_secs;
    // The first backoff with jitter.
    let backoff = Duration::from_millis(500)..=seconds(1);
    let exactly = |wait| wait..=wait;
    let http_date = |wait: Duration| {
        let date = (Clock::system().now().wall + wait).strftime("%a, %d %b %Y %H:%M:%S GMT");
        format!("Retry-After: {date}\r\n")
    };
    let cases: [(String, RangeInclusive<Duration>); 13] = [
        ("Retry-After: 7\r\n".to_owned(), exactly(seconds(7))),
        ("x-amz-retry-after: 1500\r\n".to_owned(), exactly(Duration::from_millis(1500))),
        (http_date(Duration::from_mins(5)), seconds(200)..=seconds(300)),
        (http_date(Duration::from_hours(1)), exactly(RETRY_AFTER_MAX)),
        ("Retry-After: 86400\r\n".to_owned(), exactly(RETRY_AFTER_MAX)),
        ("Retry-After: 18446744073709551615\r\n".to_owned(), exactly(RETRY_AFTER_MAX)),
        ("x-amz-retry-after: 18446744073709551615\r\n".to_owned(), exactly(RETRY_AFTER_MAX)),
        ("Retry-After: 0\r\n".to_owned(), backoff.clone()),
        ("Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n".to_owned(), backoff.clone()),
        ("Retry-After: -3\r\n".to_owned(), backoff.clone()),
        ("x-amz-retry-after: soon\r\n".to_owned(), backoff.clone()),
        ("x-amz-retry-after: 99999999999999999999999\r\n".to_owned(), backoff.clone()),
        ("x-amz-retry-after: NaN\r\nRetry-After: 7\r\n".to_owned(), exactly(seconds(7))),
    ];
    for (header, expected) in cases {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let failure = poll(response(status, &header, "<html>")).await.expect_err("a failure");
            let wait = retry_delay(failure).expect("another poll");
            assert!(expected.contains(&wait), "{status} {header:?}: {wait:?}");
        }
    }
}

#[tokio::test]
async fn fault_007_at_most_256_bytes_of_an_error_body_are_quoted_and_escaped() {
    for body in ["\u{1b}[31m\r\n", "𝄞", "x", "\u{202e}ä"].map(|text| text.repeat(5000)) {
        for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
            let failure = poll(response(status, "Content-Type: text/html\r\n", &body)).await.expect_err(status);
            let quoted = failure.message.split_once('"').expect("a quote").1.trim_end_matches('"');
            assert!((200..=256).contains(&quoted.len()) && quoted.ends_with('…'), "{}: {quoted}", quoted.len());
            assert!(!quoted.contains(refwatch::core::sanitize::is_unsafe_to_display), "{quoted}");
            assert_eq!(failure.reason, FailureReason::Internal);
        }
    }
}

#[tokio::test]
async fn fault_013_compression_is_not_offered() {
    let (address, request) = serve(job_response(&[]));
    poll_target(&target(address, LONG).await).await.expect("a snapshot");
    let request = request.recv_timeout(LONG).expect("a request").to_lowercase();
    assert!(request.contains("\r\nauthorization: ") && !request.contains("\r\naccept-encoding: "), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_017_a_half_open_pooled_connection_fails_one_poll() {
    let (address, connections) = serve_connections(|nth, mut stream| {
        std::thread::spawn(move || {
            // The first connection becomes silent after its first response.
            while !head(&mut stream).is_empty() {
                drop(stream.write_all(keep_alive_response().as_bytes()));
                if nth == 0 {
                    std::thread::park();
                }
            }
        });
    });
    let target = target(address, Duration::from_millis(500)).await;
    poll_target(&target).await.expect("a snapshot");
    let late = tokio::time::timeout(LONG / 4, poll_target(&target)).await.expect("an end").expect_err("half open");
    assert_eq!((late.reason, connections.load(Ordering::SeqCst)), (FailureReason::Timeout, 1), "{late}");
    poll_target(&target).await.expect("over another connection");
    poll_target(&target).await.expect("over that again");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_018_an_unanswered_syn_fails_at_the_deadline() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = socket.local_addr().expect("an address");
    let _listener = socket.listen(1).expect("a queue");
    // The kernel drops a SYN without notice if the queue is full.
    let wait = Duration::from_millis(200);
    let queued: Vec<_> = std::iter::from_fn(|| TcpStream::connect_timeout(&address, wait).ok()).take(16).collect();
    assert!(queued.len() < 16, "the queue never fills");
    let failure = poll_target(&target(address, Duration::from_millis(500)).await).await.expect_err("a failure");
    assert_eq!(failure.reason, FailureReason::Timeout, "{failure}");
    assert!(retry_delay(failure.clone()).is_some_and(|wait| wait <= Duration::from_secs(1)), "{failure}");
    // With a long poll timeout, the connect timeout applies.
    let failure = poll_target(&target(address, LONG).await).await.expect_err("a failure");
    assert_eq!(failure.reason, FailureReason::Connect, "{failure}");
    assert!(failure.message.contains("connect"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_020_a_stalled_handshake_fails_at_the_deadline() {
    let (address, connections) = serve_connections(|_, stream| std::mem::forget(stream));
    let target = target_at(&format!("https://{address}"), Duration::from_millis(500)).await;
    let failure = poll_target(&target).await.expect_err("no handshake");
    assert_eq!(failure.reason, FailureReason::Timeout, "{failure}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_023_a_redirect_is_not_followed() {
    let (other, connections) = serve_connections(|_, _| {});
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("Location: http://{other}/referencestore/1234567890/importjob/9876543210\r\n");
        let failure = poll(response(status, &location, "")).await.expect_err(status);
        assert_eq!(failure.reason, FailureReason::Protocol, "{failure}");
        assert!(failure.message.contains("redirects are not followed"), "{failure}");
        assert!(retry_delay(failure).is_some_and(|wait| wait <= Duration::from_secs(1)), "{status}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0, "the redirect was followed");
}

#[tokio::test]
async fn fault_025_an_unknown_http_status_is_retried_with_the_delay_of_its_class() {
    let soon = Duration::from_millis(500)..=Duration::from_secs(1);
    let rarely = BACKOFF_MAX..=BACKOFF_MAX;
    let cases = [
        ("599 Unheard Of", "", FailureReason::Internal, &soon),
        ("520 Unheard Of", "x-amzn-errortype: NewException\r\n", FailureReason::Internal, &soon),
        ("299 Unheard Of", "", FailureReason::Protocol, &soon),
        ("399 Unheard Of", "", FailureReason::Protocol, &soon),
        ("404 Not Found", "", FailureReason::Protocol, &soon),
        ("418 I'm a teapot", "", FailureReason::Other, &rarely),
        ("418 I'm a teapot", "x-amzn-errortype: TeapotException\r\n", FailureReason::Other, &rarely),
        ("400 Bad Request", "x-amzn-errortype: NewException\r\n", FailureReason::Other, &rarely),
        ("499 Unheard Of", "", FailureReason::Other, &rarely),
        ("101 Switching Protocols", "", FailureReason::Protocol, &soon),
    ];
    for (status, header, reason, expected) in cases {
        let failure = poll(response(status, header, "<html>")).await.expect_err(status);
        assert_eq!(failure.reason, reason, "{status}: {failure}");
        let wait = retry_delay(failure).expect("another poll");
        assert!(expected.contains(&wait), "{status}: {wait:?}");
    }
    // An informational response is not the final one.
    let hint = format!("HTTP/1.1 103 Early Hints\r\n\r\n{}", job_response(&[]));
    poll(hint).await.expect("the final response");
}

#[tokio::test]
async fn fault_026_json_nested_too_deep_is_rejected() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with = |member: &str| job_response(&[("{\"id\"", &format!("{{\"deep\": {member}, \"id\""))]);
    poll(with(&nested(100))).await.expect("a snapshot");
    for deep in [nested(1000), nested(100_000), "[".repeat(1000), "{\"a\":".repeat(100_000)] {
        let failure = poll(with(&deep)).await.expect_err("deep");
        assert_eq!(failure.reason, FailureReason::Protocol, "{failure}");
    }
}

#[tokio::test]
async fn fault_028_an_escaped_nul_is_kept_and_raw_nul_and_invalid_utf_8_are_rejected() {
    let snapshot = poll(job_response(&[("importing", r"a\u0000b")])).await.expect("a snapshot");
    assert_eq!(snapshot.status_message.as_deref(), Some("a\0b"));
    for broken in [b"a\0b".as_slice(), b"a\xc3\x28b", b"\xff\xfe", b"\xed\xa0\x80"] {
        let template = job_response(&[("importing", &"#".repeat(broken.len()))]).into_bytes();
        let at = template
            .windows(broken.len())
            .position(|part| part.iter().all(|byte| *byte == b'#'))
            .expect("the placeholder");
        let bytes = [&template[..at], broken, &template[at + broken.len()..]].concat();
        let failure = poll(bytes).await.expect_err("broken text");
        assert_eq!(failure.reason, FailureReason::Protocol, "{broken:?}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_029_a_connection_closed_between_two_requests_fails_at_most_one_poll() {
    let (address, connections) = serve_connections(|nth, mut stream| {
        if !head(&mut stream).is_empty() {
            drop(stream.write_all(keep_alive_response().as_bytes()));
            // The first connection closes while the second request arrives.
            let received = nth == 0 && !head(&mut stream).is_empty();
            assert!(received || nth > 0, "no second request");
        }
    });
    let target = target(address, LONG).await;
    poll_target(&target).await.expect("a snapshot");
    let closed = poll_target(&target).await.expect_err("closed");
    assert_eq!(closed.reason, FailureReason::Connect, "{closed}");
    assert!(retry_delay(closed).is_some_and(|wait| wait <= Duration::from_secs(1)));
    poll_target(&target).await.expect("over another connection");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}
