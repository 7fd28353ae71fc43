//! Writes the text of a scrape: Prometheus's text format 0.0.4 or OpenMetrics 1.0. The `prometheus` crate has no OpenMetrics.
//!
//! Both formats have the same series and values. In OpenMetrics a counter's family has no suffix `_total`, a family `…_info` has
//! the type `info`, units are declared, and bounds of buckets are floats. `refwatch_job_status` is a gauge in both: in a state set
//! the label `status` would have to have the name of the family.

use std::fmt::Write as _;

use prometheus::proto::{MetricFamily, MetricType};

use super::{Format, number};
use crate::core::sanitize::Sanitized;

/// The required last line of OpenMetrics.
const OPEN_METRICS_END: &str = "# EOF\n";

/// Suffixes of family names that are units.
const UNITS: [&str; 2] = ["seconds", "bytes"];

pub(super) struct Exposition {
    format: Format,
    text: String,
    /// The HELP and TYPE lines of the current family until its first sample. A family without samples is not written.
    head: String,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::new(), head: String::new() }
    }

    pub(super) fn finish(self) -> String {
        match self.format {
            Format::Text => self.text,
            Format::OpenMetrics => self.text + OPEN_METRICS_END,
        }
    }

    /// Writes a counter if the name ends in `_total`, a gauge otherwise. `series` are labels and values.
    pub(super) fn family(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (String, f64)>) {
        let kind = if name.ends_with("_total") { MetricType::COUNTER } else { MetricType::GAUGE };
        self.start(name, help, kind);
        for (labels, value) in series {
            self.sample(name, &labels, value);
        }
    }

    /// Writes a family of one series without labels, if `value` is known.
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
                    let total = number(histogram.get_sample_count());
                    for bucket in histogram.get_bucket() {
                        let bound = match self.format {
                            Format::Text => bucket.upper_bound().to_string(),
                            Format::OpenMetrics => format!("{:?}", bucket.upper_bound()),
                        };
                        let labels = labels(&[&pairs[..], &[("le", &bound)]].concat());
                        self.sample(&format!("{name}_bucket"), &labels, number(bucket.cumulative_count()));
                    }
                    self.sample(&format!("{name}_bucket"), &labels(&[&pairs[..], &[("le", "+Inf")]].concat()), total);
                    self.sample(&format!("{name}_count"), &labels(&pairs), total);
                    self.sample(&format!("{name}_sum"), &labels(&pairs), histogram.get_sample_sum());
                }
                // The registry has no summaries and no untyped metrics.
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

/// Formats labels without the braces. The values are sanitized, so they have no line breaks to escape.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value| Sanitized(value).to_string().replace('\\', r"\\").replace('"', "\\\"");
    let labels: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    labels.join(",")
}
