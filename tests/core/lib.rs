//! The core of refwatch with its own tests, and nothing else of it: what `cargo mutants` and the count of branches work on.

#[path = "../../src/core/mod.rs"]
pub mod core;
