//! `/`: the status page. By default, watches that need attention come first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::html::{Page, alert, alerts, badge, job_badge, page, progress, relative_time, shortened};
use super::presentation::WAITING;
use super::quota;
use super::selection::{ROWS_PER_PAGE, Refresh, Selection, Sort};
use super::timeline::{StatusSpan, TimeAxis, timeline};
use crate::core::job::{JobKey, JobStatus, SourceStatus, WatchId};
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::database::ReadError;
use crate::http::api::stores;
use crate::http::app_state::AppState;
use crate::http::filter::{ATTENTION, NOT_SEEN, Severity, severity, status_label};
use crate::http::parameters::{InvalidParameters, Parameters};
use crate::http::response;
use crate::state::{StoreStatus, WatchState, WatchStatus};

/// Characters shown of a message or of a source's name. The job page shows both completely.
const MESSAGE_CHARS_MAX: usize = 160;

/// Transitions that each timeline shows, the latest ones. The job page shows more.
const TRANSITIONS_DRAWN_MAX: usize = 12;

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    parameters: Result<Parameters<Selection>, InvalidParameters>,
) -> Response {
    let selected = parameters.map_err(|error| error.to_string()).and_then(|Parameters(selection)| {
        let checked = selection.filter().check().map_err(|error| format!("invalid query: {error}"));
        checked.map(|()| selection)
    });
    let (status, selection, error) = match selected {
        Ok(selection) => (StatusCode::OK, selection, None),
        Err(error) => (StatusCode::BAD_REQUEST, Selection::default(), Some(error)),
    };
    let renderer = state.renderer.clone();
    renderer.page(move || {
        let now = state.clock.now().wall;
        let (stores, watches) = (state.shared.stores(), state.shared.watches());
        let content = html! {
            (alerts(&state.shared.daemon()))
            @for store in &stores { (store_alerts(store, now)) }
            h1 { "Watches" }
            (summary(&watches))
            @if let Some(error) = &error { p.note role="status" { (shortened(error, MESSAGE_CHARS_MAX)) } }
            @if !watches.is_empty() {
                (filters(&selection, &watches))
                (watch_table(&state, &selection, &watches, now))
            } @else if stores.is_empty() {
                p { "No job is watched yet. Add a " code { "[[job]]" } " or a " code { "[[store]]" } " to the configuration." }
            } @else {
                p { "No job was discovered yet in " (stores.iter().map(|store| store_name(store)).collect::<Vec<_>>().join(", ")) "." }
            }
            (quota::section(&state.instruments.rates()))
        };
        let auto_refresh = selection.refresh == Refresh::On;
        let (other, text) = if auto_refresh { (Refresh::Off, "Stop refreshing.") } else { (Refresh::On, "Refresh every 10 s.") };
        let link = selection.link_with(|changed| (changed.page, changed.refresh) = (selection.page, other));
        let footer = html! { a href=(link) { (text) } };
        (status, page(Page { title: "Watches", root: "./", now, auto_refresh, footer, content }))
    })
    .await
}

fn store_alerts(store: &StoreStatus, now: Timestamp) -> Markup {
    let last = store.listed_at.map_or("The store was never listed.".to_owned(), |at| {
        format!("The store was last listed {} ago.", response::duration_between(at, now))
    });
    html! {
        @if let Some(error) = &store.error {
            (alert(&format!("New {} jobs of the store {} cannot be discovered", store.id.kind, store_name(store)), &format!("{error}\n{last}")))
        }
        @if let Some(missed) = &store.missed {
            (alert(&format!("Some {} jobs of the store {} were not discovered", store.id.kind, store_name(store)), missed))
        }
    }
}

fn store_name(store: &StoreStatus) -> String {
    stores::display_name(&store.name, store.id.store.as_str())
}

/// "12 watches. 1 needs attention."
fn summary(watches: &[Arc<WatchStatus>]) -> Markup {
    let attention = watches.iter().filter(|watch| severity(watch) == Severity::Attention).count();
    html! {
        p.summary {
            (watches.len()) @if watches.len() == 1 { " watch." } @else { " watches." }
            @if attention > 0 { " " strong { (attention) @if attention == 1 { " needs" } @else { " need" } " attention." } }
        }
    }
}

/// A link for each state, status and kind, with the number of watches, and a search form. Without several kinds there are no links by kind.
fn filters(selection: &Selection, watches: &[Arc<WatchStatus>]) -> Markup {
    // Statuses, states, kinds and `ATTENTION` share one map: their labels differ.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for watch in watches {
        let attention = (severity(watch) == Severity::Attention).then_some(ATTENTION);
        for label in [status_label(watch), watch.state.label(), watch.id.key.kind.as_str()].into_iter().chain(attention)
        {
            *counts.entry(label).or_default() += 1;
        }
    }
    let count = |label| counts.get(label).copied().unwrap_or_default();
    let next_value = |label: &str, chosen: bool| if chosen { String::new() } else { label.to_owned() };
    let states = [(ATTENTION, "Need attention"), ("live", "Live"), ("finished", "Finished"), ("parked", "Parked")];
    let states = states.map(|(label, text)| {
        let chosen = selection.state == label;
        filter(text, count(label), &selection.link_with(|changed| changed.state = next_value(label, chosen)), chosen)
    });
    let statuses = JobStatus::labels().map(|label| (label, label)).chain([(NOT_SEEN, "Not seen yet")]);
    let statuses = statuses.map(|(label, text)| {
        let chosen = selection.status == label;
        filter(text, count(label), &selection.link_with(|changed| changed.status = next_value(label, chosen)), chosen)
    });
    let kinds = JobKind::ALL.into_iter().map(|kind| {
        let chosen = selection.kind == Some(kind);
        let link = selection.link_with(|changed| changed.kind = Some(kind).filter(|_| !chosen));
        filter(kind.as_str(), count(kind.as_str()), &link, chosen)
    });
    let all = selection.link_with(|changed| {
        *changed = Selection { sort: changed.sort, refresh: changed.refresh, ..Selection::default() };
    });
    html! {
        div.filters {
            nav aria-label="Filters" {
                ul { (filter("All", watches.len(), &all, !selection.is_filtered())) @for state in states { (state) } }
                ul { @for status in statuses { (status) } }
                @if selection.kind.is_some() || has_several(watches, |id| id.key.kind) { ul { @for kind in kinds { (kind) } } }
            }
            form role="search" method="get" action="./" {
                input type="search" name="q" value=(Sanitized(&selection.q)) aria-label="Name, id, target or status" placeholder="Name, id, target";
                @for (name, value) in selection.parameters() {
                    @if name != "q" && name != "page" { input type="hidden" name=(name) value=(Sanitized(&value)); }
                }
                button { "Find" }
            }
        }
    }
}

/// True if not all watches have the same `part`.
fn has_several<'a, T: PartialEq>(watches: &'a [Arc<WatchStatus>], part: impl Fn(&'a WatchId) -> T) -> bool {
    watches.iter().any(|watch| part(&watch.id) != part(&watches[0].id))
}

/// A link that applies a filter or, if it is chosen, removes it. A filter without watches is hidden unless it is chosen.
fn filter(text: &str, count: usize, link: &str, chosen: bool) -> Markup {
    html! {
        @if count > 0 || chosen {
            li { a href=(link) aria-current=[chosen.then_some("true")] { (text) " " span.count { (count) } } }
        }
    }
}

fn watch_table(state: &AppState, selection: &Selection, watches: &[Arc<WatchStatus>], now: Timestamp) -> Markup {
    let selected = selection.apply(watches);
    let pages = selected.len().div_ceil(ROWS_PER_PAGE).max(1);
    let current = selection.page.clamp(1, pages);
    let first = (current - 1) * ROWS_PER_PAGE;
    let shown = &selected[first..selected.len().min(first + ROWS_PER_PAGE)];
    let parts =
        RowParts { kind: has_several(watches, |id| id.key.kind), target: has_several(watches, |id| &id.target) };
    let items = JobKind::items_heading(shown.iter().map(|watch| watch.id.key.kind));
    let timelines = read_spans(state, shown);
    let link_to = |number| selection.link_with(|changed| changed.page = number);
    html! {
        @if let Err(error) = &timelines { p.note role="status" { "Timelines are unavailable: " (Sanitized(&error.to_string())) } }
        @if shown.is_empty() {
            p { "No watch matches. " a href="./" { "Show all" } }
        } @else {
            table.cards.watches {
                caption.visually-hidden[!selection.is_filtered() && pages == 1] {
                    (first + 1) "–" (first + shown.len()) " of " (selected.len()) @if selection.is_filtered() { " selected" }
                }
                thead { tr { @for column in ["Watch", "Status", "For", "Timeline", &*items, "Next poll"] { (heading(column, selection)) } } }
                tbody {
                    @for watch in shown {
                        @let spans = timelines.as_ref().ok().and_then(|timelines| timelines.get(&watch.id)).map_or(&[][..], Vec::as_slice);
                        (row(watch, spans, parts, now))
                    }
                }
            }
        }
        @if pages > 1 {
            nav.pages aria-label="Pages" {
                @if current > 1 { a href=(link_to(current - 1)) { "Previous" } }
                span { "Page " (current) " of " (pages) }
                @if current < pages { a href=(link_to(current + 1)) { "Next" } }
            }
        }
    }
}

/// The latest spans of each watch, the oldest first.
fn read_spans(state: &AppState, shown: &[Arc<WatchStatus>]) -> Result<BTreeMap<WatchId, Vec<StatusSpan>>, ReadError> {
    let ids: Vec<_> = shown.iter().map(|watch| watch.id.clone()).collect();
    let mut timelines: BTreeMap<WatchId, Vec<StatusSpan>> = BTreeMap::new();
    for row in state.database.latest_transitions(&ids, TRANSITIONS_DRAWN_MAX)? {
        timelines.entry(row.watch_id).or_default().push(StatusSpan::of_job(&row.value));
    }
    Ok(timelines)
}

/// A column heading. It is a link if the column can be sorted.
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
    let link = selection.link_with(|changed| changed.sort = next);
    html! { th scope="col" aria-sort=[order] { a href=(link) { (column) span aria-hidden="true" { (mark) } } } }
}

/// Relative to the status page.
fn job_path(JobKey { kind, store, job }: &JobKey) -> String {
    format!("jobs/{kind}/{store}/{job}")
}

/// The parts of a row that only some tables show.
#[derive(Clone, Copy, Debug)]
struct RowParts {
    kind: bool,
    target: bool,
}

fn row(watch: &WatchStatus, spans: &[StatusSpan], parts: RowParts, now: Timestamp) -> Markup {
    let job = watch.known.as_ref();
    let axis = job.and_then(|job| TimeAxis::of_job(spans, job, now));
    let items = JobKind::items_heading([watch.id.key.kind]);
    html! {
        tr.attention[severity(watch) == Severity::Attention] {
            th scope="row" {
                a href=(job_path(&watch.id.key)) { (Sanitized(&watch.name)) }
                small { @if parts.kind { (watch.id.key.kind) " " } code { (watch.id.key.store) "/" wbr; (watch.id.key.job) } }
                @if parts.target {
                    small { (Sanitized(&watch.id.target)) @if !watch.aws_region.is_empty() { ", " (Sanitized(&watch.aws_region)) } }
                }
            }
            td data-label="Status" { (status(watch, MESSAGE_CHARS_MAX)) (poll_failure(watch, now)) }
            td data-label="For" { @if let Some(job) = job { (relative_time(job.since, now)) } }
            td data-label="Timeline" { @if let Some(axis) = axis { (timeline(&watch.name, spans, axis)) } }
            td data-label=(items) { @if let Some(job) = job { (progress(&job.sources, &items)) (failed_source(watch)) } }
            td data-label="Next poll" { (next_poll(watch, now)) }
        }
    }
}

fn poll_failure(watch: &WatchStatus, now: Timestamp) -> Markup {
    html! {
        @if watch.up == Some(false) && let Some(last) = watch.recent_failures.back() {
            small.bad { "Polls fail: " (last.reason.class().summary) ", " (relative_time(last.at, now)) " ago" }
            small { (shortened(&last.message, MESSAGE_CHARS_MAX)) }
        }
    }
}

fn failed_source(watch: &WatchStatus) -> Markup {
    let mut sources = watch.known.iter().flat_map(|job| job.sources.iter());
    html! {
        @if let Some((key, source)) = sources.find(|(_, source)| source.status == SourceStatus::Failed) {
            small {
                (shortened(&key.name, MESSAGE_CHARS_MAX))
                @if let Some(message) = &source.status_message { ": " (shortened(message, MESSAGE_CHARS_MAX)) }
            }
        }
    }
}

/// The status of the job and the reason if it is parked. Each message is cut to `characters`.
pub(super) fn status(watch: &WatchStatus, characters: usize) -> Markup {
    html! {
        @match &watch.known {
            Some(job) => {
                (job_badge(&job.status))
                @if let Some(message) = &job.status_message { small { (shortened(message, characters)) } }
                @if job.vanished_at.is_some() { small.bad { "AWS no longer returns this job (404)." } }
            }
            None => (badge(WAITING, "not seen yet")),
        }
        @if let WatchState::Parked(reason) = &watch.state { small.bad { "Not polled until the configuration changes: " (shortened(reason, characters)) } }
    }
}

pub(super) fn next_poll(watch: &WatchStatus, now: Timestamp) -> Markup {
    match watch.next_poll {
        Some(at) if at.duration_since(now).as_secs() > 0 => html! { span.nowrap { "in " (relative_time(at, now)) } },
        Some(_) => html! { "now" },
        None => html! {},
    }
}
