//! Connections to sinks: directly or through the proxy of the environment, with TLS by the system's certificate authorities.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tower_service::Service as _;

/// A connection with or without TLS.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Resolves the host, connects, and does the TLS handshake of `https`. Sends no request.
///
/// # Errors
/// The step that failed. It does not contain the path and the query of the URL.
pub(super) async fn connect(url: &Uri) -> Result<Box<dyn Connection>, String> {
    let stream = connect_tcp(url).await?;
    if url.scheme_str() == Some("http") {
        return Ok(Box::new(stream));
    }
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let handshake = TlsConnector::from(tls_config().await?).connect(name, stream).await;
    handshake
        .map(|stream| -> Box<dyn Connection> { Box::new(stream) })
        .map_err(|error| format!("the TLS handshake failed: {error}"))
}

/// Connects and disconnects, for `refwatch check --online`.
///
/// # Errors
/// The step that failed.
pub async fn check(url: &Uri, timeout: Duration) -> Result<&'static str, String> {
    let connected = tokio::time::timeout(timeout, connect(url)).await;
    drop(connected.unwrap_or_else(|_| Err(format!("no connection within {} s", timeout.as_secs())))?);
    Ok(if url.scheme_str() == Some("http") { "reachable" } else { "reachable, and its certificate is valid" })
}

/// Connects through the proxy of `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, if there is one. Plain HTTP goes to this machine only, so
/// it uses no proxy.
async fn connect_tcp(url: &Uri) -> Result<TcpStream, String> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let proxy = Matcher::from_env().intercept(url).filter(|_| url.scheme_str() == Some("https"));
    let stream = match proxy {
        None => connector.call(url.clone()).await.map_err(|error| format!("no connection: {}", with_cause(&error)))?,
        Some(proxy) if proxy.uri().scheme_str() != Some("http") => {
            return Err("the proxy: its URL must begin with http://".to_owned());
        }
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

/// The system's certificate authorities, or those of `$SSL_CERT_FILE` and `$SSL_CERT_DIR`. They are read once, which takes 0.1 s, on a
/// blocking thread.
async fn tls_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();
    let load = || async {
        let certificates = spawn_blocking(|| rustls_native_certs::load_native_certs().certs);
        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(certificates.await.map_err(|error| error.to_string())?);
        if authorities.is_empty() {
            return Err("this machine has no certificate authorities: install ca-certificates".to_owned());
        }
        let mut config = ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    };
    CONFIG.get_or_try_init(load).await.cloned()
}

/// The error and its innermost cause: hyper's errors have the cause only as a source.
pub(super) fn with_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.source().is_none() { error.to_string() } else { format!("{error}: {cause}") }
}
