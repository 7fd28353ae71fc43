//! `/jobs/{kind}/{store_id}/{job_id}`: one job, with a section for each target that it is polled through.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::axis::{Lifetime, hatch_pattern, legend};
use super::html::{Page, absolute_time, copyable, item_badge, job_badge, page, relative_time, table};
use super::not_found::not_found;
use super::presentation::{self, ended_at, job_duration};
use super::selection::Refresh;
use super::sinks::deliveries_table;
use super::timeline::{JobTimes, StatusSpan, Timeline, lifetime};
use super::watch_table::{next_poll, status};
use crate::core::job::{ItemKey, JobKey};
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::{Detail, ItemTransition, Transition};
use crate::database::{Filter, ReadError, Row, RowLimit, UndeliveredEvent};
use crate::http::api::jobs::{ITEMS_LISTED_MAX, listed_items};
use crate::http::app_state::AppState;
use crate::http::response::{duration_between, duration_text};
use crate::state::{RECENT_FAILURES_MAX, WatchState, WatchStatus};

/// The relative path to the status page.
const ROOT: &str = "../../../";

/// Limits each of three queries, for transitions, details and deliveries, over all targets. A normal job has fewer than ten rows.
const ROWS_MAX: usize = 200;

/// Limits the query for the transitions of items, over all targets. It is enough for eight transitions of each of 100 items.
const ITEM_ROWS_MAX: usize = 8 * 100;

/// The database rows of one job in every target.
#[derive(Default)]
struct JobRows {
    transitions: Vec<Row<Transition>>,
    item_transitions: Vec<Row<ItemTransition>>,
    details: Vec<Row<Detail>>,
    /// Only deliveries that wait or have failed.
    deliveries: Vec<UndeliveredEvent>,
}

impl JobRows {
    /// Reads the latest rows, the oldest first.
    fn read(state: &AppState, key: &JobKey) -> Result<Self, ReadError> {
        let latest = |limit| Filter { limit: Some(RowLimit::Latest(limit)), ..Filter::of_job(key.clone()) };
        Ok(Self {
            transitions: state.database.rows(&latest(ROWS_MAX))?,
            item_transitions: state.database.rows(&latest(ITEM_ROWS_MAX))?,
            details: state.database.rows(&latest(ROWS_MAX))?,
            deliveries: state.database.undelivered(key, ROWS_MAX)?,
        })
    }
}

fn of_target<'a, T>(rows: &'a [Row<T>], target: &str) -> Vec<&'a T> {
    rows.iter().filter(|row| &*row.target_job.target == target).map(|row| &row.value).collect()
}

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    Path((kind, store, job)): Path<(String, String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let unknown = "This job is neither watched nor in the database.";
    let (Ok(kind), Ok(store), Ok(job)) = (kind.parse(), store.parse(), job.parse()) else {
        return not_found(&state, &uri, &headers, unknown);
    };
    let key = JobKey { kind, store, job };
    let renderer = state.renderer.clone();
    renderer
        .response(move || {
            let watches: Vec<_> = state.shared.watches().into_iter().filter(|watch| watch.id.key == key).collect();
            let now = state.clock.now().wall;
            let (rows, error) = match JobRows::read(&state, &key) {
                Ok(rows) => (rows, None),
                Err(error) => (JobRows::default(), Some(error)),
            };
            let targets: BTreeSet<&str> = rows.transitions.iter().map(|row| &*row.target_job.target).collect();
            let is_found_nowhere = watches.is_empty() && targets.is_empty();
            if is_found_nowhere && error.is_none() {
                return not_found(&state, &uri, &headers, unknown);
            }
            let name = watches.first().map_or(key.job.as_str(), |watch| &watch.name);
            let content = html! {
                div data-part="job" {
                    h1 { (Sanitized(name)) }
                    (identity(&key, watches.first().map_or("", |watch| &watch.aws_region), !watches.is_empty()))
                    @if let Some(error) = &error { p.bad { (Sanitized(&error.to_string())) } }
                    (hatch_pattern())
                    @for watch in &watches { (target_section(&watch.id.target, Some(watch), &rows, now)) }
                    @if watches.is_empty() { @for target in targets { (target_section(target, None, &rows, now)) } }
                }
            };
            let is_live = watches.iter().any(|watch| watch.state == WatchState::Live);
            // The page has no form, so a browser without the script may reload it.
            let refresh = if is_live { Refresh::ScriptOrBrowser } else { Refresh::Off };
            // Here `is_found_nowhere` means that the database could not be read: otherwise the response was 404.
            let status = if is_found_nowhere { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, page(&state, Page { root: ROOT, refresh, ..Page::new(name, content) })).into_response()
        })
        .await
}

/// The kind and the ids, and links to the job as JSON and to the AWS console.
fn identity(key: &JobKey, region: &str, is_watched: bool) -> Markup {
    let JobKey { kind, store, job } = key;
    let resource = if is_watched { "jobs" } else { "transitions" };
    let query = format!("kind={kind}&store_id={store}&job_id={job}");
    html! {
        p.summary {
            (kind) " in the " (kind.info().store.noun()) " " (copyable("the store's id", store.as_str()))
            ", job " (copyable("the job's id", job.as_str()))
        }
        p.links {
            a href={ (ROOT) "api/v1/" (resource) "?" (query) } { "This job as JSON" }
            @if let Some(url) = presentation::console_url(region) { a href=(url) rel="external" { "HealthOmics in the AWS console" } }
        }
    }
}

/// The job in one target. If it is no longer watched, `watch` is `None`, and everything comes from the database.
fn target_section(target: &str, watch: Option<&WatchStatus>, rows: &JobRows, now: Timestamp) -> Markup {
    let transitions = of_target(&rows.transitions, target);
    let details = of_target(&rows.details, target);
    let spans: Vec<_> = transitions.iter().map(|transition| StatusSpan::of_job(transition)).collect();
    let job = watch.and_then(|watch| watch.known.as_deref());
    let times = match watch {
        Some(_) => job.map(JobTimes::from),
        None => transitions.last().map(|last| JobTimes::from_rows(last, &details)),
    };
    let lifetime = times.and_then(|times| lifetime(&spans, times, now));
    // The title of the timeline. A job that is not watched has no name, so its target takes its place.
    let name = watch.map_or(target, |watch| &watch.name);
    // A finished job is not polled: its failures are over.
    let with_failures = watch.filter(|watch| watch.state != WatchState::Finished && !watch.recent_failures.is_empty());
    html! {
        section {
            h2 { "Target " (Sanitized(target)) @if let Some(watch) = watch && !watch.aws_region.is_empty() { ", " (Sanitized(&watch.aws_region)) } }
            @if watch.is_none() { p.note { "This job is not watched. The database has its transitions." } }
            @if let Some(advice) = watch.and_then(presentation::advice) { p.advice { strong { "What to do. " } (advice) } }
            @if let (Some(lifetime), Some(times)) = (lifetime, times) { (figure(name, &spans, lifetime, times.last_seen)) }
            @if let Some(watch) = watch { (facts(watch, now)) }
            @if let (Some(watch), Some(job)) = (watch, job) && !job.items.is_empty() {
                (items_table(watch.id.key.kind, job, &of_target(&rows.item_transitions, target), lifetime))
            }
            (transitions_table(&transitions))
            @if !details.is_empty() { (details_table(&details)) }
            (deliveries_table(&rows.deliveries, target))
            @if let Some(watch) = with_failures { (failures_table(watch, now)) }
        }
    }
}

/// The timeline of the job, from its creation to its end, with both times.
fn figure(name: &str, spans: &[StatusSpan], lifetime: Lifetime, last_seen: Timestamp) -> Markup {
    let axis = lifetime.axis();
    html! {
        figure {
            (Timeline { name, spans, lifetime, last_seen, axis }.image())
            figcaption {
                span { (absolute_time(axis.begin)) }
                span { (duration_between(axis.begin, axis.end)) " in total" }
                span { @if lifetime.is_live { "now" } @else { (absolute_time(axis.end)) } }
            }
            (legend())
        }
    }
}

fn facts(watch: &WatchStatus, now: Timestamp) -> Markup {
    let job = watch.known.as_ref();
    let times = [
        ("Status since", job.map(|job| job.since)),
        ("Created", job.and_then(|job| job.created_at)),
        ("Ended", job.and_then(|job| ended_at(job))),
        ("Last successful poll", watch.last_successful_poll),
    ];
    html! {
        dl {
            div { dt { "Status" } dd { (status(watch, usize::MAX)) } }
            @if let Some(job) = job { div { dt { "Duration" } dd { (duration_text(job_duration(job, now))) } } }
            @for (name, time) in times {
                @if let Some(time) = time { div { dt { (name) } dd { (absolute_time(time)) small { (relative_time(time, now)) " ago" } } } }
            }
            @if watch.next_poll.is_some() { div { dt { "Next poll" } dd { (next_poll(watch, now)) } } }
            @for (name, value) in &*watch.labels { div { dt { "Label " (Sanitized(name)) } dd { (Sanitized(value)) } } }
        }
    }
}

fn items_table(kind: JobKind, job: &JobState, transitions: &[&ItemTransition], lifetime: Option<Lifetime>) -> Markup {
    let items = &job.items;
    let mut spans: BTreeMap<&ItemKey, Vec<StatusSpan>> = BTreeMap::new();
    for ItemTransition { key, to, observed_at, .. } in transitions {
        match to {
            Some(to) => spans.entry(key).or_default().push(StatusSpan::of_item(&to.status, *observed_at)),
            // AWS no longer returns the item. If the key appears again, it is another item.
            None => drop(spans.remove(key)),
        }
    }
    let caption = html! {
        (JobKind::items_heading([kind]))
        @if items.len() > ITEMS_LISTED_MAX {
            " (" (ITEMS_LISTED_MAX) " of " (items.len()) ", failed " (kind.info().item_noun) "s first)"
        }
    };
    let rows = listed_items(items).map(|(key, item)| {
        let image = spans.get(key).zip(lifetime).map(|(spans, lifetime)| {
            Timeline { name: &key.name, spans, lifetime, last_seen: job.last_seen, axis: lifetime.axis() }.image()
        });
        [
            html! { (Sanitized(&key.name)) small { code { (Sanitized(&key.source_file)) } } },
            item_badge(&item.status),
            image.unwrap_or_default(),
            html! { (Sanitized(item.status_message.as_deref().unwrap_or_default())) },
        ]
    });
    table(&caption, ["Name", "Status", "Timeline", "Message"], rows)
}

fn transitions_table(transitions: &[&Transition]) -> Markup {
    let rows = transitions.iter().map(|transition| {
        [
            absolute_time(transition.observed_at),
            transition.from.as_ref().map_or(html! { span.muted { "first seen" } }, job_badge),
            job_badge(&transition.to),
            html! { @if let Some(previous_last_seen) = transition.not_before { "after " (absolute_time(previous_last_seen)) } },
            html! {
                @if let Some(message) = &transition.status_message { (Sanitized(message)) }
                @if let Some(anomaly) = transition.anomaly { small.bad { (presentation::anomaly_text(anomaly)) } }
            },
        ]
    });
    table(&html! { "Transitions" }, ["Seen", "From", "To", "Changed", "Message"], rows)
}

fn details_table(details: &[&Detail]) -> Markup {
    let rows = details.iter().map(|detail| {
        let value = detail.value.as_deref().unwrap_or_default();
        [
            absolute_time(detail.observed_at),
            html! { (presentation::detail_text(detail.kind)) },
            html! { (Sanitized(value)) },
        ]
    });
    table(&html! { "Other changes" }, ["Seen", "Change", "Value"], rows)
}

/// The newest failure is first. Only the newest failure of each reason shows the advice.
fn failures_table(watch: &WatchStatus, now: Timestamp) -> Markup {
    let failures = || watch.recent_failures.iter().rev();
    let rows = failures().enumerate().map(|(nth, failure)| {
        let info = failure.reason.info();
        let is_newest_of_reason = failures().take(nth).all(|newer| newer.reason != failure.reason);
        [
            html! { (absolute_time(failure.at)) small { (relative_time(failure.at, now)) " ago" } },
            html! { (info.summary) small { code { (failure.reason.label()) } } },
            html! { (Sanitized(&failure.message)) @if is_newest_of_reason { small { (failure.reason.advice(watch.id.key.kind)) } } },
        ]
    });
    let caption = html! { "Failed polls" small { "The last " (RECENT_FAILURES_MAX) ", including those before successful polls." } };
    table(&caption, ["When", "Reason", "Error"], rows)
}
