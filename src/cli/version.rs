//! The text of `refwatch --version`: version, commit and target.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

/// The commit, if the build sets it, as `systemd/package` does. Without a build script nothing else knows it.
const REVISION: Option<&str> = option_env!("REFWATCH_REVISION");

const ENVIRONMENT: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };

pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = REVISION.filter(|revision| !revision.is_empty()).unwrap_or("unknown");
    format!("{} (commit {commit}, {ARCH}-unknown-{OS}-{ENVIRONMENT})", env!("CARGO_PKG_VERSION"))
});
