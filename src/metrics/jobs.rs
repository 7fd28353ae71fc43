//! Writes the metrics of jobs: per watch one series, or one series for each status.
//!
//! 10,000 watches have 280,000 series, which are written as text. The `prometheus` crate would take seconds for them.

use std::sync::Arc;

use super::exposition::{Exposition, labels};
use super::{number, seconds};
use crate::core::job::{ItemStatus, JobStatus};
use crate::state::WatchStatus;

pub(super) fn write(watches: &[Arc<WatchStatus>], exposition: &mut Exposition) {
    let watches = watches.iter().map(|watch| (&**watch, watch_labels(watch))).collect();
    let mut families = JobFamilies { watches, exposition };
    families.labelled("refwatch_job_info", "Always 1, for each watched job.", "aws_region", |watch| {
        vec![(&*watch.aws_region, 1.0)]
    });
    families.configured_labels();
    families.labelled(
        "refwatch_job_status",
        "1 for the status of the job, 0 for the others. All are 0 before the first successful poll.",
        "status",
        |watch| {
            let current = watch.known.as_ref().map(|known| known.status.label());
            JobStatus::labels().map(|status| (status, f64::from(current == Some(status)))).collect()
        },
    );
    families.labelled("refwatch_job_items", "Items of the job by status.", "status", |watch| {
        let Some(known) = &watch.known else { return vec![] };
        let mut counts = [0_u64; ItemStatus::DOCUMENTED.len() + 1];
        for item in known.items.values() {
            counts[item.status.index()] += 1;
        }
        ItemStatus::labels().zip(counts.map(number)).collect()
    });
    families.single("refwatch_job_up", "1 if the last poll of the job succeeded, 0 otherwise.", |watch| {
        watch.up.map(f64::from)
    });
    families.single("refwatch_job_created_timestamp_seconds", "When the job was created, by AWS's clock.", |watch| {
        watch.known.as_ref()?.created_at.map(seconds)
    });
    families.single("refwatch_job_completed_timestamp_seconds", "When the job ended, by AWS's clock.", |watch| {
        watch.known.as_ref()?.completed_at.map(seconds)
    });
    families.single(
        "refwatch_job_last_transition_timestamp_seconds",
        "When refwatch first saw the status of the job.",
        |watch| watch.known.as_ref().map(|known| seconds(known.since)),
    );
    families.single(
        "refwatch_job_last_successful_poll_timestamp_seconds",
        "When a poll of the job last succeeded.",
        |watch| watch.last_successful_poll.map(seconds),
    );
    families.single("refwatch_job_next_poll_timestamp_seconds", "When the next poll of the job is due.", |watch| {
        watch.next_poll.map(seconds)
    });
}

struct JobFamilies<'a> {
    watches: Vec<(&'a WatchStatus, String)>,
    exposition: &'a mut Exposition,
}

impl<'a> JobFamilies<'a> {
    /// Writes one series for each watch that has a value.
    fn single(&mut self, name: &str, help: &str, value: fn(&WatchStatus) -> Option<f64>) {
        let series = self.watches.iter().filter_map(|(watch, labels)| Some((labels.clone(), value(watch)?)));
        self.exposition.family(name, help, series);
    }

    /// Writes one series for each watch that has labels. As in `kube_pod_labels`, names have a prefix, so that they collide with no other
    /// label.
    fn configured_labels(&mut self) {
        let labelled = self.watches.iter().filter(|(watch, _)| !watch.labels.is_empty());
        let series = labelled.map(|(watch, watch_labels)| {
            let names = watch.labels.keys().map(|name| format!("label_{name}")).collect::<Vec<_>>();
            let pairs = names.iter().map(String::as_str).zip(watch.labels.values().map(String::as_str));
            (format!("{watch_labels},{}", labels(&pairs.collect::<Vec<_>>())), 1.0)
        });
        let help = "Always 1, for each job that has labels in the configuration.";
        self.exposition.family("refwatch_job_labels", help, series);
    }

    /// Writes several series for each watch. `label` is their additional label.
    fn labelled(&mut self, name: &str, help: &str, label: &str, values: fn(&'a WatchStatus) -> Vec<(&'a str, f64)>) {
        let series = self.watches.iter().flat_map(|(watch, watch_labels)| {
            let all_labels = move |value| format!("{watch_labels},{}", labels(&[(label, value)]));
            values(watch).into_iter().map(move |(value, number)| (all_labels(value), number))
        });
        self.exposition.family(name, help, series);
    }
}

fn watch_labels(watch: &WatchStatus) -> String {
    labels(&[
        ("watch", &watch.name),
        ("target", &watch.id.target),
        ("kind", watch.id.key.kind.as_str()),
        ("store_id", watch.id.key.store.as_str()),
        ("job_id", watch.id.key.job.as_str()),
    ])
}
