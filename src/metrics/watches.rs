//! The families of the import jobs: one series, or one for each status, per watch.
//!
//! At 10,000 watches a scrape has some 280,000 series of five labels each. So they are written straight into the text, which takes
//! a seventh of the time that making values of them does: the labels of a watch once, and copied for each of its series.

use std::fmt::Write as _;
use std::sync::Arc;

use prometheus::proto::MetricType;

use super::openmetrics::escape;
use super::{Format, head, number};
use crate::core::job::{JobStatus, SourceStatus};
use crate::core::sanitize::Printable;
use crate::core::time::Timestamp;
use crate::state::WatchView;

/// A family, and the series that one watch has in it.
struct JobFamily {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: fn(&WatchView, &mut Series),
}

/// Where the series of a watch in one family are written.
struct Series<'a> {
    family: &'static str,
    /// The labels of the watch, without the brace that ends them.
    labels: &'a str,
    text: &'a mut String,
}

/// Room to begin with: what the series of one watch come to.
const WATCH_BYTES: usize = 4_500;

const JOB_FAMILIES: [JobFamily; 10] = [
    JobFamily {
        name: "refwatch_import_job_info",
        help: "A watched reference import job; 1.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.labelled("aws_region", &quoted(&watch.aws_region), 1.0),
    },
    JobFamily {
        name: "refwatch_import_job_status",
        help: "Whether this is the status of the job; all are 0 until the job was first seen.",
        kind: MetricType::GAUGE,
        series: |watch, series| {
            let current = watch.known.as_ref().map(|known| known.status.label());
            for status in JobStatus::labels() {
                series.labelled("status", status, f64::from(current == Some(status)));
            }
        },
    },
    JobFamily {
        name: "refwatch_import_job_sources",
        help: "Sources of the job by their status.",
        kind: MetricType::GAUGE,
        series: |watch, series| {
            let Some(known) = &watch.known else { return };
            let mut counts = [0_u64; SourceStatus::KNOWN.len() + 1];
            for source in known.sources.values() {
                counts[source.status.index()] += 1;
            }
            for (status, count) in SourceStatus::labels().zip(counts) {
                series.labelled("status", status, number(count));
            }
        },
    },
    JobFamily {
        name: "refwatch_import_job_up",
        help: "Whether the last poll of the job succeeded.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.known(watch.up.map(f64::from)),
    },
    JobFamily {
        name: "refwatch_import_job_created_timestamp_seconds",
        help: "When the job was created, as the service says.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.at(watch.known.as_ref().and_then(|known| known.created_at)),
    },
    JobFamily {
        name: "refwatch_import_job_completed_timestamp_seconds",
        help: "When the job ended, as the service says.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.at(watch.known.as_ref().and_then(|known| known.completed_at)),
    },
    JobFamily {
        name: "refwatch_import_job_last_transition_timestamp_seconds",
        help: "When the present status of the job was first seen.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.at(watch.known.as_ref().map(|known| known.since)),
    },
    JobFamily {
        name: "refwatch_import_job_last_successful_poll_timestamp_seconds",
        help: "When a poll of the job last succeeded.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.at(watch.last_successful_poll),
    },
    JobFamily {
        name: "refwatch_import_job_next_poll_timestamp_seconds",
        help: "When the next poll of the job is due.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.at(watch.next_poll),
    },
];

/// Writes the families of the jobs.
pub(super) fn write(watches: &[Arc<WatchView>], format: Format, text: &mut String) {
    text.reserve(watches.len() * WATCH_BYTES);
    let labels: Vec<String> = watches.iter().map(|watch| labels(watch)).collect();
    for JobFamily { name, help, kind, series } in JOB_FAMILIES {
        let before = text.len();
        head(name, help, kind, format, text);
        let empty = text.len();
        for (watch, labels) in watches.iter().zip(&labels) {
            series(watch, &mut Series { family: name, labels, text });
        }
        // Nothing is known of it yet.
        if text.len() == empty {
            text.truncate(before);
        }
    }
}

fn labels(watch: &WatchView) -> String {
    let mut text = String::new();
    for (nth, (name, value)) in [
        ("watch", &*watch.name),
        ("target", &*watch.id.target),
        ("reference_store_id", watch.id.key.store.as_str()),
        ("import_job_id", watch.id.key.job.as_str()),
    ]
    .into_iter()
    .enumerate()
    {
        text.extend([if nth == 0 { "{" } else { "," }, name, "=\"", &quoted(value), "\""]);
    }
    text
}

/// A label's value that the configuration wrote, so it is not to be trusted with a terminal either.
fn quoted(value: &str) -> String {
    let mut text = String::new();
    escape(&Printable(value).to_string(), &mut text);
    text
}

impl Series<'_> {
    /// A series with one more label, whose value can stand between quotes as it is.
    fn labelled(&mut self, name: &str, label_value: &str, value: f64) {
        self.text.extend([self.family, self.labels, ",", name, "=\"", label_value, "\""]);
        self.value(value);
    }

    /// A series, where there is a value.
    fn known(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.text.extend([self.family, self.labels]);
            self.value(value);
        }
    }

    /// A series with a time, in seconds since the Unix epoch, where there is one.
    fn at(&mut self, time: Option<Timestamp>) {
        self.known(time.map(|time| time.as_duration().as_secs_f64()));
    }

    fn value(&mut self, value: f64) {
        // To write a number takes longer than all else of a series, and most are one of these.
        if value.to_bits() == 0.0_f64.to_bits() {
            self.text.push_str("} 0\n");
        } else if value.to_bits() == 1.0_f64.to_bits() {
            self.text.push_str("} 1\n");
        } else {
            // A String takes everything.
            let _ = writeln!(self.text, "}} {value}");
        }
    }
}
