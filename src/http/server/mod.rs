//! The listener: how many may connect, and for how long. It owns every connection's task.
//!
//! A connection has one bound on its whole life, whatever its other end does or leaves undone: a response that is never read,
//! headers that trickle, a connection held for nothing. When its time is up, or the daemon stops, it ends the same way: no
//! new request is taken, the one under way has [`Limits::drain`] to be answered, and then it is cut.
//!
//! Where all connections are taken, a new one takes the place of the one that has waited longest for its other end: for a
//! request, or for an answer to be read. So connections that only hold their place, however many, keep no scrape out.

pub mod control;
mod guard;
pub mod tls;
mod users;

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
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
    /// Connections at once. A pair of Prometheus servers, a few people and their scripts need a handful, and each connection
    /// may hold a whole response in memory. One over it makes another give way; where all are being answered, it waits.
    pub connections: usize,
    /// From the wait for a request to the end of its headers; so a connection may idle for as long.
    pub header_read: Duration,
    /// The age at which a connection takes no further request.
    pub connection_age: Duration,
    /// What a connection has to end after that. Shutdown waits for it within its own 5 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Where descriptors are few, polls, the record and the log need theirs first.
        let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        Self {
            connections: descriptors.map_or(CONNECTIONS_MAX, |limit| (limit / 4).clamp(1, CONNECTIONS_MAX)),
            header_read: Duration::from_secs(5),
            connection_age: Duration::from_secs(20),
            drain: Duration::from_secs(3),
        }
    }
}

/// What [`Waiting::since`] says of a connection that is being answered: it waits for us.
const ANSWERING: u64 = u64::MAX;

/// Who has waited how long for the other end of a connection, in turns and not in time: all that counts is who was first.
#[derive(Debug, Default)]
struct Turns {
    next: AtomicU64,
    /// Rings when a connection begins to wait.
    waits: Notify,
}

/// One connection, as the listener sees it.
#[derive(Debug)]
struct Waiting {
    /// The turn from which on it has waited for its other end, or [`ANSWERING`].
    since: AtomicU64,
    turns: Arc<Turns>,
    /// Ends it.
    give_way: CancellationToken,
}

impl Waiting {
    fn new(turns: &Arc<Turns>) -> Self {
        let waiting =
            Self { since: AtomicU64::new(ANSWERING), turns: Arc::clone(turns), give_way: CancellationToken::new() };
        waiting.begin();
        waiting
    }

    fn begin(&self) {
        self.since.store(self.turns.next.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.turns.waits.notify_one();
    }

    fn end(&self) {
        self.since.store(ANSWERING, Ordering::Relaxed);
    }
}

/// Who may connect and ask. By default: everybody, in the clear.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// TLS, if it is spoken.
    pub tls: Option<Arc<Tls>>,
    /// The users, if there are any.
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
    let service = TowerToHyperService::new(guarded(router(state.clone()), state.host_names).layer(users));
    let turns = Arc::new(Turns::default());
    let mut connections = JoinSet::new();
    let mut open: HashMap<Id, Arc<Waiting>> = HashMap::new();
    let mut at_the_door = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next_with_id() => {
                open.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id));
                report(ended.map(|_| ()));
            }
            () = turns.waits.notified(), if at_the_door.is_some() => {}
            stream = accept(&listener, clock), if at_the_door.is_none() => at_the_door = Some(stream),
        }
        if open.len() < limits.connections {
            if let Some(stream) = at_the_door.take() {
                let waiting = Arc::new(Waiting::new(&turns));
                let (service, stop) = (service.clone(), stop.clone());
                let task = match tls.as_ref().map(|tls| tls.acceptor()) {
                    None => connections.spawn(converse(stream, service, limits, clock, stop, Arc::clone(&waiting))),
                    Some(acceptor) => {
                        let waiting = Arc::clone(&waiting);
                        connections.spawn(async move {
                            // A connection that is cut here is not told: there is no common language yet.
                            if let Some(stream) = shake_hands(acceptor, stream, limits, clock, &waiting, &stop).await {
                                converse(stream, service, limits, clock, stop, waiting).await;
                            }
                        })
                    }
                };
                open.insert(task.id(), waiting);
            }
        } else if at_the_door.is_some() {
            make_room(&open);
        }
    }
    drop((listener, at_the_door));
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

/// Ends the connection that has waited longest, unless one is ending for this already.
fn make_room(open: &HashMap<Id, Arc<Waiting>>) {
    if open.values().any(|connection| connection.give_way.is_cancelled()) {
        return;
    }
    let longest = open.values().min_by_key(|connection| connection.since.load(Ordering::Relaxed));
    if let Some(longest) = longest.filter(|connection| connection.since.load(Ordering::Relaxed) != ANSWERING) {
        longest.give_way.cancel();
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

/// The stream once both ends agree on TLS; `None` where they do not in the time of a request's headers.
async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    limits: Limits,
    clock: Clock,
    waiting: &Waiting,
    stop: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = waiting.give_way.cancelled() => None,
        () = clock.sleep(limits.header_read) => None,
        shaken = acceptor.accept(stream) => shaken.inspect_err(|error| debug!(%error, "a TLS handshake failed")).ok(),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: TowerToHyperService<Router>,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
    waiting: Arc<Waiting>,
) {
    let give_way = waiting.give_way.clone();
    let service = service_fn(move |request| {
        waiting.end();
        let (answer, waiting) = (service.call(request), Arc::clone(&waiting));
        async move {
            let answer = answer.await;
            waiting.begin();
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let last_call = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep(limits.connection_age) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = give_way.cancelled() => None,
        () = last_call => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => Some(ended),
                () = clock.sleep(limits.drain) => None,
            }
        }
    };
    // What goes wrong here is between the other end and itself; on an ordinary day it is worth no line.
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%error, "an HTTP connection failed"),
        None => debug!("an HTTP connection was cut at its deadline, or gave way to another"),
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(fault) = ended {
        error!(%fault, "the task of an HTTP connection failed");
    }
}
