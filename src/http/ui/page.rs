//! `/`: the status page. Watches that need attention come first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};

use super::html::{alert, alerts, badge, distance, job_badge, page, progress, shortened};
use super::quota;
use super::selection::{ATTENTION, NOT_SEEN, ROWS_MAX, Refresh, Selection, Sort};
use super::timeline::{StatusSpan, TimeAxis, timeline};
use super::words::{Severity, severity};
use crate::core::job::{JobStatus, KIND, SourceStatus, WatchId};
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::database::ReadError;
use crate::http::api::stores;
use crate::http::app_state::AppState;
use crate::http::response::{self, render_blocking};
use crate::state::{StoreStatus, WatchState, WatchStatus};

/// Characters shown of a message; the job's own page has it whole.
const MESSAGE_LENGTH_MAX: usize = 160;

/// Transitions drawn of a job, the latest; its own page has more.
const TRANSITIONS_DRAWN_MAX: u32 = 12;

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    query: Result<Query<Selection>, QueryRejection>,
) -> Response {
    let (selection, error) = match query {
        Ok(Query(selection)) => (selection, None),
        Err(rejection) => (Selection::default(), Some(rejection.body_text())),
    };
    render_blocking(move || {
        let now = state.clock.now().wall;
        let (stores, watches) = (state.board.stores(), state.board.watches());
        let content = html! {
            (alerts(&state.board.daemon()))
            @for store in &stores { (store_alerts(store, now)) }
            h1 { "Watches" }
            (summary(&watches))
            @if let Some(error) = &error { p.note role="status" { (shortened(error, MESSAGE_LENGTH_MAX)) } }
            @if !watches.is_empty() {
                (filters(&selection, &watches))
                (listing(&state, &selection, &watches, now))
            } @else if stores.is_empty() {
                p { "Nothing is watched yet. Add a job to the configuration, as " code { "[[job]]" } " with its ids." }
            } @else {
                p { "No import job is in sight in " (stores.iter().map(|store| name(store)).collect::<Vec<_>>().join(", ")) "." }
            }
            (quota::section(&state.instruments.rates()))
        };
        let refreshed = selection.refresh == Refresh::On;
        let (other, text) = if refreshed { (Refresh::Off, "Stop refreshing.") } else { (Refresh::On, "Refresh every 10 s.") };
        let link = selection.link(|link| (link.page, link.refresh) = (selection.page, other));
        page("Watches", now, refreshed, &html! { a href=(link) { (text) } }, &content)
    })
    .await
}

fn store_alerts(store: &StoreStatus, now: Timestamp) -> Markup {
    let last = store.listed_at.map_or("It was never listed.".to_owned(), |at| {
        format!("It was last listed {} ago.", response::distance(at, now))
    });
    html! {
        @if let Some(trouble) = &store.error {
            (alert(&format!("No new job of the store {} can be found", name(store)), &format!("{trouble}\n{last}")))
        }
        @if let Some(missed) = &store.missed {
            (alert(&format!("Some jobs of the store {} were not found", name(store)), missed))
        }
    }
}

fn name(store: &StoreStatus) -> String {
    stores::name(&store.name, store.id.store.as_str())
}

/// "12 jobs. 1 needs attention."
fn summary(watches: &[Arc<WatchStatus>]) -> Markup {
    let attention = watches.iter().filter(|watch| severity(watch) == Severity::Attention).count();
    html! {
        p.summary {
            (watches.len()) @if watches.len() == 1 { " job." } @else { " jobs." }
            @if attention > 0 { " " strong { (attention) @if attention == 1 { " needs" } @else { " need" } " attention." } }
        }
    }
}

/// Links to the watches of one state or status, with their number, and a search field.
fn filters(selection: &Selection, watches: &[Arc<WatchStatus>]) -> Markup {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for watch in watches {
        let status = watch.known.as_ref().map_or(NOT_SEEN, |known| known.status.label());
        let attention = (severity(watch) == Severity::Attention).then_some(ATTENTION);
        for group in [status, watch.state.label()].into_iter().chain(attention) {
            *counts.entry(group).or_default() += 1;
        }
    }
    let count = |group| counts.get(group).copied().unwrap_or_default();
    let toggled = |group: &str, chosen: bool| if chosen { String::new() } else { group.to_owned() };
    let states = [(ATTENTION, "Need attention"), ("live", "Live"), ("finished", "Finished"), ("parked", "Parked")];
    let states = states.map(|(group, text)| {
        let chosen = selection.state == group;
        filter(text, count(group), &selection.link(|link| link.state = toggled(group, chosen)), chosen)
    });
    let statuses = JobStatus::labels().map(|label| (label, label)).chain([(NOT_SEEN, "Not seen yet")]);
    let statuses = statuses.map(|(group, text)| {
        let chosen = selection.status == group;
        filter(text, count(group), &selection.link(|link| link.status = toggled(group, chosen)), chosen)
    });
    let all = selection.link(|link| {
        *link = Selection { sort: link.sort, refresh: link.refresh, ..Selection::default() };
    });
    html! {
        div.choice {
            nav aria-label="Filters" {
                ul { (filter("All", watches.len(), &all, !selection.is_filtered())) @for state in states { (state) } }
                ul { @for status in statuses { (status) } }
            }
            form role="search" method="get" action="/" {
                input type="search" name="q" value=(Sanitized(&selection.q)) aria-label="Name, id, target or status" placeholder="Name, id, target";
                @for (name, value) in selection.parameters() {
                    @if name != "q" && name != "page" { input type="hidden" name=(name) value=(Sanitized(&value)); }
                }
                button { "Find" }
            }
        }
    }
}

/// A link to a group of watches or, if it is chosen, back to all. An empty group has none.
fn filter(text: &str, count: usize, link: &str, chosen: bool) -> Markup {
    html! {
        @if count > 0 || chosen {
            li { a href=(link) aria-current=[chosen.then_some("true")] { (text) " " span.count { (count) } } }
        }
    }
}

/// One page of the selected watches.
fn listing(state: &AppState, selection: &Selection, watches: &[Arc<WatchStatus>], now: Timestamp) -> Markup {
    let selected = selection.of(watches);
    let pages = selected.len().div_ceil(ROWS_MAX).max(1);
    let page = selection.page.clamp(1, pages);
    let first = (page - 1) * ROWS_MAX;
    let shown = &selected[first..selected.len().min(first + ROWS_MAX)];
    let several_targets = watches.iter().any(|watch| watch.id.target != watches[0].id.target);
    let lives = lives(state, shown);
    let to_page = |text: &str, page: usize| html! { a href=(selection.link(|link| link.page = page)) { (text) } };
    html! {
        @if let Err(error) = &lives { p.note role="status" { "There are no timelines: " (Sanitized(&error.to_string())) } }
        @if shown.is_empty() {
            p { "No watch matches. " a href="/" { "Show all" } }
        } @else {
            table.cards.watches {
                caption.unseen[!selection.is_filtered() && pages == 1] {
                    (first + 1) "–" (first + shown.len()) " of " (selected.len()) @if selection.is_filtered() { " selected" }
                }
                thead { tr { @for column in ["Watch", "Status", "For", "Timeline", "Sources", "Next poll"] { (heading(column, selection)) } } }
                tbody {
                    @for watch in shown {
                        @let life = lives.as_ref().ok().and_then(|lives| lives.get(&watch.id)).map_or(&[][..], Vec::as_slice);
                        (row(watch, life, several_targets, now))
                    }
                }
            }
        }
        @if pages > 1 {
            nav.pages aria-label="Pages" {
                @if page > 1 { (to_page("Previous", page - 1)) }
                span { "Page " (page) " of " (pages) }
                @if page < pages { (to_page("Next", page + 1)) }
            }
        }
    }
}

/// The latest transitions of these watches.
fn lives(state: &AppState, shown: &[Arc<WatchStatus>]) -> Result<BTreeMap<WatchId, Vec<StatusSpan>>, ReadError> {
    let ids: Vec<_> = shown.iter().map(|watch| watch.id.clone()).collect();
    let mut lives: BTreeMap<WatchId, Vec<StatusSpan>> = BTreeMap::new();
    for row in state.database.latest_transitions(&ids, TRANSITIONS_DRAWN_MAX)? {
        lives.entry(row.job).or_default().push(StatusSpan::of_job(&row.value));
    }
    Ok(lives)
}

/// The heading of a column. It is a link if the table can be sorted by the column.
fn heading(column: &str, selection: &Selection) -> Markup {
    let [ascending, descending] = match column {
        "Watch" => [Sort::Name, Sort::NameDescending],
        "For" => [Sort::Duration, Sort::DurationDescending],
        _ => return html! { th scope="col" { (column) } },
    };
    let (order, mark) = match selection.sort {
        sort if sort == ascending => (Some("ascending"), " ↑"),
        sort if sort == descending => (Some("descending"), " ↓"),
        _ => (None, ""),
    };
    let next = if selection.sort == ascending { descending } else { ascending };
    let link = selection.link(|link| link.sort = next);
    html! { th scope="col" aria-sort=[order] { a href=(link) { (column) span aria-hidden="true" { (mark) } } } }
}

fn row(watch: &WatchStatus, life: &[StatusSpan], several_targets: bool, now: Timestamp) -> Markup {
    let known = watch.known.as_ref();
    let scale = known.and_then(|known| TimeAxis::of_job(life, known, now));
    html! {
        tr.attention[severity(watch) == Severity::Attention] {
            th scope="row" {
                a href={ "/jobs/" (KIND) "/" (watch.id.key) } { (Sanitized(&watch.name)) }
                small { code { (watch.id.key.store) "/" wbr; (watch.id.key.job) } }
                @if several_targets {
                    small { (Sanitized(&watch.id.target)) @if !watch.aws_region.is_empty() { ", " (Sanitized(&watch.aws_region)) } }
                }
            }
            td data-label="Status" { (status(watch, MESSAGE_LENGTH_MAX)) (poll_failure(watch, now)) }
            td data-label="For" { @if let Some(known) = known { (distance(known.since, now)) } }
            td data-label="Timeline" { @if let Some(scale) = scale { (timeline(&watch.name, life, scale)) } }
            td data-label="Sources" { @if let Some(known) = known { (progress(&known.sources)) (failed_source(watch)) } }
            td data-label="Next poll" { (next_poll(watch, now)) }
        }
    }
}

/// Why the last poll failed, if it did.
fn poll_failure(watch: &WatchStatus, now: Timestamp) -> Markup {
    html! {
        @if watch.up == Some(false) && let Some(last) = watch.recent_failures.back() {
            small.bad { "Polls fail: " (last.reason.class().summary) ", " (distance(last.at, now)) " ago" }
            small { (shortened(&last.message, MESSAGE_LENGTH_MAX)) }
        }
    }
}

/// The first failed source, and why.
fn failed_source(watch: &WatchStatus) -> Markup {
    let mut sources = watch.known.iter().flat_map(|known| known.sources.iter());
    html! {
        @if let Some((key, source)) = sources.find(|(_, source)| source.status == SourceStatus::Failed) {
            small {
                (shortened(&key.name, MESSAGE_LENGTH_MAX))
                @if let Some(message) = &source.status_message { ": " (shortened(message, MESSAGE_LENGTH_MAX)) }
            }
        }
    }
}

/// The status of the job and why it is not polled, with so many characters of each message.
pub(super) fn status(watch: &WatchStatus, characters: usize) -> Markup {
    html! {
        @match &watch.known {
            Some(known) => {
                (job_badge(&known.status))
                @if let Some(message) = &known.status_message { small { (shortened(message, characters)) } }
                @if known.vanished_at.is_some() { small.bad { "The service no longer knows this job." } }
            }
            None => (badge("waiting", "not seen yet")),
        }
        @if let WatchState::Parked(reason) = &watch.state { small.bad { "Not polled until the configuration changes: " (shortened(reason, characters)) } }
    }
}

/// When the next poll is due.
pub(super) fn next_poll(watch: &WatchStatus, now: Timestamp) -> Markup {
    match watch.next_poll {
        Some(at) if at.duration_since(now).as_secs() > 0 => html! { span.nowrap { "in " (distance(at, now)) } },
        Some(_) => html! { "now" },
        None => html! {},
    }
}
