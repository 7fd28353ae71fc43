//! Any bytes as the configuration.
#![no_main]

#[allow(dead_code, reason = "each target runs one of the checks")]
#[path = "../../tests/it/foreign.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreign::configuration(bytes));
