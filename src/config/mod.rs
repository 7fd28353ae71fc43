//! The configuration. A loaded [`Config`] satisfies the rules of this module, so other modules do not check them again.
//!
//! `load` runs all steps. `files` reads a file. `reader` parses it into the tables of `raw`, by the rules of `values`, `ids`, `urls`,
//! `labels`, `sinks` and `access`. `suggest` finds similar words, `syntax` converts errors of the TOML parser. `resolve` applies the main
//! settings. `cross_check` checks the entries. `resolve` then adds them. `diagnostics` shows problems. `reload` compares configurations.
//!
//! A job of AWS HealthOmics belongs to a reference or sequence store. A watch is one job (`[[job]]`), or all recent jobs of a store
//! (`[[store]]`). Watches and `[target.NAME]` are entries, in any file. All else is a main setting, in the main file.

mod access;
mod cross_check;
mod diagnostics;
mod duration_text;
mod files;
mod ids;
mod job_removal;
mod labels;
mod load;
mod raw;
mod reader;
mod redacted_toml;
mod reload;
mod resolve;
mod schema;
mod secret_permissions;
mod sinks;
mod suggest;
mod syntax;
mod urls;
mod values;
pub mod watch_list;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tracing::Level;

pub use access::{PasswordHash, TlsConfig};
pub use diagnostics::{Problem, Problems};
pub use files::{FILE_SIZE_MAX, LoadedFiles, Stamps, current_stamps, include_matches_name, wildcard_matches};
pub use job_removal::{JobLocation, job_locations, without_job};
pub use load::{Loaded, load, load_with, main_settings};
pub use schema::schema;
pub use sinks::{SinkConfig, SinkFormat, SinkUrl, parse_sink_url, redacted_url};
pub use urls::{parse_endpoint_url, parse_external_url};
pub use values::{parse_profile_name, parse_region, parse_role_arn};
use watch_list::WatchList;

use crate::core::backoff::BackoffPolicy;
use crate::core::failure::Operation;
use crate::core::secret::Secret;
use crate::core::tracker::PollPolicy;

/// The settings and entries of a main file and its included files.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// By name. `default` is always present.
    pub targets: BTreeMap<Arc<str>, TargetConfig>,
    pub watch_list: WatchList,
    /// The poll settings. A job or store may have its own interval.
    pub poll: PollConfig,
    pub database: DatabaseConfig,
    pub http: HttpConfig,
    pub log: LogConfig,
    /// In the order of the file. Their names differ.
    pub sinks: Vec<SinkConfig>,
}

impl Config {
    /// The defaults: the target `default` and an empty watch list. The default database path depends on the environment, so callers pass
    /// it.
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
            sinks: Vec::new(),
        }
    }
}

/// An account and region: where requests go, with which credentials, and at which rate.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetConfig {
    /// The value of the metric label `target`.
    pub name: Arc<str>,
    /// `None`: the AWS SDK determines the region.
    pub region: Option<String>,
    /// A profile of the shared AWS configuration files.
    pub profile: Option<String>,
    pub role_arn: Option<String>,
    /// The external id that the role requires.
    pub external_id: Option<Secret>,
    pub endpoint_url: Option<String>,
    pub quota: Quota,
    /// The quotas of operations that differ from `quota`.
    pub operation_quotas: BTreeMap<Operation, Quota>,
    /// The timeout of one request: credentials, connect, headers and body.
    pub timeout: Duration,
    /// The delay between attempts while all requests of this target fail.
    pub backoff: BackoffPolicy,
    /// The endpoint is the embedded simulator, which accepts any credentials. No file can set this.
    pub simulated: bool,
}

impl TargetConfig {
    /// The target of entries without `target`. It exists even if no file defines it.
    pub const DEFAULT: &'static str = "default";

    /// The quota of an operation.
    #[must_use]
    pub fn quota_of(&self, operation: Operation) -> Quota {
        self.operation_quotas.get(&operation).copied().unwrap_or(self.quota)
    }

    /// Whether the target sets no region, profile, role or endpoint, so that the AWS SDK determines them.
    fn uses_sdk_defaults(&self) -> bool {
        let Self { region, profile, role_arn, endpoint_url, .. } = self;
        [region, profile, role_arn, endpoint_url].into_iter().all(Option::is_none)
    }

    /// A target whose region and credentials the AWS SDK determines.
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
            operation_quotas: BTreeMap::new(),
            timeout: Duration::from_secs(20),
            backoff: PollConfig::default().backoff,
            simulated: false,
        }
    }
}

/// The limit on the request rate of a target. It applies to each operation separately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// The account's quota for the region.
    pub requests_per_second: f64,
    /// The fraction of the quota that refwatch may use, from 0.01 to 1.
    pub share: f64,
}

/// 80 % of AWS's default quota. The other 20 % is for other callers of the account.
impl Default for Quota {
    fn default() -> Self {
        Self { requests_per_second: 5.0, share: 0.8 }
    }
}

impl Quota {
    /// The highest rate that refwatch may use, in requests per second. The pacer lowers it while AWS throttles.
    #[must_use]
    pub fn configured_rate(self) -> f64 {
        self.requests_per_second * self.share
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseConfig {
    pub path: PathBuf,
    /// How long a job's rows are kept after its end.
    pub retention: Duration,
}

impl DatabaseConfig {
    /// A database with the default retention of 365 days.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, retention: Duration::from_hours(365 * 24) }
    }

    /// The path of the database if the main file sets none. `config_directory` is the directory of the main file. The directory of the
    /// database is the first of:
    /// - systemd's `STATE_DIRECTORY`,
    /// - for a configuration in `/etc`, the state directory of its service, if that exists,
    /// - the state directory of the user (XDG Base Directory Specification).
    ///
    /// `None` if there is none of them.
    #[must_use]
    pub fn default_path(config_directory: &Path) -> Option<PathBuf> {
        Self::default_path_with(|name| std::env::var_os(name), config_directory, may_exist)
    }

    /// Whether the database is in the user's default directory. The daemon creates only this directory if it is missing.
    #[must_use]
    pub fn is_in_user_directory(&self) -> bool {
        self.path
            .parent()
            .is_some_and(|directory| Self::user_directory(|name| std::env::var_os(name)).as_deref() == Some(directory))
    }

    fn default_path_with(
        environment: impl Fn(&str) -> Option<OsString>,
        config_directory: &Path,
        may_exist: impl Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        // systemd separates several directories by colons.
        let state_directories = environment("STATE_DIRECTORY").unwrap_or_default();
        let directory = std::env::split_paths(&state_directories)
            .next()
            .filter(|path| path.is_absolute())
            .or_else(|| service_directory(config_directory).filter(|directory| may_exist(directory)))
            .or_else(|| Self::user_directory(&environment));
        Some(directory?.join("refwatch.db"))
    }

    fn user_directory(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let absolute = |name| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
        Some(state.join("refwatch"))
    }
}

/// The state directory of the systemd service with this configuration: `/var/lib/refwatch/NAME` for `/etc/refwatch/NAME`, which the
/// instance `refwatch@NAME` reads, and `/var/lib/refwatch` for any other directory in `/etc`.
fn service_directory(config_directory: &Path) -> Option<PathBuf> {
    let below_etc = config_directory.strip_prefix("/etc").ok()?;
    let instance = below_etc.strip_prefix("refwatch").unwrap_or(Path::new(""));
    Some(Path::new("/var/lib/refwatch").join(instance))
}

/// True also if this user has no permission to see the directory.
fn may_exist(directory: &Path) -> bool {
    !matches!(std::fs::metadata(directory), Err(error) if error.kind() == ErrorKind::NotFound)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// The URL at which people open the status page, if it is behind a reverse proxy.
    pub external_url: Option<Uri>,
    /// Names that the header `Host` of a request may have, in lower case.
    pub allowed_hosts: Vec<String>,
    /// `None`: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// The users with access, by name. Empty: no password is required.
    pub users: BTreeMap<String, PasswordHash>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 10210).into(),
            external_url: None,
            allowed_hosts: Vec::new(),
            tls: None,
            users: BTreeMap::new(),
        }
    }
}

impl HttpConfig {
    /// A warning if other hosts can reach the listener without authentication or without encryption.
    #[must_use]
    pub fn exposure_warning(&self) -> Option<String> {
        if self.listen.ip().is_loopback() {
            return None;
        }
        let authenticates = !self.users.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let missing = match (&self.tls, authenticates) {
            (Some(_), true) => return None,
            (Some(_), false) => "without authentication: set http.users, or client_ca in http.tls",
            (None, true) => "without encryption, so passwords are sent in clear text: set http.tls",
            (None, false) => "without authentication and encryption: set http.tls and http.users",
        };
        Some(format!("other hosts can reach http.listen {} {missing}", self.listen))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub level: Level,
    pub format: LogFormat,
    /// The directory of log files. `None`: standard error only.
    pub directory: Option<PathBuf>,
    pub rotation: LogRotation,
    /// The number of earlier log files that are kept beside the current one.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    /// One JSON object on each line.
    Json,
}

/// How often a new log file is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogRotation {
    Hourly,
    Daily,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollConfig {
    /// Between two polls of one job. A small quota lengthens it. `None` ("auto"): `min_interval`, or longer while listings replace polls.
    pub interval: Option<Duration>,
    /// The minimum of every interval. Retries, and polls after a `List` request showed a change, may come sooner.
    pub min_interval: Duration,
    /// The delay after failed polls of one job. Targets use the same delays while all of their requests fail.
    pub backoff: BackoffPolicy,
    /// Whether listings replace polls if they take fewer requests. A `[[store]]` is listed in any case.
    pub use_list: bool,
}

impl Default for PollConfig {
    fn default() -> Self {
        let backoff = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };
        Self { interval: None, min_interval: Duration::from_secs(5), backoff, use_list: true }
    }
}

impl PollConfig {
    /// The policy of a job without an interval of its own.
    #[must_use]
    pub fn policy(&self) -> PollPolicy {
        let interval = self.interval.unwrap_or(self.min_interval);
        PollPolicy { interval, is_interval_set: self.interval.is_some(), backoff: self.backoff }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_path(variables: &[(&str, &str)], config_directory: &str, existing: &[&str]) -> Option<String> {
        let variables: BTreeMap<&str, OsString> = variables.iter().map(|(name, value)| (*name, value.into())).collect();
        let exists = |directory: &Path| existing.iter().any(|existing| Path::new(existing) == directory);
        let environment = |name: &str| variables.get(name).cloned();
        let path = DatabaseConfig::default_path_with(environment, Path::new(config_directory), exists);
        path.map(|path| path.to_string_lossy().into_owned())
    }

    const HOME: (&str, &str) = ("HOME", "/home/ada");

    #[test]
    fn the_database_is_in_the_state_directory_of_systemd_or_of_the_user() {
        let path = |variables: &[(&str, &str)]| default_path(variables, "/home/ada", &["/var/lib/refwatch"]);
        let state = ("XDG_STATE_HOME", "/state");
        let systemd = ("STATE_DIRECTORY", "/var/lib/refwatch:/var/lib/other");
        assert_eq!(path(&[HOME, state, systemd]).as_deref(), Some("/var/lib/refwatch/refwatch.db"));
        assert_eq!(path(&[HOME, state]).as_deref(), Some("/state/refwatch/refwatch.db"));
        assert_eq!(path(&[HOME]).as_deref(), Some("/home/ada/.local/state/refwatch/refwatch.db"));
        assert_eq!(path(&[HOME, ("XDG_STATE_HOME", "relative")]), path(&[HOME]));
        assert_eq!(path(&[]), None);
        // Only STATE_DIRECTORY is a list.
        assert_eq!(path(&[("HOME", "/home/a:b")]).as_deref(), Some("/home/a:b/.local/state/refwatch/refwatch.db"));
        assert_eq!(path(&[("XDG_STATE_HOME", "/a:/b")]).as_deref(), Some("/a:/b/refwatch/refwatch.db"));
    }

    #[test]
    fn a_configuration_in_etc_uses_the_state_directory_of_its_service_if_that_exists() {
        let existing = ["/var/lib/refwatch", "/var/lib/refwatch/second"];
        let path = |config_directory: &str| default_path(&[HOME], config_directory, &existing).expect("a path");
        assert_eq!(path("/etc/refwatch"), "/var/lib/refwatch/refwatch.db");
        assert_eq!(path("/etc/genomics"), "/var/lib/refwatch/refwatch.db");
        assert_eq!(path("/etc/refwatch/second"), "/var/lib/refwatch/second/refwatch.db");
        let user = "/home/ada/.local/state/refwatch/refwatch.db";
        assert_eq!(path("/etc/refwatch/third"), user);
        assert_eq!(path("/home/ada/etc/refwatch"), user);
        assert_eq!(default_path(&[HOME], "/etc/refwatch", &[]).as_deref(), Some(user));
        let systemd = ("STATE_DIRECTORY", "/srv/state");
        let path = default_path(&[HOME, systemd], "/etc/refwatch", &existing);
        assert_eq!(path.as_deref(), Some("/srv/state/refwatch.db"));
    }
}
