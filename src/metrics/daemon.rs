//! Writes the metrics of stores, targets, the database, the configuration and the build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::exposition::{Exposition, labels};
use super::{number, seconds};
use crate::core::job::JobStatus;
use crate::core::kind::JobKind;
use crate::state::{DaemonStatus, StoreStatus, WatchState, WatchStatus};
use crate::version::revision;

pub(super) fn write(
    daemon: &DaemonStatus,
    watches: &[Arc<WatchStatus>],
    stores: &[Arc<StoreStatus>],
    exposition: &mut Exposition,
) {
    let states = WatchState::LABELS.map(|state| {
        let count = watches.iter().filter(|watch| watch.state.label() == state).count();
        (labels(&[("state", state)]), number(count as u64))
    });
    exposition.family("refwatch_watches", "Watches by state.", states);
    exposition.family(
        "refwatch_jobs",
        "Watched jobs by kind and last known status. Jobs without a successful poll are not counted.",
        count_jobs(watches, stores),
    );
    let targets: BTreeSet<_> =
        watches.iter().map(|watch| &watch.id.target).chain(stores.iter().map(|store| &store.id.target)).collect();
    let target_up = targets.into_iter().map(|target| {
        let up = !daemon.targets_down.contains_key(target);
        (labels(&[("target", target)]), f64::from(up))
    });
    exposition.family("refwatch_target_up", "1 if requests through this target succeed, 0 otherwise.", target_up);
    exposition.family(
        "refwatch_store_up",
        "1 if new jobs of this kind in the [[store]] can be discovered, 0 otherwise.",
        stores.iter().map(|store| (store_labels(store), f64::from(store.error.is_none()))),
    );
    exposition.family(
        "refwatch_store_last_listed_timestamp_seconds",
        "When the jobs of this kind in the [[store]] were last listed.",
        stores.iter().filter_map(|store| Some((store_labels(store), seconds(store.listed_at?)))),
    );
    let database_up = f64::from(daemon.database_error.is_none());
    exposition.single("refwatch_database_up", "1 if the database can be written, 0 otherwise.", database_up);
    exposition.single(
        "refwatch_config_last_reload_successful",
        "1 if the configuration was last read without an error, 0 otherwise.",
        f64::from(daemon.config_error.is_none()),
    );
    exposition.single(
        "refwatch_config_last_reload_success_timestamp_seconds",
        "When the running configuration was read.",
        daemon.config_loaded_at.map(seconds),
    );
    exposition.single(
        "refwatch_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of http.tls expires.",
        daemon.certificate_expires_at.map(seconds),
    );
    let build = labels(&[("version", env!("CARGO_PKG_VERSION")), ("revision", revision())]);
    exposition.family("refwatch_build_info", "Always 1. The labels have the version and the commit.", [(build, 1.0)]);
}

fn store_labels(store: &StoreStatus) -> String {
    labels(&[
        ("watch", &store.name),
        ("target", &store.id.target),
        ("kind", store.id.kind.as_str()),
        ("store_id", store.id.store.as_str()),
    ])
}

/// One series for each status of each kind that a job or a store is watched for.
fn count_jobs(watches: &[Arc<WatchStatus>], stores: &[Arc<StoreStatus>]) -> Vec<(String, f64)> {
    let kinds = watches.iter().map(|watch| watch.id.key.kind).chain(stores.iter().map(|store| store.id.kind));
    let mut counts: BTreeMap<(JobKind, &str), u64> =
        kinds.flat_map(|kind| JobStatus::labels().map(move |status| ((kind, status), 0))).collect();
    for watch in watches {
        if let Some(known) = &watch.known {
            *counts.entry((watch.id.key.kind, known.status.label())).or_default() += 1;
        }
    }
    let series = |((kind, status), count): ((JobKind, &str), u64)| {
        (labels(&[("kind", kind.as_str()), ("status", status)]), number(count))
    };
    counts.into_iter().map(series).collect()
}
