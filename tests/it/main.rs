//! The integration tests: one binary, so that it links once.

mod commands;
mod daemon;
mod omics;
mod process;
