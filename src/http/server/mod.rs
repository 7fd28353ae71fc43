//! The listener: it accepts connections, limits them and owns their tasks.
//!
//! Every connection has a maximum age, so a client that never reads its response cannot hold a connection for ever. When the
//! age is reached or the daemon stops, the connection takes no new request, has [`Limits::drain`] to finish the current one,
//! and is then cut. At the limit, new connections wait in the kernel's queue. When a quarter of the connections is in use,
//! new ones get a shorter header timeout, so slow clients cannot keep scrapes waiting for long.

pub mod control;
mod guard;
pub mod tls;
mod users;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
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
use self::users::{Users, authenticate};
use crate::clock::Clock;
use crate::config::PasswordHash;
use crate::http::app_state::AppState;
use crate::http::router::router;

/// Bytes of one request's head. A browser's is under 2 KiB; every open connection may hold this much.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header lines of one request. Browsers and Prometheus send under 20.
const HEADERS_MAX: usize = 64;

/// The pause after an accept that failed for want of descriptors or memory: long enough not to spin on it.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Connections at once, where the process may have as many descriptors as four times that.
const CONNECTIONS_MAX: usize = 64;

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Two Prometheus servers, some people and their scripts need about ten, and each connection may
    /// hold a whole response in memory.
    pub connections: usize,
    /// Time from the start of the wait for a request to the end of its headers; also the keep-alive timeout.
    pub header_read: Duration,
    /// The age at which a connection takes no further request.
    pub connection_age: Duration,
    /// Time to finish the current request after that. Shutdown includes it in its own 5 s.
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
        // Where descriptors are few, polls, the database and the log need theirs first.
        let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        Self {
            connections: descriptors.map_or(CONNECTIONS_MAX, |limit| (limit / 4).clamp(1, CONNECTIONS_MAX)),
            header_read: Duration::from_secs(5),
            connection_age: Duration::from_secs(20),
            drain: Duration::from_secs(3),
        }
    }
}

/// Who may connect. By default: everybody, without TLS.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub tls: Option<Arc<Tls>>,
    /// If there are none, no password is needed.
    pub users: BTreeMap<String, PasswordHash>,
}

/// Serves until `stop`, and returns when the last connection has ended.
pub async fn serve(
    listener: TcpListener,
    Access { tls, users }: Access,
    state: AppState,
    limits: Limits,
    stop: CancellationToken,
) {
    let clock = state.clock;
    let users = from_fn_with_state(Arc::new(Users::new(users)), authenticate);
    let service = TowerToHyperService::new(guarded(router(state.clone()).layer(users), state.host_names));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            stream = accept(&listener, clock), if connections.len() < limits.connections => {
                let limits = limits.under_load(connections.len());
                let (service, stop) = (service.clone(), stop.clone());
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

/// The next connection, however long that takes.
async fn accept(listener: &TcpListener, clock: Clock) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns `None` if the TLS handshake fails or takes longer than the headers of a request may.
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
    let expiry = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep(limits.connection_age) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = expiry => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => Some(ended),
                () = clock.sleep(limits.drain) => None,
            }
        }
    };
    // Clients cause these failures, so they are logged at debug level only.
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%error, "an HTTP connection failed"),
        None => debug!("an HTTP connection was cut at its deadline"),
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(fault) = ended {
        error!(%fault, "the task of an HTTP connection failed");
    }
}
