//! A simulated receiver of notifications: verifies signatures, keeps what it received, and injects faults.
//!
//! [`SimulatedSink`] decides about each request. It has no socket and reads no clock, so a simulation on paused time uses it too.
//! [`SinkReceiver`] serves it over HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fastrand::Rng;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::faults::{ConnectionFault, FaultRate, Trickle, draw, faults};
use super::server::{BodyError, Server, read_body};
use crate::clock::Clock;
use crate::core::time::{Monotonic, Now};
use crate::notify::signature::{SigningSecret, sign};

/// Events are received here. Other paths do not exist.
pub const SINK_PATH: &str = "/sink";

/// How long the sink stays down after [`SinkFault::Down`].
pub const DOWNTIME: Duration = Duration::from_mins(1);

/// The header of [`SinkFault::Throttling`], in seconds.
const RETRY_AFTER: &str = "2";

/// The header `Location` of [`SinkFault::Redirect`].
const ELSEWHERE: &str = "http://elsewhere.invalid/";

/// The largest difference of the time stamp from the clock that Standard Webhooks recommends.
const TIMESTAMP_TOLERANCE: Duration = Duration::from_mins(5);

/// The longest list of received requests. Older requests are dropped. A campaign sends 10,000 events.
const RECEIVED_MAX: usize = 100_000;

faults! {
    /// A fault of the simulated sink. The sink has received the event, except while it is down.
    SinkFault:
    /// No response.
    Hang = "hang",
    /// 500.
    Internal = "internal",
    /// 429 with `Retry-After: 2`.
    Throttling = "throttling",
    /// 410.
    Gone = "gone",
    /// 307 to another host.
    Redirect = "redirect",
    /// The connection is reset after the body was read.
    Reset = "reset",
    /// 200 with a body of which one byte per second is sent.
    Slow = "slow",
    /// For a minute, every connection is reset and nothing is received.
    Down = "down",
}

/// Without secrets, signatures are not checked.
#[derive(Clone, Debug, Default)]
pub struct SinkOptions {
    pub secrets: Vec<SigningSecret>,
    /// Tried in this order for each request. At most one is injected.
    pub faults: Vec<FaultRate<SinkFault>>,
    /// The same seed gives the same faults.
    pub seed: u64,
}

/// A request that the sink received, and its reply.
#[derive(Clone, Debug)]
pub struct Received {
    /// `webhook-id`. Empty if it is missing.
    pub id: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Now,
    /// How often this id was received, from 1.
    pub attempt: u32,
    pub signature: SignatureCheck,
    pub reply: SinkReply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureCheck {
    Verified,
    /// The reason.
    Rejected(&'static str),
    /// The sink has no secret.
    Unchecked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkReply {
    /// 204.
    Accepted,
    /// 401: the signature is missing or wrong.
    Unauthorized,
    Fault(SinkFault),
}

/// The receiver without sockets.
#[derive(Debug)]
pub struct SimulatedSink {
    options: SinkOptions,
    rng: Rng,
    /// While the sink is down.
    down_until: Option<Monotonic>,
    received: VecDeque<Received>,
    /// The number of requests by id.
    attempts: BTreeMap<String, u32>,
}

impl SimulatedSink {
    #[must_use]
    pub fn new(options: SinkOptions) -> Self {
        Self {
            rng: Rng::with_seed(options.seed),
            options,
            down_until: None,
            received: VecDeque::new(),
            attempts: BTreeMap::new(),
        }
    }

    /// Decides about a request, and keeps it unless the sink is down.
    pub fn receive(&mut self, headers: HeaderMap, body: Bytes, now: Now) -> SinkReply {
        if self.down_until.is_some_and(|until| now.monotonic < until) {
            return SinkReply::Fault(SinkFault::Down);
        }
        let fault = draw(self.options.faults.iter().copied(), &mut self.rng);
        self.down_until = (fault == Some(SinkFault::Down)).then(|| now.monotonic + DOWNTIME);
        if self.down_until.is_some() {
            return SinkReply::Fault(SinkFault::Down);
        }
        let signature = self.check(&headers, &body, now.wall);
        let reply = match (fault, signature) {
            (Some(fault), _) => SinkReply::Fault(fault),
            (None, SignatureCheck::Rejected(_)) => SinkReply::Unauthorized,
            (None, SignatureCheck::Verified | SignatureCheck::Unchecked) => SinkReply::Accepted,
        };
        let id = text(&headers, "webhook-id").unwrap_or_default().to_owned();
        let attempt = self.count(&id);
        if self.received.len() == RECEIVED_MAX {
            self.received.pop_front();
        }
        self.received.push_back(Received { id, headers, body, at: now, attempt, signature, reply });
        reply
    }

    /// The received requests, oldest first.
    pub fn received(&self) -> impl Iterator<Item = &Received> {
        self.received.iter()
    }

    /// Replaces the faults. A downtime ends.
    pub fn set_faults(&mut self, faults: Vec<FaultRate<SinkFault>>) {
        self.options.faults = faults;
        self.down_until = None;
    }

    fn count(&mut self, id: &str) -> u32 {
        if self.attempts.len() == RECEIVED_MAX && !self.attempts.contains_key(id) {
            self.attempts.clear();
        }
        let attempts = self.attempts.entry(id.to_owned()).or_default();
        *attempts += 1;
        *attempts
    }

    fn check(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> SignatureCheck {
        if self.options.secrets.is_empty() {
            return SignatureCheck::Unchecked;
        }
        self.verify(headers, body, now).map_or_else(SignatureCheck::Rejected, |()| SignatureCheck::Verified)
    }

    fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), &'static str> {
        let header = |name| text(headers, name).ok_or("a header is missing");
        let (id, timestamp, signature) =
            (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
        let sent_at = timestamp.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let sent_at = sent_at.ok_or("the time stamp is not a number of seconds")?;
        if now.duration_since(sent_at).unsigned_abs() > TIMESTAMP_TOLERANCE {
            return Err("the time stamp differs by more than 5 minutes");
        }
        let expected = sign(&self.options.secrets, id, sent_at.as_second(), body);
        let is_correct = signature.split(' ').any(|given| expected.split(' ').any(|expected| given == expected));
        if is_correct { Ok(()) } else { Err("the signature is wrong") }
    }
}

impl Received {
    /// An attribute of the CloudEvents object in the body, such as `type`. `None` if the body has none, as in the format `slack`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        let event: Value = serde_json::from_slice(&self.body).ok()?;
        Some(event.get(name)?.as_str()?.to_owned())
    }
}

impl SinkReply {
    /// The HTTP status. `None` if there is no response.
    #[must_use]
    pub fn status(self) -> Option<StatusCode> {
        match self {
            Self::Accepted => Some(StatusCode::NO_CONTENT),
            Self::Unauthorized => Some(StatusCode::UNAUTHORIZED),
            Self::Fault(fault) => match fault {
                SinkFault::Internal => Some(StatusCode::INTERNAL_SERVER_ERROR),
                SinkFault::Throttling => Some(StatusCode::TOO_MANY_REQUESTS),
                SinkFault::Gone => Some(StatusCode::GONE),
                SinkFault::Redirect => Some(StatusCode::TEMPORARY_REDIRECT),
                SinkFault::Slow => Some(StatusCode::OK),
                SinkFault::Hang | SinkFault::Reset | SinkFault::Down => None,
            },
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A [`SimulatedSink`] on a listener of its own. Dropping it stops it.
#[derive(Debug)]
pub struct SinkReceiver {
    shared: Arc<Shared>,
    server: Server,
}

#[derive(Debug)]
struct Shared {
    sink: Mutex<SimulatedSink>,
    clock: Clock,
    /// Notified after each received request.
    arrival: Notify,
}

impl SinkReceiver {
    /// # Errors
    /// Returns an error if it cannot listen on `listen`.
    pub async fn start(listen: SocketAddr, options: SinkOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let clock = Clock::system();
        let sink = Mutex::new(SimulatedSink::new(options));
        let shared = Arc::new(Shared { sink, clock, arrival: Notify::new() });
        let of_server = Arc::clone(&shared);
        let respond = move |request| {
            let shared = Arc::clone(&of_server);
            async move { shared.respond(request).await }
        };
        let server = Server::start(listener, clock, respond)?;
        Ok(Self { shared, server })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The URL for `[[notify]]`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{SINK_PATH}", self.address())
    }

    /// The received requests, oldest first.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.sink().received().cloned().collect()
    }

    /// Removes the received requests from the list and returns them. Waits until there is at least one. Cancel safe.
    pub async fn take_received(&self) -> Vec<Received> {
        loop {
            let received: Vec<Received> = self.shared.sink().received.drain(..).collect();
            if !received.is_empty() {
                return received;
            }
            self.shared.arrival.notified().await;
        }
    }

    /// Replaces the faults. A downtime ends.
    pub fn set_faults(&self, faults: Vec<FaultRate<SinkFault>>) {
        self.shared.sink().set_faults(faults);
    }

    /// Aborts requests in flight. Returns once every connection is closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl Shared {
    async fn respond(&self, request: Request<Incoming>) -> Result<Response, ConnectionFault> {
        if request.uri().path() != SINK_PATH {
            return Ok(StatusCode::NOT_FOUND.into_response());
        }
        if request.method() != Method::POST {
            return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response());
        }
        let (head, body) = request.into_parts();
        let body = match read_body(body).await {
            Ok(body) => body,
            Err(BodyError::Unreadable(_)) => return Ok(StatusCode::BAD_REQUEST.into_response()),
            Err(BodyError::Timeout) => return Ok(StatusCode::REQUEST_TIMEOUT.into_response()),
        };
        let reply = self.sink().receive(head.headers, body, self.clock.now());
        self.arrival.notify_one();
        if reply == SinkReply::Fault(SinkFault::Hang) {
            return std::future::pending().await;
        }
        let status = reply.status().ok_or(ConnectionFault::Reset)?;
        Ok(match reply {
            SinkReply::Fault(SinkFault::Throttling) => (status, [(header::RETRY_AFTER, RETRY_AFTER)]).into_response(),
            SinkReply::Fault(SinkFault::Redirect) => (status, [(header::LOCATION, ELSEWHERE)]).into_response(),
            SinkReply::Fault(SinkFault::Slow) => {
                let body = Bytes::from_static(b"the event is accepted\n");
                (status, Body::new(Trickle::slow(body, self.clock))).into_response()
            }
            SinkReply::Accepted | SinkReply::Unauthorized | SinkReply::Fault(_) => status.into_response(),
        })
    }

    // A poisoned lock is usable: no operation on the sink leaves it in an invalid state.
    fn sink(&self) -> MutexGuard<'_, SimulatedSink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
