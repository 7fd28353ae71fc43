//! The metrics: every family that a scrape shows, and the text it is shown in.
//!
//! `instruments` counts events as they happen. Everything else is read at each scrape: from `state` (`jobs`, `daemon`), so a job
//! that left the watch list leaves the metrics, and from /proc (`process`). Label values come from the configuration and from
//! closed sets, never from the service. No label is called `job`, `instance` or `region`: Prometheus or its service discovery
//! sets those.

mod daemon;
mod exposition;
mod jobs;
mod process;

use prometheus::Registry;

use self::exposition::Exposition;
use crate::core::time::Timestamp;
use crate::instruments::Instruments;
use crate::state::SharedState;

/// The format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Prometheus's text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Prometheus 3 rejects a scrape without it.
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
    board: SharedState,
    registry: Registry,
    started_at: Timestamp,
}

impl Metrics {
    /// The metrics of a process that began at `started_at`.
    #[must_use]
    pub fn new(board: SharedState, instruments: &Instruments, started_at: Timestamp) -> Self {
        Self { board, registry: instruments.registry.clone(), started_at }
    }

    /// Every family. It reads /proc and takes up to a second with 10,000 watches, so it belongs on a blocking thread.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let watches = self.board.watches();
        let mut exposition = Exposition::new(format);
        for family in self.registry.gather() {
            exposition.gathered(&family);
        }
        jobs::write(&watches, &mut exposition);
        daemon::write(&self.board.daemon(), &watches, &self.board.stores(), &mut exposition);
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
