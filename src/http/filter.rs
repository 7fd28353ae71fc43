//! The filters by kind, status, state and text that the status page and `/api/v1/jobs` share, and the severity of a watch.

use crate::core::job::JobStatus;
use crate::core::kind::JobKind;
use crate::state::{WatchState, WatchStatus};

/// The value of `status` that selects watches whose job was never seen: no poll has succeeded yet.
pub const NOT_SEEN: &str = "not_seen";

/// The value of `state` that selects watches of [`Severity::Attention`].
pub(super) const ATTENTION: &str = "attention";

/// Selects watches. Every field must match. An empty field matches all.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchFilter<'a> {
    /// The name of a kind.
    pub(super) kind: &'a str,
    /// A status as [`JobStatus::label`] returns it, or [`NOT_SEEN`].
    pub(super) status: &'a str,
    /// A state as [`WatchState::label`] returns it, or [`ATTENTION`].
    pub(super) state: &'a str,
    /// A substring of the name, the ids, the target, the status, the AWS region or a label of the configuration entry, as `NAME=VALUE`.
    /// Case is ignored.
    pub(super) q: &'a str,
}

impl WatchFilter<'_> {
    /// Rejects values that no watch can have: a misspelled status would otherwise look like an empty watch list.
    pub(super) fn validate(&self) -> Result<(), String> {
        let kinds = JobKind::ALL.map(JobKind::as_str).to_vec();
        let statuses = JobStatus::labels().chain([NOT_SEEN]).collect();
        let states = [&WatchState::LABELS[..], &[ATTENTION]].concat();
        for (name, value, allowed) in
            [("kind", self.kind, kinds), ("status", self.status, statuses), ("state", self.state, states)]
        {
            if !value.is_empty() && !allowed.contains(&value) {
                return Err(format!("{name} must be one of {}", allowed.join(", ")));
            }
        }
        Ok(())
    }

    pub(super) fn matches(&self, watch: &WatchStatus) -> bool {
        let has_state = match self.state {
            ATTENTION => severity(watch) == Severity::Attention,
            state => state.is_empty() || watch.state.label() == state,
        };
        let has_status = self.status.is_empty() || status_label(watch) == self.status;
        let has_kind = self.kind.is_empty() || watch.id.key.kind.as_str() == self.kind;
        has_state && has_status && has_kind && (self.q.is_empty() || self.text_matches(watch))
    }

    fn text_matches(&self, watch: &WatchStatus) -> bool {
        let WatchStatus { name, id, aws_region, labels, .. } = watch;
        let labels = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        let status = watch.known.as_ref().map_or(NOT_SEEN, |job| job.status.as_str());
        let text = format!("{name} {} {} {status} {aws_region} {labels}", id.key, id.target);
        text.to_lowercase().contains(&self.q.to_lowercase())
    }
}

pub(super) fn status_label(watch: &WatchStatus) -> &'static str {
    watch.known.as_ref().map_or(NOT_SEEN, |job| job.status.label())
}

/// How urgent a watch is. The most urgent is first, as in the table of watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// An operator should look at the watch.
    Attention,
    Normal,
    /// The job completed without failures or was cancelled.
    Done,
}

pub(super) fn severity(watch: &WatchStatus) -> Severity {
    let is_parked = matches!(watch.state, WatchState::Parked(_));
    let job = watch.known.as_ref();
    let is_vanished = job.is_some_and(|job| job.vanished_at.is_some());
    severity_of(is_parked || watch.up == Some(false) || is_vanished, job.map(|job| &job.status))
}

/// `has_error`: the watch is parked, its last poll failed, or the job has vanished.
pub(super) fn severity_of(has_error: bool, status: Option<&JobStatus>) -> Severity {
    match status {
        _ if has_error => Severity::Attention,
        Some(JobStatus::Failed | JobStatus::CompletedWithFailures | JobStatus::Unknown(_)) => Severity::Attention,
        Some(JobStatus::Completed | JobStatus::Cancelled) => Severity::Done,
        Some(JobStatus::Submitted | JobStatus::InProgress | JobStatus::Cancelling) | None => Severity::Normal,
    }
}
