//! Renders a scrape: `instruments` (counters, histograms), `state` (`jobs`, `daemon`, `sinks`) and /proc (`process`).
//!
//! `state` is read at each scrape, so the series of a job end when its watch is removed. Label values come from the
//! configuration, the ids of jobs and stores, and closed sets. No label is called `job`, `instance` or `region`: Prometheus and
//! its service discovery set these.

mod daemon;
mod exposition;
mod jobs;
mod process;
mod sinks;

use prometheus::Registry;

use self::exposition::Exposition;
use crate::core::time::Timestamp;
use crate::instruments::Instruments;
use crate::state::SharedState;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Prometheus's text format 0.0.4.
    Text,
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` header. Prometheus 3 rejects a scrape without it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Debug)]
pub struct Metrics {
    state: SharedState,
    registry: Registry,
    started_at: Timestamp,
}

impl Metrics {
    /// `started_at` is the start of the process.
    #[must_use]
    pub fn new(state: SharedState, instruments: &Instruments, started_at: Timestamp) -> Self {
        Self { state, registry: instruments.registry.clone(), started_at }
    }

    /// Renders every family. Call it on a blocking thread: it reads /proc and takes up to 1 s with 10,000 watches.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let watches = self.state.watches();
        let mut exposition = Exposition::new(format);
        for family in self.registry.gather() {
            exposition.gathered(&family);
        }
        jobs::write(&watches, &mut exposition);
        daemon::write(&self.state.daemon(), &watches, &self.state.stores(), &mut exposition);
        sinks::write(&self.state.sinks(), &mut exposition);
        process::write(self.started_at, &mut exposition);
        exposition.finish()
    }
}

/// Seconds since the Unix epoch.
fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn number(count: u64) -> f64 {
    count as f64
}
