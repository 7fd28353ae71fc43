//! The AWS client against single responses, byte for byte, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::config::TargetConfig;
use refwatch::core::failure::{FailureReason, PollResult};
use refwatch::core::job::{JobKey, JobStatus};
use refwatch::core::time::Timestamp;
use refwatch::healthomics::{AwsFactory, Priority, Target};
use refwatch::instruments::Instruments;

pub(crate) const JOB: &str = "1234567890/9876543210";

/// A timeout that no test reaches.
pub(crate) const LONG: Duration = Duration::from_mins(1);

/// Sends `response` on one connection and returns the request.
pub(crate) fn serve(response: impl Into<Vec<u8>>) -> (SocketAddr, mpsc::Receiver<String>) {
    let (listener, response) = (TcpListener::bind("127.0.0.1:0").expect("a port"), response.into());
    let address = listener.local_addr().expect("an address");
    let (sent, request) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
            head.push(byte[0]);
        }
        // The client may have closed the connection; the tests check that.
        drop(stream.write_all(&response));
        drop(sent.send(String::from_utf8_lossy(&head).into_owned()));
    });
    (address, request)
}

pub(crate) async fn target(address: SocketAddr, timeout: Duration) -> Target {
    target_at(&format!("http://{address}"), timeout).await
}

pub(crate) async fn target_at(endpoint_url: &str, timeout: Duration) -> Target {
    let config = TargetConfig {
        region: Some("us-west-2".to_owned()),
        endpoint_url: Some(endpoint_url.to_owned()),
        timeout,
        simulated: true,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let clock = Clock::system();
    Target::new(&config, &AwsFactory::new(clock), clock, &Instruments::new().expect("metrics")).await.expect("a target")
}

/// Polls `JOB` from a service that sends `response`.
pub(crate) async fn poll(response: impl Into<Vec<u8>>) -> PollResult {
    let (address, _request) = serve(response);
    poll_target(&target(address, LONG).await).await
}

/// Polls `JOB` once.
pub(crate) async fn poll_target(target: &Target) -> PollResult {
    let key: JobKey = JOB.parse().expect("a job");
    let permit = target.poll_permit(&key, Priority::Routine).await;
    target.poll(&key, permit).await
}

pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// The example of the API reference with replacements.
pub(crate) fn job_response(changes: &[(&str, &str)]) -> String {
    let body = r#"{"id": "9876543210", "referenceStoreId": "1234567890", "roleArn": "arn:aws:iam::123456789012:role/omics",
        "status": "IN_PROGRESS", "statusMessage": "importing", "creationTime": "2026-01-02T03:04:05.678Z",
        "sources": [{"status": "FINISHED", "name": "a", "sourceFile": "s3://b/a.fa"},
                    {"status": "NEW_STATUS", "name": "a", "sourceFile": "s3://b/a.fa", "statusMessage": "?"}]}"#;
    let body = changes.iter().fold(body.to_owned(), |body, (from, to)| {
        assert!(body.contains(from), "{from}");
        body.replace(from, to)
    });
    response("200 OK", "Content-Type: application/json\r\n", &body)
}

#[tokio::test]
async fn a_response_is_converted_to_a_snapshot() {
    let snapshot = poll(job_response(&[])).await.expect("a snapshot");
    assert_eq!(snapshot.status, JobStatus::InProgress);
    assert_eq!(snapshot.status_message.as_deref(), Some("importing"));
    assert_eq!(snapshot.created_at, "2026-01-02T03:04:05.678Z".parse::<Timestamp>().ok());
    assert_eq!(snapshot.completed_at, None);
    let items: Vec<(u32, &str)> =
        snapshot.items.iter().map(|(key, source)| (key.nth, source.status.as_str())).collect();
    assert_eq!(items, [(0, "FINISHED"), (1, "NEW_STATUS")]);
}

#[tokio::test]
async fn fault_044_a_configured_endpoint_is_used_verbatim_and_the_request_matches_the_api_reference() {
    let (address, request) = serve(job_response(&[]));
    poll_target(&target(address, LONG).await).await.expect("a snapshot");
    let request = request.recv_timeout(LONG).expect("a request").to_lowercase();
    assert!(request.starts_with("get /referencestore/1234567890/importjob/9876543210 http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {address}\r\n")), "{request}");
    assert!(request.contains("/us-west-2/omics/aws4_request"), "{request}");
}

#[tokio::test]
async fn an_invalid_response_is_a_failure_that_quotes_it() {
    let cases = [
        ("another job", job_response(&[("9876543210", "9876543211")]), "the response is about job"),
        ("another store", job_response(&[("\"1234567890\"", "\"1234567899\"")]), "the response is about job"),
        ("no id", job_response(&[("\"id\": \"9876543210\",", "")]), "the response is about job"),
        ("no status", job_response(&[("\"status\": \"IN_PROGRESS\",", "")]), "no status"),
        ("HTML", response("200 OK", "Content-Type: text/html\r\n", "<html>\nhello"), r"<html>\u000ahello"),
        ("nothing", response("200 OK", "", ""), "the response is about job"),
        ("cut JSON", response("200 OK", "", "{\"id\": \"98765"), "HTTP 200 with an unexpected body"),
        ("deep JSON", response("200 OK", "", &"[".repeat(100_000)), "HTTP 200 with an unexpected body"),
        ("a redirect", response("301 Moved", "Location: http://elsewhere/\r\n", ""), "redirects are not followed"),
    ];
    for (name, response, message) in cases {
        let failure = poll(response).await.expect_err(name);
        assert_eq!(failure.reason, FailureReason::Protocol, "{name}: {failure}");
        assert!(failure.message.contains(message), "{name}: {failure}");
    }
}

#[tokio::test]
async fn a_listed_job_needs_its_ids_and_a_status_but_no_creation_time() {
    let list = async |members: &str| {
        let job = format!(r#"{{"id": "9876543210", "roleArn": "arn:aws:iam::123456789012:role/omics", {members}}}"#);
        let (address, _request) = serve(response("200 OK", "", &format!(r#"{{"importJobs": [{job}]}}"#)));
        let key: JobKey = JOB.parse().expect("a job");
        target(address, LONG).await.list(key.kind, &key.store, None, None).await
    };
    let page = list(r#""referenceStoreId": "1234567890", "status": "SUBMITTED""#).await.expect("a page");
    assert_eq!((&page.jobs[0].status, page.jobs[0].created_at), (&JobStatus::Submitted, None));
    for (members, message) in [
        (r#""referenceStoreId": "1234567890""#, "has no status"),
        (r#""referenceStoreId": "1234567899", "status": "SUBMITTED""#, "job \"1234567899\"/\"9876543210\" is not"),
    ] {
        let page = list(members).await.expect("a page");
        assert!(page.jobs.is_empty() && page.skip_reasons[0].contains(message), "{page:?}");
    }
}

#[tokio::test]
async fn each_documented_error_has_its_failure_reason() {
    use FailureReason::{
        AccessDenied, Connect, Credentials, Internal, NotFound, Other, Protocol, Throttled, Timeout, Validation,
    };
    let cases = [
        (403, "AccessDeniedException", AccessDenied),
        (500, "InternalServerException", Internal),
        (408, "RequestTimeoutException", Timeout),
        (404, "ResourceNotFoundException", NotFound),
        (429, "ThrottlingException", Throttled),
        (400, "ValidationException", Validation),
        (400, "ThrottlingException", Throttled),
        (429, "ThrottlingException:http://internal.amazon.com/coral/", Throttled),
        (403, "ExpiredTokenException", Credentials),
        (403, "UnrecognizedClientException", Credentials),
        (403, "InvalidClientTokenId", Credentials),
        (403, "InvalidSignatureException", Credentials),
        (403, "IncompleteSignature", Credentials),
        (403, "MissingAuthenticationToken", Credentials),
        (400, "RequestExpired", Credentials),
        (403, "RequestTimeTooSkewed", Credentials),
        (403, "OptInRequired", AccessDenied),
        (400, "NotAuthorized", AccessDenied),
        (503, "ServiceUnavailable", Internal),
        (500, "InternalFailure", Internal),
        (418, "TeapotException", Other),
        (599, "", Internal),
        (429, "", Throttled),
        (408, "", Timeout),
        (403, "", AccessDenied),
        (404, "", Protocol),
        (407, "", Connect),
    ];
    for (status, code, reason) in cases {
        let (header, body) = if code.is_empty() {
            (String::new(), "<html>proxy</html>")
        } else {
            (format!("x-amzn-errortype: {code}\r\n"), r#"{"message": "the service's words"}"#)
        };
        let failure = poll(response(&format!("{status} Status"), &header, body)).await.expect_err(code);
        assert_eq!(failure.reason, reason, "{status} {code}: {failure}");
        let quoted = if code.is_empty() { "<html>proxy</html>" } else { "the service's words" };
        assert!(failure.message.contains(quoted), "{status} {code}: {failure}");
    }
}

#[tokio::test]
async fn an_access_denied_error_names_the_operation() {
    let key: JobKey = JOB.parse().expect("a job");
    let denied = response("403 Forbidden", "x-amzn-errortype: AccessDeniedException\r\n", "{}");
    let get = poll(denied.clone()).await.expect_err("denied").message;
    let (address, _request) = serve(denied);
    let list = target(address, LONG).await.list(key.kind, &key.store, None, None).await.expect_err("denied").message;
    let advice = |operation: &str| format!("(allow this identity omics:{operation} on the reference store)");
    assert!(get.ends_with(&advice("GetReferenceImportJob")), "{get}");
    assert!(list.ends_with(&advice("ListReferenceImportJobs")), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_012_an_oversized_response_is_not_read_to_its_end() {
    let mut endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"statusMessage\": \"".to_vec();
    endless.resize(64 * 1024 * 1024, b'a');
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let writer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let read = stream.read(&mut [0; 4096]).expect("a request");
        assert!(read > 0);
        stream.write_all(&endless).is_ok()
    });
    let failure = poll_target(&target(address, LONG).await).await.expect_err("too long");
    assert_eq!(
        (failure.reason, failure.message.as_str()),
        (FailureReason::Protocol, "the response is longer than 1048576 bytes")
    );
    let taken_whole = writer.join().expect("the server's thread");
    assert!(!taken_whole, "the whole response was read");
}

#[tokio::test]
async fn a_truncated_or_missing_response_has_its_failure_reason() {
    let cut = poll("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"id\"").await.expect_err("cut");
    assert_eq!(cut.reason, FailureReason::Connect, "{cut}");
    let nothing = poll("").await.expect_err("closed");
    assert_eq!(nothing.reason, FailureReason::Connect, "{nothing}");

    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let late = poll_target(&target(address, Duration::from_millis(300)).await).await.expect_err("silence");
    assert_eq!((late.reason, late.message.as_str()), (FailureReason::Timeout, "no complete response within 300ms"));
    drop(silent);
    let refused = poll_target(&target(address, LONG).await).await.expect_err("no listener");
    assert_eq!(refused.reason, FailureReason::Connect, "{refused}");
    assert!(refused.message.contains("Connection refused"), "{refused}");
}

#[tokio::test]
async fn an_unrepresentable_time_is_ignored() {
    for time in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z"] {
        let snapshot = poll(job_response(&[("2026-01-02T03:04:05.678Z", time)])).await.expect(time);
        assert_eq!(snapshot.status, JobStatus::InProgress, "{time}");
    }
}

#[tokio::test]
async fn fault_112_credentials_quoted_in_errors_are_redacted() {
    let canonical =
        "the request should have been 'GET\\n/x\\nx-amz-date:20260101\\nx-amz-security-token:TOPSECRET==\\n\\nhost' ok";
    let signed = "https://b.s3.amazonaws.com/a?X-Amz-Credential=TOPSECRET%2F1&X-Amz-Signature=TOPSECRET&X-Amz-Date=1";
    let header =
        "Authorization: AWS4-HMAC-SHA256 Credential=TOPSECRET/1/us-west-2, SignedHeaders=host, Signature=TOPSECRET";
    let json = |message: &str| format!("{{\"message\": \"{message}\", \"arn\": \"arn:aws:iam::1:role/r\"}}");
    let error = |code: &str, body: &str| response("403 Forbidden", &format!("x-amzn-errortype: {code}\r\n"), body);
    for (name, response, expected) in [
        (
            "a canonical request",
            error("InvalidSignatureException", &json(canonical)),
            "x-amz-security-token:[redacted]",
        ),
        ("a signed URL", error("AccessDeniedException", &json(signed)), "X-Amz-Signature=[redacted]&X-Amz-Date=1"),
        ("a header", error("IncompleteSignature", &json(header)), "Credential=[redacted], SignedHeaders=host"),
        ("a proxy's page", response("502 Bad Gateway", "", &format!("<p>{header}")), "Signature=[redacted]"),
        (
            "XML",
            response(
                "500 Oh",
                "",
                "<SecretAccessKey>TOPSECRET</SecretAccessKey><SessionToken>TOPSECRET</SessionToken>",
            ),
            "<SessionToken>[redacted]<",
        ),
        (
            "quoted JSON",
            error("AccessDenied", &json(r#"{\"SessionToken\": \"TOPSECRET\"}"#)),
            r#"{"SessionToken": "[redacted]"}"#,
        ),
    ] {
        let failure = poll(response).await.expect_err(name).to_string();
        assert!(!failure.contains("TOPSECRET") && failure.contains(expected), "{name}: {failure}");
    }
}
