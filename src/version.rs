//! The version, the commit and the target of this build.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

const ENVIRONMENT: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };

/// The text of `refwatch --version`.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), revision());
    format!("{version} (commit {commit}, {ARCH}-unknown-{OS}-{ENVIRONMENT})")
});

/// The commit, if the build sets it, as `systemd/package` does; otherwise "unknown". Without a build script nothing else knows it.
#[must_use]
pub fn revision() -> &'static str {
    option_env!("REFWATCH_REVISION").filter(|revision| !revision.is_empty()).unwrap_or("unknown")
}
