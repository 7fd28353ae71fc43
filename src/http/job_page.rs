//! `/watch/{reference_store_id}/{import_job_id}`: all that is known of one job, through every target it is read through.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::html::{alerts, distance, job_badge, moment, page, progress, recorded_moment, source_badge};
use super::page::{next_poll, status};
use super::watches::{SOURCES_LISTED_MAX, listed};
use super::{AppState, rendered};
use crate::board::{FailedPoll, WatchView};
use crate::core::job::{JobKey, JobStatus, Sources};
use crate::core::text::Printable;
use crate::core::time::Timestamp;
use crate::record::{Filter, TransitionRow};

/// Transitions shown: the latest. A job has a handful in its life; only one that goes to and fro has more.
const TRANSITIONS_MAX: u32 = 200;

pub(super) async fn show(State(state): State<AppState>, Path((store, job)): Path<(String, String)>) -> Response {
    let unknown = || (StatusCode::NOT_FOUND, "no such job is watched\n").into_response();
    let (Ok(store), Ok(job)) = (store.parse(), job.parse()) else { return unknown() };
    let key = JobKey { store, job };
    rendered(move || {
        let watches: Vec<_> = state.board.watches().into_iter().filter(|watch| watch.id.key == key).collect();
        let Some(first) = watches.first() else { return unknown() };
        let now = state.clock.now().wall;
        let of_job = Filter { limit: Some(TRANSITIONS_MAX), ..Filter::of_job(key.clone()) };
        let transitions = state.record.transitions(&of_job);
        let content = html! {
            (alerts(&state.board.daemon()))
            h1 { (Printable(&first.name)) }
            p.summary { code { (key.store) "/" wbr; (key.job) } }
            @if let Err(error) = &transitions {
                p.bad { (Printable(&error.to_string())) }
            }
            @for watch in &watches { (section(watch, transitions.as_deref().unwrap_or_default(), now)) }
        };
        page(&first.name, now, false, &content)
    })
    .await
}

fn section(watch: &WatchView, transitions: &[TransitionRow], now: Timestamp) -> Markup {
    html! {
        section {
            h2 { "Target " (Printable(&watch.id.target)) @if !watch.aws_region.is_empty() { ", " (Printable(&watch.aws_region)) } }
            (facts(watch, now))
            (timeline(transitions.iter().filter(|row| *row.target == *watch.id.target)))
            @if let Some(known) = &watch.known && !known.sources.is_empty() { (sources(&known.sources)) }
            @if !watch.recent_failures.is_empty() { (failures(watch.recent_failures.iter().rev(), now)) }
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

fn sources(sources: &Sources) -> Markup {
    html! {
        table.cards {
            caption {
                "Sources"
                @if sources.len() > SOURCES_LISTED_MAX { " (" (SOURCES_LISTED_MAX) " of " (sources.len()) ", those that failed first)" }
            }
            thead { tr { @for column in ["Name", "File", "Status", "Message"] { th scope="col" { (column) } } } }
            tbody {
                @for (key, source) in listed(sources) {
                    tr {
                        th scope="row" { (Printable(&key.name)) }
                        td data-label="File" { code { (Printable(&key.source_file)) } }
                        td data-label="Status" { (source_badge(&source.status)) }
                        td data-label="Message" { (Printable(source.status_message.as_deref().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

fn timeline<'a>(rows: impl Iterator<Item = &'a TransitionRow>) -> Markup {
    html! {
        table.cards {
            caption { "Transitions" }
            thead {
                tr {
                    @for column in ["Seen", "From", "To", "Message", "Old status last seen", "Anomaly"] {
                        th scope="col" { (column) }
                    }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (recorded_moment(&row.observed_at)) }
                        td data-label="From" {
                            @if let Some(from) = &row.from_status { (job_badge(&JobStatus::from(from.as_str()))) }
                            @else { span.quiet { "first seen" } }
                        }
                        td data-label="To" { (job_badge(&JobStatus::from(row.to_status.as_str()))) }
                        td data-label="Message" { (Printable(row.status_message.as_deref().unwrap_or_default())) }
                        td data-label="Old status last seen" { @if let Some(time) = &row.not_before { (recorded_moment(time)) } }
                        td data-label="Anomaly" { (Printable(row.anomaly.as_deref().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

fn failures<'a>(failures: impl Iterator<Item = &'a FailedPoll>, now: Timestamp) -> Markup {
    html! {
        table.cards {
            caption { "Failed polls lately" }
            thead { tr { @for column in ["When", "Reason", "What happened"] { th scope="col" { (column) } } } }
            tbody {
                @for failure in failures {
                    tr {
                        th scope="row" { (moment(failure.at)) small { (distance(failure.at, now)) " ago" } }
                        td data-label="Reason" { (failure.reason.label()) }
                        td data-label="What happened" { (Printable(&failure.message)) }
                    }
                }
            }
        }
    }
}
