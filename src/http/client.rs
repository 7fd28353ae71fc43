//! The HTTP client of CLI subcommands. It connects to the listener or to the control socket of the running daemon.
//!
//! It sends one HTTP/1.1 request per connection, without TLS, retries or redirects.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::core::sanitize::excerpt;

/// From the connection attempt to the end of the body. A response with 10,000 watches takes up to 1 s.
const GET_DEADLINE: Duration = Duration::from_secs(10);

/// A reload waits for tasks that are committing to the database. A test event waits for its sink, whose timeout is at most a minute.
const POST_DEADLINE: Duration = Duration::from_secs(90);

/// A response with 10,000 watches of 100 items each is smaller.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Characters shown of the body of an unexpected response.
const REASON_CHARS_MAX: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
    /// `reason` is the start of the body, on one line.
    #[error("unexpected HTTP status {status}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Status { status: StatusCode, reason: String },
    #[error("no response before the deadline")]
    Timeout,
}

#[derive(Clone, Debug)]
pub enum DaemonAddress {
    /// `HOST:PORT`, without TLS.
    Listener(String),
    /// The control socket, which needs neither a certificate nor a password.
    Socket(PathBuf),
}

impl Display for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(authority) => f.write_str(authority),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Returns the body of a response to GET.
///
/// # Errors
/// There is no complete response before the deadline, or its status is not 200.
pub async fn get(address: &DaemonAddress, path: &str) -> Result<Bytes, RequestError> {
    let response = send(address, Method::GET, path).await?;
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => {
            let body = String::from_utf8_lossy(response.body());
            let reason = excerpt(body.lines().next().unwrap_or_default(), REASON_CHARS_MAX);
            Err(RequestError::Status { status, reason })
        }
    }
}

/// Sends a request without a body.
///
/// # Errors
/// There is no complete response before the deadline.
pub async fn send(address: &DaemonAddress, method: Method, path: &str) -> Result<Response<Bytes>, RequestError> {
    let deadline = if method == Method::POST { POST_DEADLINE } else { GET_DEADLINE };
    let response = async {
        match address {
            DaemonAddress::Listener(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(RequestError::Connect)?;
                exchange(stream, method, authority, path).await
            }
            DaemonAddress::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(RequestError::Connect)?;
                exchange(stream, method, "localhost", path).await
            }
        }
    };
    timeout(deadline, response).await.map_err(|_| RequestError::Timeout)?
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: Method,
    host: &str,
    path: &str,
) -> Result<Response<Bytes>, RequestError> {
    fn http_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RequestError {
        RequestError::Http(error.into())
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http_error)?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let request = request.body(Empty::<Bytes>::new()).map_err(http_error)?;
    let response = async move {
        let (head, body) = sender.send_request(request).await.map_err(http_error)?.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(http_error)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // Both must be polled: the connection moves the bytes of the response. It ends when `response` is done and drops `sender`. The error of
    // the connection is ignored, because `response` has it too.
    let (response, _) = tokio::join!(response, connection);
    response
}
