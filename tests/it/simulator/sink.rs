//! The simulated receiver of notifications: signatures, faults, and the line that `refwatch simulate --sink` prints.

use super::*;
use crate::process::{Workspace, eventually};
use axum::http::HeaderValue;
use refwatch::core::time::{Monotonic, Now};
use refwatch::notify::signature::{SigningSecret, sign};
use refwatch::simulator::{
    DOWNTIME, FaultRate, NamedFault as _, Received, SINK_PATH, SignatureCheck, SimulatedSink, SinkFault, SinkOptions,
    SinkReceiver, SinkReply,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const EVENT: &str =
    r#"{"specversion":"1.0","type":"io.refwatch.job.completed.v1","subject":"reference_import/1234567890/9876543210"}"#;

/// Shorter than the DEADLINE of a response: a sink that hangs is not waited for longer.
const HANG: Duration = Duration::from_millis(300);

fn secret() -> SigningSecret {
    SigningSecret::parse(SECRET).expect("a secret")
}

fn always(fault: SinkFault) -> Vec<FaultRate<SinkFault>> {
    vec![FaultRate { fault, rate: 1.0 }]
}

async fn start_sink(options: SinkOptions) -> SinkReceiver {
    SinkReceiver::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options).await.expect("a free port on loopback")
}

/// The headers of an event that was signed at `at`.
fn headers(id: &str, at: Timestamp, body: &str) -> HeaderMap {
    let timestamp = at.as_second().to_string();
    let signature = sign(&[secret()], id, at.as_second(), body.as_bytes());
    let mut headers = HeaderMap::new();
    for (name, value) in [("webhook-id", id), ("webhook-timestamp", &*timestamp), ("webhook-signature", &*signature)] {
        headers.insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn post(path: &str, headers: HeaderMap) -> Request<Body> {
    let mut request = Request::post(path).header("host", "localhost").body(Body::from(EVENT)).expect("a request");
    request.headers_mut().extend(headers);
    request
}

/// Sends an event that is signed now.
async fn notify(address: SocketAddr, id: &str) -> Result<StartedResponse, hyper::Error> {
    start_request(address, post(SINK_PATH, headers(id, Clock::system().now().wall, EVENT))).await
}

#[tokio::test]
async fn a_signed_event_is_verified_and_kept_with_its_attempt() {
    let sink = start_sink(SinkOptions { secrets: vec![secret()], ..SinkOptions::default() }).await;
    for id in ["evt_1", "evt_2", "evt_1"] {
        assert_eq!(notify(sink.address(), id).await.expect("a response").response.status(), 204);
    }
    let received = sink.received();
    let seen: Vec<(&str, u32)> = received.iter().map(|event| (&*event.id, event.attempt)).collect();
    assert_eq!(seen, [("evt_1", 1), ("evt_2", 1), ("evt_1", 2)]);
    for event in &received {
        assert_eq!((event.signature, event.reply), (SignatureCheck::Verified, SinkReply::Accepted));
        assert_eq!(event.body, EVENT);
        assert_eq!(event.headers["webhook-id"], event.id);
        assert_eq!(event.attribute("subject").as_deref(), Some("reference_import/1234567890/9876543210"));
    }
    assert_eq!(sink.take_received().await.len(), 3);
    assert!(sink.received().is_empty(), "taken requests are removed");
    sink.stop().await;
}

#[tokio::test]
async fn an_event_that_is_not_signed_with_the_secret_is_rejected() {
    let sink = start_sink(SinkOptions { secrets: vec![secret()], ..SinkOptions::default() }).await;
    let now = Clock::system().now().wall;
    let without = |name: &str| {
        let mut headers = headers("evt_1", now, EVENT);
        headers.remove(name);
        headers
    };
    let with = |name: &'static str, value: &'static str| {
        let mut headers = without(name);
        headers.insert(name, HeaderValue::from_static(value));
        headers
    };
    let old = headers("evt_1", now - Duration::from_mins(6), EVENT);
    for (headers, reason) in [
        (without("webhook-id"), "a header is missing"),
        (without("webhook-timestamp"), "a header is missing"),
        (without("webhook-signature"), "a header is missing"),
        (with("webhook-timestamp", "today"), "the time stamp is not a number of seconds"),
        (with("webhook-id", "evt_2"), "the signature is wrong"),
        (headers("evt_1", now, "another body"), "the signature is wrong"),
        (old, "the time stamp differs by more than 5 minutes"),
    ] {
        let reply = start_request(sink.address(), post(SINK_PATH, headers)).await.expect("a response");
        let event = sink.take_received().await.remove(0);
        assert_eq!(event.signature, SignatureCheck::Rejected(reason));
        assert_eq!((reply.response.status(), event.reply), (StatusCode::UNAUTHORIZED, SinkReply::Unauthorized));
    }
    for (request, status) in [(post("/", HeaderMap::new()), 404), (signed(Method::GET, SINK_PATH, ""), 405)] {
        assert_eq!(start_request(sink.address(), request).await.expect("a response").response.status(), status);
    }
    assert!(sink.received().is_empty(), "other requests are not events");
}

#[tokio::test]
async fn each_fault_of_the_sink_is_the_failure_that_its_name_says() {
    let sink = start_sink(SinkOptions::default()).await;
    let address = sink.address();
    let reply_to = async |fault: SinkFault| {
        sink.set_faults(always(fault));
        notify(address, fault.name()).await
    };
    for (fault, status, header) in [
        (SinkFault::Internal, 500, None),
        (SinkFault::Throttling, 429, Some(("retry-after", "2"))),
        (SinkFault::Gone, 410, None),
        (SinkFault::Redirect, 307, Some(("location", "http://elsewhere.invalid/"))),
    ] {
        let reply = reply_to(fault).await.expect("a response").response;
        assert_eq!(reply.status(), status);
        if let Some((name, value)) = header {
            assert_eq!(reply.headers()[name], value);
        }
    }
    let reset = reply_to(SinkFault::Reset).await.err().expect("a reset");
    assert!(format!("{reset:?}").contains("ConnectionReset"), "{reset:?}");
    let hang = tokio::time::timeout(HANG, reply_to(SinkFault::Hang)).await;
    assert!(hang.is_err(), "a sink that hangs does not respond");
    // The rest of `started` keeps the connection open.
    let started = reply_to(SinkFault::Slow).await.expect("a response");
    let slow = started.response;
    assert_eq!(slow.status(), 200);
    let body = tokio::time::timeout(HANG, slow.into_body().collect()).await;
    assert!(body.is_err(), "the body is not complete yet");
    let received: Vec<String> = sink.received().into_iter().map(|event| event.id).collect();
    assert_eq!(received, ["internal", "throttling", "gone", "redirect", "reset", "hang", "slow"]);

    assert!(reply_to(SinkFault::Down).await.is_err(), "a sink that is down resets connections");
    assert!(notify(address, "still down").await.is_err());
    assert_eq!(sink.received().len(), received.len(), "a sink that is down receives nothing");
    sink.set_faults(Vec::new());
    assert_eq!(notify(address, "up").await.expect("a response").response.status(), 204);
    assert_eq!(sink.received().pop().map(|event| event.signature), Some(SignatureCheck::Unchecked));
}

fn at(elapsed: Duration) -> Now {
    Now { monotonic: Monotonic::at(elapsed), wall: Timestamp::UNIX_EPOCH + elapsed }
}

fn receive(sink: &mut SimulatedSink, now: Now) -> SinkReply {
    sink.receive(headers("evt_1", now.wall, EVENT), Bytes::from(EVENT), now)
}

#[test]
fn a_downtime_lasts_a_minute() {
    let faults = always(SinkFault::Down);
    let mut sink = SimulatedSink::new(SinkOptions { secrets: vec![secret()], faults, ..SinkOptions::default() });
    let down = SinkReply::Fault(SinkFault::Down);
    assert_eq!(receive(&mut sink, at(Duration::ZERO)), down);
    // A downtime that has begun does not depend on the rate.
    for (after, expected) in [(DOWNTIME / 2, down), (DOWNTIME, down)] {
        assert_eq!(receive(&mut sink, at(after)), expected, "{after:?}");
    }
    assert_eq!(sink.received().count(), 0);
    sink.set_faults(Vec::new());
    assert_eq!(receive(&mut sink, at(DOWNTIME)), SinkReply::Accepted);

    // With a low rate a downtime begins now and then, and lasts its minute.
    let faults = vec![FaultRate { fault: SinkFault::Down, rate: 0.01 }];
    let mut sink = SimulatedSink::new(SinkOptions { faults, ..SinkOptions::default() });
    let replies: Vec<SinkReply> =
        (0..10_000).map(|second| receive(&mut sink, at(Duration::from_secs(second)))).collect();
    let downtimes: Vec<usize> =
        replies.split(|reply| *reply != down).map(<[_]>::len).filter(|length| *length > 0).collect();
    assert!(
        downtimes.len() > 5 && downtimes[..downtimes.len() - 1].iter().all(|length| length % 60 == 0),
        "{downtimes:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_faults_of_the_sink() {
    let replies = |seed| -> Vec<SinkReply> {
        let faults =
            [SinkFault::Hang, SinkFault::Internal, SinkFault::Gone].map(|fault| FaultRate { fault, rate: 0.2 });
        let mut sink = SimulatedSink::new(SinkOptions { faults: faults.to_vec(), seed, ..SinkOptions::default() });
        let replies = (0..200).map(|second| receive(&mut sink, at(Duration::from_secs(second)))).collect();
        assert_eq!(sink.received().map(|event: &Received| event.reply).collect::<Vec<_>>(), replies);
        replies
    };
    assert_eq!(replies(1), replies(1));
    assert_ne!(replies(1), replies(2));
    let accepted = replies(1).iter().filter(|reply| **reply == SinkReply::Accepted).count();
    assert!((60..=140).contains(&accepted), "0.8³ of 200 are accepted, not {accepted}");
}

#[tokio::test]
async fn simulate_prints_each_received_event_and_configures_the_daemon_to_send_them() {
    let workspace = Workspace::new();
    let file = workspace.write("secrets", &format!("{SECRET}\n"));
    let file = file.to_str().expect("text");
    let (simulator, _, config) = workspace.simulate(&["--sink=127.0.0.1:0", "--sink-secret-file", file]);
    let config: toml::Table = config.parse().expect("TOML");
    let entry = &config["notify"].as_array().expect("entries")[0];
    assert_eq!((entry["name"].as_str(), entry["secret_file"].as_str()), (Some("simulator"), Some(file)));
    let url = entry["url"].as_str().expect("a URL").to_owned();
    let printed = eventually("the line with the URL", || Some(simulator.line()).filter(|line| line.contains("/sink")));
    assert_eq!(printed, format!("Receives notifications at {url}"));
    assert!(simulator.line().starts_with("To watch them: "));

    let address = url.trim_start_matches("http://").trim_end_matches(SINK_PATH).parse().expect("an address");
    assert_eq!(notify(address, "evt_1").await.expect("a response").response.status(), 204);
    let mut unsigned = headers("another id", Clock::system().now().wall, "another body");
    unsigned.insert("webhook-id", HeaderValue::from_static("evt_2"));
    assert_eq!(start_request(address, post(SINK_PATH, unsigned)).await.expect("a response").response.status(), 401);
    let event = "io.refwatch.job.completed.v1  reference_import/1234567890/9876543210";
    let (first, second) = (simulator.line(), simulator.line());
    assert!(first.ends_with(&format!("  {event}  id evt_1  attempt 1  verified  → 204")), "{first}");
    let expected = format!("  {event}  id evt_2  attempt 1  not verified: the signature is wrong  → 401");
    assert!(second.ends_with(&expected), "{second}");
}

#[test]
fn wrong_options_of_the_sink_are_reported() {
    let workspace = Workspace::new();
    let empty = workspace.write("empty", "\n");
    let short = workspace.write("short", "whsec_c2hvcnQ=\n");
    let run = |arguments: &[&str]| {
        let (status, _, error) = workspace.run(&[&["simulate", "--listen", "127.0.0.1:0"], arguments].concat());
        (status, error)
    };
    let (status, error) = run(&["--sink-fault", "gone=1"]);
    assert!(status == 64 && error.contains("--sink"), "{error}");
    let (status, error) = run(&["--sink=127.0.0.1:0", "--sink-fault", "gnoe=1"]);
    assert!(status == 64 && error.contains("unknown fault; use one of: hang, internal"), "{error}");
    for (file, expected) in [
        (empty.as_path(), "is empty"),
        (short.as_path(), "a secret must have 24 to 64 bytes before base64, this one has 5"),
        (std::path::Path::new("/missing"), "No such file or directory (os error 2)"),
    ] {
        let file = file.to_str().expect("text");
        let (status, error) = run(&["--sink=127.0.0.1:0", "--sink-secret-file", file]);
        assert!(error.starts_with(&format!("error: the file of --sink-secret-file, {file}, ")), "{error}");
        assert!(status == 1 && error.contains(expected), "{error}");
    }
}
