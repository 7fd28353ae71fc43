//! Sends notifications over HTTP/1.1, each on a connection of its own.
//!
//! Nothing here logs, and errors name neither the URL's path nor a secret. Redirects are responses like others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::connection::{connect, with_cause};
use super::secrets::{self, SinkSecrets};
use super::signature::sign;
use super::transport::{Notification, SinkResponse, Transport};
use crate::clock::Clock;
use crate::config::SinkConfig;
use crate::core::time::parse_retry_after;

#[derive(Debug)]
pub struct HttpTransport {
    pub clock: Clock,
    /// One permit for each configuration of a sink, by its hash, to read its files. If their file system hangs, only one thread hangs.
    pub file_permits: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

impl Transport for HttpTransport {
    fn send(&self, sink: &SinkConfig, notification: Notification) -> BoxFuture<'static, Result<SinkResponse, String>> {
        let mut permits = self.file_permits.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = permits.entry(sink.hash()).or_insert_with(|| Arc::new(Semaphore::new(1)));
        Box::pin(send(self.clock, sink.clone(), notification, Arc::clone(permits)))
    }
}

async fn send(
    clock: Clock,
    sink: SinkConfig,
    notification: Notification,
    file_permits: Arc<Semaphore>,
) -> Result<SinkResponse, String> {
    let permit = file_permits.acquire_owned().await.map_err(|error| error.to_string())?;
    // The files are read for each request, so that a changed secret is used at once.
    let read = spawn_blocking(move || {
        let _permit = permit;
        (secrets::read(&sink), sink)
    });
    let read = read.await;
    let (secrets, sink) = read.map_err(|error| error.to_string())?;
    let secrets = secrets?;
    let request = request(&sink, &secrets, notification)?;
    let stream = TokioIo::new(connect(&secrets.url).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| with_cause(&error))?;
    let mut response = Box::pin(async move { sender.send_request(request).await });
    // The response arrives only while the connection is polled. Its body is not read. A sink may close the connection right after the
    // response, as HTTP/1.0 does.
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        _ = connection => response.await,
    };
    let response = response.map_err(|error| with_cause(&error))?;
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|value| parse_retry_after(value, clock.now().wall));
    Ok(SinkResponse { status: response.status().as_u16(), retry_after })
}

fn request(
    sink: &SinkConfig,
    SinkSecrets { url, signing, bearer }: &SinkSecrets,
    Notification { id, timestamp, content_type, body }: Notification,
) -> Result<Request<Full<Bytes>>, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &sink.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("the header {name} is invalid"))?;
        headers.insert(name, secret_value(value.expose())?);
    }
    if let Some(token) = bearer {
        headers.insert(AUTHORIZATION, secret_value(&format!("Bearer {}", token.expose()))?);
    }
    if !signing.is_empty() {
        headers.insert("webhook-signature", secret_value(&sign(signing, &id, timestamp, &body))?);
    }
    headers.insert("webhook-id", secret_value(&id)?);
    headers.insert("webhook-timestamp", timestamp.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("refwatch/", env!("CARGO_PKG_VERSION"))));
    headers.insert(HOST, secret_value(url.authority().map_or("", Authority::as_str))?);
    // `to_string` adds the slash that a URL without a path lacks.
    let path = url.path_and_query().map(PathAndQuery::to_string).unwrap_or_default();
    let request = Request::post(path).body(Full::from(body));
    let mut request = request.map_err(|_| "the URL has an invalid path".to_owned())?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn secret_value(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "a header has an invalid value".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
