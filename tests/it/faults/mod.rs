//! Faults, each caused for real: `tests/FAULTS.md` says which test is for which, and is held here against the tests.

mod start;
