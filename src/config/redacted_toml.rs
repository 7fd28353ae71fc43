//! Writes a loaded [`Config`] as one TOML file: with defaults, with hidden secrets, and without `include`.

use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::duration_text::DurationText;
use super::sinks::{SinkConfig, SinkUrl, parse_sink_url, redacted_url};
use super::watch_list::{JobSettings, StoreSettings, WatchList};
use super::{Config, HttpConfig, LogConfig, PollConfig, Quota, TargetConfig, TlsConfig};
use crate::core::event::EventFilter;
use crate::core::job::{Labels, TargetJob, TargetStore};
use crate::core::tracker::PollPolicy;

const HIDDEN: &str = "(hidden)";

impl Config {
    /// This configuration as TOML without secrets, as `/config` shows it.
    #[must_use]
    pub fn to_redacted_toml(&self) -> String {
        let Self { targets, watch_list: WatchList { jobs, stores }, poll, database, http, log, sinks } = self;
        // `timeout` is a key of [poll], but each target holds its value.
        let timeout = targets.get(TargetConfig::DEFAULT).map(|target| duration(target.timeout));
        let targets = targets.iter().map(|(name, target)| (name.to_string(), target_table(target)));
        let jobs = jobs.iter().map(|(id, entry)| job_table(id, entry, poll));
        // `stores` has an element for each kind of a [[store]]. A store may have several [[store]] tables with different kinds.
        // Their names differ, so the sort by name makes the kinds of one table consecutive.
        let mut stores: Vec<_> = stores.iter().collect();
        stores.sort_by_key(|(id, entry)| (&id.target, &id.store, &entry.job_settings.name));
        let is_same = |(id, entry): &(&TargetStore, _), (other, other_entry): &(&TargetStore, _)| {
            (&id.target, &id.store, entry) == (&other.target, &other.store, other_entry)
        };
        let stores = stores.chunk_by(is_same).map(|stores| store_table(stores, poll));
        present_keys([
            ("poll", Some(poll_table(poll, timeout))),
            (
                "database",
                Some(table([("path", Some(path(&database.path))), ("retention", Some(duration(database.retention)))])),
            ),
            ("http", Some(http_table(http))),
            ("log", Some(log_table(log))),
            ("target", Some(Value::Table(targets.collect()))),
            ("job", Some(Value::Array(jobs.collect()))),
            ("store", Some(Value::Array(stores.collect()))),
            ("notify", Some(Value::Array(sinks.iter().map(sink_table).collect()))),
        ])
        .to_string()
    }
}

fn path(path: &Path) -> Value {
    path.to_string_lossy().as_ref().into()
}

fn http_table(HttpConfig { listen, external_url, allowed_hosts, tls, users }: &HttpConfig) -> Value {
    let external_url = external_url.as_ref().map(|url| url.to_string().into());
    let allowed_hosts = (!allowed_hosts.is_empty()).then(|| allowed_hosts.clone().into());
    let tls = tls.as_ref().map(|TlsConfig { cert, key, client_ca }| {
        table([("cert", Some(path(cert))), ("key", Some(path(key))), ("client_ca", client_ca.as_deref().map(path))])
    });
    let users = (!users.is_empty()).then(|| users.keys().map(|user| (user.clone(), HIDDEN.into())).collect());
    table([
        ("listen", Some(listen.to_string().into())),
        ("external_url", external_url),
        ("allowed_hosts", allowed_hosts),
        ("tls", tls),
        ("users", users.map(Value::Table)),
    ])
}

fn log_table(LogConfig { level, format, directory, rotation, keep_files }: &LogConfig) -> Value {
    table([
        ("level", Some(level.as_str().to_lowercase().into())),
        ("format", Value::try_from(format).ok()),
        ("directory", directory.as_deref().map(path)),
        ("rotation", Value::try_from(rotation).ok()),
        ("keep_files", i64::try_from(*keep_files).ok().map(Value::from)),
    ])
}

fn poll_table(poll: &PollConfig, timeout: Option<Value>) -> Value {
    let PollConfig { interval, min_interval, backoff, use_list } = poll;
    table([
        ("interval", Some(interval.map_or("auto".into(), duration))),
        ("min_interval", Some(duration(*min_interval))),
        ("timeout", timeout),
        ("backoff_initial", Some(duration(backoff.initial))),
        ("backoff_max", Some(duration(backoff.max))),
        ("use_list", Some((*use_list).into())),
    ])
}

fn target_table(target: &TargetConfig) -> Value {
    let TargetConfig { name: _, region, profile, role_arn, external_id, endpoint_url, quota, operation_quotas, .. } =
        target;
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let quota_keys = |quota: &Quota| {
        present_keys([
            ("requests_per_second", Some(quota.requests_per_second.into())),
            ("share", Some(quota.share.into())),
        ])
    };
    let mut quota = quota_keys(quota);
    quota.extend(
        operation_quotas
            .iter()
            .map(|(operation, quota)| (operation.as_str().to_owned(), Value::Table(quota_keys(quota)))),
    );
    table([
        ("region", text(region)),
        ("profile", text(profile)),
        ("role_arn", text(role_arn)),
        ("external_id", external_id.as_ref().map(|_| HIDDEN.into())),
        ("endpoint_url", text(endpoint_url)),
        ("quota", Some(Value::Table(quota))),
    ])
}

fn job_table(id: &TargetJob, entry: &JobSettings, poll: &PollConfig) -> Value {
    let TargetJob { target, key } = id;
    let JobSettings { name, labels, policy, remove_after: _ } = entry;
    table([
        ("name", Some((**name).into())),
        ("kind", Some(key.kind.as_str().into())),
        (key.kind.info().store.id_key(), Some(key.store.as_str().into())),
        ("id", Some(key.job.as_str().into())),
        ("target", Some((**target).into())),
        ("interval", own_interval(policy, poll)),
        ("labels", label_table(labels)),
    ])
}

/// The table of a store from its entries, one for each kind. There is at least one.
fn store_table(entries: &[(&TargetStore, &StoreSettings)], poll: &PollConfig) -> Value {
    let kinds = entries.iter().map(|(id, _)| Value::from(id.kind.as_str())).collect();
    let (TargetStore { target, kind, store }, entry) = entries[0];
    let StoreSettings { created_within, job_settings: JobSettings { name, labels, policy, remove_after } } = entry;
    table([
        ("name", Some((**name).into())),
        (kind.info().store.id_key(), Some(store.as_str().into())),
        ("kinds", Some(Value::Array(kinds))),
        ("created_within", Some(duration(*created_within))),
        ("remove_after", remove_after.map(duration)),
        ("target", Some((**target).into())),
        ("interval", own_interval(policy, poll)),
        ("labels", label_table(labels)),
    ])
}

fn sink_table(sink: &SinkConfig) -> Value {
    let SinkConfig { name, url, secret_file, bearer_token_file, headers, events, format, timeout } = sink;
    let EventFilter { types, watches } = events;
    let (url, url_file) = match url {
        // The path may contain a token.
        SinkUrl::Text(url) => (parse_sink_url(url.expose()).ok().map(|url| redacted_url(&url).into()), None),
        SinkUrl::File(file) => (None, Some(path(file))),
    };
    let headers = (!headers.is_empty()).then(|| headers.keys().map(|name| (name.clone(), HIDDEN.into())).collect());
    table([
        ("name", Some((**name).into())),
        ("url", url),
        ("url_file", url_file),
        ("secret_file", secret_file.as_deref().map(path)),
        ("bearer_token_file", bearer_token_file.as_deref().map(path)),
        ("headers", headers.map(Value::Table)),
        ("on", Some(types.iter().map(|event| Value::from(event.as_str())).collect::<Vec<_>>().into())),
        ("watches", (!watches.is_empty()).then(|| watches.clone().into())),
        ("format", Value::try_from(format).ok()),
        ("timeout", Some(duration(*timeout))),
    ])
}

fn label_table(labels: &Labels) -> Option<Value> {
    let entries = labels.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    (!labels.is_empty()).then(|| Value::Table(entries.collect()))
}

fn own_interval(policy: &PollPolicy, poll: &PollConfig) -> Option<Value> {
    let interval = if policy.is_interval_set { duration(policy.interval) } else { "auto".into() };
    (*policy != poll.policy()).then_some(interval)
}

fn duration(duration: Duration) -> Value {
    DurationText(duration).to_string().into()
}

fn table<const N: usize>(values: [(&str, Option<Value>); N]) -> Value {
    Value::Table(present_keys(values))
}

fn present_keys<const N: usize>(values: [(&str, Option<Value>); N]) -> Table {
    values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
