//! TLS files and password hashes of the listener, and warnings if every user can read them. A hash is a secret, because passwords
//! can be guessed from it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bcrypt::HashParts;

use super::HttpConfig;
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

/// The permission of users who are neither the owner nor in the group.
const READABLE_BY_OTHERS: u32 = 0o004;

impl HttpConfig {
    /// Returns a warning for each secret in a file that every user can read: the private key, and the password hashes in `main_file`.
    #[must_use]
    pub fn readable_secrets(&self, main_file: &Path) -> Vec<String> {
        let key = self.tls.as_ref().map(|tls| (&*tls.key, "the private key of http.tls"));
        let hashes = (!self.users.is_empty()).then_some((main_file, "the password hashes of http.users"));
        // A file that cannot be read is reported elsewhere.
        let is_readable = |path: &Path| fs::metadata(path).is_ok_and(|file| file.mode() & READABLE_BY_OTHERS != 0);
        let readable = [key, hashes].into_iter().flatten().filter(|(path, _)| is_readable(path));
        let warning = |(path, secret): (&Path, _)| {
            let path = path.display();
            format!(
                "every user can read {path}, which has {secret}: make the daemon's group its group, and run `chmod o-rwx {path}`"
            )
        };
        readable.map(warning).collect()
    }
}

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
