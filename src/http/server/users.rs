//! Authentication of users: HTTP Basic (RFC 7617) against bcrypt hashes.
//!
//! An unknown user takes as long as a wrong password. One password is checked at a time, because bcrypt is slow on purpose and
//! polls need the processor. Few requests may wait for a check; all others get 503, so wrong logins cannot take the
//! connections that scrapes need. Verified passwords are cached as digests, because Prometheus sends its own with every scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tracing::error;

use crate::config::PasswordHash;

/// Digests in the cache. Each user has one.
const VERIFIED_MAX: usize = 100;

/// Requests that wait for a password check, including the one that is being checked.
const CHECKS_MAX: usize = 8;

const CHALLENGE: &str = r#"Basic realm="refwatch", charset="UTF-8""#;

#[derive(Debug)]
pub(super) struct Users {
    hashes: BTreeMap<String, PasswordHash>,
    verified: Mutex<BTreeSet<[u8; 32]>>,
    checks: Arc<Semaphore>,
    checking: Arc<Semaphore>,
}

struct Credentials {
    user: String,
    password: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    Accepted,
    Rejected,
    /// Too many requests wait for a password check.
    Busy,
}

impl Users {
    #[must_use]
    pub(super) fn new(hashes: BTreeMap<String, PasswordHash>) -> Self {
        Self {
            hashes,
            verified: Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            checking: Arc::new(Semaphore::new(1)),
        }
    }

    async fn check(&self, Credentials { user, password }: Credentials) -> Login {
        // An unknown user is checked against another user's hash, so that it takes as long.
        let Some(hash) = self.hashes.get(&user).or_else(|| self.hashes.values().next()).cloned() else {
            return Login::Rejected;
        };
        let digest = digest(&user, &hash, &password);
        let is_known = self.hashes.contains_key(&user);
        if is_known && self.verified().contains(&digest) {
            return Login::Accepted;
        }
        let Ok(waiting) = Arc::clone(&self.checks).try_acquire_owned() else { return Login::Busy };
        let Ok(checking) = Arc::clone(&self.checking).acquire_owned().await else { return Login::Busy };
        // The thread holds both permits: a client that hangs up does not free them while bcrypt still runs.
        let checked = tokio::task::spawn_blocking(move || {
            let verified = hash.verify(&password);
            drop((checking, waiting));
            verified
        });
        let verified = checked.await.unwrap_or_else(|error| {
            error!(%error, "a password check failed");
            false
        });
        if !(verified && is_known) {
            return Login::Rejected;
        }
        let mut cached = self.verified();
        if cached.len() >= VERIFIED_MAX {
            cached.clear();
        }
        cached.insert(digest);
        Login::Accepted
    }

    // A panic while the lock was held leaves a whole set behind.
    fn verified(&self) -> std::sync::MutexGuard<'_, BTreeSet<[u8; 32]>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn authenticate(State(users): State<Arc<Users>>, request: Request, next: Next) -> Response {
    let login = match credentials(request.headers()) {
        _ if users.hashes.is_empty() => Login::Accepted,
        Some(credentials) => users.check(credentials).await,
        None => Login::Rejected,
    };
    let no_store = (header::CACHE_CONTROL, "no-store");
    match login {
        Login::Accepted => next.run(request).await,
        Login::Rejected => {
            let headers = [(header::WWW_AUTHENTICATE, CHALLENGE), no_store];
            (StatusCode::UNAUTHORIZED, headers, "a user and a password are needed: see [http] users\n").into_response()
        }
        Login::Busy => {
            let headers = [(header::RETRY_AFTER, "5"), no_store];
            (StatusCode::SERVICE_UNAVAILABLE, headers, "too many logins at once: try again in 5 s\n").into_response()
        }
    }
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (user, password) =
        String::from_utf8(decoded).ok()?.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned()))?;
    Some(Credentials { user, password })
}

fn digest(user: &str, hash: &PasswordHash, password: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [user, hash.as_str(), password] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
