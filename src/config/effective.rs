//! From what is written to what is in force: fills in what is not written.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::file::{self, Job, MainFile, Spanned, Store, Table, Target, Tls};
use super::value::{Interval, TargetName, Text};
use super::watch_list::{JobEntry, StoreEntry, WatchList};
use super::{HttpConfig, LogConfig, PollConfig, Quota, RecordConfig, TargetConfig, TlsConfig};
use crate::core::backoff::BackoffPolicy;
use crate::core::job::{JobKey, StoreId, WatchId};
use crate::core::tracker::PollPolicy;

pub(super) fn poll(written: &file::Poll) -> PollConfig {
    let default = PollConfig::default();
    let min_interval = written.min_interval.as_ref().map(|min| min.get_ref().0.0);
    PollConfig {
        interval: written.interval.as_ref().and_then(|interval| interval.get_ref().0.0),
        min_interval: min_interval.unwrap_or(default.min_interval),
        backoff: BackoffPolicy {
            initial: written.backoff_initial.as_ref().map_or(default.backoff.initial, |initial| initial.get_ref().0.0),
            max: written.backoff_max.as_ref().map_or(default.backoff.max, |max| max.get_ref().0.0),
        },
        sweep: written.sweep.unwrap_or(default.sweep),
    }
}

fn quota(written: &file::Quota, default: Quota) -> Quota {
    Quota {
        requests_per_second: written.requests_per_second.map_or(default.requests_per_second, |rate| rate.0),
        share: written.share.map_or(default.share, |share| share.0),
    }
}

/// `None` where nothing says where the record could be.
pub(super) fn record(written: &file::Record, base: &Path) -> Option<RecordConfig> {
    let path = written.path.as_ref().map(|Text(path)| base.join(&path.0)).or_else(RecordConfig::default_path)?;
    let default = RecordConfig::new(path);
    Some(RecordConfig { keep: written.keep.as_ref().map_or(default.keep, |Text(keep)| keep.0), ..default })
}

pub(super) fn http(written: &file::Http, base: &Path) -> HttpConfig {
    let default = HttpConfig::default();
    let users = written.users.iter().map(|(Text(user), Text(hash))| (user.0.clone(), hash.clone()));
    HttpConfig {
        listen: written.listen.as_ref().map_or(default.listen, |Text(listen)| listen.0),
        tls: written.tls.as_ref().map(|Table(Tls { cert, key, client_ca })| TlsConfig {
            cert: base.join(&cert.0.0),
            key: base.join(&key.0.0),
            client_ca: client_ca.as_ref().map(|Text(path)| base.join(&path.0)),
        }),
        users: users.collect(),
    }
}

pub(super) fn log(written: &file::Log, base: &Path) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        level: written.level.map_or(default.level, Into::into),
        format: written.format.unwrap_or(default.format),
        directory: written.directory.as_ref().map(|Text(directory)| base.join(&directory.0)),
        rotation: written.rotation.unwrap_or(default.rotation),
        keep_files: written.keep_files.map_or(default.keep_files, |files| files.0),
    }
}

pub(super) fn targets<'a>(
    written: impl Iterator<Item = (&'a Spanned<Text<TargetName>>, &'a Table<Target>)>,
    settings: &MainFile,
) -> BTreeMap<Arc<str>, TargetConfig> {
    let default = TargetConfig::new(TargetConfig::DEFAULT);
    let default = TargetConfig {
        quota: quota(&settings.quota.0, default.quota),
        timeout: settings.poll.0.timeout.as_ref().map_or(default.timeout, |Text(timeout)| timeout.0),
        backoff: poll(&settings.poll.0).backoff,
        ..default
    };
    let written = written.map(|(name, Table(target))| TargetConfig {
        name: name.get_ref().0.0.as_str().into(),
        region: target.region.as_ref().map(|Text(region)| region.0.clone()),
        profile: target.profile.as_ref().map(|Text(profile)| profile.0.clone()),
        role_arn: target.role_arn.as_ref().map(|Text(role)| role.0.clone()),
        external_id: target.external_id.as_ref().map(|id| id.get_ref().0.0.clone()),
        endpoint_url: target.endpoint_url.as_ref().map(|Text(url)| url.0.clone()),
        quota: quota(&target.quota.0, default.quota),
        timeout: default.timeout,
        backoff: default.backoff,
        simulated: false,
    });
    [default.clone()].into_iter().chain(written).map(|target| (target.name.clone(), target)).collect()
}

pub(super) fn watch_list<'a>(
    jobs: impl Iterator<Item = &'a Table<Job>>,
    stores: impl Iterator<Item = &'a Table<Store>>,
    poll: &PollConfig,
) -> WatchList {
    let (names, ids) = (RefCell::default(), RefCell::default());
    let policy = Policies { poll, of_all: Arc::new(poll.policy()) };
    let target = |written: Option<&Spanned<Text<TargetName>>>| {
        shared(&names, Arc::from(written.map_or(TargetConfig::DEFAULT, |target| &target.get_ref().0.0)))
    };
    let jobs = jobs.map(|Table(job)| {
        let store = shared(&ids, job.reference_store_id.get_ref().0.clone());
        let key = JobKey { store, job: job.id.get_ref().0.clone() };
        let name = job.name.as_ref().map_or_else(|| key.to_string(), |name| name.get_ref().0.0.clone()).into();
        let policy = policy.of(job.interval.as_ref());
        (Arc::new(WatchId { target: target(job.target.as_ref()), key }), JobEntry { name, policy, forget_after: None })
    });
    let stores = stores.map(|Table(store)| {
        let Text(id) = store.reference_store_id.get_ref();
        let name = store.name.as_ref().map_or(id.as_str(), |name| &name.get_ref().0.0).into();
        let StoreEntry { since, each } = StoreEntry::new(name, policy.of(store.interval.as_ref()));
        let since = store.since.as_ref().map_or(since, |since| since.get_ref().0.0);
        let forget_after = store.forget_after.as_ref().map(|after| after.get_ref().0.0).or(each.forget_after);
        let entry = StoreEntry { since, each: JobEntry { forget_after, ..each } };
        (StoreId { target: target(store.target.as_ref()), store: id.clone() }, entry)
    });
    WatchList { jobs: Arc::new(jobs.collect()), stores: stores.collect() }
}

/// The one of these that is there already, where there is one: thousands of jobs have few targets and stores.
fn shared<T: Clone + Ord>(known: &RefCell<BTreeSet<T>>, new: T) -> T {
    let mut known = known.borrow_mut();
    if let Some(same) = known.get(&new) {
        return same.clone();
    }
    known.insert(new.clone());
    new
}

/// How often jobs are polled: those without a wish of their own share one policy.
struct Policies<'a> {
    poll: &'a PollConfig,
    of_all: Arc<PollPolicy>,
}

impl Policies<'_> {
    fn of(&self, own_interval: Option<&Spanned<Text<Interval>>>) -> Arc<PollPolicy> {
        match own_interval {
            None => Arc::clone(&self.of_all),
            Some(own) => Arc::new(PollConfig { interval: own.get_ref().0.0, ..*self.poll }.policy()),
        }
    }
}
