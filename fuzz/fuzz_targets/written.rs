//! Any text in the lines of the log and in the tables of the commands.
#![no_main]

#[allow(dead_code, reason = "each target runs one of the checks")]
#[path = "../../tests/it/foreign.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|text: &str| foreign::written(text));
