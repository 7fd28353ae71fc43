//! The families of the daemon as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::{family, gauge, label, number};
use crate::core::job::JobStatus;
use crate::state::{DaemonView, StoreView, WatchState, WatchView};

/// The families of the daemon.
pub(super) fn families(
    daemon: &DaemonView,
    watches: &[Arc<WatchView>],
    stores: &[Arc<StoreView>],
) -> impl Iterator<Item = MetricFamily> + use<> {
    let states = watches.iter().map(|watch| watch.state.label());
    let statuses = watches.iter().filter_map(|watch| Some(watch.known.as_ref()?.status.label()));
    let targets: BTreeSet<_> =
        watches.iter().map(|watch| &watch.id.target).chain(stores.iter().map(|store| &store.id.target)).collect();
    let target_up = targets.into_iter().map(|target| {
        let up = !daemon.refused_targets.contains_key(target);
        (vec![label("target", target)], f64::from(up))
    });
    let loaded_at = daemon.config_loaded_at.map(|at| at.as_duration().as_secs_f64());
    let build = vec![
        label("version", env!("CARGO_PKG_VERSION")),
        label("os", std::env::consts::OS),
        label("arch", std::env::consts::ARCH),
    ];
    let families = [
        gauges("refwatch_watches", "Watches by state.", counts("state", WatchState::LABELS, states)),
        gauges(
            "refwatch_jobs",
            "Watched jobs by their last known status; a job not yet seen has none.",
            counts("status", JobStatus::labels(), statuses),
        ),
        gauges("refwatch_target_up", "1 if requests through this target succeed, 0 otherwise.", target_up),
        gauges(
            "refwatch_record_up",
            "Whether the record can be written.",
            [(vec![], f64::from(daemon.record_error.is_none()))],
        ),
        gauges(
            "refwatch_config_last_reload_successful",
            "Whether the configuration was last read without an error.",
            [(vec![], f64::from(daemon.config_error.is_none()))],
        ),
        gauges(
            "refwatch_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read.",
            loaded_at.map(|at| (vec![], at)),
        ),
        gauges("refwatch_build_info", "What this refwatch was built from and for; 1.", [(build, 1.0)]),
    ];
    families.into_iter().chain(of_stores(stores))
}

/// The families of the stores of which every job is watched.
fn of_stores(stores: &[Arc<StoreView>]) -> [MetricFamily; 2] {
    let series = |value: fn(&StoreView) -> Option<f64>| {
        stores.iter().filter_map(move |store| {
            let labels = vec![
                label("watch", &store.name),
                label("target", &store.id.target),
                label("reference_store_id", store.id.store.as_str()),
            ];
            Some((labels, value(store)?))
        })
    };
    [
        gauges(
            "refwatch_store_up",
            "Whether new jobs can be found of a store of which every job is watched.",
            series(|store| Some(f64::from(store.trouble.is_none()))),
        ),
        gauges(
            "refwatch_store_last_listed_timestamp_seconds",
            "When a store of which every job is watched was last listed.",
            series(|store| Some(store.listed_at?.as_duration().as_secs_f64())),
        ),
    ]
}

/// How often each label was seen, those never seen included.
fn counts<'a>(
    name: &str,
    all: impl IntoIterator<Item = &'a str>,
    seen: impl Iterator<Item = &'a str>,
) -> Vec<(Vec<LabelPair>, f64)> {
    let mut counts: BTreeMap<&str, u64> = all.into_iter().map(|label| (label, 0)).collect();
    for label in seen {
        *counts.entry(label).or_default() += 1;
    }
    counts.into_iter().map(|(value, count)| (vec![label(name, value)], number(count))).collect()
}

fn gauges(name: &str, help: &str, series: impl IntoIterator<Item = (Vec<LabelPair>, f64)>) -> MetricFamily {
    let series: Vec<Metric> = series.into_iter().map(|(labels, value)| gauge(labels, value)).collect();
    family(name, help, MetricType::GAUGE, series)
}
