//! The table of watches: its columns, one page of its rows, and links to other pages. All timelines share one time axis.

use std::collections::BTreeMap;
use std::sync::Arc;

use maud::{Markup, html};

use super::axis::{Lifetime, TimeAxis, hatch_pattern, legend};
use super::filters::values_differ;
use super::html::{badge, copyable_code, job_badge, progress, relative_time, shortened};
use super::presentation::{WAITING, ended_at, job_duration};
use super::selection::{ROWS_PER_PAGE, Selection, Sort};
use super::timeline::{JobTimes, StatusSpan, Timeline, lifetime};
use crate::core::job::{ItemStatus, JobKey, TargetJob};
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::database::ReadError;
use crate::http::app_state::AppState;
use crate::http::filter::{Severity, severity};
use crate::http::response::duration_text;
use crate::state::{WatchState, WatchStatus};

/// Characters shown of a message or of an item's name. The job page shows both completely.
pub(super) const MESSAGE_CHARS_MAX: usize = 160;

/// Transitions that each timeline shows, the latest ones. The job page shows more.
const TRANSITIONS_DRAWN_MAX: usize = 12;

pub(super) fn watch_table(
    state: &AppState,
    selection: &Selection,
    watches: &[Arc<WatchStatus>],
    now: Timestamp,
) -> Markup {
    let selected = selection.apply(watches, now);
    let pages = selected.len().div_ceil(ROWS_PER_PAGE).max(1);
    let current = selection.page.clamp(1, pages);
    let first = (current - 1) * ROWS_PER_PAGE;
    let shown = &selected[first..selected.len().min(first + ROWS_PER_PAGE)];
    let options = RowOptions {
        shows_kind: values_differ(watches, |id| id.key.kind),
        shows_target: values_differ(watches, |id| &id.target),
    };
    let items_heading = JobKind::items_heading(shown.iter().map(|watch| watch.id.key.kind));
    let read = read_spans(state, shown);
    let none = BTreeMap::new();
    let spans_by_watch = read.as_ref().unwrap_or(&none);
    let spans_of = |watch: &WatchStatus| spans_by_watch.get(&watch.id).map_or(&[][..], Vec::as_slice);
    let lifetimes = shown.iter().filter_map(|watch| lifetime_of(watch.known.as_deref()?, spans_of(watch), now));
    let axis = TimeAxis::shared(lifetimes);
    let link_to = |number| selection.link_with(|changed| changed.page = number);
    html! {
        @if let Err(error) = &read { p.note role="status" { "Timelines are unavailable: " (Sanitized(&error.to_string())) } }
        @if shown.is_empty() {
            p { "No watch matches. " a href=(selection.link_to_all()) { "Show all" } }
        } @else {
            table.cards.watches {
                caption.visually-hidden[!selection.is_filtered() && pages == 1] {
                    (first + 1) "–" (first + shown.len()) " of " (selected.len()) @if selection.is_filtered() { " selected" }
                }
                thead {
                    tr {
                        (sorting_heading("Watch", [Sort::Name, Sort::NameDescending], selection))
                        th scope="col" { "Status" }
                        (sorting_heading("Duration", [Sort::Duration, Sort::DurationDescending], selection))
                        th scope="col" { "Ended" }
                        th.time-axis scope="col" { "Timeline" @if let Some(axis) = axis { ", " span.zone { "UTC" } (axis.labels()) } }
                        @for column in [&*items_heading, "Next poll"] { th scope="col" { (column) } }
                    }
                }
                tbody {
                    @for watch in shown { (row(watch, spans_of(watch), options, axis, now)) }
                }
            }
            // Timelines are hatched where the status is uncertain.
            @if axis.is_some() { (hatch_pattern()) (legend()) }
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
fn read_spans(state: &AppState, shown: &[Arc<WatchStatus>]) -> Result<BTreeMap<TargetJob, Vec<StatusSpan>>, ReadError> {
    let ids: Vec<_> = shown.iter().map(|watch| watch.id.clone()).collect();
    let mut spans_by_watch: BTreeMap<TargetJob, Vec<StatusSpan>> = BTreeMap::new();
    for row in state.database.latest_transitions(&ids, TRANSITIONS_DRAWN_MAX)? {
        spans_by_watch.entry(row.target_job).or_default().push(StatusSpan::of_job(&row.value));
    }
    Ok(spans_by_watch)
}

/// A column heading with a link that sorts by the column.
fn sorting_heading(column: &str, [ascending, descending]: [Sort; 2], selection: &Selection) -> Markup {
    let (order, mark) = match selection.sort {
        sort if sort == ascending => (Some("ascending"), " ↑"),
        sort if sort == descending => (Some("descending"), " ↓"),
        _ => (None, ""),
    };
    let next = if selection.sort == ascending { descending } else { ascending };
    let link = selection.link_with(|changed| changed.sort = next);
    html! { th scope="col" aria-sort=[order] { a href=(link) { (column) span aria-hidden="true" { (mark) } } } }
}

fn lifetime_of(job: &JobState, spans: &[StatusSpan], now: Timestamp) -> Option<Lifetime> {
    lifetime(spans, JobTimes::from(job), now)
}

/// Relative to the status page.
pub(super) fn job_path(JobKey { kind, store, job }: &JobKey) -> String {
    format!("jobs/{kind}/{store}/{job}")
}

/// Rows show kinds and targets only if there are several.
#[derive(Clone, Copy, Debug)]
struct RowOptions {
    shows_kind: bool,
    shows_target: bool,
}

fn row(
    watch: &WatchStatus,
    spans: &[StatusSpan],
    options: RowOptions,
    axis: Option<TimeAxis>,
    now: Timestamp,
) -> Markup {
    let job = watch.known.as_deref();
    let ended_at = job.and_then(ended_at);
    let items_heading = JobKind::items_heading([watch.id.key.kind]);
    html! {
        tr.attention[severity(watch) == Severity::Attention] {
            th scope="row" {
                a href=(job_path(&watch.id.key)) { (Sanitized(&watch.name)) }
                small { @if options.shows_kind { (watch.id.key.kind) " " } (ids(&watch.id.key)) }
                @if options.shows_target {
                    small { (Sanitized(&watch.id.target)) @if !watch.aws_region.is_empty() { ", " (Sanitized(&watch.aws_region)) } }
                }
            }
            td.status data-label="Status" { (status(watch, MESSAGE_CHARS_MAX)) (poll_failure(watch, now)) }
            td.duration data-label="Duration" { @if let Some(job) = job { span.nowrap { (duration_text(job_duration(job, now))) } } }
            td.ended data-label="Ended" { @if let Some(at) = ended_at { span.nowrap { (relative_time(at, now)) " ago" } } }
            td.timelines data-label="Timeline" {
                @if let (Some(job), Some(axis)) = (job, axis) && let Some(lifetime) = lifetime_of(job, spans, now) {
                    (Timeline { name: &watch.name, spans, lifetime, last_seen: job.last_seen, axis }.image())
                }
            }
            td.items data-label=(items_heading) { @if let Some(job) = job { (progress(&job.items, &items_heading)) (failed_item(watch)) } }
            td.next-poll data-label="Next poll" { (next_poll(watch, now)) }
        }
    }
}

/// `STORE/JOB`, as CLI subcommands take it.
pub(super) fn ids(JobKey { store, job, .. }: &JobKey) -> Markup {
    copyable_code("the ids", &format!("{store}/{job}"), &html! { (store) "/" wbr; (job) })
}

fn poll_failure(watch: &WatchStatus, now: Timestamp) -> Markup {
    html! {
        @if watch.up == Some(false) && let Some(last) = watch.recent_failures.back() {
            small.bad { "Polls fail: " (last.reason.info().summary) ", " (relative_time(last.at, now)) " ago" }
            small { (shortened(&last.message, MESSAGE_CHARS_MAX)) }
        }
    }
}

fn failed_item(watch: &WatchStatus) -> Markup {
    let mut items = watch.known.iter().flat_map(|job| job.items.iter());
    html! {
        @if let Some((key, item)) = items.find(|(_, item)| item.status == ItemStatus::Failed) {
            small {
                (shortened(&key.name, MESSAGE_CHARS_MAX))
                @if let Some(message) = &item.status_message { ": " (shortened(message, MESSAGE_CHARS_MAX)) }
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
