//! The listener. It accepts connections, limits them and owns their tasks.
//!
//! - At [`Limits::connections`], new connections wait in the kernel's queue.
//! - After [`Limits::connection_age`], or when the daemon stops, a connection accepts no new request. It is closed within
//!   [`Limits::last_request_grace`] (age) or [`Limits::stop_grace`] (stop), even if the client does not read.
//! - When more than a quarter of the connections are in use, new connections get a shorter header timeout, so slow clients
//!   do not delay scrapes for long.

pub mod control;
mod guard;
pub mod tls;
mod users;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_tcp_user_timeout;
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
use crate::instruments::Instruments;

/// Limits the head of a request and the read buffer of each connection. The head of a browser's request has less than 2 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Browsers and Prometheus send fewer than 20 headers.
const HEADERS_MAX: usize = 64;

/// The pause after a failed accept: without descriptors the next accept would fail at once. When a connection ends, `select!` in `serve`
/// cancels the pause and accepts again.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The default of [`Limits::connections`]. It is lower if a quarter of the process's limit of file descriptors is lower.
const CONNECTIONS_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Simultaneous connections. Each may hold a complete response in memory. Two Prometheus servers, people and scripts need
    /// about ten.
    pub connections: usize,
    /// Time for the TLS handshake. Also the time from the handshake or the previous response to the end of the next request's headers.
    pub header_read: Duration,
    /// A client that stops reading holds a response in memory. If the client acknowledges no sent bytes for this long, or keeps its receive
    /// buffer full, the kernel closes the connection (`TCP_USER_TIMEOUT`).
    pub tcp_user_timeout: Duration,
    /// Age after which a connection accepts no new request.
    pub connection_age: Duration,
    /// Time to finish the current request after [`Self::connection_age`]. A rendering may take 8 s of it.
    pub last_request_grace: Duration,
    /// Time to finish the current request after a stop. A shutdown takes at most 5 s, this time included.
    pub stop_grace: Duration,
}

impl Limits {
    /// The limits of a new connection while `open` connections are in use.
    fn for_new_connection(self, open: usize) -> Self {
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
            tcp_user_timeout: Duration::from_secs(5),
            connection_age: Duration::from_secs(20),
            last_request_grace: Duration::from_secs(12),
            stop_grace: Duration::from_secs(3),
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
    let instruments = state.instruments.clone();
    let users = Users::new(users, clock, instruments.clone());
    let authentication = from_fn_with_state(Arc::new(users), authenticate);
    let counting = from_fn_with_state(instruments.clone(), count_response);
    // From outside: count, guard, login, routes.
    let router = guarded(router(state.clone()).layer(authentication), state.host_names).layer(counting);
    let context = ConnectionContext { router, instruments, clock, stop: stop.clone() };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => log_fault(ended),
            (stream, client) = accept(&listener, limits.tcp_user_timeout, clock), if connections.len() < limits.connections => {
                let router = context.router.clone().layer(Extension(ConnectInfo(client)));
                let context = ConnectionContext { router, ..context.clone() };
                let limits = limits.for_new_connection(connections.len());
                match tls.as_ref().map(|tls| tls.acceptor()) {
                    None => connections.spawn(context.serve_connection(stream, limits)),
                    Some(acceptor) => connections.spawn(async move {
                        if let Some(stream) = context.accept_tls(acceptor, stream, limits).await {
                            context.serve_connection(stream, limits).await;
                        }
                    }),
                };
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        log_fault(ended);
    }
}

/// Returns the next connection and the client's address. Logs and retries failed accepts.
async fn accept(listener: &TcpListener, user_timeout: Duration, clock: Clock) -> (TcpStream, SocketAddr) {
    let user_timeout = u32::try_from(user_timeout.as_millis()).unwrap_or(u32::MAX);
    loop {
        let accepted = listener.accept().await.and_then(|(stream, client)| {
            set_tcp_user_timeout(&stream, user_timeout)?;
            Ok((stream, client))
        });
        match accepted {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(event = "accept_failed", %error, "a connection could not be accepted");
                clock.sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// The context of a connection. Only the router differs between connections: it has the address of the client.
#[derive(Clone)]
struct ConnectionContext {
    router: Router,
    instruments: Instruments,
    clock: Clock,
    stop: CancellationToken,
}

impl ConnectionContext {
    /// Returns `None` if the handshake fails or takes longer than [`Limits::header_read`], or when the daemon stops.
    async fn accept_tls(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        limits: Limits,
    ) -> Option<TlsStream<TcpStream>> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = self.clock.sleep(limits.header_read) => None,
            accepted = acceptor.accept(stream) => {
                accepted.inspect_err(|error| debug!(%error, "a TLS handshake failed")).ok()
            }
        }
    }

    async fn serve_connection(self, stream: impl AsyncRead + AsyncWrite + Unpin, limits: Limits) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_read)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router)));
        let expired_or_stopped = self.stop.run_until_cancelled(self.clock.sleep(limits.connection_age));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = expired_or_stopped => {
                connection.as_mut().graceful_shutdown();
                // The time is `last_request_grace` or, from the moment of a stop, `stop_grace`.
                let deadline = async {
                    if self.stop.run_until_cancelled(self.clock.sleep(limits.last_request_grace)).await.is_none() {
                        self.clock.sleep(limits.stop_grace).await;
                    }
                };
                tokio::select! {
                    ended = connection => Some(ended),
                    () = deadline => None,
                }
            }
        };
        // Debug level, because clients can cause these errors at will.
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                // hyper itself has responded to a request that it could not parse, so `count_response` did not see it.
                if error.is_parse() {
                    let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    let status = if error.is_parse_too_large() { too_large } else { StatusCode::BAD_REQUEST };
                    self.instruments.count_http_response(status.as_u16());
                }
                debug!(%error, "an HTTP connection failed");
            }
            None => debug!("an HTTP connection was closed at its deadline"),
        }
    }
}

async fn count_response(State(instruments): State<Instruments>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    instruments.count_http_response(response.status().as_u16());
    response
}

fn log_fault(ended: Result<(), JoinError>) {
    if let Err(fault) = ended {
        error!(event = "connection_failed", %fault, "internal error: the task of an HTTP connection failed");
    }
}
