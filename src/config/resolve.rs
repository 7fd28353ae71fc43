//! Converts the parsed tables to a [`Config`]: applies defaults, and resolves relative paths.
//!
//! It also reports a missing database path, and invalid combinations of settings in the main file.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::diagnostics::{Location, Problem};
use super::duration_text::DurationText;
use super::labels::valid_labels;
use super::raw::{
    HttpTable, JobTable, LogTable, NotifyTable, OperationQuotaTable, ParsedFile, PollTable, QuotaTable, RootTable,
    StoreTable, TargetTable,
};
use super::sinks::{SinkConfig, SinkUrl};
use super::watch_list::{JobSettings, StoreSettings};
use super::{Config, DatabaseConfig, HttpConfig, LogConfig, PollConfig, TargetConfig, TlsConfig};
use crate::core::event::{EventFilter, EventType};
use crate::core::job::{JobKey, TargetJob, TargetStore};
use crate::core::kind::JobKind;
use crate::core::tracker::PollPolicy;

/// Moves the settings out of the main file. The result has the target `default` only, and no jobs or stores. Relative paths start at
/// `base`.
pub(super) fn take_settings(main: &mut ParsedFile, base: &Path) -> Config {
    let database = take(&mut main.root.database);
    let path = value(database.path).map(|path| base.join(path)).or_else(|| DatabaseConfig::default_path(base));
    // If the main file has a problem, it may be an invalid `path`, which is already reported.
    if path.is_none() && main.problems.is_empty() {
        let help = "set `path` in [database], or the variable STATE_DIRECTORY, XDG_STATE_HOME or HOME".to_owned();
        let location = Location::whole_file(&main.source.path);
        main.problems.push(Problem::new(location, "no path for the database is set", Some(help)));
    }
    let mut config = Config::new(path.unwrap_or_default());
    set_if_present(&mut config.database.retention, database.retention);
    let raw = take(&mut main.root.poll);
    let timeout = raw.timeout.clone();
    set_poll(&mut config.poll, raw, main);
    set_http(&mut config.http, take(&mut main.root.http), base);
    set_log(&mut config.log, take(&mut main.root.log), base);
    let mut target = TargetConfig { backoff: config.poll.backoff, ..TargetConfig::new(TargetConfig::DEFAULT) };
    set_quotas(&mut target, take(&mut main.root.quota));
    set_if_present(&mut target.timeout, timeout);
    config.targets.insert(target.name.clone(), target);
    let sinks = take(&mut main.root.notify).unwrap_or_default();
    check_sinks(&sinks, main);
    config.sinks = sinks.into_iter().filter_map(|raw| sink(raw, base)).collect();
    config
}

/// Adds the targets, jobs and stores of all files. Targets inherit the quota, timeout and backoff of the main file.
pub(super) fn add_entries(config: &mut Config, files: impl Iterator<Item = RootTable>) {
    let inherited = config.targets[TargetConfig::DEFAULT].clone();
    let mut jobs = BTreeMap::new();
    for file in files {
        config.targets.extend(file.target.into_iter().map(|(name, raw)| target(&name, raw, &inherited)));
        jobs.extend(file.job.into_iter().flatten().filter_map(|raw| job_entry(raw, &config.poll)));
        let stores = file.store.into_iter().flatten().flat_map(|raw| store_entries(raw, &config.poll));
        config.watch_list.stores.extend(stores);
    }
    config.watch_list.jobs = Arc::new(jobs);
}

/// Returns the span and the message if an interval other than "auto" is shorter than `min_interval`.
pub(super) fn interval_error(
    interval: Option<&Spanned<Option<Duration>>>,
    min_interval: Duration,
) -> Option<(Range<usize>, String)> {
    let interval = interval.filter(|interval| interval.get_ref().is_some_and(|interval| interval < min_interval))?;
    let min = DurationText(min_interval);
    Some((interval.span(), format!("`interval` must not be shorter than `min_interval` in [poll], {min}")))
}

fn value<T>(raw: Option<Spanned<T>>) -> Option<T> {
    raw.map(Spanned::into_inner)
}

/// Replaces a default with the value in the file, if there is one.
fn set_if_present<T>(default: &mut T, raw: Option<Spanned<T>>) {
    if let Some(raw) = raw {
        *default = raw.into_inner();
    }
}

fn set_poll(poll: &mut PollConfig, raw: PollTable, main: &mut ParsedFile) {
    set_if_present(&mut poll.min_interval, raw.min_interval);
    if let Some((span, message)) = interval_error(raw.interval.as_ref(), poll.min_interval) {
        main.report(span, &message, None);
    }
    set_if_present(&mut poll.interval, raw.interval);
    let backoff_span = raw.backoff_initial.as_ref().or(raw.backoff_max.as_ref()).map(Spanned::span);
    set_if_present(&mut poll.backoff.initial, raw.backoff_initial);
    set_if_present(&mut poll.backoff.max, raw.backoff_max);
    let (initial, max) = (poll.backoff.initial, poll.backoff.max);
    if let Some(span) = backoff_span.filter(|_| initial > max) {
        let (initial, max) = (DurationText(initial), DurationText(max));
        let message = format!("`backoff_initial`, {initial}, must not be longer than `backoff_max`, {max}");
        main.report(span, &message, None);
    }
    set_if_present(&mut poll.use_list, raw.use_list);
}

/// Applies `[quota]` to the default target, or `[target.NAME.quota]` to a target that has inherited the quotas of `[quota]`. The order of
/// precedence, highest first: `[target.NAME.quota.OPERATION]`, `[target.NAME.quota]`, `[quota.OPERATION]`, `[quota]`.
fn set_quotas(target: &mut TargetConfig, raw: QuotaTable) {
    // Also replaces inherited quotas of operations, because the target may be another account.
    for quota in target.operation_quotas.values_mut().chain([&mut target.quota]) {
        set_if_present(&mut quota.requests_per_second, raw.requests_per_second.clone());
        set_if_present(&mut quota.share, raw.share.clone());
    }
    for (operation, OperationQuotaTable { requests_per_second, share }) in raw.operations() {
        if requests_per_second.is_some() || share.is_some() {
            let quota = target.operation_quotas.entry(operation).or_insert(target.quota);
            set_if_present(&mut quota.requests_per_second, requests_per_second);
            set_if_present(&mut quota.share, share);
        }
    }
}

fn set_http(http: &mut HttpConfig, raw: HttpTable, base: &Path) {
    set_if_present(&mut http.listen, raw.listen);
    http.external_url = value(raw.external_url);
    let hosts = raw.allowed_hosts.into_iter().flatten().flatten();
    http.allowed_hosts = hosts.map(|host| host.into_inner().to_ascii_lowercase()).collect();
    let tls = raw.tls;
    http.tls = value(tls.cert).zip(value(tls.key)).map(|(cert, key)| TlsConfig {
        cert: base.join(cert),
        key: base.join(key),
        client_ca: value(tls.client_ca).map(|path| base.join(path)),
    });
    let users = raw.users.into_iter().filter_map(|(user, hash)| Some((user.into_inner(), value(hash)?)));
    http.users = users.collect();
}

fn set_log(log: &mut LogConfig, raw: LogTable, base: &Path) {
    set_if_present(&mut log.level, raw.level);
    set_if_present(&mut log.format, raw.format);
    log.directory = value(raw.directory).map(|directory| base.join(directory));
    set_if_present(&mut log.rotation, raw.rotation);
    set_if_present(&mut log.keep_files, raw.keep_files);
}

fn check_sinks(sinks: &[NotifyTable], main: &mut ParsedFile) {
    let mut names = BTreeMap::new();
    for sink in sinks {
        let name = sink.name.as_ref().map(|name| (name.get_ref().as_str(), name.span()));
        if let Some((name, span)) = name
            && let Some(other) = names.insert(name, span.clone())
        {
            let message = format!("two sinks have the name \"{name}\"");
            let problem =
                Problem::new(Location::new(&main.source, span), &message, Some("rename one of them".to_owned()));
            main.problems.push(problem.with_other(Location::new(&main.source, other)));
        }
        if let (Some(_), Some(file)) = (&sink.url, &sink.url_file) {
            main.report(file.span(), "the sink also has a `url`", Some("remove one of the keys".to_owned()));
        }
        for (key, is_empty) in [
            ("on", sink.on.as_ref().is_some_and(Vec::is_empty)),
            ("watches", sink.watches.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if let (Some(name), true) = (&sink.name, is_empty) {
                main.report(
                    name.span(),
                    &format!("`{key}` of this sink is empty"),
                    Some("remove the key for its default".to_owned()),
                );
            }
        }
        let mut headers = BTreeSet::new();
        for (header, _) in &sink.headers {
            if !headers.insert(header.get_ref().to_ascii_lowercase()) {
                main.report(header.span(), "the sink sets this header twice", Some("remove one of them".to_owned()));
            }
        }
    }
}

/// `None` if a required key is missing or invalid, which is already reported.
fn sink(raw: NotifyTable, base: &Path) -> Option<SinkConfig> {
    let file = |path: Option<Spanned<PathBuf>>| value(path).map(|path| base.join(path));
    let mut sink = SinkConfig {
        name: value(raw.name)?.into(),
        url: value(raw.url).map(SinkUrl::Text).or_else(|| Some(SinkUrl::File(file(raw.url_file)?)))?,
        secret_file: file(raw.secret_file),
        bearer_token_file: file(raw.bearer_token_file),
        headers: raw.headers.into_iter().filter_map(|(name, text)| Some((name.into_inner(), value(text)?))).collect(),
        events: EventFilter {
            types: raw.on.map_or_else(|| EventType::DEFAULT.into(), |on| on.into_iter().filter_map(value).collect()),
            watches: raw.watches.into_iter().flatten().filter_map(value).collect(),
        },
        format: SinkConfig::FORMAT_DEFAULT,
        timeout: SinkConfig::TIMEOUT_DEFAULT,
    };
    set_if_present(&mut sink.format, raw.format);
    set_if_present(&mut sink.timeout, raw.timeout);
    Some(sink)
}

fn target(name: &Spanned<String>, raw: TargetTable, inherited: &TargetConfig) -> (Arc<str>, TargetConfig) {
    let mut target = TargetConfig {
        name: name.get_ref().as_str().into(),
        region: value(raw.region),
        profile: value(raw.profile),
        role_arn: value(raw.role_arn),
        external_id: value(raw.external_id),
        endpoint_url: value(raw.endpoint_url),
        ..inherited.clone()
    };
    set_quotas(&mut target, raw.quota);
    (Arc::clone(&target.name), target)
}

/// Never `None`: a file whose job lacks a required key was left out before. The `Option` only allows `?`.
fn job_entry(raw: JobTable, poll: &PollConfig) -> Option<(Arc<TargetJob>, JobSettings)> {
    let store = raw.store_id_and_type()?.0.get_ref().clone();
    let key = JobKey { kind: value(raw.kind).unwrap_or(JobKind::ReferenceImport), store, job: value(raw.id)? };
    let name = value(raw.name).unwrap_or_else(|| key.to_string()).into();
    let labels = Arc::new(valid_labels(raw.labels));
    let entry = JobSettings { name, labels, policy: policy(raw.interval, poll), remove_after: None };
    Some((Arc::new(TargetJob { target: target_name(raw.target), key }), entry))
}

/// One element for each kind.
fn store_entries(raw: StoreTable, poll: &PollConfig) -> Vec<(TargetStore, StoreSettings)> {
    let Some((id, store_type)) = raw.store_id_and_type() else { return Vec::new() };
    let store = id.get_ref().clone();
    let kinds = match raw.kinds {
        Some(kinds) => kinds.into_iter().filter_map(value).collect(),
        None => JobKind::of_store(store_type).collect::<Vec<_>>(),
    };
    let name = value(raw.name).unwrap_or_else(|| store.to_string()).into();
    let mut entry = StoreSettings::new(name, policy(raw.interval, poll));
    entry.job_settings.labels = Arc::new(valid_labels(raw.labels));
    set_if_present(&mut entry.created_within, raw.created_within);
    entry.job_settings.remove_after = value(raw.remove_after).or(entry.job_settings.remove_after);
    let target = target_name(raw.target);
    let target_store = |kind| TargetStore { target: Arc::clone(&target), kind, store: store.clone() };
    kinds.into_iter().map(|kind| (target_store(kind), entry.clone())).collect()
}

fn target_name(raw: Option<Spanned<String>>) -> Arc<str> {
    value(raw).map_or_else(|| TargetConfig::DEFAULT.into(), Into::into)
}

fn policy(own_interval: Option<Spanned<Option<Duration>>>, poll: &PollConfig) -> PollPolicy {
    let mut poll = *poll;
    set_if_present(&mut poll.interval, own_interval);
    poll.policy()
}
