//! The text of OpenMetrics 1.0, which the `prometheus` crate does not write.
//!
//! The series and their values are those of the text format 0.0.4; what differs is the frame: a counter's family goes without the
//! `_total` of its series, what is a gauge of 1 named `_info` there has a type of its own, units are named, and bounds of buckets are
//! written as floats. `refwatch_import_job_status` stays a gauge, since a state set's label has the name of its family.

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

/// Ends the text: without it a scrape counts as cut short.
pub(super) const END: &str = "# EOF\n";

/// Base units that end a family's name.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// A further label.
type Extra<'a> = Option<(&'a str, &'a str)>;

/// Adds to the text what stands before the series of a family.
pub(super) fn head(name: &str, help: &str, kind: MetricType, text: &mut String) {
    let (name, kind) = name_and_type(name, kind);
    text.extend(["# TYPE ", name, " ", kind, "\n"]);
    if let Some(unit) = UNITS.into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))) {
        text.extend(["# UNIT ", name, " ", unit, "\n"]);
    }
    text.extend(["# HELP ", name, " "]);
    escape(help, text);
    text.push('\n');
}

/// Adds a family to the text.
pub(super) fn encode(family: &MetricFamily, text: &mut String) {
    head(family.name(), family.help(), family.get_field_type(), text);
    let (name, _) = name_and_type(family.name(), family.get_field_type());
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => sample(text, [name, "_total"], labels, None, metric.get_counter().get_value()),
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                let count = |count: u64| super::number(count);
                for bucket in histogram.get_bucket() {
                    let bound = format!("{:?}", bucket.upper_bound());
                    sample(text, [name, "_bucket"], labels, Some(("le", &bound)), count(bucket.cumulative_count()));
                }
                let all = count(histogram.get_sample_count());
                sample(text, [name, "_bucket"], labels, Some(("le", "+Inf")), all);
                sample(text, [name, "_count"], labels, None, all);
                sample(text, [name, "_sum"], labels, None, histogram.get_sample_sum());
            }
            // We have no others.
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                sample(text, [family.name(), ""], labels, None, metric.get_gauge().get_value());
            }
        }
    }
}

/// The family's name and type as OpenMetrics has them.
fn name_and_type(name: &str, kind: MetricType) -> (&str, &'static str) {
    match (kind, name.strip_suffix("_info")) {
        (MetricType::COUNTER, _) => (name.strip_suffix("_total").unwrap_or(name), "counter"),
        (MetricType::GAUGE, Some(name)) => (name, "info"),
        (MetricType::GAUGE, None) => (name, "gauge"),
        (MetricType::HISTOGRAM, _) => (name, "histogram"),
        (MetricType::SUMMARY | MetricType::UNTYPED, _) => (name, "unknown"),
    }
}

fn sample(text: &mut String, name: [&str; 2], labels: &[LabelPair], extra: Extra<'_>, value: f64) {
    text.extend(name);
    let labels = labels.iter().map(|label| (label.name(), label.value())).chain(extra);
    for (nth, (name, value)) in labels.enumerate() {
        text.extend([if nth == 0 { "{" } else { "," }, name, "=\""]);
        escape(value, text);
        text.push('"');
    }
    // Rust writes no exponents; of what it calls `inf` and `NaN` we have none.
    let value = value.to_string();
    text.extend([if text.ends_with('"') { "} " } else { " " }, &value, "\n"]);
}

/// Adds a label's value, or a help text.
pub(super) fn escape(foreign: &str, text: &mut String) {
    // Nearly always there is nothing to escape.
    if !foreign.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        text.push_str(foreign);
        return;
    }
    for character in foreign.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            character => text.push(character),
        }
    }
}
