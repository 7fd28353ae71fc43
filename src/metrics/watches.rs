//! The families of the import jobs: one series, or one for each status, per watch.
//!
//! At 10,000 watches a scrape has some 280,000 series, so they are built straight and not looked up in label maps.

use std::sync::Arc;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::{counter, family, gauge, label, number};
use crate::board::WatchView;
use crate::core::job::{JobStatus, SourceStatus};
use crate::core::time::Timestamp;

/// A family, and the series that one watch has in it.
struct JobFamily {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: fn(&WatchView, &mut Series),
}

/// The series of one family so far, and the labels of the watch in turn.
struct Series {
    kind: MetricType,
    watch: [LabelPair; 4],
    metrics: Vec<Metric>,
}

const JOB_FAMILIES: [JobFamily; 10] = [
    JobFamily {
        name: "refwatch_import_job_info",
        help: "A watched reference import job; 1.",
        kind: MetricType::GAUGE,
        series: |watch, series| series.labelled("aws_region", &watch.aws_region, 1.0),
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
        name: "refwatch_import_job_transitions_total",
        help: "Transitions of the job in the record, by the status they lead to.",
        kind: MetricType::COUNTER,
        series: |watch, series| {
            for (to, count) in JobStatus::labels().zip(watch.transitions) {
                series.labelled("to", to, number(count));
            }
        },
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

/// The families of the jobs, each built when it is asked for.
pub(super) fn families(watches: &[Arc<WatchView>]) -> impl Iterator<Item = MetricFamily> {
    JOB_FAMILIES.into_iter().map(move |JobFamily { name, help, kind, series }| {
        let mut of_family = Series { kind, watch: Default::default(), metrics: Vec::with_capacity(watches.len()) };
        for watch in watches {
            of_family.watch = labels(watch);
            series(watch, &mut of_family);
        }
        family(name, help, kind, of_family.metrics)
    })
}

fn labels(watch: &WatchView) -> [LabelPair; 4] {
    [
        label("watch", &watch.name),
        label("target", &watch.id.target),
        label("reference_store_id", watch.id.key.store.as_str()),
        label("import_job_id", watch.id.key.job.as_str()),
    ]
}

impl Series {
    /// A series with one more label.
    fn labelled(&mut self, name: &str, label_value: &str, value: f64) {
        let labels = self.watch.iter().cloned().chain([label(name, label_value)]).collect();
        self.push(labels, value);
    }

    /// A series, where there is a value.
    fn known(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.push(self.watch.to_vec(), value);
        }
    }

    /// A series with a time, in seconds since the Unix epoch, where there is one.
    fn at(&mut self, time: Option<Timestamp>) {
        self.known(time.map(|time| time.as_duration().as_secs_f64()));
    }

    fn push(&mut self, labels: Vec<LabelPair>, value: f64) {
        let metric = if self.kind == MetricType::COUNTER { counter(labels, value) } else { gauge(labels, value) };
        self.metrics.push(metric);
    }
}
