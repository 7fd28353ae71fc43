//! `/`: the status page. What needs a person comes first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};

use super::html::{Refresh, alert, alerts, badge, distance, job_badge, job_path, page, progress, shortened};
use super::quota;
use super::selection::{ATTENTION, NOT_SEEN, ROWS_MAX, Selection, Sort, TEXT_MAX};
use super::severity::{Severity, severity};
use super::timeline::{Scale, Sighting, timeline};
use crate::core::job::{JobStatus, SourceStatus, WatchId};
use crate::core::sanitize::Printable;
use crate::core::time::Timestamp;
use crate::database::ReadError;
use crate::http::api::stores;
use crate::http::app_state::AppState;
use crate::http::response::{self, rendered};
use crate::state::{StoreView, WatchState, WatchView};

/// Characters shown of a message; the job's own page has it whole.
const BRIEF: usize = 160;

/// Transitions drawn of a job, the latest; its own page has more.
const TRANSITIONS_DRAWN_MAX: u32 = 12;

/// Parameters answered with a word; more of them are left out without.
const NOTES_MAX: usize = 5;

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let (selection, notes) = match query {
        Ok(Query(query)) => Selection::parse(&query),
        Err(rejection) => (Selection::default(), vec![rejection.body_text()]),
    };
    rendered(move || {
        let now = state.clock.now().wall;
        let (stores, watches) = (state.board.stores(), state.board.watches());
        let content = html! {
            (alerts(&state.board.daemon()))
            @for store in &stores { (unlisted(store, now)) }
            h1 { "Watches" }
            (summary(&watches))
            @for note in notes.iter().take(NOTES_MAX) { p.note role="status" { (Printable(note)) } }
            @if watches.is_empty() && stores.is_empty() {
                p { "Nothing is watched yet. Add a job to the configuration, as " code { "[[job]]" } " with its ids." }
            } @else if watches.is_empty() {
                p { "No import job is in sight in " (stores.iter().map(|store| name(store)).collect::<Vec<_>>().join(", ")) "." }
            } @else {
                (choice(&selection, &watches))
                (listing(&state, &selection, &watches, now))
            }
            (quota::section(&state.instruments.rates()))
        };
        let other = selection.link(|other| (other.page, other.still) = (selection.page, !selection.still));
        let refresh = if selection.still { Refresh::Stopped(other) } else { Refresh::Stoppable(other) };
        page("Watches", now, &refresh, &content)
    })
    .await
}

/// What is wrong with a store of which jobs are not found.
fn unlisted(store: &StoreView, now: Timestamp) -> Markup {
    let missed =
        store.missed.as_ref().map(|missed| (format!("Some jobs of the store {} were not found", name(store)), missed));
    let Some(trouble) = &store.trouble else {
        return html! { @if let Some((title, missed)) = &missed { (alert(title, missed)) } };
    };
    let last = store.listed_at.map_or("It was never listed.".to_owned(), |at| {
        format!("It was last listed {} ago.", response::distance(at, now))
    });
    let title = format!("No new job of the store {} can be found", name(store));
    alert(&title, &format!("{trouble}\n{last}"))
}

fn name(store: &StoreView) -> String {
    stores::name(&store.name, store.id.store.as_str())
}

/// "12 jobs: 3 in progress, 9 finished", and how many of them need a person.
fn summary(watches: &[Arc<WatchView>]) -> Markup {
    let word = |watch: &WatchView| match watch.known.as_ref().map(|known| &known.status) {
        None => "not seen yet",
        Some(JobStatus::Submitted) => "submitted",
        Some(JobStatus::InProgress) => "in progress",
        Some(JobStatus::Cancelling) => "cancelling",
        Some(JobStatus::Unknown(_)) => "of unknown status",
        Some(JobStatus::Cancelled | JobStatus::Failed | JobStatus::Completed | JobStatus::CompletedWithFailures) => {
            "finished"
        }
    };
    let counts = ["not seen yet", "submitted", "in progress", "cancelling", "of unknown status", "finished"]
        .map(|group| (watches.iter().filter(|watch| word(watch) == group).count(), group));
    let parts: Vec<String> =
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    let attention = watches.iter().filter(|watch| severity(watch) == Severity::Attention).count();
    html! {
        p.summary {
            (watches.len()) @if watches.len() == 1 { " job" } @else { " jobs" }
            @if !parts.is_empty() { ": " (parts.join(", ")) }
            @if attention > 0 { ". " strong { (attention) @if attention == 1 { " needs" } @else { " need" } " attention" } }
            "."
        }
    }
}

/// The ways to narrow the table down: by links with how many watches they lead to, and by text.
fn choice(selection: &Selection, watches: &[Arc<WatchView>]) -> Markup {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for watch in watches {
        let status = watch.known.as_ref().map_or(NOT_SEEN, |known| known.status.label());
        let attention = (severity(watch) == Severity::Attention).then_some(ATTENTION);
        for group in [status, watch.state.label()].into_iter().chain(attention) {
            *counts.entry(group).or_default() += 1;
        }
    }
    let count = |group| counts.get(group).copied().unwrap_or_default();
    let states = [(ATTENTION, "Need attention"), ("live", "Live"), ("finished", "Finished"), ("parked", "Parked")];
    let statuses = JobStatus::labels().map(|label| (label, label)).chain([(NOT_SEEN, "Not seen yet")]);
    let everything = selection.link(|all| (all.state, all.status, all.text) = (None, None, String::new()));
    html! {
        div.choice {
            nav aria-label="Filters" {
                ul {
                    li { (filter("All", watches.len(), &everything, !selection.narrows())) }
                    @for (group, words) in states {
                        @let chosen = selection.state == Some(group);
                        @if count(group) > 0 || chosen {
                            li { (filter(words, count(group), &selection.link(|other| other.state = (!chosen).then_some(group)), chosen)) }
                        }
                    }
                }
                ul {
                    @for (group, words) in statuses {
                        @let chosen = selection.status == Some(group);
                        @if count(group) > 0 || chosen {
                            li { (filter(words, count(group), &selection.link(|other| other.status = (!chosen).then_some(group)), chosen)) }
                        }
                    }
                }
            }
            form role="search" method="get" action="/" {
                input type="search" name="q" value=(Printable(&selection.text)) maxlength=(TEXT_MAX) aria-label="Name, id, target or status" placeholder="Name, id, target";
                @for (name, value) in selection.query() {
                    @if !["q", "page"].contains(&name) { input type="hidden" name=(name) value=(value); }
                }
                button { "Find" }
            }
        }
    }
}

/// A link to the watches of one group, or back from them.
fn filter(words: &str, count: usize, link: &str, chosen: bool) -> Markup {
    html! { a href=(link) aria-current=[chosen.then_some("true")] { (words) " " span.count { (count) } } }
}

/// The watches that are asked for, a page at a time.
fn listing(state: &AppState, selection: &Selection, watches: &[Arc<WatchView>], now: Timestamp) -> Markup {
    let selected = selection.of(watches);
    let pages = selected.len().div_ceil(ROWS_MAX).max(1);
    let first = selection.page.min(pages - 1) * ROWS_MAX;
    let shown = &selected[first..selected.len().min(first + ROWS_MAX)];
    let targets: BTreeSet<_> = watches.iter().map(|watch| (&watch.id.target, &watch.aws_region)).collect();
    let lives = lives(state, shown);
    let to_page = |words: &str, page: usize| html! { a href=(selection.link(|other| other.page = page)) { (words) } };
    html! {
        @if let Err(error) = &lives { p.note role="status" { "There are no timelines: " (Printable(&error.to_string())) } }
        @if shown.is_empty() {
            p { "No watch is like that. " a href="/" { "Show all" } }
        } @else {
            table.cards.watches {
                caption.unseen[!selection.narrows() && pages == 1] {
                    (first + 1) "–" (first + shown.len()) " of " (selected.len()) @if selection.narrows() { " that are asked for" }
                }
                thead { tr { @for (column, sort) in COLUMNS { (heading(column, sort, selection)) } } }
                tbody {
                    @for watch in shown {
                        @let life = lives.as_ref().ok().and_then(|lives| lives.get(&watch.id)).map_or(&[][..], Vec::as_slice);
                        (row(watch, life, targets.len() > 1, now))
                    }
                }
            }
        }
        @if pages > 1 {
            @let page = first / ROWS_MAX;
            nav.pages aria-label="Pages" {
                @if page > 0 { (to_page("Previous", page - 1)) }
                span { "Page " (page + 1) " of " (pages) }
                @if page + 1 < pages { (to_page("Next", page + 1)) }
            }
        }
    }
}

/// What the record has of the lives of these watches.
fn lives(state: &AppState, shown: &[Arc<WatchView>]) -> Result<BTreeMap<Arc<WatchId>, Vec<Sighting>>, ReadError> {
    let ids: Vec<_> = shown.iter().map(|watch| watch.id.clone()).collect();
    let mut lives: BTreeMap<Arc<WatchId>, Vec<Sighting>> = ids.iter().map(|id| (id.clone(), Vec::new())).collect();
    for row in state.record.latest_transitions(&ids, TRANSITIONS_DRAWN_MAX)? {
        if let Some(life) = lives.get_mut(&row.job) {
            life.push(Sighting::of_job(&row.value));
        }
    }
    Ok(lives)
}

/// The columns of the table, and what their headings sort by.
const COLUMNS: [(&str, Option<Sort>); 6] = [
    ("Watch", Some(Sort::Name)),
    ("Status", Some(Sort::Status)),
    ("For", Some(Sort::Duration)),
    ("Timeline", None),
    ("Sources", Some(Sort::Sources)),
    ("Next poll", Some(Sort::NextPoll)),
];

fn heading(column: &str, sort: Option<Sort>, selection: &Selection) -> Markup {
    let Some(sort) = sort else { return html! { th scope="col" { (column) } } };
    let (order, mark) = match selection.reversed {
        _ if selection.sort != sort => (None, ""),
        false => (Some("ascending"), " ↑"),
        true => (Some("descending"), " ↓"),
    };
    let link = selection.link(|other| (other.sort, other.reversed) = (sort, order == Some("ascending")));
    html! { th scope="col" aria-sort=[order] { a href=(link) { (column) span aria-hidden="true" { (mark) } } } }
}

fn row(watch: &WatchView, life: &[Sighting], several_targets: bool, now: Timestamp) -> Markup {
    let known = watch.known.as_ref();
    let scale = known
        .and_then(|known| Scale::of_job(life, known.created_at, known.completed_at, known.vanished_at.unwrap_or(now)));
    html! {
        tr.attention[severity(watch) == Severity::Attention] {
            th scope="row" {
                a href=(job_path(watch)) { (Printable(&watch.name)) }
                small { code { (watch.id.key.store) "/" wbr; (watch.id.key.job) } }
                @if several_targets {
                    small { (Printable(&watch.id.target)) @if !watch.aws_region.is_empty() { ", " (Printable(&watch.aws_region)) } }
                }
            }
            td data-label="Status" { (status(watch, BRIEF)) (poll_trouble(watch, now)) }
            td data-label="For" { @if let Some(known) = known { (distance(known.since, now)) } }
            td data-label="Timeline" {
                @if let (Some(known), Some(scale)) = (known, scale) { (timeline(&watch.name, life, scale, known.last_seen)) }
            }
            td data-label="Sources" { @if let Some(known) = known { (progress(&known.sources)) (failed_source(watch)) } }
            td data-label="Next poll" { (next_poll(watch, now)) }
        }
    }
}

/// Whether polls fail, or did lately, and why.
fn poll_trouble(watch: &WatchView, now: Timestamp) -> Markup {
    let Some(last) = watch.recent_failures.back() else { return html! {} };
    let reason = last.reason.class().summary;
    html! {
        @if watch.up == Some(false) {
            small.bad { "Polls fail: " (reason) ", " (distance(last.at, now)) " ago" }
            small { (shortened(&last.message, BRIEF)) }
        } @else {
            small { "A poll failed " (distance(last.at, now)) " ago: " (reason) }
        }
    }
}

/// The first source that failed, and why.
fn failed_source(watch: &WatchView) -> Markup {
    let mut sources = watch.known.iter().flat_map(|known| known.sources.iter());
    html! {
        @if let Some((key, source)) = sources.find(|(_, source)| source.status == SourceStatus::Failed) {
            small {
                (shortened(&key.name, BRIEF))
                @if let Some(message) = &source.status_message { ": " (shortened(message, BRIEF)) }
            }
        }
    }
}

/// The status of the job and what stands in the way of a newer one, with so many characters of each message.
pub(super) fn status(watch: &WatchView, characters: usize) -> Markup {
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
pub(super) fn next_poll(watch: &WatchView, now: Timestamp) -> Markup {
    match watch.next_poll {
        Some(at) if at.duration_since(now).as_secs() > 0 => html! { span.nowrap { "in " (distance(at, now)) } },
        Some(_) => html! { "now" },
        None => html! {},
    }
}
