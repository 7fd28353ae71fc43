//! Access to the listener: its TLS files and password hashes.

use std::ops::RangeInclusive;
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
pub struct PasswordHash {
    text: Secret,
    cost: u32,
}

/// A login computes 2^cost rounds: 0.1 s at cost 10, several seconds at cost 16. OWASP's password storage guide recommends at least 10.
const PASSWORD_COSTS: RangeInclusive<u32> = 10..=16;

const PASSWORD_BYTES_MAX: usize = 72;

impl FromStr for PasswordHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: HashParts =
            text.parse().map_err(|_| "must be a bcrypt hash, as `htpasswd -nBC 10 NAME` prints it after the colon")?;
        let cost = parts.get_cost();
        if !PASSWORD_COSTS.contains(&cost) {
            return Err("must be a bcrypt hash with a cost from 10 to 16: run `htpasswd -nBC 10 NAME`");
        }
        Ok(Self { text: Secret::new(text), cost })
    }
}

impl PasswordHash {
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// Returns whether the password matches. bcrypt would ignore the bytes after the 72nd, so a longer password is rejected at once. Any
    /// other wrong password takes as long as at `cost_max`, the highest cost of all users, so the time does not reveal whose hash was
    /// compared. bcrypt is slow on purpose, so call this on a blocking thread.
    #[must_use]
    pub fn verify(&self, password: &str, cost_max: u32) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let is_correct = bcrypt::verify(password, self.text.expose()).unwrap_or(false);
        if !is_correct {
            // Only the time matters. With c = `self.cost`, `bcrypt::verify` took 2^c rounds. The loop takes 2^c + 2^(c+1) + … +
            // 2^(cost_max-1) rounds. Together these are 2^cost_max.
            for cost in self.cost..cost_max {
                drop(bcrypt::hash_with_salt(password, cost, [0; 16]));
            }
        }
        is_correct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_145_only_hashes_that_are_slow_to_guess_are_accepted() {
        let hash = |cost: u32| PasswordHash::from_str(&bcrypt::hash("open sesame", cost).expect("a hash"));
        assert!(hash(4).is_err() && hash(9).is_err());
        let hash = hash(10).expect("a valid hash");
        for cost_max in [10, 12] {
            assert!(hash.verify("open sesame", cost_max) && !hash.verify("open sesam", cost_max));
            assert!(!hash.verify(&"x".repeat(73), cost_max));
        }
    }
}
