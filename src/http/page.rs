//! `/`: the status page. What needs a person comes first.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::html::{alert, alerts, badge, distance, job_badge, job_path, page, progress, shortened};
use super::{AppState, rendered, stores};
use crate::board::{StoreView, WatchState, WatchView};
use crate::core::job::JobStatus;
use crate::core::text::Printable;
use crate::core::time::Timestamp;

/// Rows of the table. A browser lays out so many at once, and a person reads fewer; those in need come first, and the API
/// has them all.
const ROWS_MAX: usize = 1_000;

/// Characters shown of a message; the job's own page has it whole.
const BRIEF: usize = 160;

/// Where a watch stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A person should look.
    Attention,
    /// Its job has not ended.
    UnderWay,
    /// Its job has ended as it was meant to.
    Ended,
}

pub(super) async fn show(State(state): State<AppState>) -> Response {
    rendered(move || {
        let now = state.clock.now().wall;
        let stores = state.board.stores();
        let mut watches = state.board.watches();
        watches.sort_by_key(|watch| (rank(watch), Reverse(watch.known.as_ref().map(|known| known.since))));
        let content = html! {
            (alerts(&state.board.daemon()))
            @for store in &stores { (unlisted(store, now)) }
            h1 { "Watches" }
            (summary(&watches))
            @if watches.is_empty() && stores.is_empty() {
                p { "Nothing is watched yet. Add a job to the configuration, as " code { "[[job]]" } " with its ids." }
            } @else if watches.is_empty() {
                p { "No import job is in sight in " (stores.iter().map(|store| name(store)).collect::<Vec<_>>().join(", ")) "." }
            } @else {
                (table(&watches, now))
            }
        };
        page("Watches", now, true, &content)
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
        format!("It was last listed {} ago.", super::distance(at, now))
    });
    let title = format!("No new job of the store {} can be found", name(store));
    alert(&title, &format!("{trouble}\n{last}"))
}

fn name(store: &StoreView) -> String {
    stores::name(&store.name, store.id.store.as_str())
}

fn rank(watch: &WatchView) -> Rank {
    let parked = matches!(watch.state, WatchState::Parked(_));
    match &watch.known {
        _ if parked || watch.up == Some(false) => Rank::Attention,
        Some(known) if known.vanished_at.is_some() => Rank::Attention,
        Some(known) => match known.status {
            JobStatus::Failed | JobStatus::CompletedWithFailures | JobStatus::Unknown(_) => Rank::Attention,
            JobStatus::Completed | JobStatus::Cancelled => Rank::Ended,
            JobStatus::Submitted | JobStatus::InProgress | JobStatus::Cancelling => Rank::UnderWay,
        },
        None => Rank::UnderWay,
    }
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
    let attention = watches.iter().filter(|watch| rank(watch) == Rank::Attention).count();
    html! {
        p.summary {
            (watches.len()) @if watches.len() == 1 { " job" } @else { " jobs" }
            @if !parts.is_empty() { ": " (parts.join(", ")) }
            @if attention > 0 { ". " strong { (attention) @if attention == 1 { " needs" } @else { " need" } " attention" } }
            "."
        }
    }
}

fn table(watches: &[Arc<WatchView>], now: Timestamp) -> Markup {
    html! {
        table.cards {
            caption.unseen { "Every watch, those that need attention first" }
            thead {
                tr {
                    @for column in ["Watch", "Job", "Target", "Status", "For", "Sources", "Next poll", "Last failed poll"] {
                        th scope="col" { (column) }
                    }
                }
            }
            tbody { @for watch in watches.iter().take(ROWS_MAX) { (row(watch, now)) } }
        }
        @if watches.len() > ROWS_MAX {
            p { (watches.len() - ROWS_MAX) " more are in " a href="/api/v1/watches" { "the JSON" } "." }
        }
    }
}

fn row(watch: &WatchView, now: Timestamp) -> Markup {
    let known = watch.known.as_ref();
    html! {
        tr.attention[rank(watch) == Rank::Attention] {
            th scope="row" { a href=(job_path(watch)) { (Printable(&watch.name)) } }
            td data-label="Job" { code.whole { (watch.id.key.store) "/" wbr; (watch.id.key.job) } }
            td data-label="Target" { (Printable(&watch.id.target)) @if !watch.aws_region.is_empty() { small.whole { (Printable(&watch.aws_region)) } } }
            td data-label="Status" { (status(watch, BRIEF)) }
            td data-label="For" { @if let Some(known) = known { (distance(known.since, now)) } }
            td data-label="Sources" { @if let Some(known) = known { (progress(&known.sources)) } }
            td data-label="Next poll" { (next_poll(watch, now)) }
            td data-label="Last failed poll" {
                @if let Some(failure) = watch.recent_failures.back() {
                    span.nowrap { (failure.reason.label()) ", " (distance(failure.at, now)) " ago" }
                    small { (shortened(&failure.message, BRIEF)) }
                }
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
        Some(at) if at > now => html! { span.nowrap { "in " (distance(at, now)) } },
        Some(_) => html! { "now" },
        None => html! {},
    }
}
