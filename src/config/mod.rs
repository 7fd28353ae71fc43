//! The configuration. A [`Config`] is valid: no other module checks its values again.
//!
//! `load` reads the files, `reader` turns each document into the tables of `raw`, `cross_check` checks the files against one another,
//! and `resolve` applies the defaults. Each of them reports to `diagnostics`. `diff` compares two configurations, `render` writes one
//! as TOML, and `schema` describes the file for editors.

mod access;
mod cross_check;
mod diagnostics;
mod diff;
mod duration_text;
mod files;
mod load;
mod raw;
mod reader;
mod render;
mod resolve;
mod schema;
mod suggest;
mod syntax;
mod values;
pub mod watch_list;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::Level;

pub use access::{PasswordHash, TlsConfig};
pub use diagnostics::{Problem, Problems};
pub use files::{FILE_SIZE_MAX, includes, matching_files};
pub use load::{Loaded, load, load_with};
pub use schema::schema;
pub use values::parse_endpoint_url;
use watch_list::WatchList;

use crate::core::backoff::BackoffPolicy;
use crate::core::tracker::PollPolicy;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where calls go, by name.
    pub targets: BTreeMap<Arc<str>, TargetConfig>,
    /// What to watch.
    pub watch_list: WatchList,
    /// How polls are made where a job does not say otherwise.
    pub poll: PollConfig,
    /// The durable log of transitions.
    pub database: DatabaseConfig,
    /// The listener.
    pub http: HttpConfig,
    /// The log.
    pub log: LogConfig,
}

impl Config {
    /// The configuration of an empty file, but for the place of the database: the target `default` and nothing to watch.
    #[must_use]
    pub fn new(database: PathBuf) -> Self {
        let target = TargetConfig::new(TargetConfig::DEFAULT);
        Self {
            targets: [(target.name.clone(), target)].into(),
            watch_list: WatchList::default(),
            poll: PollConfig::default(),
            database: DatabaseConfig::new(database),
            http: HttpConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// Where calls go: region, identity, endpoint, and the quota that goes with them.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetConfig {
    /// The `target` label.
    pub name: Arc<str>,
    /// The AWS region; `None` leaves it to AWS's own chain.
    pub region: Option<String>,
    /// A profile of the shared AWS configuration files.
    pub profile: Option<String>,
    /// A role to assume through STS.
    pub role_arn: Option<String>,
    /// The external id that the role asks for.
    pub external_id: Option<String>,
    /// An endpoint to use verbatim in place of AWS's.
    pub endpoint_url: Option<String>,
    /// The quota.
    pub quota: Quota,
    /// The deadline of one attempt: credentials, connect, headers and body.
    pub timeout: Duration,
    /// How often AWS is asked again where it refuses everything.
    pub backoff: BackoffPolicy,
    /// Whether the endpoint is the embedded simulator, which takes made-up credentials. No file can set this.
    pub simulated: bool,
}

impl TargetConfig {
    /// The target of a job that names none. It exists even where it is not written.
    pub const DEFAULT: &'static str = "default";

    /// A target that leaves everything to AWS's own chain.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            region: None,
            profile: None,
            role_arn: None,
            external_id: None,
            endpoint_url: None,
            quota: Quota::default(),
            timeout: Duration::from_secs(20),
            backoff: PollConfig::default().backoff,
            simulated: false,
        }
    }
}

/// How many requests the daemon allows itself, per target and operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// The service's quota, in requests per second.
    pub requests_per_second: f64,
    /// The part of it that refwatch may use, over 0 and at most 1.
    pub share: f64,
}

/// AWS's default quota, and a fifth of it left to the account's other callers.
impl Default for Quota {
    fn default() -> Self {
        Self { requests_per_second: 5.0, share: 0.8 }
    }
}

impl Quota {
    /// The highest rate that refwatch uses, in requests per second.
    #[must_use]
    pub fn configured_rate(self) -> f64 {
        self.requests_per_second * self.share
    }
}

/// The durable log of transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The database file.
    pub path: PathBuf,
    /// How long a job's rows are kept after its end.
    pub retention: Duration,
}

impl DatabaseConfig {
    /// A database at `path`, kept for a year.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, retention: Duration::from_hours(365 * 24) }
    }

    /// Where the database is unless the configuration says so: in systemd's state directory, else in the user's (XDG Base Directory
    /// Specification). `None` where the environment names neither.
    #[must_use]
    pub fn default_path() -> Option<PathBuf> {
        Self::default_path_in(|name| std::env::var_os(name))
    }

    fn default_path_in(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        // systemd separates several directories by colons; the first is the main one.
        let directory =
            |name: &str| std::env::split_paths(&environment(name)?).next().filter(|path| path.is_absolute());
        let of_user = || {
            let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
            Some(state.join("refwatch"))
        };
        Some(directory("STATE_DIRECTORY").or_else(of_user)?.join("refwatch.db"))
    }
}

/// The listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Its address.
    pub listen: SocketAddr,
    /// Its TLS; `None`: it is plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Who may ask, by name; empty: everybody.
    pub users: BTreeMap<String, PasswordHash>,
}

/// Loopback: whoever wants more says so.
impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 10210).into(), tls: None, users: BTreeMap::new() }
    }
}

impl HttpConfig {
    /// What whoever runs it should know of the listener: that others can reach it, and nothing keeps them out.
    #[must_use]
    pub fn exposed(&self) -> Option<String> {
        if self.listen.ip().is_loopback() {
            return None;
        }
        let guarded = !self.users.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let lacks = match (&self.tls, guarded) {
            (Some(_), true) => return None,
            (Some(_), false) => "anybody there may read it; set http.users, or client_ca in http.tls",
            (None, true) => "passwords and answers go there in the clear; set http.tls",
            (None, false) => "anybody there may read it, in the clear; set http.tls and http.users",
        };
        Some(format!("http.listen is {}, which others can reach: {lacks}", self.listen))
    }
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe level that is logged.
    pub level: Level,
    /// The format of a line.
    pub format: LogFormat,
    /// Where log files go; `None`: nowhere, standard error alone is used.
    pub directory: Option<PathBuf>,
    /// When a new log file is begun.
    pub rotation: LogRotation,
    /// How many log files are kept.
    pub keep_files: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: Level::INFO,
            format: LogFormat::Text,
            directory: None,
            rotation: LogRotation::Daily,
            keep_files: 14,
        }
    }
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// When a new log file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogRotation {
    Hourly,
    Daily,
    Never,
}

/// How polls are made where a job does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollConfig {
    /// A fixed interval; `None`: as often as the quota allows.
    pub interval: Option<Duration>,
    /// The least time between two polls of one job.
    pub min_interval: Duration,
    /// From a failed poll to the next one.
    pub backoff: BackoffPolicy,
    /// Whether to list a store's jobs where that saves polls.
    pub use_list: bool,
}

impl Default for PollConfig {
    fn default() -> Self {
        let backoff = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };
        Self { interval: None, min_interval: Duration::from_secs(5), backoff, use_list: true }
    }
}

impl PollConfig {
    /// The policy of one job. Where no interval is fixed, it is the least one, which the pacer's queue stretches.
    #[must_use]
    pub fn policy(&self) -> PollPolicy {
        let interval = self.interval.unwrap_or(self.min_interval);
        PollPolicy { interval, fixed: self.interval.is_some(), backoff: self.backoff }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_in_the_state_directory_of_systemd_or_of_the_user() {
        let path = |variables: &[(&str, &str)]| {
            let variables: BTreeMap<&str, OsString> =
                variables.iter().map(|(name, value)| (*name, value.into())).collect();
            let path = DatabaseConfig::default_path_in(|name| variables.get(name).cloned());
            path.map(|path| path.to_string_lossy().into_owned())
        };
        let home = ("HOME", "/home/ada");
        let state = ("XDG_STATE_HOME", "/state");
        let systemd = ("STATE_DIRECTORY", "/var/lib/refwatch:/var/lib/other");
        assert_eq!(path(&[home, state, systemd]).as_deref(), Some("/var/lib/refwatch/refwatch.db"));
        assert_eq!(path(&[home, state]).as_deref(), Some("/state/refwatch/refwatch.db"));
        assert_eq!(path(&[home]).as_deref(), Some("/home/ada/.local/state/refwatch/refwatch.db"));
        assert_eq!(path(&[home, ("XDG_STATE_HOME", "relative")]), path(&[home]));
        assert_eq!(path(&[]), None);
    }
}
