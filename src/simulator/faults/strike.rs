//! What each fault does to an answer, and to the connection that it would have gone over.

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
use crate::simulator::api::{Answer, ApiError};

/// What happens to a connection that HTTP has no word for: the error that makes the server let go of it.
#[derive(Clone, Debug)]
pub(crate) enum OffScript {
    /// It is reset.
    Reset,
    /// A header every [`HEADER_PAUSE`], for as long as somebody listens.
    EndlessHeaders,
    /// This is sent, and the connection closed.
    Closed(Vec<u8>),
}

/// What the status of [`Fault::UnknownStatus`] is, and the first of [`Fault::DuplicateKeys`].
const UNKNOWN_STATUS: &str = "PAUSED";

/// More than any answer of the service, and more than a careful client reads.
const HUGE: usize = 1 << 20;

/// How deep [`Fault::Deep`] is.
const DEPTH: usize = 1000;

/// What [`Fault::RetryAfterSeconds`] and [`Fault::RetryAfterDate`] ask for.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Between two headers of [`Fault::EndlessHeaders`].
const HEADER_PAUSE: Duration = Duration::from_millis(100);

const AMZ_RETRY_AFTER: HeaderName = HeaderName::from_static("x-amz-retry-after");

impl Fault {
    /// What becomes of the `honest` answer.
    pub(in crate::simulator) async fn strike(self, honest: Answer, clock: Clock) -> Result<Response<Body>, OffScript> {
        let answer = match self {
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
            Self::Empty => return Ok(honest.respond_with(|_| Body::empty())),
            Self::Truncated => return Ok(honest.respond_with(|body| Body::from(first_half(&body)))),
            Self::WrongType => {
                let plain = HeaderValue::from_static("text/plain");
                return Ok(with(honest.respond_with(Body::from), header::CONTENT_TYPE, plain));
            }
            Self::Deep => return Ok(honest.respond_with(|body| before(&deep(), &body))),
            Self::DuplicateKeys => {
                let first = format!("\"status\":\"{UNKNOWN_STATUS}\"");
                return Ok(honest.respond_with(|body| before(first.as_bytes(), &body)));
            }
            Self::InvalidUtf8 => {
                return Ok(honest.respond_with(|body| before(b"\"statusMessage\":\"\xc3\x28\"", &body)));
            }
            Self::GzipBomb => {
                let bomb = honest.respond_with(|_| Body::from(gzip_bomb()));
                return Ok(with(bomb, header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            }
            Self::Hang => future::pending().await,
            Self::EndlessHeaders => return Err(OffScript::EndlessHeaders),
            Self::Reset => return Err(OffScript::Reset),
            Self::Closed => return Err(OffScript::Closed(raw(honest).await)),
            Self::CutOff => return Ok(honest.respond_with(|body| Body::new(Trickle::cut_off(body, clock)))),
            Self::Huge => return Ok(honest.respond_with(|body| Body::from([&*vec![b' '; HUGE], &*body].concat()))),
            Self::Slow => return Ok(honest.respond_with(|body| Body::new(Trickle::slow(body, clock)))),
            Self::WrongJob => honest.with_jobs(|job| job["id"] = json!(another_id(&job["id"]))),
            Self::UnknownStatus => honest.with_jobs(|job| job["status"] = json!(UNKNOWN_STATUS)),
            Self::StatusBack => honest.with_jobs(|job| job["status"] = json!("SUBMITTED")),
        };
        Ok(answer.respond_with(Body::from))
    }
}

impl OffScript {
    /// Does it to a connection that the server has let go of.
    pub(in crate::simulator) async fn play(&self, mut stream: TcpStream, clock: Clock) -> std::io::Result<()> {
        match self {
            // With nothing left to linger for, closing sends RST in place of FIN.
            Self::Reset => stream.set_zero_linger(),
            Self::EndlessHeaders => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(b"x-more: to come\r\n").await?;
                    clock.sleep(HEADER_PAUSE).await;
                }
            }
            Self::Closed(answer) => stream.write_all(answer).await,
        }
    }
}

fn html(status: StatusCode, title: &str) -> Response<Body> {
    let page = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n");
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    with(response, header::CONTENT_TYPE, HeaderValue::from_static("text/html"))
}

fn with(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

fn throttled(name: HeaderName, retry_after: HeaderValue) -> Response<Body> {
    with(Answer::from(ApiError::throttled()).respond_with(Body::from), name, retry_after)
}

fn unavailable_until(clock: Clock) -> Response<Body> {
    let until = clock.now().wall.saturating_add(RETRY_AFTER).unwrap_or(jiff::Timestamp::MAX);
    let date = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let response = html(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable");
    with(response, header::RETRY_AFTER, HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static("")))
}

fn unknown_http() -> StatusCode {
    StatusCode::from_u16(599).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn redirect() -> Response<Body> {
    let elsewhere = HeaderValue::from_static("http://elsewhere.invalid/");
    with(html(StatusCode::TEMPORARY_REDIRECT, "307 Temporary Redirect"), header::LOCATION, elsewhere)
}

fn first_half(body: &Bytes) -> Bytes {
    body.slice(..body.len() / 2)
}

/// The object in `body` with one more member, before all others.
fn before(member: &[u8], body: &Bytes) -> Body {
    Body::from([b"{", member, b",", body.strip_prefix(b"{").unwrap_or(body)].concat())
}

fn deep() -> Vec<u8> {
    [b"\"deep\":".as_slice(), &[b'['; DEPTH], &[b']'; DEPTH]].concat()
}

/// Deflate repeats the last byte 258 times in 13 bits: eight of those are a pattern of whole bytes.
fn gzip_bomb() -> Vec<u8> {
    const HEAD: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x63\x18\x05";
    const REPEATED: &[u8] = b"\xa3\x60\x14\x8c\x82\x51\x30\x0a\x46\xc1\x28\x18\x05";
    const CHECKSUM_AND_SIZE: &[u8] = b"\0\x2a\x5c\x9f\x65\x03\xe3\x75\x02";
    [HEAD, &REPEATED.repeat(20_000), CHECKSUM_AND_SIZE].concat()
}

/// An answer as the bytes that go over the wire, with no word of the connection's end.
async fn raw(answer: Answer) -> Vec<u8> {
    let (head, body) = answer.respond_with(Body::from).into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
    for (name, value) in &head.headers {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    wire.extend([b"\r\n", &*body].concat());
    wire
}

/// An id as long as `id`, and another.
fn another_id(id: &Value) -> String {
    let digits = id.as_str().unwrap_or_default();
    digits.chars().map(|digit| if digit == '9' { '0' } else { '9' }).collect()
}

impl Display for OffScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated service lets go of the connection")
    }
}

impl Error for OffScript {}
