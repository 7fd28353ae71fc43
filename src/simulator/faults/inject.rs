//! Injects faults into responses and connections.

use std::error::Error;
use std::fmt::{self, Display};
use std::future;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Fault;
use super::trickle::Trickle;
use crate::clock::Clock;
use crate::simulator::api::{ApiError, ApiResponse};

/// A fault that is not an HTTP response. Returned as an error, it makes hyper release the connection. [`Self::inject`] then writes to it.
#[derive(Clone, Debug)]
pub(crate) enum ConnectionFault {
    Reset,
    /// Sends a header every [`HEADER_PAUSE`] until the client disconnects.
    EndlessHeaders,
    /// Sends these bytes and closes the connection.
    Closed(Vec<u8>),
}

/// The status in [`Fault::UnknownStatus`], and the first status in [`Fault::DuplicateKeys`].
const UNKNOWN_STATUS: &str = "PAUSED";

/// In bytes. Longer than any response of the service.
const HUGE: usize = 1 << 20;

const DEPTH: usize = 1000;

/// In the header of [`Fault::RetryAfterSeconds`] and [`Fault::RetryAfterDate`].
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Between two headers of [`Fault::EndlessHeaders`].
const HEADER_PAUSE: Duration = Duration::from_millis(100);

const AMZ_RETRY_AFTER: HeaderName = HeaderName::from_static("x-amz-retry-after");

impl Fault {
    /// Turns the `correct` response into the faulty response.
    pub(in crate::simulator) async fn inject(
        self,
        correct: ApiResponse,
        clock: Clock,
    ) -> Result<Response<Body>, ConnectionFault> {
        let response = match self {
            Self::Throttling => ApiError::throttled().into(),
            Self::ThrottlingHtml => return Ok(html(StatusCode::TOO_MANY_REQUESTS, "429 Too Many Requests")),
            Self::RetryAfterSeconds => return Ok(throttled(header::RETRY_AFTER, RETRY_AFTER.as_secs().into())),
            Self::RetryAfterDate => return Ok(unavailable_until(clock)),
            Self::RetryAfterAbsurd => {
                return Ok(throttled(AMZ_RETRY_AFTER, HeaderValue::from_static("-99999999999999999999")));
            }
            Self::Internal => ApiError::InternalServer("An unexpected error occurred. Try the request again.").into(),
            Self::RequestTimeout => ApiError::RequestTimeout("The request timed out.").into(),
            Self::RequestTimeoutHtml => return Ok(html(StatusCode::REQUEST_TIMEOUT, "408 Request Timeout")),
            Self::AccessDenied | Self::ListDenied => {
                ApiError::AccessDenied("You do not have sufficient access to perform this action.").into()
            }
            Self::NotFound => ApiError::ResourceNotFound("The target resource was not found.".to_owned()).into(),
            Self::Validation => {
                ApiError::Validation("The input fails to satisfy the constraints of the service.".to_owned()).into()
            }
            Self::BadGatewayHtml => return Ok(html(StatusCode::BAD_GATEWAY, "502 Bad Gateway")),
            Self::UnavailableHtml => return Ok(html(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable")),
            Self::GatewayTimeoutHtml => return Ok(html(StatusCode::GATEWAY_TIMEOUT, "504 Gateway Timeout")),
            Self::UnknownHttp => return Ok(html(unknown_http(), "599 Network Connect Timeout")),
            Self::Redirect => return Ok(redirect()),
            Self::Html => return Ok(html(StatusCode::OK, "Welcome to the guest network")),
            Self::Empty => return Ok(correct.respond_with(|_| Body::empty())),
            Self::Truncated => return Ok(correct.respond_with(|body| Body::from(first_half(&body)))),
            Self::WrongType => {
                let plain = HeaderValue::from_static("text/plain");
                return Ok(with_header(correct.respond_with(Body::from), header::CONTENT_TYPE, plain));
            }
            Self::Deep => return Ok(correct.respond_with(|body| with_first_member(&deep(), &body))),
            Self::DuplicateKeys => {
                let member = format!("\"status\":\"{UNKNOWN_STATUS}\"");
                return Ok(correct.respond_with(|body| with_first_member(member.as_bytes(), &body)));
            }
            Self::InvalidUtf8 => {
                return Ok(correct.respond_with(|body| with_first_member(b"\"statusMessage\":\"\xc3\x28\"", &body)));
            }
            Self::GzipBomb => {
                let bomb = correct.respond_with(|_| Body::from(gzip_bomb()));
                return Ok(with_header(bomb, header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            }
            Self::Hang => future::pending().await,
            Self::EndlessHeaders => return Err(ConnectionFault::EndlessHeaders),
            Self::Reset => return Err(ConnectionFault::Reset),
            Self::Closed => return Err(ConnectionFault::Closed(wire_format(correct).await)),
            Self::CutOff => return Ok(correct.respond_with(|body| Body::new(Trickle::cut_off(body, clock)))),
            Self::Huge => {
                return Ok(correct.respond_with(|body| Body::from([&*vec![b' '; HUGE], &*body].concat())));
            }
            Self::Slow => return Ok(correct.respond_with(|body| Body::new(Trickle::slow(body, clock)))),
            Self::WrongJob => correct.with_jobs(|job| job["id"] = json!(different_id(&job["id"]))),
            Self::UnknownStatus => correct.with_jobs(|job| job["status"] = json!(UNKNOWN_STATUS)),
            Self::StatusBack => correct.with_jobs(|job| job["status"] = json!("SUBMITTED")),
        };
        Ok(response.respond_with(Body::from))
    }
}

impl ConnectionFault {
    /// Injects the fault into a connection that hyper has given up.
    pub(in crate::simulator) async fn inject(&self, mut stream: TcpStream, clock: Clock) -> std::io::Result<()> {
        match self {
            // With zero linger, closing the socket sends RST instead of FIN.
            Self::Reset => stream.set_zero_linger(),
            Self::EndlessHeaders => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(b"x-more: to come\r\n").await?;
                    clock.sleep(HEADER_PAUSE).await;
                }
            }
            Self::Closed(bytes) => stream.write_all(bytes).await,
        }
    }
}

fn html(status: StatusCode, title: &str) -> Response<Body> {
    let page = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n");
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    with_header(response, header::CONTENT_TYPE, HeaderValue::from_static("text/html"))
}

fn with_header(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

fn throttled(name: HeaderName, retry_after: HeaderValue) -> Response<Body> {
    with_header(ApiResponse::from(ApiError::throttled()).respond_with(Body::from), name, retry_after)
}

fn unavailable_until(clock: Clock) -> Response<Body> {
    let until = clock.now().wall.saturating_add(RETRY_AFTER).unwrap_or(jiff::Timestamp::MAX);
    let date = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let response = html(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable");
    with_header(response, header::RETRY_AFTER, HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static("")))
}

fn unknown_http() -> StatusCode {
    StatusCode::from_u16(599).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn redirect() -> Response<Body> {
    let elsewhere = HeaderValue::from_static("http://elsewhere.invalid/");
    with_header(html(StatusCode::TEMPORARY_REDIRECT, "307 Temporary Redirect"), header::LOCATION, elsewhere)
}

fn first_half(body: &Bytes) -> Bytes {
    body.slice(..body.len() / 2)
}

/// Inserts a member at the start of the object in `body`.
fn with_first_member(member: &[u8], body: &Bytes) -> Body {
    Body::from([b"{", member, b",", body.strip_prefix(b"{").unwrap_or(body)].concat())
}

fn deep() -> Vec<u8> {
    [b"\"deep\":".as_slice(), &[b'['; DEPTH], &[b']'; DEPTH]].concat()
}

/// Deflate encodes 258 repetitions of a byte in 13 bits. Eight of these codes are 13 whole bytes.
fn gzip_bomb() -> Vec<u8> {
    const HEAD: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x63\x18\x05";
    const REPEATED: &[u8] = b"\xa3\x60\x14\x8c\x82\x51\x30\x0a\x46\xc1\x28\x18\x05";
    const CHECKSUM_AND_SIZE: &[u8] = b"\0\x2a\x5c\x9f\x65\x03\xe3\x75\x02";
    [HEAD, &REPEATED.repeat(20_000), CHECKSUM_AND_SIZE].concat()
}

/// The response in the format of HTTP/1.1, without `Connection: close`.
async fn wire_format(response: ApiResponse) -> Vec<u8> {
    let (head, body) = response.respond_with(Body::from).into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
    for (name, value) in &head.headers {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    wire.extend([b"\r\n", &*body].concat());
    wire
}

/// A different id of the same length.
fn different_id(id: &Value) -> String {
    let digits = id.as_str().unwrap_or_default();
    digits.chars().map(|digit| if digit == '9' { '0' } else { '9' }).collect()
}

impl Display for ConnectionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulator injects a fault into the connection")
    }
}

impl Error for ConnectionFault {}
