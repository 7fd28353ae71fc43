//! `/jobs/{kind}/{store_id}/{job_id}`: one job, with a section for each target through which it is watched.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use maud::{Markup, html};

use super::html::{alerts, distance, job_badge, moment, page, source_badge, table};
use super::page::{next_poll, status};
use super::timeline::{StatusSpan, TimeAxis, timeline};
use super::words;
use crate::core::job::{JobKey, KIND, SourceKey, Sources};
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::core::transition::{Detail, SourceTransition, Transition};
use crate::database::{Filter, ReadError, Row};
use crate::http::api::jobs::{SOURCES_LISTED_MAX, listed};
use crate::http::app_state::AppState;
use crate::http::response::{distance as length, render_blocking};
use crate::state::{RECENT_FAILURES_MAX, WatchStatus};

/// Rows shown of each kind, the latest. A normal job has fewer than ten.
const ROWS_MAX: u32 = 200;

/// Transitions of sources drawn, the latest: eight for each listed source.
const SOURCE_ROWS_MAX: u32 = 8 * 100;

/// The rows of one job, seen through any target.
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
            transitions: state.database.rows(&latest(ROWS_MAX))?,
            sources: state.database.rows(&latest(SOURCE_ROWS_MAX))?,
            details: state.database.rows(&latest(ROWS_MAX))?,
        })
    }
}

/// The values of a job that were seen through one target.
fn through<'a, T>(rows: &'a [Row<T>], target: &str) -> Vec<&'a T> {
    rows.iter().filter(|row| &*row.job.target == target).map(|row| &row.value).collect()
}

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    Path((kind, store, job)): Path<(String, String, String)>,
) -> Response {
    let unknown = || (StatusCode::NOT_FOUND, "no such job is watched\n").into_response();
    let key = match (store.parse(), job.parse()) {
        (Ok(store), Ok(job)) if kind == KIND => JobKey { store, job },
        _ => return unknown(),
    };
    render_blocking(move || {
        let watches: Vec<_> = state.board.watches().into_iter().filter(|watch| watch.id.key == key).collect();
        let Some(first) = watches.first() else { return unknown() };
        let now = state.clock.now().wall;
        let history = History::read(&state, &key);
        let content = html! {
            (alerts(&state.board.daemon()))
            h1 { (Sanitized(&first.name)) }
            p.summary { code { (key.store) "/" wbr; (key.job) } }
            @if let Err(error) = &history { p.bad { (Sanitized(&error.to_string())) } }
            @for watch in &watches { (section(watch, history.as_ref().unwrap_or(&History::default()), now)) }
        };
        page(&first.name, now, false, &html! {}, &content)
    })
    .await
}

fn section(watch: &WatchStatus, history: &History, now: Timestamp) -> Markup {
    let transitions = through(&history.transitions, &watch.id.target);
    let life: Vec<_> = transitions.iter().map(|transition| StatusSpan::of_job(transition)).collect();
    let details = through(&history.details, &watch.id.target);
    let known = watch.known.as_ref();
    let scale = known.and_then(|known| TimeAxis::of_job(&life, known, now));
    html! {
        section {
            h2 { "Target " (Sanitized(&watch.id.target)) @if !watch.aws_region.is_empty() { ", " (Sanitized(&watch.aws_region)) } }
            @if let Some(advice) = words::advice(watch) { p.advice { strong { "What to do. " } (advice) } }
            @if let Some(scale) = scale {
                figure {
                    (timeline(&watch.name, &life, scale))
                    figcaption {
                        span { (moment(scale.begin)) }
                        span { (length(scale.begin, scale.end)) " in all" }
                        span { @if scale.end == now { "now" } @else { (moment(scale.end)) } }
                    }
                }
            }
            (facts(watch, now))
            @if let Some(known) = known && !known.sources.is_empty() {
                (sources_table(&known.sources, &through(&history.sources, &watch.id.target), scale))
            }
            (transitions_table(&transitions))
            @if !details.is_empty() { (details_table(&details)) }
            @if !watch.recent_failures.is_empty() { (failures_table(watch, now)) }
        }
    }
}

fn facts(watch: &WatchStatus, now: Timestamp) -> Markup {
    let known = watch.known.as_ref();
    let times = [
        ("Status since", known.map(|known| known.since)),
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
        }
    }
}

fn sources_table(sources: &Sources, transitions: &[&SourceTransition], scale: Option<TimeAxis>) -> Markup {
    let mut lives: BTreeMap<&SourceKey, Vec<StatusSpan>> = BTreeMap::new();
    for transition in transitions {
        lives.entry(&transition.key).or_default().push(StatusSpan::of_source(transition));
    }
    let caption = html! {
        "Sources"
        @if sources.len() > SOURCES_LISTED_MAX { " (" (SOURCES_LISTED_MAX) " of " (sources.len()) ", those that failed first)" }
    };
    let rows = listed(sources).map(|(key, source)| {
        let picture = lives.get(key).zip(scale).map(|(life, scale)| timeline(&key.name, life, scale));
        [
            html! { (Sanitized(&key.name)) small { code { (Sanitized(&key.source_file)) } } },
            source_badge(&source.status),
            picture.unwrap_or_default(),
            html! { (Sanitized(source.status_message.as_deref().unwrap_or_default())) },
        ]
    });
    table(&caption, ["Name", "Status", "Timeline", "Message"], rows)
}

fn transitions_table(transitions: &[&Transition]) -> Markup {
    let rows = transitions.iter().map(|transition| {
        [
            moment(transition.observed_at),
            transition.from.as_ref().map_or(html! { span.quiet { "first seen" } }, job_badge),
            job_badge(&transition.to),
            changed(transition),
            html! {
                @if let Some(message) = &transition.status_message { (Sanitized(message)) }
                @if let Some(anomaly) = transition.anomaly { small.bad { (words::anomaly(anomaly)) } }
            },
        ]
    });
    table(&html! { "Transitions" }, ["Seen", "From", "To", "Changed", "Message"], rows)
}

/// Added before a duration is cut to seconds, so that it is rounded up.
const PART_OF_A_SECOND: SignedDuration = SignedDuration::from_millis(999);

/// Between which two polls the status changed.
fn changed(transition: &Transition) -> Markup {
    let Some(before) = transition.not_before else { return html! {} };
    let seen = transition.observed_at;
    let longest = length(before, seen.checked_add(PART_OF_A_SECOND).unwrap_or(seen));
    html! { "at most " (longest) " before it was seen" small { "the old status was last seen at " (moment(before)) } }
}

/// Changes that are not transitions.
fn details_table(details: &[&Detail]) -> Markup {
    let rows = details.iter().map(|detail| {
        let value = detail.value.as_deref().unwrap_or_default();
        [moment(detail.observed_at), html! { (words::detail(detail.kind)) }, html! { (Sanitized(value)) }]
    });
    table(&html! { "What else was seen" }, ["Seen", "What", "Value"], rows)
}

/// The latest failed polls, the newest first. The first of each kind has the advice.
fn failures_table(watch: &WatchStatus, now: Timestamp) -> Markup {
    let failures = || watch.recent_failures.iter().rev();
    let rows = failures().enumerate().map(|(nth, failure)| {
        let class = failure.reason.class();
        let is_first = failures().take(nth).all(|newer| newer.reason != failure.reason);
        [
            html! { (moment(failure.at)) small { (distance(failure.at, now)) " ago" } },
            html! { (class.summary) small { code { (failure.reason.label()) } } },
            html! { (Sanitized(&failure.message)) @if is_first { small { (class.advice) } } },
        ]
    });
    let caption = html! { "Failed polls" small { "The last " (RECENT_FAILURES_MAX) ", including those before successful polls." } };
    table(&caption, ["When", "Reason", "What happened"], rows)
}
