//! Arbitrary text in the log, the journal and the tables of the commands.
#![no_main]

#[allow(dead_code, reason = "each target runs one check")]
#[path = "../../tests/it/untrusted_text.rs"]
mod untrusted_text;

libfuzzer_sys::fuzz_target!(|text: &str| untrusted_text::check_logs(text));
