//! The configuration, valid by construction: whoever holds a [`Config`] need not ask again whether a value makes sense.

pub mod watch_list;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use watch_list::WatchList;

use crate::core::backoff::BackoffPolicy;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where calls go, by name.
    pub targets: BTreeMap<Arc<str>, TargetConfig>,
    /// What to watch.
    pub watch_list: WatchList,
    /// The durable log of transitions.
    pub record: RecordConfig,
    /// The listener.
    pub http: HttpConfig,
    /// The log.
    pub log: LogConfig,
    /// The configuration as TOML with every default filled in and secrets hidden: what `/config` shows.
    pub in_force: String,
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
    /// Whether the endpoint is the embedded simulator, which takes made-up credentials. No file can set this.
    pub simulated: bool,
}

/// How many requests the daemon allows itself, per target and operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// The service's quota, in requests per second.
    pub requests_per_second: f64,
    /// The part of it that refwatch may use, over 0 and at most 1.
    pub share: f64,
}

impl Quota {
    /// The rate that the daemon keeps to, in requests per second.
    #[must_use]
    pub fn allowed(self) -> f64 {
        self.requests_per_second * self.share
    }
}

/// The durable log of transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long a job's rows are kept after its end.
    pub keep: Duration,
}

/// The listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Its address.
    pub listen: SocketAddr,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe level that is logged.
    pub level: tracing::Level,
    /// The format of a line.
    pub format: LogFormat,
    /// Where log files go; `None`: nowhere, standard error alone is used.
    pub directory: Option<PathBuf>,
    /// When a new log file is begun.
    pub rotation: LogRotation,
    /// How many log files are kept.
    pub keep_files: usize,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// When a new log file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words say it")]
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
}
