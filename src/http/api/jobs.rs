//! `/api/v1/jobs`: the watches that match the query, as JSON. A job that is polled through two targets appears twice.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::core::job::{Item, ItemKey, ItemStatus, Items, JobKey, JobStatus, Labels};
use crate::http::app_state::AppState;
use crate::http::filter::{Severity, WatchFilter, severity_of};
use crate::http::parameters::Parameters;
use crate::http::response::{json, json_error, rfc3339};
use crate::state::{WatchState, WatchStatus};

/// At most this many items of a job are listed. No job has more today: `StartReferenceImportJob` accepts at most 100 sources. The counts
/// include all items.
pub const ITEMS_LISTED_MAX: usize = 100;

/// One watch: a job of one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// The name of the watch. Watches that were discovered through one `[[store]]` share it.
    pub watch: String,
    pub target: String,
    pub aws_region: String,
    pub kind: String,
    pub store_id: String,
    pub job_id: String,
    /// The labels in the configuration.
    pub labels: Labels,
    /// AWS's own text; `None` before the first successful poll.
    pub status: Option<String>,
    /// `live`, `finished` or `parked`.
    pub state: String,
    pub parked_reason: Option<String>,
    pub vanished: bool,
    pub status_message: Option<String>,
    pub created_at: Option<String>,
    pub completed_at: Option<String>,
    /// When the status was first observed.
    pub since: Option<String>,
    /// When the status was last observed.
    pub last_seen: Option<String>,
    pub items: Option<JobItems>,
    /// Whether the last poll succeeded; `None` before the first poll.
    pub up: Option<bool>,
    pub last_successful_poll: Option<String>,
    pub next_poll: Option<String>,
    pub recent_failures: Vec<PollFailure>,
}

/// The items of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobItems {
    pub total: usize,
    /// Statuses that AWS does not document are counted as `UNKNOWN`.
    pub by_status: BTreeMap<String, usize>,
    /// At most [`ITEMS_LISTED_MAX`], failed items first.
    pub listed: Vec<JobItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobItem {
    pub name: String,
    pub source_file: String,
    pub status: String,
    pub status_message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollFailure {
    pub at: String,
    pub reason: String,
    pub message: String,
}

/// The filters. An empty value selects all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::http) struct Query {
    kind: String,
    status: String,
    state: String,
    q: String,
    /// The name of the watch. `q` also finds parts of it.
    watch: String,
    store_id: String,
    job_id: String,
}

pub(in crate::http) async fn list(State(state): State<AppState>, Parameters(query): Parameters<Query>) -> Response {
    if let Err(error) = query.filter().validate() {
        return json_error(StatusCode::BAD_REQUEST, error);
    }
    let renderer = state.renderer.clone();
    renderer
        .large_response(move || {
            let watches = state.shared.watches();
            let selected = watches.iter().filter(|watch| query.matches(watch));
            json(StatusCode::OK, &selected.map(|watch| JobInfo::from(&**watch)).collect::<Vec<_>>())
        })
        .await
}

impl Query {
    fn filter(&self) -> WatchFilter<'_> {
        WatchFilter { kind: &self.kind, status: &self.status, state: &self.state, q: &self.q }
    }

    fn matches(&self, watch: &WatchStatus) -> bool {
        let JobKey { store, job, .. } = &watch.id.key;
        let values = [(&self.watch, &*watch.name), (&self.store_id, store.as_str()), (&self.job_id, job.as_str())];
        self.filter().matches(watch) && values.iter().all(|(wanted, value)| wanted.is_empty() || *wanted == value)
    }
}

impl JobInfo {
    /// For CLI subcommands, which only have the JSON.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let has_error = self.parked_reason.is_some() || self.up == Some(false) || self.vanished;
        severity_of(has_error, self.status.as_deref().map(JobStatus::from).as_ref())
    }
}

/// The first [`ITEMS_LISTED_MAX`] items, failed items first.
pub(in crate::http) fn listed_items(items: &Items) -> impl Iterator<Item = (&ItemKey, &Item)> {
    let (failed, others): (Vec<_>, Vec<_>) = items.iter().partition(|(_, item)| item.status == ItemStatus::Failed);
    failed.into_iter().chain(others).take(ITEMS_LISTED_MAX)
}

impl From<&WatchStatus> for JobInfo {
    fn from(watch: &WatchStatus) -> Self {
        // `None` before the first successful poll.
        let job = watch.known.as_ref();
        let recent_failures = watch.recent_failures.iter().map(|failure| PollFailure {
            at: rfc3339(failure.at),
            reason: failure.reason.label().to_owned(),
            message: failure.message.clone(),
        });
        Self {
            watch: watch.name.to_string(),
            target: watch.id.target.to_string(),
            aws_region: watch.aws_region.to_string(),
            kind: watch.id.key.kind.to_string(),
            store_id: watch.id.key.store.to_string(),
            job_id: watch.id.key.job.to_string(),
            labels: Labels::clone(&watch.labels),
            status: job.map(|job| job.status.as_str().to_owned()),
            state: watch.state.label().to_owned(),
            parked_reason: match &watch.state {
                WatchState::Parked(reason) => Some(reason.clone()),
                WatchState::Live | WatchState::Finished => None,
            },
            vanished: job.is_some_and(|job| job.vanished_at.is_some()),
            status_message: job.and_then(|job| job.status_message.clone()),
            created_at: job.and_then(|job| job.created_at).map(rfc3339),
            completed_at: job.and_then(|job| job.completed_at).map(rfc3339),
            since: job.map(|job| rfc3339(job.since)),
            last_seen: job.map(|job| rfc3339(job.last_seen)),
            items: job.map(|job| JobItems::from(&*job.items)),
            up: watch.up,
            last_successful_poll: watch.last_successful_poll.map(rfc3339),
            next_poll: watch.next_poll.map(rfc3339),
            recent_failures: recent_failures.collect(),
        }
    }
}

impl From<&Items> for JobItems {
    fn from(items: &Items) -> Self {
        let count = |label| items.values().filter(|item| item.status.label() == label).count();
        let by_status = ItemStatus::labels().map(|label| (label.to_owned(), count(label))).collect();
        let listed = listed_items(items).map(|(key, item)| JobItem {
            name: key.name.to_string(),
            source_file: key.source_file.to_string(),
            status: item.status.to_string(),
            status_message: item.status_message.as_deref().map(str::to_owned),
        });
        Self { total: items.len(), by_status, listed: listed.collect() }
    }
}
