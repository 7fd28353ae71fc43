//! Who may reach the listener: certificates and passwords.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bcrypt::HashParts;

/// The files of a listener's TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of the client certificates that are asked for; `None`: none is.
    pub client_ca: Option<PathBuf>,
}

/// A bcrypt hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// The most that a hash may cost: 2 to that power rounds, some seconds. What costs more is a mistake, and would keep everybody out.
const PASSWORD_COST_MAX: u32 = 16;

impl FromStr for PasswordHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: HashParts =
            text.parse().map_err(|_| "must be a bcrypt hash, as `htpasswd -nBC 10 NAME` prints it after the colon")?;
        if parts.get_cost() > PASSWORD_COST_MAX {
            return Err("must be a bcrypt hash of a cost up to 16");
        }
        Ok(Self(text.to_owned()))
    }
}

impl PasswordHash {
    /// Whether it is the hash of this password. It takes long, by intent.
    #[must_use]
    pub fn verify(&self, password: &str) -> bool {
        bcrypt::verify(password, &self.0).unwrap_or(false)
    }
}

/// Never the hash: it can be guessed against.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}
