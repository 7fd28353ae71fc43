//! Counters, histograms and the gauges of the quota. The module that causes an event updates them.
//!
//! `metrics` renders them at a scrape. Values that a scrape can read from `state` have no instrument here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::core::delivery::AttemptResult;
use crate::core::failure::{FailureReason, Operation};
use crate::core::job::JobStatus;
use crate::core::kind::JobKind;
use crate::core::limits::Limit;
use crate::core::time::Monotonic;

/// Seconds, from a response over loopback to the longest usual `poll.timeout`.
const REQUEST_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// Seconds, up to one poll of 10,000 jobs at 5 requests per second.
const QUOTA_WAIT_BUCKETS: &[f64] = &[0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 2000.0];

/// Seconds, from the shortest delay with listings to an outage of one hour.
const DETECTION_DELAY_BUCKETS: &[f64] = &[0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Seconds, from 1 minute to 4 days.
const JOB_DURATION_BUCKETS: &[f64] =
    &[60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 43_200.0, 86_400.0, 172_800.0, 345_600.0];

const LABELS: [&str; 2] = ["target", "operation"];

const FAILURE_LABELS: [&str; 3] = ["target", "operation", "reason"];

/// The used rate is the mean over this time. A job that is polled every 10 s then counts in each reading.
const USED_RATE_WINDOW: Duration = Duration::from_secs(30);

/// The statuses of HTTP responses that refwatch sends. Any other status is counted as [`OTHER_CODE`].
const HTTP_CODES: [u16; 12] = [200, 308, 400, 401, 404, 405, 410, 413, 421, 431, 500, 503];

const OTHER_CODE: &str = "other";

/// Every instrument of the daemon. Clones share the same values.
#[derive(Clone, Debug)]
pub struct Instruments {
    pub database_commits: IntCounter,
    pub database_failures: IntCounter,
    pub database_quarantined: IntCounter,
    pub database_size: IntGauge,
    pub database_wal: IntGauge,
    pub task_restarts: IntCounter,
    /// From AWS's `completionTime` of a job to the commit of its end.
    pub detection_delay: Histogram,
    job_duration: HistogramVec,
    pub log_lines_dropped: IntCounter,
    http_requests: IntCounterVec,
    pub listed_jobs_skipped: IntCounter,
    limit_exceeded: IntCounterVec,
    pub http_login_failures: IntCounter,
    transitions: IntCounterVec,
    api_requests: IntCounterVec,
    api_request_failures: IntCounterVec,
    api_request_duration: HistogramVec,
    quota_wait: HistogramVec,
    quota_allowed: GaugeVec,
    quota_configured: GaugeVec,
    notify_delivered: IntCounterVec,
    notify_attempts: IntCounterVec,
    notify_failed: IntCounterVec,
    notify_delay: HistogramVec,
    pub registry: Registry,
    /// The key is target and operation.
    operations: Arc<Mutex<BTreeMap<(String, String), OperationInstruments>>>,
}

/// The instruments of one operation on one target.
#[derive(Clone, Debug)]
pub struct OperationInstruments {
    requests: IntCounter,
    failures: BTreeMap<FailureReason, IntCounter>,
    duration: Histogram,
    /// From the time when a request is due to its permit.
    pub quota_wait: Histogram,
    /// The present rate, in requests per second.
    pub quota_allowed: Gauge,
    /// The configured rate, in requests per second.
    pub quota_configured: Gauge,
    /// When the requests of the last [`USED_RATE_WINDOW`] ended, the oldest first. The quota bounds their number.
    recent: Arc<Mutex<VecDeque<Monotonic>>>,
}

/// The rates of one operation on one target, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The mean of the last 30 s.
    pub used: f64,
    /// The present rate; lower than `configured` after throttling.
    pub allowed: f64,
    pub configured: f64,
}

impl OperationInstruments {
    /// Counts one request, which was sent at `sent_at`.
    pub fn request_ended(&self, sent_at: Monotonic, now: Monotonic, failure: Option<FailureReason>) {
        self.requests.inc();
        self.duration.observe(now.since(sent_at).as_secs_f64());
        let mut recent = self.recent(now);
        recent.push_back(now);
        drop(recent);
        if let Some(counter) = failure.and_then(|reason| self.failures.get(&reason)) {
            counter.inc();
        }
    }

    /// The requests that ended within [`USED_RATE_WINDOW`] before `now`.
    fn recent(&self, now: Monotonic) -> MutexGuard<'_, VecDeque<Monotonic>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        while recent.pop_front_if(|ended| now.since(*ended) > USED_RATE_WINDOW).is_some() {}
        recent
    }

    fn rate(&self, now: Monotonic) -> Rate {
        let requests = u32::try_from(self.recent(now).len()).unwrap_or(u32::MAX);
        Rate {
            used: f64::from(requests) / USED_RATE_WINDOW.as_secs_f64(),
            allowed: self.quota_allowed.get(),
            configured: self.quota_configured.get(),
        }
    }
}

impl Instruments {
    /// # Errors
    /// Returns an error only if the code below has an invalid or duplicate metric name.
    #[expect(clippy::too_many_lines, reason = "a few lines for each metric")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        let gauges = |name: &str, help: &str| register(&registry, GaugeVec::new(Opts::new(name, help), &LABELS));
        let options =
            |name: &str, help: &str, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms =
            |options: HistogramOpts, labels: &[&str]| register(&registry, HistogramVec::new(options, labels));
        let detection_delay = options(
            "refwatch_detection_delay_seconds",
            "Time from a job's completion, by AWS's clock, to the commit of its end.",
            DETECTION_DELAY_BUCKETS,
        );
        let job_duration = options(
            "refwatch_job_duration_seconds",
            "Time from a job's creation to its completion, by AWS's clock.",
            JOB_DURATION_BUCKETS,
        );
        let request_duration = options(
            "refwatch_api_request_duration_seconds",
            "Duration of a request to AWS HealthOmics: credentials, connection, headers and body.",
            REQUEST_BUCKETS,
        );
        let quota_wait = options(
            "refwatch_quota_wait_seconds",
            "Time from when a request is due to its permit.",
            QUOTA_WAIT_BUCKETS,
        );
        let notify_delay = options(
            "refwatch_notify_delay_seconds",
            "Time from the observation of an event to its delivery.",
            DETECTION_DELAY_BUCKETS,
        );
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let instruments = Self {
            database_commits: counter("refwatch_database_commits_total", "Successful commits to the database.")?,
            database_failures: counter("refwatch_database_failures_total", "Failed commits to the database.")?,
            database_quarantined: counter(
                "refwatch_database_quarantined_total",
                "Damaged databases that this process moved to quarantine at its start.",
            )?,
            database_size: gauge(
                "refwatch_database_size_bytes",
                "Size of the database file, without its write-ahead log.",
            )?,
            database_wal: gauge(
                "refwatch_database_wal_bytes",
                "Size of the write-ahead log. It grows while a reader stays in a transaction.",
            )?,
            task_restarts: counter("refwatch_task_restarts_total", "Tasks restarted after an internal error.")?,
            detection_delay: register(&registry, Histogram::with_opts(detection_delay))?,
            job_duration: histograms(job_duration, &["kind", "status"])?,
            log_lines_dropped: counter("refwatch_log_lines_dropped_total", "Log lines that could not be written.")?,
            http_requests: counters(
                "refwatch_http_requests_total",
                "Responses of the listener by status, rejected requests included.",
                &["code"],
            )?,
            listed_jobs_skipped: counter(
                "refwatch_listed_jobs_skipped_total",
                "Listed jobs that were skipped because they are unreadable.",
            )?,
            limit_exceeded: counters(
                "refwatch_limit_exceeded_total",
                "How often AWS HealthOmics exceeded a limit of refwatch.",
                &["limit"],
            )?,
            http_login_failures: counter(
                "refwatch_http_login_failures_total",
                "Logins with a wrong user or password.",
            )?,
            transitions: counters(
                "refwatch_transitions_total",
                "Transitions committed since the start of the process.",
                &["target", "kind", "to"],
            )?,
            api_requests: counters(
                "refwatch_api_requests_total",
                "Requests sent to AWS HealthOmics, failed ones included.",
                &LABELS,
            )?,
            api_request_failures: counters(
                "refwatch_api_request_failures_total",
                "Failed requests to AWS HealthOmics.",
                &FAILURE_LABELS,
            )?,
            api_request_duration: histograms(request_duration, &LABELS)?,
            quota_wait: histograms(quota_wait, &LABELS)?,
            quota_allowed: gauges("refwatch_quota_allowed_requests_per_second", "The present request rate.")?,
            quota_configured: gauges("refwatch_quota_configured_requests_per_second", "The configured request rate.")?,
            notify_delivered: counters("refwatch_notify_delivered_total", "Delivered notifications.", &["sink"])?,
            notify_attempts: counters(
                "refwatch_notify_attempts_total",
                "Requests to a sink by result.",
                &["sink", "result"],
            )?,
            notify_failed: counters(
                "refwatch_notify_failed_total",
                "Notifications that were rejected over three days and are not sent again.",
                &["sink"],
            )?,
            notify_delay: histograms(notify_delay, &["sink"])?,
            registry: registry.clone(),
            operations: Arc::default(),
        };
        instruments.create_closed_sets();
        Ok(instruments)
    }

    /// Creates the series whose labels are known, so that they exist before their first event.
    fn create_closed_sets(&self) {
        for limit in Limit::ALL {
            drop(self.limit_exceeded.with_label_values(&[limit.label()]));
        }
        for code in HTTP_CODES.map(|code| code.to_string()).iter().map(String::as_str).chain([OTHER_CODE]) {
            drop(self.http_requests.with_label_values(&[code]));
        }
    }

    /// Counts a response of the listener.
    pub fn count_http_response(&self, status: u16) {
        let code = if HTTP_CODES.contains(&status) { &*status.to_string() } else { OTHER_CODE };
        self.http_requests.with_label_values(&[code]).inc();
    }

    pub fn count_exceeded(&self, limit: Limit) {
        self.limit_exceeded.with_label_values(&[limit.label()]).inc();
    }

    pub fn count_transition(&self, target: &str, kind: JobKind, to: &JobStatus) {
        self.transitions.with_label_values(&[target, kind.as_str(), to.label()]).inc();
    }

    /// Creates the series of a sink, so that they exist before its first event.
    pub fn add_sink(&self, sink: &str) {
        drop(self.notify_delivered.with_label_values(&[sink]));
        drop(self.notify_failed.with_label_values(&[sink]));
        drop(self.notify_delay.with_label_values(&[sink]));
        for result in AttemptResult::ALL {
            drop(self.notify_attempts.with_label_values(&[sink, result.label()]));
        }
    }

    /// Removes the series of a sink that is no longer configured.
    pub fn remove_sink(&self, sink: &str) {
        // An error means that the series does not exist.
        drop(self.notify_delivered.remove_label_values(&[sink]));
        drop(self.notify_failed.remove_label_values(&[sink]));
        drop(self.notify_delay.remove_label_values(&[sink]));
        for result in AttemptResult::ALL {
            drop(self.notify_attempts.remove_label_values(&[sink, result.label()]));
        }
    }

    pub fn count_attempt(&self, sink: &str, result: AttemptResult) {
        self.notify_attempts.with_label_values(&[sink, result.label()]).inc();
    }

    /// `delay` is the time since the event was observed.
    pub fn count_delivery(&self, sink: &str, delay: Duration) {
        self.notify_delivered.with_label_values(&[sink]).inc();
        self.notify_delay.with_label_values(&[sink]).observe(delay.as_secs_f64());
    }

    pub fn count_failed_delivery(&self, sink: &str) {
        self.notify_failed.with_label_values(&[sink]).inc();
    }

    pub fn observe_job_duration(&self, kind: JobKind, status: &JobStatus, duration: Duration) {
        self.job_duration.with_label_values(&[kind.as_str(), status.label()]).observe(duration.as_secs_f64());
    }

    /// Creates the instruments of one operation on one target, and those of its kind: transitions and durations of jobs. All their series
    /// exist from now on.
    #[must_use]
    pub fn operation(&self, target: &str, operation: Operation) -> OperationInstruments {
        let labels = [target, operation.as_str()];
        let counter = |label| self.api_request_failures.with_label_values(&[labels[0], labels[1], label]);
        let failures = FailureReason::ALL.map(|reason| (reason, counter(reason.label())));
        let instruments = OperationInstruments {
            requests: self.api_requests.with_label_values(&labels),
            failures: failures.into(),
            duration: self.api_request_duration.with_label_values(&labels),
            quota_wait: self.quota_wait.with_label_values(&labels),
            quota_allowed: self.quota_allowed.with_label_values(&labels),
            quota_configured: self.quota_configured.with_label_values(&labels),
            recent: Arc::default(),
        };
        for to in JobStatus::labels() {
            drop(self.transitions.with_label_values(&[target, operation.kind().as_str(), to]));
        }
        for end in JobStatus::DOCUMENTED.iter().filter(|status| status.is_terminal()) {
            drop(self.job_duration.with_label_values(&[operation.kind().as_str(), end.label()]));
        }
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.insert(labels.map(str::to_owned).into(), instruments.clone());
        instruments
    }

    /// The rates of each operation, by target and operation.
    #[must_use]
    pub fn rates(&self, now: Monotonic) -> BTreeMap<(String, String), Rate> {
        let operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.iter().map(|(labels, instruments)| (labels.clone(), instruments.rate(now))).collect()
    }

    /// Removes the series of a target that has no jobs and stores any more.
    pub fn remove_target(&self, target: &str) {
        // An error means that the series does not exist.
        for labels in Operation::all().map(|operation| [target, operation.as_str()]) {
            drop(self.api_requests.remove_label_values(&labels));
            drop(self.api_request_duration.remove_label_values(&labels));
            drop(self.quota_wait.remove_label_values(&labels));
            drop(self.quota_allowed.remove_label_values(&labels));
            drop(self.quota_configured.remove_label_values(&labels));
            for reason in FailureReason::ALL.map(FailureReason::label) {
                drop(self.api_request_failures.remove_label_values(&[labels[0], labels[1], reason]));
            }
        }
        for kind in JobKind::ALL {
            for to in JobStatus::labels() {
                drop(self.transitions.remove_label_values(&[target, kind.as_str(), to]));
            }
        }
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.retain(|(name, _), _| name != target);
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let family = family?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}
