//! Authentication with HTTP Basic (RFC 7617) and bcrypt hashes.
//!
//! bcrypt is slow on purpose, so passwords are checked one at a time and use one processor at most. At most
//! [`PENDING_CHECKS_MAX`] requests wait or are being checked; others get 503, so wrong logins do not occupy the connections that
//! scrapes need. A digest of each user's last correct password is cached, because Prometheus sends it with every scrape.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::config::PasswordHash;
use crate::core::sanitize::{Sanitized, excerpt};
use crate::core::time::Monotonic;
use crate::http::response::busy;
use crate::instruments::Instruments;

/// Requests that wait for a password check or are being checked.
const PENDING_CHECKS_MAX: usize = 8;

const CHALLENGE: &str = r#"Basic realm="refwatch", charset="UTF-8""#;

/// At most one failed login is logged in this time: clients can cause them at will.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Characters logged of a user name.
const USER_CHARS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Users {
    hashes: BTreeMap<String, PasswordHash>,
    clock: Clock,
    instruments: Instruments,
    failures: Mutex<Failures>,
    last_correct_digests: Mutex<BTreeMap<String, [u8; 32]>>,
    /// Permits of the requests that wait or are being checked.
    pending: Arc<Semaphore>,
    /// The permit of the request that is being checked.
    checking: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    Accepted,
    Rejected,
    /// Too many requests wait for a password check.
    Busy,
}

/// The failed logins since the last log line.
#[derive(Debug, Default)]
struct Failures {
    logged_at: Option<Monotonic>,
    count: u64,
}

impl Users {
    #[must_use]
    pub(super) fn new(hashes: BTreeMap<String, PasswordHash>, clock: Clock, instruments: Instruments) -> Self {
        Self {
            clock,
            instruments,
            failures: Mutex::default(),
            hashes,
            last_correct_digests: Mutex::default(),
            pending: Arc::new(Semaphore::new(PENDING_CHECKS_MAX)),
            checking: Arc::new(Semaphore::new(1)),
        }
    }

    async fn check(&self, user: &str, password: String) -> Login {
        let digest = Sha256::digest(&password).into();
        if self.last_correct_digests.lock().unwrap_or_else(PoisonError::into_inner).get(user) == Some(&digest) {
            return Login::Accepted;
        }
        // The hash with the highest cost. `authenticate` calls `check` only if there are users.
        let Some(slowest) = self.hashes.values().max_by_key(|hash| hash.cost()) else { return Login::Rejected };
        // An unknown user is checked against the slowest hash, and every check takes as long as one at the highest cost: the time reveals
        // neither whether the user exists nor the cost of a hash.
        let (hash, cost_max) = (self.hashes.get(user).unwrap_or(slowest).clone(), slowest.cost());
        let Ok(pending) = Arc::clone(&self.pending).try_acquire_owned() else { return Login::Busy };
        // The semaphore is never closed, so there is no error.
        let Ok(checking) = Arc::clone(&self.checking).acquire_owned().await else { return Login::Busy };
        // The thread holds both permits until bcrypt has finished, even if the client disconnects.
        let checked = tokio::task::spawn_blocking(move || {
            let is_correct = hash.verify(&password, cost_max);
            drop((checking, pending));
            is_correct
        });
        let is_correct = checked.await.unwrap_or_else(|error| {
            error!(event = "password_check_failed", %error, "internal error: the password check failed");
            false
        });
        if !(is_correct && self.hashes.contains_key(user)) {
            return Login::Rejected;
        }
        self.last_correct_digests.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned(), digest);
        Login::Accepted
    }

    /// `client` is the address of the other end of the connection, possibly that of a proxy.
    fn report_failure(&self, user: &str, client: SocketAddr) {
        self.instruments.http_login_failures.inc();
        let now = self.clock.now().monotonic;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        if failures.logged_at.is_some_and(|at| now < at + LOG_INTERVAL) {
            return;
        }
        let count = std::mem::take(&mut failures.count);
        failures.logged_at = Some(now);
        let user = Sanitized(&excerpt(user, USER_CHARS_MAX)).to_string();
        warn!(
            event = "login_failed",
            client = client.ip().to_string(),
            user,
            failures = count,
            "wrong user or password; at most one line in 10 s is logged"
        );
    }
}

pub(super) async fn authenticate(
    State(users): State<Arc<Users>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if users.hashes.is_empty() {
        return next.run(request).await;
    }
    let login = match credentials(request.headers()) {
        Some((user, password)) => {
            let login = users.check(&user, password).await;
            if login == Login::Rejected {
                users.report_failure(&user, client);
            }
            login
        }
        // A missing or unreadable header is rejected, but is no failed login: a browser's first request has no password.
        None => Login::Rejected,
    };
    match login {
        Login::Accepted => next.run(request).await,
        Login::Rejected => {
            let challenge = [(header::WWW_AUTHENTICATE, CHALLENGE)];
            (StatusCode::UNAUTHORIZED, challenge, "a valid user and password are required: see http.users\n")
                .into_response()
        }
        Login::Busy => busy("logins"),
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (user, password) = str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
