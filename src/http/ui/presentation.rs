//! The texts and tones (CSS classes) of statuses and errors on the pages, and the number of problems.

use jiff::SignedDuration;

use crate::core::job::{ItemStatus, JobStatus};
use crate::core::kind::KindInfo;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::{Anomaly, DetailKind};
use crate::http::filter::{Severity, severity};
use crate::state::{DaemonStatus, SharedState, SinkState, StoreStatus, WatchState, WatchStatus};

/// The number of errors, of watches that need attention, and of sinks that are paused or disabled.
pub(super) fn problem_count(shared: &SharedState) -> usize {
    let DaemonStatus { config_error, database_error, targets_down, .. } = shared.daemon();
    let stores = shared.stores();
    let store_errors =
        |store: &StoreStatus| usize::from(store.error.is_some()) + usize::from(store.limit_message.is_some());
    let watches = shared.watches().iter().filter(|watch| severity(watch) == Severity::Attention).count();
    let errors = usize::from(config_error.is_some()) + usize::from(database_error.is_some()) + targets_down.len();
    let sinks = shared.sinks().iter().filter(|sink| sink.state != SinkState::Up).count();
    watches + sinks + errors + stores.iter().map(|store| store_errors(store)).sum::<usize>()
}

/// The home of HealthOmics in the AWS console. AWS documents no address of a store or a job. `None` if the target has no valid region.
pub(super) fn console_url(region: &str) -> Option<String> {
    let is_region = !region.is_empty() && region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_region.then(|| format!("https://{region}.console.aws.amazon.com/omics/home?region={region}"))
}

/// Advice to the operator; `None` if there is none.
pub(super) fn advice(watch: &WatchStatus) -> Option<String> {
    // For example "import", "source" and "imported".
    let KindInfo { work_noun, item_noun, finished_participle, .. } = watch.id.key.kind.info();
    if let WatchState::Parked(_) = watch.state {
        return Some("The job is not polled. Correct its entry in the configuration and reload.".to_owned());
    }
    if let (Some(false), Some(last)) = (watch.up, watch.recent_failures.back()) {
        return Some(last.reason.advice(watch.id.key.kind));
    }
    match &watch.known.as_ref()?.status {
        JobStatus::Failed => Some(format!(
            "The {work_noun} failed. The {item_noun}s below show the messages of AWS. Correct the cause and start a new {work_noun} job; a failed job \
             does not restart."
        )),
        JobStatus::CompletedWithFailures => Some(format!(
            "Some {item_noun}s were not {finished_participle}; the others were. The {item_noun}s below show the messages of AWS. Start a new {work_noun} job with the \
             failed {item_noun}s."
        )),
        JobStatus::Unknown(_) => Some("refwatch does not know this status of AWS. Polling continues.".to_owned()),
        JobStatus::Submitted
        | JobStatus::InProgress
        | JobStatus::Cancelling
        | JobStatus::Cancelled
        | JobStatus::Completed => None,
    }
}

pub(super) fn anomaly_text(anomaly: Anomaly) -> &'static str {
    match anomaly {
        Anomaly::Regressed => "The status went back to an earlier status.",
        Anomaly::Reopened => "The job had ended and is running again.",
        Anomaly::EndChanged => "The job had ended with another status.",
        Anomaly::NoCompletionTime => "AWS returned no completion time.",
    }
}

pub(super) fn detail_text(kind: DetailKind) -> &'static str {
    match kind {
        DetailKind::StatusMessage => "AWS's message changed",
        DetailKind::CreationTimeChanged => "AWS changed the creation time",
        DetailKind::Vanished => "AWS returned 404 for the job",
        DetailKind::Returned => "AWS returned the job again",
        // Saved when watching stops, with the time when the status was last observed.
        DetailKind::StillSeen => "Watching stopped; the status had not changed",
    }
}

/// The CSS class of what has not started: a submitted job, an unseen watch, a delivery that waits. Its bar in a timeline is thinner.
pub(super) const WAITING: &str = "waiting";

pub(super) fn job_tone(status: &JobStatus) -> &'static str {
    match status {
        JobStatus::Submitted => WAITING,
        JobStatus::InProgress => "active",
        JobStatus::Cancelling | JobStatus::Cancelled => "void",
        JobStatus::Failed => "bad",
        JobStatus::Completed => "good",
        JobStatus::CompletedWithFailures | JobStatus::Unknown(_) => "mixed",
    }
}

pub(super) fn item_tone(status: &ItemStatus) -> &'static str {
    match status {
        ItemStatus::NotStarted => WAITING,
        ItemStatus::InProgress => "active",
        ItemStatus::Finished => "good",
        ItemStatus::Failed => "bad",
        ItemStatus::Unknown(_) => "mixed",
    }
}

/// The time from the creation until the job ended or vanished, otherwise until now. If the creation is unknown or later than the first
/// observation of the current status (`since`), the time begins at that observation. Never negative.
pub(super) fn job_duration(job: &JobState, now: Timestamp) -> SignedDuration {
    let end = ended_at(job).unwrap_or(now);
    // A job without a creation time may be first seen after its end. Its duration is then 0.
    let begin = job.created_at.unwrap_or(job.since).min(job.since).min(end);
    begin.duration_until(end)
}

/// When the job ended or vanished. The end is AWS's completion time or the first observation of the end, whichever is earlier.
pub(super) fn ended_at(job: &JobState) -> Option<Timestamp> {
    let end = job.status.is_terminal().then(|| job.completed_at.map_or(job.since, |at| at.min(job.since)));
    end.or(job.vanished_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::job::Items;

    #[test]
    fn a_job_that_was_seen_first_after_its_end_has_no_duration() {
        let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
        let job = JobState {
            status: JobStatus::Completed,
            status_message: None,
            created_at: None,
            completed_at: Some(at("2026-03-01T00:00:00Z")),
            items: Items::new().into(),
            transition_count: 1,
            changes_towards_limit: 0,
            since: at("2026-03-08T00:00:00Z"),
            last_seen: at("2026-03-08T00:00:00Z"),
            vanished_at: None,
            ended_once: true,
        };
        assert_eq!(job_duration(&job, at("2026-03-09T00:00:00Z")), SignedDuration::ZERO);
    }
}
