//! TLS of the listener.
//!
//! [`Tls::refresh`] loads changed files: certificate, key and client authorities. If they are invalid, the previous ones stay in
//! use. Open connections are never affected.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::config::TlsConfig;
use crate::core::time::Timestamp;
use crate::files;

/// A bundle of all public authorities has 0.3 MB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug)]
pub struct Tls {
    files: TlsConfig,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    contents: Contents,
    server_config: Arc<ServerConfig>,
    /// Whether the last refresh failed. Only the first of consecutive failures is logged.
    has_failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// An unusable file and the reason.
#[derive(Debug, thiserror::Error)]
#[error("http.tls: {0}: {1}")]
pub struct TlsError(PathBuf, String);

impl TlsError {
    fn new(path: &Path, error: impl Display) -> Self {
        Self(path.to_owned(), error.to_string())
    }
}

impl Tls {
    /// # Errors
    /// A file cannot be read or used.
    pub fn load(files: TlsConfig) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let server_config = Arc::new(contents.server_config(&files)?);
        Ok(Self { files, current: RwLock::new(Current { contents, server_config, has_failed: false }) })
    }

    /// Reads the files again and uses their contents if they have changed and are valid.
    pub fn refresh(&self) {
        let read = Contents::read(&self.files);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if read.as_ref().is_ok_and(|contents| *contents == current.contents) {
            current.has_failed = false;
            return;
        }
        let loaded = read.and_then(|contents| Ok((Arc::new(contents.server_config(&self.files)?), contents)));
        match loaded {
            Ok((server_config, contents)) => {
                *current = Current { contents, server_config, has_failed: false };
                info!(event = "certificate_reloaded", "certificate reloaded; new connections use it");
            }
            Err(error) => current.record_failure(error),
        }
    }

    /// Logs that a refresh has not ended, because the file system does not respond. Does not block: `refresh` takes the lock only after it
    /// has read the files.
    pub fn report_stuck_refresh(&self) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.record_failure("http.tls: the file system does not respond");
    }

    /// When the certificate in use expires. `None` if the time cannot be read or is out of range.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let certificate = CertificateDer::pem_slice_iter(&current.contents.cert).find_map(Result::ok)?;
        let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).server_config).into()
    }
}

impl Current {
    fn record_failure(&mut self, error: impl Display) {
        if !std::mem::replace(&mut self.has_failed, true) {
            warn!(event = "certificate_rejected", "certificate rejected; the previous one stays in use: {error}");
        }
    }
}

impl Contents {
    fn read(TlsConfig { cert, key, client_ca }: &TlsConfig) -> Result<Self, TlsError> {
        let read = |path: &Path| files::read(path, FILE_BYTES_MAX).map_err(|error| TlsError::new(path, error));
        Ok(Self { cert: read(cert)?, key: read(key)?, client_ca: client_ca.as_deref().map(read).transpose()? })
    }

    fn server_config(&self, files: &TlsConfig) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&files.cert, &self.cert)?;
        let private_key = private_key(&files.key, &self.key)?;
        let builder = ServerConfig::builder();
        let builder = match files.client_ca.as_ref().zip(self.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, client_ca)) => {
                let mut authorities = RootCertStore::empty();
                authorities.add_parsable_certificates(certificates(path, client_ca)?);
                let verifier = WebPkiClientVerifier::builder(authorities.into()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::new(path, error))?)
            }
        };
        let unusable =
            |error| TlsError::new(&files.cert, format_args!("the certificate or its key cannot be used: {error}"));
        let mut server_config = builder.with_single_cert(chain, private_key).map_err(unusable)?;
        server_config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server_config)
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(|error| not_pem(path, "certificate", error))?;
    if !all.is_empty() {
        return Ok(all);
    }
    let is_key = contains(text, "PRIVATE KEY-----");
    let reason = if is_key { "this is a private key, not a certificate" } else { "the file contains no certificate" };
    Err(TlsError::new(path, reason))
}

fn private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        // An encrypted key contains this word in `BEGIN ENCRYPTED PRIVATE KEY` (PKCS #8), or in the header `Proc-Type: 4,ENCRYPTED`.
        if contains(text, "ENCRYPTED") {
            let file = path.display();
            return TlsError::new(
                path,
                format_args!("the private key is encrypted: decrypt it with `openssl pkey -in {file}`"),
            );
        }
        if contains(text, "BEGIN CERTIFICATE-----") {
            return TlsError::new(path, "this is a certificate, not a private key");
        }
        not_pem(path, "private key", error)
    })
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

fn not_pem(path: &Path, expected: &str, error: impl Display) -> TlsError {
    TlsError::new(path, format_args!("not a PEM file with a {expected}: {error}"))
}
