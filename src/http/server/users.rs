//! Who may ask: users with a password, by HTTP's basic authentication (RFC 7617), known by bcrypt hashes alone.
//!
//! A name that nobody has costs as much time as a wrong password. One password is verified at a time, since bcrypt is slow on purpose:
//! guessing takes no core from the polls. What was verified is remembered, as a digest, because Prometheus asks again and again.

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

use crate::config::PasswordHash;

/// Passwords that are remembered. A user has one; what is over it was changed meanwhile.
const VERIFIED_MAX: usize = 100;

/// What a client is told to send.
const CHALLENGE: &str = r#"Basic realm="refwatch", charset="UTF-8""#;

/// The users of the listener.
#[derive(Debug)]
pub struct Users {
    hashes: BTreeMap<String, PasswordHash>,
    verified: Mutex<BTreeSet<[u8; 32]>>,
    turn: Semaphore,
}

/// What a client says that it is.
struct Credentials {
    user: String,
    password: String,
}

impl Users {
    /// These, each with the hash of a password.
    #[must_use]
    pub fn new(hashes: BTreeMap<String, PasswordHash>) -> Self {
        Self { hashes, verified: Mutex::default(), turn: Semaphore::new(1) }
    }

    async fn lets_in(self: &Arc<Self>, Credentials { user, password }: Credentials) -> bool {
        // One of somebody else, so that a name that nobody has takes as long.
        let hash = self.hashes.get(&user).or_else(|| self.hashes.values().next());
        let Some(hash) = hash.cloned() else { return false };
        let known = self.hashes.contains_key(&user);
        let digest = digest(&user, &hash, &password);
        if self.verified().contains(&digest) {
            return known;
        }
        // An error means that nobody is let in any more, which is never so.
        let Ok(_turn) = self.turn.acquire().await else { return false };
        let verified = tokio::task::spawn_blocking(move || hash.verify(&password)).await.unwrap_or(false);
        if verified && known {
            let mut all = self.verified();
            if all.len() >= VERIFIED_MAX {
                all.clear();
            }
            all.insert(digest);
        }
        verified && known
    }

    // A panic while the lock was held leaves a whole set behind.
    fn verified(&self) -> std::sync::MutexGuard<'_, BTreeSet<[u8; 32]>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request through that comes from a user, where there are any.
pub(super) async fn authenticate(State(users): State<Arc<Users>>, request: Request, next: Next) -> Response {
    let allowed = match credentials(request.headers()) {
        _ if users.hashes.is_empty() => true,
        Some(credentials) => users.lets_in(credentials).await,
        None => false,
    };
    if allowed {
        return next.run(request).await;
    }
    let headers = [(header::WWW_AUTHENTICATE, CHALLENGE), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::UNAUTHORIZED, headers, "a user and a password are needed: see [http] users\n").into_response()
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
