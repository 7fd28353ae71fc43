//! Sends notifications over HTTP/1.1: one connection for each request, with TLS by the system's certificate authorities, and through
//! the proxy that the environment names.
//!
//! Nothing here logs, and errors name neither the URL's path nor a secret. Redirects are responses like others.

use std::sync::{Arc, OnceLock};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tower_service::Service as _;

use super::secrets::{self, SinkSecrets};
use super::signature::sign;
use super::tls::tls_config;
use super::transport::{Notification, SendFuture, SinkResponse, Transport, TransportFactory};
use crate::clock::Clock;
use crate::config::SinkConfig;
use crate::core::delivery::retry_after;

#[derive(Debug)]
pub struct HttpTransports {
    pub clock: Clock,
}

impl TransportFactory for HttpTransports {
    fn build(&self, config: &SinkConfig) -> Arc<dyn Transport> {
        Arc::new(HttpTransport { clock: self.clock, config: config.clone() })
    }
}

#[derive(Debug)]
struct HttpTransport {
    clock: Clock,
    config: SinkConfig,
}

impl Transport for HttpTransport {
    fn send(&self, notification: Notification) -> SendFuture<'_> {
        Box::pin(async move {
            let config = self.config.clone();
            // The files are read for each request, so that a changed secret is used at once.
            let secrets = spawn_blocking(move || secrets::read(&config)).await.map_err(|error| error.to_string())??;
            let request = self.request(&secrets, notification)?;
            let stream = connect(&secrets.url).await?;
            let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
            let mut response = Box::pin(async move { sender.send_request(request).await });
            // The response arrives only while the connection is polled. Its body is not read. A sink may close the connection right
            // after the response, as HTTP/1.0 does.
            let response = tokio::select! {
                biased;
                response = &mut response => response,
                _ = connection => response.await,
            };
            let response = response.map_err(|error| error.to_string())?;
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.and_then(|value| retry_after_of(value, self.clock));
            Ok(SinkResponse { status: response.status().as_u16(), retry_after })
        })
    }
}

fn retry_after_of(value: &str, clock: Clock) -> Option<std::time::Duration> {
    retry_after(value, clock.now().wall)
}

impl HttpTransport {
    fn request(&self, secrets: &SinkSecrets, notification: Notification) -> Result<Request<Full<Bytes>>, String> {
        let Notification { id, timestamp, content_type, body } = notification;
        let SinkSecrets { url, signing, bearer } = secrets;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.config.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("the header {name} is invalid"))?;
            headers.insert(name, secret_value(value.expose())?);
        }
        if let Some(token) = bearer {
            headers.insert(AUTHORIZATION, secret_value(&format!("Bearer {}", token.expose()))?);
        }
        if !signing.is_empty() {
            let signature = sign(signing, &id, timestamp, &body);
            headers.insert("webhook-signature", secret_value(&signature)?);
        }
        headers.insert("webhook-id", secret_value(&id)?);
        headers.insert("webhook-timestamp", timestamp.into());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("refwatch/", env!("CARGO_PKG_VERSION"))));
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        headers.insert(HOST, secret_value(&authority)?);
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let mut request =
            Request::post(path).body(Full::from(body)).map_err(|_| "the URL has an invalid path".to_owned())?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn secret_value(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "a header has an invalid value".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects to the host of a sink, with TLS for `https`. Also used by `refwatch check --online`.
///
/// # Errors
/// The host cannot be resolved or reached, the proxy refuses, or the TLS handshake fails.
async fn connect(url: &Uri) -> Result<TokioIo<Box<dyn Io>>, String> {
    let stream = connect_tcp(url).await?;
    if url.scheme_str() != Some("https") {
        return Ok(TokioIo::new(Box::new(stream)));
    }
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(tls_config()?);
    let stream = connector.connect(name, stream).await.map_err(|error| format!("the TLS handshake failed: {error}"))?;
    Ok(TokioIo::new(Box::new(stream)))
}

/// Connects directly, or through the proxy of `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. Plain HTTP goes to this machine only, so it
/// uses no proxy.
async fn connect_tcp(url: &Uri) -> Result<TcpStream, String> {
    static PROXIES: OnceLock<Matcher> = OnceLock::new();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let proxies = PROXIES.get_or_init(Matcher::from_env);
    let proxy = proxies.intercept(url).filter(|_| url.scheme_str() == Some("https"));
    let stream = match proxy {
        None => connector.call(url.clone()).await.map_err(|error| with_cause(&error))?,
        Some(proxy) => {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            tunnel.call(url.clone()).await.map_err(|error| format!("the proxy: {}", with_cause(&error)))?
        }
    };
    Ok(stream.into_inner())
}

/// hyper's errors name their cause only as a source.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
