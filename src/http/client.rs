//! One GET from the daemon, for the commands that ask it. Plain HTTP/1.1, no TLS, no redirect.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// From the connect to the body's last byte. The daemon answers in milliseconds; ten thousand watches take it a second.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a body: ten thousand watches with a hundred sources each stay below it.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A GET that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
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
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// The body that `authority` (`HOST:PORT`) has at `path`.
///
/// # Errors
/// There is none.
pub async fn get(authority: &str, path: &str) -> Result<Bytes, GetError> {
    let response = tokio::time::timeout(DEADLINE, exchange(authority, path)).await.map_err(|_| GetError::Timeout)??;
    if response.status() != StatusCode::OK {
        return Err(GetError::Status(response.status()));
    }
    Ok(response.into_body())
}

async fn exchange(authority: &str, path: &str) -> Result<Response<Bytes>, GetError> {
    fn http(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> GetError {
        GetError::Http(error.into())
    }
    let stream = TcpStream::connect(authority).await.map_err(GetError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = Request::get(path).header(header::HOST, authority).body(Empty::<Bytes>::new()).map_err(http)?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await.map_err(http)?.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(http)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection moves while the answer is awaited; once that is there, its own end tells nothing more.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
