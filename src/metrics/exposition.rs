//! Writes the text of a scrape, in the text format 0.0.4 or in OpenMetrics 1.0, which the `prometheus` crate does not write.
//!
//! Both formats have the same series and values. In OpenMetrics a counter's family has no `_total`, a gauge named `_info` has a
//! type of its own, units are declared, and bounds of buckets are floats. `refwatch_job_status` stays a gauge: the label of
//! a state set would have the name of its family.

use std::fmt::Write as _;

use prometheus::proto::{MetricFamily, MetricType};

use super::{Format, number};
use crate::core::sanitize::Sanitized;

/// Ends a text of OpenMetrics: without it a scrape counts as cut short.
const END: &str = "# EOF\n";

/// Base units that end a family's name.
const UNITS: [&str; 2] = ["seconds", "bytes"];

pub(super) struct Exposition {
    format: Format,
    text: String,
    /// The lines before a family's first sample. They are dropped if it has no samples.
    head: String,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::new(), head: String::new() }
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        match self.format {
            Format::Text => self.text,
            Format::OpenMetrics => self.text + END,
        }
    }

    /// Writes a gauge or, if its name ends in `_total`, a counter: the labels and the value of each of its series.
    pub(super) fn family(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (String, f64)>) {
        let kind = if name.ends_with("_total") { MetricType::COUNTER } else { MetricType::GAUGE };
        self.start(name, help, kind);
        for (labels, value) in series {
            self.sample(name, &labels, value);
        }
    }

    /// Writes a family that has one series without labels, if its value is known.
    pub(super) fn single(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        self.family(name, help, value.into().map(|value| (String::new(), value)));
    }

    /// Writes a family of the `prometheus` crate.
    pub(super) fn gathered(&mut self, family: &MetricFamily) {
        let (name, kind) = (family.name(), family.get_field_type());
        self.start(name, family.help(), kind);
        for metric in family.get_metric() {
            let pairs: Vec<_> = metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            match kind {
                MetricType::COUNTER => self.sample(name, &labels(&pairs), metric.get_counter().get_value()),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    let all = number(histogram.get_sample_count());
                    for bucket in histogram.get_bucket() {
                        let bound = match self.format {
                            Format::Text => bucket.upper_bound().to_string(),
                            Format::OpenMetrics => format!("{:?}", bucket.upper_bound()),
                        };
                        let labels = labels(&[&pairs[..], &[("le", &bound)]].concat());
                        self.sample(&format!("{name}_bucket"), &labels, number(bucket.cumulative_count()));
                    }
                    self.sample(&format!("{name}_bucket"), &labels(&[&pairs[..], &[("le", "+Inf")]].concat()), all);
                    self.sample(&format!("{name}_count"), &labels(&pairs), all);
                    self.sample(&format!("{name}_sum"), &labels(&pairs), histogram.get_sample_sum());
                }
                // refwatch has no summaries and no untyped metrics.
                MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                    self.sample(name, &labels(&pairs), metric.get_gauge().get_value());
                }
            }
        }
    }

    fn start(&mut self, name: &str, help: &str, kind: MetricType) {
        let kind = format!("{kind:?}").to_lowercase();
        self.head = match self.format {
            Format::Text => format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
            Format::OpenMetrics => {
                let (name, kind) = match name.strip_suffix("_info") {
                    Some(name) => (name, "info"),
                    None => (name.strip_suffix("_total").unwrap_or(name), &*kind),
                };
                let unit = UNITS.into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
                let unit = unit.map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
                format!("# TYPE {name} {kind}\n{unit}# HELP {name} {help}\n")
            }
        };
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.text.push_str(&std::mem::take(&mut self.head));
        let [open, close] = if labels.is_empty() { ["", ""] } else { ["{", "}"] };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{name}{open}{labels}{close} {value}");
    }
}

/// Labels as they stand between the braces. Values may come from the configuration, so they pass the sanitiser, which leaves no line
/// break to escape.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value| Sanitized(value).to_string().replace('\\', r"\\").replace('"', "\\\"");
    let labels: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    labels.join(",")
}
