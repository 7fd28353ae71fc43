//! A simulated AWS HealthOmics over HTTP, for the demo, for tests, and for whoever has no account.
//!
//! It speaks `GetReferenceImportJob` and `ListReferenceImportJobs` as the service model of 2022-11-28 says: paths, id
//! patterns, members, paging, errors and a quota per operation. It does not verify signatures, but wants one. Its jobs
//! (`jobs`) live lives drawn from a seed (`lifecycle`); faults (`faults`) strike at given rates.
//!
//! It is the other side: of the house it uses the clock and nothing else, so that a mistake in our reading of the API is not
//! made twice by the same code. Two paths are not AWS's: `/-/jobs` tells the whole true life of every job there is, and `/-/calls`
//! how many requests of each operation were answered, throttled and struck by a fault.

mod api;
mod faults;
mod jobs;
mod lifecycle;
mod service;
mod traffic;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use api::Api;
use faults::OffScript;
use service::Service;
use traffic::Traffic;

pub use faults::{Fault, FaultRate, InvalidFaultRate};
pub use jobs::SimulatedJob;

/// Connections served at a time; more wait. A client of the daemon's kind keeps a handful.
const CONNECTIONS_MAX: usize = 1024;

/// After a connection could not be accepted, as without file descriptors: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many jobs end. From eight on, every terminal status comes up.
    pub jobs: u32,
    /// How many more jobs never end.
    pub stuck: u32,
    /// How many more jobs are created each minute after the start, up to 10,000 in all.
    pub arrivals_per_minute: f64,
    /// How many reference stores the jobs are spread over; at least one is made.
    pub stores: u32,
    /// The same seed gives the same ids, sources, lives and faults.
    pub seed: u64,
    /// From creation to end, on average. No job takes less than a quarter of it or more than one and three quarters.
    pub mean: Duration,
    /// The quota of each operation. A second's worth of requests may come at once.
    pub requests_per_second: f64,
    /// Whether both operations share one quota.
    pub shared_quota: bool,
    /// The faults, tried in this order; the first that hits a request strikes it.
    pub faults: Vec<FaultRate>,
}

impl Default for Options {
    /// Eight jobs in one store that take a minute, and the quota that AWS gives.
    fn default() -> Self {
        Self {
            jobs: 8,
            stuck: 0,
            arrivals_per_minute: 0.0,
            stores: 1,
            seed: 1,
            mean: Duration::from_mins(1),
            requests_per_second: 5.0,
            shared_quota: false,
            faults: Vec::new(),
        }
    }
}

/// A running simulator. Dropping it ends it.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    service: Arc<Service>,
    stop: CancellationToken,
    server: JoinSet<()>,
}

impl Simulator {
    /// Starts a simulator on `listen`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(listen: SocketAddr, options: &Options) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let clock = Clock::system();
        let wall = clock.now().wall;
        let started = Timestamp::from_millisecond(wall.as_millisecond()).unwrap_or(wall);
        let api = Api { started, jobs: jobs::draw(options) };
        let service = Arc::new(Service::new(clock, api, Traffic::new(options)));
        let stop = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&service), stop.clone(), clock));
        Ok(Self { address, service, stop, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The jobs that were there at its start, ordered by store and id.
    pub fn jobs(&self) -> impl Iterator<Item = &SimulatedJob> {
        self.service.api.jobs.iter().filter(|job| !job.created.is_positive()).map(|job| &job.place)
    }

    /// Ends it, requests that wait included. Returns once every connection is closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.server.join_next().await {
            report(ended);
        }
    }
}

/// Accepts connections and owns them.
async fn serve(listener: TcpListener, service: Arc<Service>, stop: CancellationToken, clock: Clock) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&service), clock));
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator cannot accept a connection");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Serves one connection until either side closes it. Errors of the client's making end it and are nobody's concern.
async fn serve_connection(stream: TcpStream, service: Arc<Service>, clock: Clock) {
    let respond = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { service.respond(request).await }
    });
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), respond);
    let Err(error) = (&mut connection).await else { return };
    if let Some(off_script) = error.source().and_then(<dyn Error>::downcast_ref::<OffScript>) {
        let stream = connection.into_parts().io.into_inner();
        if let Err(error) = off_script.play(stream, clock).await {
            tracing::debug!(%error, "the simulator's client has gone");
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the simulator failed");
    }
}
