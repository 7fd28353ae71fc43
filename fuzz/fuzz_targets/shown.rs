//! Any text in every place that others write: the pages, the JSON, the metrics.
#![no_main]

#[allow(dead_code, reason = "each target runs one of the checks")]
#[path = "../../tests/it/foreign.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|text: &str| foreign::shown(text));
