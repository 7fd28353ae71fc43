//! From the tables as they are written to a [`Config`]: applies the defaults, and checks the main file's tables against one another.

use std::collections::BTreeMap;
use std::mem::take;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::diagnostics::{Location, Problem};
use super::duration_text::DurationText;
use super::raw::{ConfigFile, File, Http, Job, Log, Poll, Quota as RawQuota, Record, Store, Target};
use super::watch_list::{JobEntry, StoreEntry, WatchList};
use super::{Config, HttpConfig, LogConfig, PollConfig, Quota, RecordConfig, TargetConfig, TlsConfig};
use crate::core::backoff::BackoffPolicy;
use crate::core::job::{JobKey, StoreId, WatchId};
use crate::core::tracker::PollPolicy;

/// The main file's tables with their defaults.
pub(super) struct Settings {
    pub poll: PollConfig,
    /// `None` if neither the file nor the environment says where the database is.
    pub record: Option<RecordConfig>,
    http: HttpConfig,
    log: LogConfig,
    default_target: TargetConfig,
}

impl Settings {
    /// Takes the tables out of the main file and reports their problems. `base` is the directory of relative paths.
    pub(super) fn resolve(main: &mut ConfigFile, base: &Path) -> Self {
        let written = take(&mut main.tables.poll);
        let backoff_span = written.backoff_initial.as_ref().or(written.backoff_max.as_ref()).map(Spanned::span);
        let (interval, timeout) = (written.interval.clone(), written.timeout.clone());
        let poll = poll(written);
        let BackoffPolicy { initial, max } = poll.backoff;
        if let Some(span) = backoff_span.filter(|_| initial > max) {
            let (initial, max) = (DurationText(initial), DurationText(max));
            let message = format!("`backoff_initial`, {initial}, must not be longer than `backoff_max`, {max}");
            main.report(span, &message, None);
        }
        if let Some((span, message)) = interval.and_then(|interval| too_short(&interval, poll.min_interval)) {
            main.report(span, &message, None);
        }
        let record = record(take(&mut main.tables.record), base);
        if record.is_none() {
            let help = "set `path` in [record], or one of STATE_DIRECTORY, XDG_STATE_HOME and HOME".to_owned();
            let location = Location::file(&main.source.path);
            main.problems.push(Problem::new(location, "there is no path for the database", Some(help)));
        }
        let mut default_target = TargetConfig::new(TargetConfig::DEFAULT);
        default_target.quota = quota(take(&mut main.tables.quota), default_target.quota);
        default_target.timeout = or(timeout, default_target.timeout);
        default_target.backoff = poll.backoff;
        let http = http(take(&mut main.tables.http), base);
        let log = log(take(&mut main.tables.log), base);
        Self { poll, record, http, log, default_target }
    }
}

/// The error in a fixed interval, if there is one.
pub(super) fn too_short(
    interval: &Spanned<Option<Duration>>,
    min_interval: Duration,
) -> Option<(std::ops::Range<usize>, String)> {
    let min = DurationText(min_interval);
    let message = format!("`interval` must not be shorter than `min_interval` in [poll], {min}");
    interval.get_ref().filter(|interval| *interval < min_interval).map(|_| (interval.span(), message))
}

/// Puts the settings and the entries of all files together.
pub(super) fn config(files: Vec<ConfigFile>, settings: Settings, record: RecordConfig) -> Config {
    let Settings { poll, http, log, default_target, .. } = settings;
    let mut targets = BTreeMap::from([(default_target.name.clone(), default_target.clone())]);
    let (mut jobs, mut stores) = (BTreeMap::new(), BTreeMap::new());
    for File { target, job, store, .. } in files.into_iter().map(|file| file.tables) {
        targets.extend(target.into_iter().map(|(name, target)| self::target(&name, target, &default_target)));
        jobs.extend(job.into_iter().filter_map(|job| self::job(job, &poll)));
        stores.extend(store.into_iter().filter_map(|store| self::store(store, &poll)));
    }
    Config { targets, watch_list: WatchList { jobs: Arc::new(jobs), stores }, poll, record, http, log }
}

fn value<T>(written: Option<Spanned<T>>) -> Option<T> {
    written.map(Spanned::into_inner)
}

fn or<T>(written: Option<Spanned<T>>, default: T) -> T {
    written.map_or(default, Spanned::into_inner)
}

fn poll(written: Poll) -> PollConfig {
    let default = PollConfig::default();
    PollConfig {
        interval: or(written.interval, default.interval),
        min_interval: or(written.min_interval, default.min_interval),
        backoff: BackoffPolicy {
            initial: or(written.backoff_initial, default.backoff.initial),
            max: or(written.backoff_max, default.backoff.max),
        },
        sweep: or(written.sweep, default.sweep),
    }
}

fn quota(written: RawQuota, default: Quota) -> Quota {
    Quota {
        requests_per_second: or(written.requests_per_second, default.requests_per_second),
        share: or(written.share, default.share),
    }
}

fn record(written: Record, base: &Path) -> Option<RecordConfig> {
    let path = value(written.path).map(|path| base.join(path)).or_else(RecordConfig::default_path)?;
    let default = RecordConfig::new(path);
    Some(RecordConfig { keep: or(written.keep, default.keep), ..default })
}

fn http(written: Http, base: &Path) -> HttpConfig {
    let tls = written.tls;
    let tls = value(tls.cert).zip(value(tls.key)).map(|(cert, key)| TlsConfig {
        cert: base.join(cert),
        key: base.join(key),
        client_ca: value(tls.client_ca).map(|path| base.join(path)),
    });
    let users = written.users.into_iter().filter_map(|(user, hash)| Some((user.into_inner(), value(hash)?)));
    HttpConfig { listen: or(written.listen, HttpConfig::default().listen), tls, users: users.collect() }
}

fn log(written: Log, base: &Path) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        level: or(written.level, default.level),
        format: or(written.format, default.format),
        directory: value(written.directory).map(|directory| base.join(directory)),
        rotation: or(written.rotation, default.rotation),
        keep_files: or(written.keep_files, default.keep_files),
    }
}

fn target(name: &Spanned<String>, written: Target, default: &TargetConfig) -> (Arc<str>, TargetConfig) {
    let name: Arc<str> = name.get_ref().as_str().into();
    let target = TargetConfig {
        name: Arc::clone(&name),
        region: value(written.region),
        profile: value(written.profile),
        role_arn: value(written.role_arn),
        external_id: value(written.external_id),
        endpoint_url: value(written.endpoint_url),
        quota: quota(written.quota, default.quota),
        ..default.clone()
    };
    (name, target)
}

/// `None` only if a required key is missing, and then its file is left out.
fn job(written: Job, poll: &PollConfig) -> Option<(Arc<WatchId>, JobEntry)> {
    let key = JobKey { store: value(written.reference_store_id)?, job: value(written.id)? };
    let name = value(written.name).unwrap_or_else(|| key.to_string()).into();
    let policy = policy(written.interval, poll);
    Some((
        Arc::new(WatchId { target: target_name(written.target), key }),
        JobEntry { name, policy, forget_after: None },
    ))
}

fn store(written: Store, poll: &PollConfig) -> Option<(StoreId, StoreEntry)> {
    let store = value(written.reference_store_id)?;
    let name = value(written.name).unwrap_or_else(|| store.to_string()).into();
    let mut entry = StoreEntry::new(name, policy(written.interval, poll));
    entry.since = or(written.since, entry.since);
    entry.each.forget_after = value(written.forget_after).or(entry.each.forget_after);
    Some((StoreId { target: target_name(written.target), store }, entry))
}

fn target_name(written: Option<Spanned<String>>) -> Arc<str> {
    value(written).map_or_else(|| TargetConfig::DEFAULT.into(), Into::into)
}

fn policy(own_interval: Option<Spanned<Option<Duration>>>, poll: &PollConfig) -> Arc<PollPolicy> {
    Arc::new(PollConfig { interval: or(own_interval, poll.interval), ..*poll }.policy())
}
