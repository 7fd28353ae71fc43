//! A request to a running daemon, for the commands that ask it: over its listener, or over its control socket. Plain HTTP/1.1, no
//! TLS, no redirect.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// From the connect to the body's last byte. The daemon answers in milliseconds; ten thousand watches take it a second.
const GET_DEADLINE: Duration = Duration::from_secs(10);

/// The same where the daemon has to do something first: a reload may wait for tasks that have a commit under way.
const POST_DEADLINE: Duration = Duration::from_mins(1);

/// Bytes of a body: ten thousand watches with a hundred sources each stay below it.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A request that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens there.
    #[error("{0}")]
    Connect(std::io::Error),
    /// The answer is none, or ended too early.
    #[error("{0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
    /// The daemon says that it cannot.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// The deadline passed.
    #[error("no answer in time")]
    Timeout,
}

/// Where a daemon is asked.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// At its listener, `HOST:PORT`, in the clear.
    Listener(String),
    /// At its control socket, which asks for neither a certificate nor a password.
    Socket(PathBuf),
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(authority) => f.write_str(authority),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The body that a daemon has at `path`.
///
/// # Errors
/// There is none.
pub async fn get(endpoint: &Endpoint, path: &str) -> Result<Bytes, RequestError> {
    let exchanged = async {
        match endpoint {
            Endpoint::Listener(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(RequestError::Connect)?;
                exchange(stream, Method::GET, authority, path).await
            }
            Endpoint::Socket(socket) => exchange(connect(socket).await?, Method::GET, "localhost", path).await,
        }
    };
    let response = timeout(GET_DEADLINE, exchanged).await.map_err(|_| RequestError::Timeout)??;
    if response.status() != StatusCode::OK {
        return Err(RequestError::Status(response.status()));
    }
    Ok(response.into_body())
}

/// The status and the body with which the control socket answers a POST at `path`.
///
/// # Errors
/// There is no answer.
pub async fn post(socket: &Path, path: &str) -> Result<(StatusCode, Bytes), RequestError> {
    let exchanged = async { exchange(connect(socket).await?, Method::POST, "localhost", path).await };
    let response = timeout(POST_DEADLINE, exchanged).await.map_err(|_| RequestError::Timeout)??;
    Ok((response.status(), response.into_body()))
}

async fn connect(socket: &Path) -> Result<UnixStream, RequestError> {
    UnixStream::connect(socket).await.map_err(RequestError::Connect)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: Method,
    host: &str,
    path: &str,
) -> Result<Response<Bytes>, RequestError> {
    fn http(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RequestError {
        RequestError::Http(error.into())
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let request = request.body(Empty::<Bytes>::new()).map_err(http)?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await.map_err(http)?.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(http)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection moves while the answer is awaited; once that is there, its own end tells nothing more.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
