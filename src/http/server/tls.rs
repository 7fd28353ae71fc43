//! TLS on the listener: its certificate, whose client certificates it takes, and both anew when their files change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::config::TlsConfig;

/// TLS as the files have it.
#[derive(Debug)]
pub struct Tls {
    files: TlsConfig,
    standing: RwLock<Standing>,
}

#[derive(Debug)]
struct Standing {
    contents: Contents,
    server: Arc<ServerConfig>,
    /// Whether what the files say by now is no use.
    refused: bool,
}

/// What the files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// A file that is no use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum TlsError {
    #[error("http.tls: {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error("http.tls: {0}: this is no PEM file with a {1}: {2}")]
    Pem(PathBuf, &'static str, pem::Error),
    #[error("http.tls: {0}: it holds no certificate")]
    Empty(PathBuf),
    #[error("http.tls: {0}: {1}")]
    Authority(PathBuf, VerifierBuilderError),
    #[error("http.tls: {0}: the certificate or its key cannot be used: {1}")]
    Unusable(PathBuf, rustls::Error),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them is no use.
    pub fn load(files: TlsConfig) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let server = Arc::new(contents.server(&files)?);
        Ok(Self { files, standing: RwLock::new(Standing { contents, server, refused: false }) })
    }

    /// Reads the files anew. Where they are no use, what they were before stays in force, and that is told once.
    pub fn refresh(&self) {
        let read = Contents::read(&self.files);
        let mut standing = self.standing.write().unwrap_or_else(PoisonError::into_inner);
        if read.as_ref().is_ok_and(|contents| *contents == standing.contents) {
            standing.refused = false;
            return;
        }
        let made = read.and_then(|contents| Ok((Arc::new(contents.server(&self.files)?), contents)));
        match made {
            Ok((server, contents)) => {
                *standing = Standing { contents, server, refused: false };
                info!(event = "certificate_reloaded", "new connections get the certificate that the files have now");
            }
            Err(error) if !standing.refused => {
                standing.refused = true;
                warn!(event = "certificate_refused", "the certificate before it stays in force: {error}");
            }
            Err(_) => {}
        }
    }

    /// What a new connection gets.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.standing.read().unwrap_or_else(PoisonError::into_inner).server).into()
    }
}

impl Contents {
    fn read(TlsConfig { cert, key, client_ca }: &TlsConfig) -> Result<Self, TlsError> {
        let read = |path: &Path| fs::read(path).map_err(|error| TlsError::Unreadable(path.to_owned(), error));
        Ok(Self { cert: read(cert)?, key: read(key)?, client_ca: client_ca.as_deref().map(read).transpose()? })
    }

    fn server(&self, files: &TlsConfig) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let key = key.map_err(|error| TlsError::Pem(files.key.clone(), "private key", error))?;
        let builder = ServerConfig::builder();
        let builder = match files.client_ca.as_ref().zip(self.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, client_ca)) => {
                let mut authorities = RootCertStore::empty();
                authorities.add_parsable_certificates(certificates(path, client_ca)?);
                let verifier = WebPkiClientVerifier::builder(authorities.into()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Authority(path.clone(), error))?)
            }
        };
        let made = builder.with_single_cert(chain, key);
        let mut server = made.map_err(|error| TlsError::Unusable(files.cert.clone(), error))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(|error| TlsError::Pem(path.to_owned(), "certificate", error))?;
    if all.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(all) }
}
