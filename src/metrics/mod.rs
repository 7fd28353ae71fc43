//! The metrics: every family that a scrape shows, and the text it is shown in.
//!
//! What counts as it happens lives in `instruments`. All else is read at each scrape: off the board (`watches`, `daemon`), so
//! a job that left the watch list leaves the metrics with it, and off /proc (`process`). Label values come from the
//! configuration and from closed sets, never from the service; and no label is called `job` or `instance`, which are
//! Prometheus's own, or `region`, which service discovery likes to set.

mod daemon;
mod openmetrics;
mod process;
mod watches;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

use crate::core::sanitize::Printable;
use crate::core::time::Timestamp;
use crate::instruments::Instruments;
use crate::state::StatusBoard;

/// What the text of a scrape is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The type of what [`Metrics::render`] returns. Prometheus 3 refuses a scrape that does not name it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All that a scrape shows.
#[derive(Debug)]
pub struct Metrics {
    board: StatusBoard,
    registry: Registry,
    process: process::Process,
}

impl Metrics {
    /// Metrics of what stands on the board and of what the instruments count, in a process that began at `started_at`.
    ///
    /// # Errors
    /// A fault of ours: two families of one name.
    pub fn new(
        board: StatusBoard,
        instruments: &Instruments,
        started_at: Timestamp,
    ) -> Result<Self, prometheus::Error> {
        let registry = instruments.registry.clone();
        Ok(Self { board, registry, process: process::Process::this(started_at) })
    }

    /// Every family in this format. It reads /proc and, with thousands of watches, takes a while: not for a thread that others
    /// wait for.
    ///
    /// # Errors
    /// A fault of ours: a family without a name.
    pub fn render(&self, format: Format) -> Result<String, prometheus::Error> {
        let watches = self.board.watches();
        let mut text = String::new();
        encode(self.registry.gather(), format, &mut text)?;
        watches::write(&watches, format, &mut text);
        let of_daemon = daemon::families(&self.board.daemon(), &watches, &self.board.stores());
        encode(of_daemon.chain(self.process.families()), format, &mut text)?;
        if format == Format::OpenMetrics {
            text.push_str(openmetrics::END);
        }
        Ok(text)
    }
}

fn encode(
    families: impl IntoIterator<Item = MetricFamily>,
    format: Format,
    text: &mut String,
) -> Result<(), prometheus::Error> {
    // The encoder takes a family without series for a mistake; to us it is one that nothing is known of yet.
    for family in families.into_iter().filter(|family| !family.get_metric().is_empty()) {
        match format {
            Format::Text => TextEncoder::new().encode_utf8(&[family], text)?,
            Format::OpenMetrics => openmetrics::encode(&family, text),
        }
    }
    Ok(())
}

/// What stands before the series of a gauge or counter.
fn head(name: &str, help: &str, kind: MetricType, format: Format, text: &mut String) {
    match format {
        Format::Text => {
            let kind = if kind == MetricType::COUNTER { "counter" } else { "gauge" };
            text.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
        }
        Format::OpenMetrics => openmetrics::head(name, help, kind, text),
    }
}

/// A family and its series.
fn family(name: &str, help: &str, kind: MetricType, series: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

/// A gauge with these labels.
fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

/// A counter with these labels.
fn counter(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

/// A label. The configuration wrote its value, so it is not to be trusted with a terminal either.
fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(Printable(value).to_string());
    label
}

/// A count as Prometheus takes it.
#[expect(clippy::cast_precision_loss, reason = "what is counted here stays far below 2^53")]
const fn number(count: u64) -> f64 {
    count as f64
}
