//! The TLS settings of connections to sinks, and the check of a connection, which sends no request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use crate::config::redacted_url;

/// The system's certificate authorities, or those of `$SSL_CERT_FILE` and `$SSL_CERT_DIR`. This reads files for 0.1 s, so async
/// code calls it on a blocking thread. Without any authority, every handshake fails.
#[must_use]
pub fn tls_config() -> ClientConfig {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut config = ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Resolves the host, connects, and does the TLS handshake. If the environment names a proxy for the URL, this only connects to the
/// proxy. The result says what was reached.
///
/// # Errors
/// The step that failed.
pub async fn check(url: &Uri, timeout: Duration) -> Result<String, String> {
    let steps = async {
        match Matcher::from_env().intercept(url) {
            Some(proxy) => {
                // The matcher has removed the user name and password.
                let address = redacted_url(proxy.uri());
                connect(proxy.uri()).await.map_err(|error| format!("the proxy {address}: {error}"))?;
                Ok(format!("the proxy {address} is reachable; the sink itself was not checked"))
            }
            None => check_directly(url).await,
        }
    };
    let result = tokio::time::timeout(timeout, steps).await;
    result.unwrap_or_else(|_| Err(format!("no connection within {} s", timeout.as_secs())))
}

async fn check_directly(url: &Uri) -> Result<String, String> {
    let stream = connect(url).await?;
    if url.scheme_str() == Some("http") {
        return Ok("reachable".to_owned());
    }
    let config = spawn_blocking(tls_config).await.map_err(|error| error.to_string())?;
    let host = host(url).to_owned();
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    handshake
        .map(|_| "reachable, and its certificate is valid".to_owned())
        .map_err(|error| format!("the TLS handshake failed: {error}"))
}

async fn connect(url: &Uri) -> Result<TcpStream, String> {
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    let addresses = tokio::net::lookup_host((host(url), port)).await;
    let addresses: Vec<_> = addresses.map_err(|error| format!("the host cannot be resolved: {error}"))?.collect();
    let stream: io::Result<TcpStream> = TcpStream::connect(&*addresses).await;
    stream.map_err(|error| format!("no connection: {error}"))
}

/// The host, without the brackets of an IPv6 address.
fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}
