//! Any bytes as the answer about a job, and as a page of a listing.
#![no_main]

#[allow(dead_code, reason = "each target runs one of the checks")]
#[path = "../../tests/it/foreign.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreign::answer(bytes));
