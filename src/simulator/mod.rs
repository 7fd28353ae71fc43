//! A simulated AWS HealthOmics over HTTP, for the demo, the tests and users without an AWS account.
//!
//! It implements `Get` and `List` of the four kinds of jobs (`kinds`) of the API version 2022-11-28: paths, ids, members,
//! paging, errors and quotas. It requires a signature but does not verify it. Jobs (`jobs`) and their timelines (`lifecycle`) are
//! generated from a seed. Faults (`faults`) are injected at given rates.
//!
//! It imports only clock, times and signatures from refwatch, so that it does not share a misreading of the API with the daemon.
//! Two paths are not AWS's: `/-/jobs` returns the timeline of every job, and `/-/calls` the number of answered, throttled and
//! faulted requests. A receiver of notifications (`sink`) has its own listener.

mod api;
mod faults;
mod items;
mod jobs;
mod kinds;
mod lifecycle;
mod server;
mod service;
mod sink;
mod traffic;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::clock::Clock;
use api::Api;
use server::Server;
use service::Service;
use traffic::Traffic;

pub use faults::{Fault, FaultRate, InvalidFaultRate, NamedFault, fault_help};
pub use jobs::SimulatedJob;
pub use kinds::Kind;
pub use sink::{
    DOWNTIME, Received, SINK_PATH, SignatureCheck, SimulatedSink, SinkFault, SinkOptions, SinkReceiver, SinkReply,
};

#[derive(Clone, Debug)]
pub struct Options {
    /// The number of jobs that end. Eight or more reach every terminal status.
    pub jobs: u32,
    /// The number of additional jobs that never end.
    pub stuck: u32,
    /// The number of additional jobs created per minute after the start, up to 10,000 in total.
    pub arrivals_per_minute: f64,
    /// The kinds of the jobs, in turn. At least one.
    pub kinds: Vec<Kind>,
    /// The number of stores of each type that the kinds need; 0 means 1.
    pub stores: u32,
    /// The same seed gives the same ids, sources, timelines and faults.
    pub seed: u64,
    /// The mean time from creation to end. Durations are 0.25 to 1.75 times the mean.
    pub mean: Duration,
    /// The quota of each operation. The requests of one second may arrive at once.
    pub requests_per_second: f64,
    /// True if all operations share one quota.
    pub shared_quota: bool,
    /// Tried in this order for each request. At most one is injected.
    pub faults: Vec<FaultRate>,
}

impl Default for Options {
    /// Eight reference imports of about a minute in one store, with AWS's default quota.
    fn default() -> Self {
        Self {
            jobs: 8,
            stuck: 0,
            arrivals_per_minute: 0.0,
            kinds: vec![Kind::ReferenceImport],
            stores: 1,
            seed: 1,
            mean: Duration::from_mins(1),
            requests_per_second: 5.0,
            shared_quota: false,
            faults: Vec::new(),
        }
    }
}

/// A running simulator. Dropping it stops it.
#[derive(Debug)]
pub struct Simulator {
    service: Arc<Service>,
    server: Server,
}

impl Simulator {
    /// # Errors
    /// Returns an error if it cannot listen on `listen`.
    pub async fn start(listen: SocketAddr, options: &Options) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let clock = Clock::system();
        let wall = clock.now().wall;
        let started = Timestamp::from_millisecond(wall.as_millisecond()).unwrap_or(wall);
        let api = Api { started, jobs: jobs::generate(options) };
        let service = Arc::new(Service::new(clock, api, Traffic::new(options)));
        let of_server = Arc::clone(&service);
        let respond = move |request| {
            let service = Arc::clone(&of_server);
            async move { service.respond(request).await }
        };
        let server = Server::start(listener, clock, respond)?;
        Ok(Self { service, server })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The jobs that exist at the start, ordered by store, kind and id.
    pub fn jobs(&self) -> impl Iterator<Item = &SimulatedJob> {
        self.service.api.jobs.iter().filter(|job| !job.created.is_positive()).map(|job| &job.identity)
    }

    /// Aborts requests in flight. Returns once every connection is closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}
