//! The listener. It accepts connections, limits them and owns their tasks.
//!
//! - At [`Limits::connections`], new connections wait in the kernel's queue.
//! - At [`Limits::connection_age`], or when the daemon stops, a connection accepts no new request. It is closed
//!   [`Limits::drain`] later at the latest, even if the client does not read the response.
//! - When more than a quarter of the connections are in use, new connections get a shorter header timeout, so slow clients
//!   do not delay scrapes for long.

pub mod control;
mod guard;
pub mod tls;
mod users;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use self::guard::guarded;
use self::tls::Tls;
use self::users::{ClientAddress, Users, authenticate};
use crate::clock::Clock;
use crate::config::PasswordHash;
use crate::http::app_state::AppState;
use crate::http::router::router;

/// Limits the head of a request and the read buffer of each connection. The head of a browser's request has less than 2 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Browsers and Prometheus send fewer than 20 headers.
const HEADERS_MAX: usize = 64;

/// The pause after a failed accept: without descriptors the next accept would fail at once. The end of a connection ends it early.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Simultaneous connections, if the process may open at least four times as many descriptors.
const CONNECTIONS_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Simultaneous connections. Each may hold a complete response in memory. Two Prometheus servers, people and scripts need
    /// about ten.
    pub connections: usize,
    /// Time for the TLS handshake. Also the time from the end of a response to the end of the next request's headers.
    pub header_read: Duration,
    /// Age after which a connection accepts no new request.
    pub connection_age: Duration,
    /// Time to finish the current request after that age or a stop. A shutdown takes at most 5 s, this time included.
    pub drain: Duration,
}

impl Limits {
    /// The limits of a new connection while `open` connections are in use.
    fn under_load(self, open: usize) -> Self {
        let busy = open > self.connections / 4;
        Self { header_read: if busy { self.header_read / 20 } else { self.header_read }, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        Self {
            // Polls, the database and the log need the other descriptors.
            connections: descriptors.map_or(CONNECTIONS_MAX, |limit| (limit / 4).clamp(1, CONNECTIONS_MAX)),
            header_read: Duration::from_secs(5),
            connection_age: Duration::from_secs(20),
            drain: Duration::from_secs(3),
        }
    }
}

/// The default is no TLS and no users.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub tls: Option<Arc<Tls>>,
    /// Without users no password is required.
    pub users: BTreeMap<String, PasswordHash>,
}

/// Serves until `stop` is signalled. Returns when the last connection has ended.
pub async fn serve(
    listener: TcpListener,
    Access { tls, users }: Access,
    state: AppState,
    limits: Limits,
    stop: CancellationToken,
) {
    let clock = state.clock;
    let users = Users::new(users, clock, state.instruments.clone());
    let authentication = from_fn_with_state(Arc::new(users), authenticate);
    let router = guarded(router(state.clone()).layer(authentication), state.host_names);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            stream = accept(&listener, clock), if connections.len() < limits.connections => {
                let limits = limits.under_load(connections.len());
                let client = Extension(ClientAddress(stream.peer_addr().ok()));
                let service = TowerToHyperService::new(router.clone().layer(client));
                let stop = stop.clone();
                match tls.as_ref().map(|tls| tls.acceptor()) {
                    None => connections.spawn(serve_connection(stream, service, limits, clock, stop)),
                    Some(acceptor) => connections.spawn(async move {
                        if let Some(stream) = accept_tls(acceptor, stream, limits, clock, &stop).await {
                            serve_connection(stream, service, limits, clock, stop).await;
                        }
                    }),
                };
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

/// Returns the next connection. Logs and retries failed accepts.
async fn accept(listener: &TcpListener, clock: Clock) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                clock.sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Returns `None` if the handshake fails or takes longer than [`Limits::header_read`], or when the daemon stops.
async fn accept_tls(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    limits: Limits,
    clock: Clock,
    stop: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = clock.sleep(limits.header_read) => None,
        accepted = acceptor.accept(stream) => accepted.inspect_err(|error| debug!(%error, "a TLS handshake failed")).ok(),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: TowerToHyperService<Router>,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let expired_or_stopped = stop.run_until_cancelled(clock.sleep(limits.connection_age));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = expired_or_stopped => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => Some(ended),
                () = clock.sleep(limits.drain) => None,
            }
        }
    };
    // Debug level, because clients can cause these errors at will.
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%error, "an HTTP connection failed"),
        None => debug!("an HTTP connection was closed at its deadline"),
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(fault) = ended {
        error!(%fault, "the task of an HTTP connection failed");
    }
}
