//! TLS files and password hashes of the listener. A hash is a secret, because passwords can be guessed from it.

use std::path::PathBuf;
use std::str::FromStr;

use bcrypt::HashParts;

use crate::core::secret::Secret;

/// The TLS files of the listener, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The CA certificates for client certificates. `None`: no client certificate is requested.
    pub client_ca: Option<PathBuf>,
}

/// A bcrypt hash of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash(Secret);

/// A login computes 2^cost rounds, which take several seconds at cost 16.
const PASSWORD_COST_MAX: u32 = 16;

const PASSWORD_BYTES_MAX: usize = 72;

impl FromStr for PasswordHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: HashParts =
            text.parse().map_err(|_| "must be a bcrypt hash, as `htpasswd -nBC 10 NAME` prints it after the colon")?;
        if parts.get_cost() > PASSWORD_COST_MAX {
            return Err("must be a bcrypt hash with a cost of at most 16");
        }
        Ok(Self(Secret::new(text)))
    }
}

impl PasswordHash {
    /// Returns whether the password matches. bcrypt ignores all bytes after the 72nd, so a longer password never matches. bcrypt is slow
    /// on purpose, so call this on a blocking thread.
    #[must_use]
    pub fn verify(&self, password: &str) -> bool {
        password.len() <= PASSWORD_BYTES_MAX && bcrypt::verify(password, self.0.expose()).unwrap_or(false)
    }
}
