//! `/watch/{reference_store_id}/{import_job_id}`: all that is known of one job, through every target it is read through.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use maud::{Markup, html};

use super::html::{Refresh, alerts, distance, job_badge, moment, page, progress, source_badge};
use super::page::{next_poll, status};
use super::timeline::{Scale, Sighting, timeline};
use super::words;
use crate::core::job::{JobKey, SourceKey, Sources};
use crate::core::sanitize::Printable;
use crate::core::time::Timestamp;
use crate::core::transition::{Detail, SourceTransition, Transition};
use crate::database::{Filter, ReadError, Row};
use crate::http::api::watches::{SOURCES_LISTED_MAX, listed};
use crate::http::app_state::AppState;
use crate::http::response::{distance as length, rendered};
use crate::state::{FailedPoll, RECENT_FAILURES_MAX, WatchView};

/// Rows shown of each kind: the latest. A job has a handful in its life; only one that goes to and fro has more.
const ROWS_MAX: u32 = 200;

/// Transitions of sources drawn, the latest: four for each source that is listed, and as many again.
const SOURCE_ROWS_MAX: u32 = 8 * 100;

/// What the record has of one job, through one target.
#[derive(Default)]
struct History {
    transitions: Vec<Row<Transition>>,
    sources: Vec<Row<SourceTransition>>,
    details: Vec<Row<Detail>>,
}

impl History {
    fn read(state: &AppState, key: &JobKey) -> Result<Self, ReadError> {
        let latest = |limit| Filter { limit: Some(limit), ..Filter::of_job(key.clone()) };
        Ok(Self {
            transitions: state.record.rows(&latest(ROWS_MAX))?,
            sources: state.record.rows(&latest(SOURCE_ROWS_MAX))?,
            details: state.record.rows(&latest(ROWS_MAX))?,
        })
    }

    fn through(&self, target: &str) -> Self {
        Self {
            transitions: self.transitions.iter().filter(|row| &*row.job.target == target).cloned().collect(),
            sources: self.sources.iter().filter(|row| &*row.job.target == target).cloned().collect(),
            details: self.details.iter().filter(|row| &*row.job.target == target).cloned().collect(),
        }
    }
}

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    Path((store, job)): Path<(String, String)>,
) -> Response {
    let unknown = || (StatusCode::NOT_FOUND, "no such job is watched\n").into_response();
    let (Ok(store), Ok(job)) = (store.parse(), job.parse()) else { return unknown() };
    let key = JobKey { store, job };
    rendered(move || {
        let watches: Vec<_> = state.board.watches().into_iter().filter(|watch| watch.id.key == key).collect();
        let Some(first) = watches.first() else { return unknown() };
        let now = state.clock.now().wall;
        let history = History::read(&state, &key);
        let content = html! {
            (alerts(&state.board.daemon()))
            nav.path aria-label="Path" { a href="/" { "Watches" } }
            h1 { (Printable(&first.name)) }
            p.summary { code { (key.store) "/" wbr; (key.job) } }
            @if let Err(error) = &history { p.bad { (Printable(&error.to_string())) } }
            @for watch in &watches {
                @let history = history.as_ref().map(|history| history.through(&watch.id.target)).unwrap_or_default();
                (section(watch, &history, now))
            }
        };
        page(&first.name, now, &Refresh::Never, &content)
    })
    .await
}

fn section(watch: &WatchView, history: &History, now: Timestamp) -> Markup {
    let life: Vec<_> = history.transitions.iter().map(|row| Sighting::of_job(&row.value)).collect();
    let known = watch.known.as_ref();
    let scale = known
        .and_then(|known| Scale::of_job(&life, known.created_at, known.completed_at, known.vanished_at.unwrap_or(now)));
    html! {
        section {
            h2 { "Target " (Printable(&watch.id.target)) @if !watch.aws_region.is_empty() { ", " (Printable(&watch.aws_region)) } }
            @if let Some(advice) = words::advice(watch) { p.advice { strong { "What to do. " } (advice) } }
            @if let (Some(known), Some(scale)) = (known, scale) {
                figure {
                    (timeline(&watch.name, &life, scale, known.last_seen))
                    figcaption {
                        span { (moment(scale.begin)) }
                        span { (length(scale.begin, scale.end)) " in all" }
                        span { @if scale.end == now { "now" } @else { (moment(scale.end)) } }
                    }
                    small { "Paler where the status changed: somewhere between two polls." }
                }
            }
            (facts(watch, now))
            @if let Some(known) = known && !known.sources.is_empty() { (sources(&known.sources, history, scale, known.last_seen)) }
            (transitions(&history.transitions))
            @if !history.details.is_empty() { (details(&history.details)) }
            @if !watch.recent_failures.is_empty() { (failures(watch, now)) }
        }
    }
}

fn facts(watch: &WatchView, now: Timestamp) -> Markup {
    let known = watch.known.as_ref();
    let times = [
        ("Status since", known.map(|known| known.since)),
        ("Status last seen", known.map(|known| known.last_seen)),
        ("Created", known.and_then(|known| known.created_at)),
        ("Ended", known.and_then(|known| known.completed_at)),
        ("Last successful poll", watch.last_successful_poll),
    ];
    html! {
        dl {
            div { dt { "Status" } dd { (status(watch, usize::MAX)) } }
            @for (name, time) in times {
                @if let Some(time) = time { div { dt { (name) } dd { (moment(time)) small { (distance(time, now)) " ago" } } } }
            }
            @if watch.next_poll.is_some() { div { dt { "Next poll" } dd { (next_poll(watch, now)) } } }
            @if let Some(known) = known && !known.sources.is_empty() {
                div { dt { "Sources done" } dd { (progress(&known.sources)) } }
            }
        }
    }
}

fn sources(sources: &Sources, history: &History, scale: Option<Scale>, last_seen: Timestamp) -> Markup {
    let mut lives: BTreeMap<SourceKey, Vec<Sighting>> = BTreeMap::new();
    for row in &history.sources {
        lives.entry(row.value.key.clone()).or_default().push(Sighting::of_source(&row.value));
    }
    html! {
        table.cards {
            caption {
                "Sources"
                @if sources.len() > SOURCES_LISTED_MAX { " (" (SOURCES_LISTED_MAX) " of " (sources.len()) ", those that failed first)" }
            }
            thead { tr { @for column in ["Name", "Status", "Timeline", "Message"] { th scope="col" { (column) } } } }
            tbody {
                @for (key, source) in listed(sources) {
                    tr {
                        th scope="row" { (Printable(&key.name)) small { code { (Printable(&key.source_file)) } } }
                        td data-label="Status" { (source_badge(&source.status)) }
                        td data-label="Timeline" {
                            @if let (Some(life), Some(scale)) = (lives.get(key), scale) { (timeline(&key.name, life, scale, last_seen)) }
                        }
                        td data-label="Message" { (Printable(source.status_message.as_deref().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

fn transitions(rows: &[Row<Transition>]) -> Markup {
    html! {
        table.cards {
            caption { "Transitions" }
            thead { tr { @for column in ["Seen", "From", "To", "Changed", "Message"] { th scope="col" { (column) } } } }
            tbody {
                @for transition in rows.iter().map(|row| &row.value) {
                    tr {
                        th scope="row" { (moment(transition.observed_at)) }
                        td data-label="From" {
                            @if let Some(from) = &transition.from { (job_badge(from)) }
                            @else { span.quiet { "first seen" } }
                        }
                        td data-label="To" { (job_badge(&transition.to)) }
                        td data-label="Changed" { (changed(transition)) }
                        td data-label="Message" {
                            @if let Some(message) = &transition.status_message { (Printable(message)) }
                            @if let Some(anomaly) = transition.anomaly { small.bad { (words::anomaly(anomaly)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Less than a second more: a time that is cut to seconds is no shorter then.
const PART_OF_A_SECOND: SignedDuration = SignedDuration::from_millis(999);

/// Between which two looks the status changed.
fn changed(transition: &Transition) -> Markup {
    let Some(before) = transition.not_before else { return html! {} };
    let seen = transition.observed_at;
    let longest = length(before, seen.checked_add(PART_OF_A_SECOND).unwrap_or(seen));
    html! { "at most " (longest) " before it was seen" small { "the old status was last seen at " (moment(before)) } }
}

/// What was seen beside transitions.
fn details(rows: &[Row<Detail>]) -> Markup {
    html! {
        table.cards {
            caption { "What else was seen" }
            thead { tr { @for column in ["Seen", "What", "Value"] { th scope="col" { (column) } } } }
            tbody {
                @for detail in rows.iter().map(|row| &row.value) {
                    tr {
                        th scope="row" { (moment(detail.observed_at)) }
                        td data-label="What" { (words::detail(detail.kind)) }
                        td data-label="Value" { (Printable(detail.value.as_deref().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

/// Polls that failed lately, the latest first, each kind with what to do about it where it comes first.
fn failures(watch: &WatchView, now: Timestamp) -> Markup {
    let failures = || watch.recent_failures.iter().rev();
    let is_first = |nth: usize, failure: &FailedPoll| failures().take(nth).all(|newer| newer.reason != failure.reason);
    html! {
        table.cards {
            caption {
                "Failed polls"
                small { "The last " (RECENT_FAILURES_MAX) " are kept, however many good ones came after them." }
            }
            thead { tr { @for column in ["When", "Reason", "What happened"] { th scope="col" { (column) } } } }
            tbody {
                @for (nth, failure) in failures().enumerate() {
                    tr {
                        th scope="row" { (moment(failure.at)) small { (distance(failure.at, now)) " ago" } }
                        td data-label="Reason" { (failure.reason.class().summary) small { code { (failure.reason.label()) } } }
                        td data-label="What happened" {
                            (Printable(&failure.message))
                            @if is_first(nth, failure) { small { (failure.reason.class().advice) } }
                        }
                    }
                }
            }
        }
    }
}
