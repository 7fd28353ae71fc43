//! Arbitrary bytes as the configuration.
#![no_main]

#[allow(dead_code, reason = "each target runs one check")]
#[path = "../../tests/it/untrusted_text.rs"]
mod untrusted_text;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| untrusted_text::check_configuration(bytes));
