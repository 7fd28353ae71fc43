//! What is counted as it happens: one struct of Prometheus counters and histograms, handed to whoever causes them.
//!
//! What can be read off the board at a scrape is not here but in `metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::core::failure::{FailureReason, Operation};

/// Seconds: from a loopback answer to the longest attempt that `poll.timeout` usually allows.
const REQUEST_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// Seconds: from no wait to 10,000 jobs at 5 requests per second.
const QUOTA_WAIT_BUCKETS: &[f64] = &[0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 2000.0];

/// Seconds: from the best that sweeps can do to a job that waited out a long outage.
const DETECTION_DELAY_BUCKETS: &[f64] = &[0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Every counter and histogram of the daemon. Clones share the same numbers.
#[derive(Clone, Debug)]
pub struct Instruments {
    /// Commits of the record.
    pub record_commits: IntCounter,
    /// Failed commits of the record.
    pub record_failures: IntCounter,
    /// Records that were damaged, or none, and were set aside at the start.
    pub record_set_aside: IntCounter,
    /// Tasks that ended by a fault of ours and were started again.
    pub task_restarts: IntCounter,
    /// From the service's completionTime to our commit.
    pub detection_delay: Histogram,
    /// Log lines dropped because the log files or the journal did not take them, or not fast enough.
    pub log_lines_dropped: IntCounter,
    api_requests: IntCounterVec,
    api_request_failures: IntCounterVec,
    api_request_duration: HistogramVec,
    quota_wait: HistogramVec,
    quota_allowed: GaugeVec,
    quota_configured: GaugeVec,
}

/// The instruments of one operation on one target.
#[derive(Clone, Debug)]
pub struct OperationInstruments {
    requests: IntCounter,
    failures: Vec<(FailureReason, IntCounter)>,
    duration: Histogram,
    /// Time from a request's being due to its turn.
    pub quota_wait: Histogram,
    /// The rate that the pacer allows, in requests per second.
    pub quota_allowed: prometheus::Gauge,
    /// The rate that the configuration allows, in requests per second.
    pub quota_configured: prometheus::Gauge,
}

/// How fast one operation on one target may be called, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At present.
    pub allowed: f64,
    /// Where nothing is throttled.
    pub configured: f64,
}

impl OperationInstruments {
    /// Counts one attempt: how long it took and, where it failed, why.
    pub fn request_ended(&self, took: Duration, failure: Option<FailureReason>) {
        self.requests.inc();
        self.duration.observe(took.as_secs_f64());
        for (reason, count) in &self.failures {
            if failure == Some(*reason) {
                count.inc();
            }
        }
    }
}

impl Instruments {
    /// Instruments at zero.
    ///
    /// # Errors
    /// A fault of ours: a family's name or label that Prometheus does not allow.
    pub fn new() -> Result<Self, prometheus::Error> {
        let operation = ["target", "operation"];
        let histogram =
            |name: &str, help: &str, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Ok(Self {
            record_commits: IntCounter::new("refwatch_record_commits_total", "Commits of the record.")?,
            record_failures: IntCounter::new("refwatch_record_failures_total", "Failed commits of the record.")?,
            record_set_aside: IntCounter::new(
                "refwatch_record_set_aside_total",
                "Damaged records that were set aside for a new one.",
            )?,
            task_restarts: IntCounter::new(
                "refwatch_task_restarts_total",
                "Tasks that ended by a fault of refwatch and were started again.",
            )?,
            detection_delay: Histogram::with_opts(histogram(
                "refwatch_detection_delay_seconds",
                "From the service's completionTime of a job to the commit of its end.",
                DETECTION_DELAY_BUCKETS,
            ))?,
            log_lines_dropped: IntCounter::new(
                "refwatch_log_lines_dropped_total",
                "Log lines dropped because the log files or the journal did not take them, or not fast enough.",
            )?,
            api_requests: IntCounterVec::new(
                Opts::new("refwatch_api_requests_total", "Requests sent to AWS HealthOmics, failed ones included."),
                &operation,
            )?,
            api_request_failures: IntCounterVec::new(
                Opts::new("refwatch_api_request_failures_total", "Requests to AWS HealthOmics that failed."),
                &["target", "operation", "reason"],
            )?,
            api_request_duration: HistogramVec::new(
                histogram(
                    "refwatch_api_request_duration_seconds",
                    "Duration of a request to AWS HealthOmics: credentials, connect, headers and body.",
                    REQUEST_BUCKETS,
                ),
                &operation,
            )?,
            quota_wait: HistogramVec::new(
                histogram(
                    "refwatch_quota_wait_seconds",
                    "Time from a request's being due to its turn under the quota.",
                    QUOTA_WAIT_BUCKETS,
                ),
                &operation,
            )?,
            quota_allowed: GaugeVec::new(
                Opts::new(
                    "refwatch_quota_allowed_requests_per_second",
                    "Requests per second that refwatch allows itself at present.",
                ),
                &operation,
            )?,
            quota_configured: GaugeVec::new(
                Opts::new(
                    "refwatch_quota_configured_requests_per_second",
                    "Requests per second that the configuration allows: the quota and refwatch's share of it.",
                ),
                &operation,
            )?,
        })
    }

    /// The instruments of one operation on one target, every series of theirs at zero.
    #[must_use]
    pub fn operation(&self, target: &str, operation: Operation) -> OperationInstruments {
        let labels = [target, operation.as_str()];
        let failure = |reason: FailureReason| {
            (reason, self.api_request_failures.with_label_values(&[target, operation.as_str(), reason.label()]))
        };
        OperationInstruments {
            requests: self.api_requests.with_label_values(&labels),
            failures: FailureReason::ALL.map(failure).into(),
            duration: self.api_request_duration.with_label_values(&labels),
            quota_wait: self.quota_wait.with_label_values(&labels),
            quota_allowed: self.quota_allowed.with_label_values(&labels),
            quota_configured: self.quota_configured.with_label_values(&labels),
        }
    }

    /// How fast each operation may be called, by target and operation.
    #[must_use]
    pub fn rates(&self) -> BTreeMap<(String, String), Rate> {
        let read = |gauges: &GaugeVec| -> BTreeMap<(String, String), f64> {
            let families = gauges.collect();
            let series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
            let label = |metric: &prometheus::proto::Metric, name| {
                let labels = metric.get_label().iter();
                labels.filter(|label| label.name() == name).map(|label| label.value().to_owned()).collect::<String>()
            };
            series.map(|one| ((label(one, "target"), label(one, "operation")), one.get_gauge().get_value())).collect()
        };
        let configured = read(&self.quota_configured);
        let allowed = read(&self.quota_allowed).into_iter();
        allowed
            .filter_map(|(of, allowed)| Some((of.clone(), Rate { allowed, configured: *configured.get(&of)? })))
            .collect()
    }

    /// Removes the series of a target that is no longer configured.
    pub fn forget_target(&self, target: &str) {
        // An error says that a series was not there.
        for operation in Operation::ALL {
            let labels = [target, operation.as_str()];
            drop(self.api_requests.remove_label_values(&labels));
            drop(self.api_request_duration.remove_label_values(&labels));
            drop(self.quota_wait.remove_label_values(&labels));
            drop(self.quota_allowed.remove_label_values(&labels));
            drop(self.quota_configured.remove_label_values(&labels));
            for reason in FailureReason::ALL {
                drop(self.api_request_failures.remove_label_values(&[target, operation.as_str(), reason.label()]));
            }
        }
    }

    /// Registers every instrument. Takes the struct apart, so that one that is forgotten does not compile.
    ///
    /// # Errors
    /// A fault of ours: two families of one name.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let Self {
            record_commits,
            record_failures,
            record_set_aside,
            task_restarts,
            detection_delay,
            log_lines_dropped,
            api_requests,
            api_request_failures,
            api_request_duration,
            quota_wait,
            quota_allowed,
            quota_configured,
        } = self.clone();
        registry.register(Box::new(record_commits))?;
        registry.register(Box::new(record_failures))?;
        registry.register(Box::new(record_set_aside))?;
        registry.register(Box::new(task_restarts))?;
        registry.register(Box::new(detection_delay))?;
        registry.register(Box::new(log_lines_dropped))?;
        registry.register(Box::new(api_requests))?;
        registry.register(Box::new(api_request_failures))?;
        registry.register(Box::new(api_request_duration))?;
        registry.register(Box::new(quota_wait))?;
        registry.register(Box::new(quota_allowed))?;
        registry.register(Box::new(quota_configured))
    }
}
