//! The layout of every page, and its building blocks: tables, alerts, badges, progress bars, times and copy buttons.
//!
//! Untrusted text passes through `Sanitized`, which escapes control characters. maud escapes HTML.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::presentation::{item_tone, job_tone, problem_count};
use super::selection::Refresh;
use crate::core::job::{ItemStatus, Items, JobStatus};
use crate::core::sanitize::{Sanitized, excerpt};
use crate::core::time::Timestamp;
use crate::http::app_state::AppState;
use crate::http::response::{self, rfc3339, sanitized_lines};
use crate::state::DaemonStatus;

/// Characters shown of a status. Statuses that AWS documents are shorter.
const STATUS_CHARS_MAX: usize = 40;

/// The script in every page. It shows local times, copies ids and refreshes the page. Without it, pages show UTC. The content security
/// policy allows this script only, by its hash.
pub(in crate::http) const SCRIPT: &str = include_str!("page.js");

/// A file as a response. axum accepts it as a handler, too.
type File = ([(HeaderName, &'static str); 1], &'static str);

pub(in crate::http) const STYLE: File =
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css"));
pub(in crate::http) const ICON: File = ([(header::CONTENT_TYPE, "image/svg+xml")], include_str!("icon.svg"));
pub(in crate::http) const ICON_ATTENTION: File =
    ([(header::CONTENT_TYPE, "image/svg+xml")], include_str!("icon_attention.svg"));

/// A page. Its links are relative, because a reverse proxy may serve it below a path. It begins with the errors of the daemon.
///
/// A refresh replaces each element that has a `data-part` by the element of the new page with the same `data-part`. Forms are outside of
/// these elements, so that a refresh does not clear what a person types.
pub(super) struct Page<'a> {
    pub title: &'a str,
    /// The relative path to the status page.
    pub root: &'a str,
    /// How the page is refreshed every 10 s.
    pub refresh: Refresh,
    /// Added to the page footer.
    pub footer: Markup,
    pub content: Markup,
}

impl<'a> Page<'a> {
    /// A page in the directory of the status page, without a refresh.
    pub(super) fn new(title: &'a str, content: Markup) -> Self {
        Self { title, root: "./", refresh: Refresh::Off, footer: html! {}, content }
    }
}

pub(super) fn page(state: &AppState, Page { title, root, refresh, footer, content }: Page<'_>) -> Response {
    // The title and the icon show whether something needs attention.
    let problems = problem_count(&state.shared);
    let icon = if problems > 0 { "icon-attention.svg" } else { "icon.svg" };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if refresh == Refresh::ScriptOrBrowser { noscript { meta http-equiv="refresh" content="10"; } }
                title { @if problems > 0 { "(" (problems) ") " } (Sanitized(title)) " · refwatch" }
                link rel="icon" type="image/svg+xml" href={ (root) (icon) };
                link rel="stylesheet" href={ (root) "style.css" };
            }
            body data-refresh=[(refresh != Refresh::Off).then_some("10")] {
                a.skip href="#content" { "Skip to the content" }
                header { a.brand href=(root) { "refwatch" } span.muted { "AWS HealthOmics jobs" } }
                p.note.stale #stale role="status" hidden { "refwatch does not respond. This page is not up to date." }
                main id="content" {
                    div data-part="alerts" { (alerts(&state.shared.daemon())) }
                    (content)
                }
                footer {
                    nav aria-label="More" {
                        a href={ (root) "history" } { "Ended jobs" }
                        a href={ (root) "metrics" } { "Metrics" }
                        a href={ (root) "api/v1/jobs" } { "Jobs as JSON" }
                        a href={ (root) "api/v1/transitions" } { "Transitions as JSON" }
                        a href={ (root) "config" } { "Configuration" }
                        a href={ (root) "runbook" } { "Runbook" }
                    }
                    p data-part="footer" { "As of " (absolute_time(state.clock.now().wall)) ". " (footer) " refwatch " (env!("CARGO_PKG_VERSION")) }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// A table. Its first column has the row headings. On a phone each row becomes a card.
pub(super) fn table<const N: usize>(
    caption: &Markup,
    columns: [&str; N],
    rows: impl IntoIterator<Item = [Markup; N]>,
) -> Markup {
    html! {
        table.cards {
            caption { (caption) }
            thead { tr { @for column in columns { th scope="col" { (column) } } } }
            tbody {
                @for row in rows {
                    tr {
                        @for (nth, (cell, column)) in row.into_iter().zip(columns).enumerate() {
                            @if nth == 0 { th scope="row" { (cell) } } @else { td data-label=(column) { (cell) } }
                        }
                    }
                }
            }
        }
    }
}

/// The errors of configuration and database, and the targets that are down.
fn alerts(daemon: &DaemonStatus) -> Markup {
    html! {
        @if let Some(error) = &daemon.config_error {
            // `in_use` is a clause, such as "the previous configuration is still used".
            (alert(&format!("The configuration has an error: {}", error.in_use), &error.details))
        }
        @if let Some(error) = &daemon.database_error { (alert("The database cannot be written; polling is paused", error)) }
        @for (target, reason) in &daemon.targets_down {
            (alert(&format!("Target {target} is down; refwatch probes it with one request at a time"), reason))
        }
    }
}

pub(super) fn alert(title: &str, text: &str) -> Markup {
    html! {
        section.alert role="alert" { h2 { (Sanitized(title)) } p.lines { (sanitized_lines(text)) } }
    }
}

pub(super) fn job_badge(status: &JobStatus) -> Markup {
    badge(job_tone(status), status.as_str())
}

pub(super) fn item_badge(status: &ItemStatus) -> Markup {
    badge(item_tone(status), status.as_str())
}

pub(super) fn badge(tone: &str, status: &str) -> Markup {
    html! { span class={ "badge " (tone) } { (status_text(status)) } }
}

/// A status as AWS writes it, shortened because an undocumented status can have any length.
pub(super) fn status_text(status: &str) -> String {
    shortened(status, STATUS_CHARS_MAX)
}

/// The numbers of finished, failed and all items, as text and as a bar.
pub(super) fn progress(items: &Items, heading: &str) -> Markup {
    let count = |status| items.values().filter(|item| item.status == status).count();
    let (finished, failed, all) = (count(ItemStatus::Finished), count(ItemStatus::Failed), items.len());
    let tone = match (finished, failed) {
        (finished, 0) if finished == all => "good",
        (_, 0) => "active",
        (0, _) => "bad",
        _ => "mixed",
    };
    html! {
        @if all > 0 {
            span {
                span.nowrap { (finished) " of " (all) @if failed > 0 { "," } }
                @if failed > 0 { " " span.nowrap.bad { (failed) " failed" } }
            }
            progress class=(tone) max=(all) value=(finished + failed) aria-label={ (heading) " done" } {}
        }
    }
}

pub(super) fn absolute_time(time: Timestamp) -> Markup {
    html! { time.absolute datetime=(rfc3339(time)) { (time.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// The duration between `time` and `now`. The tooltip is the absolute time.
pub(super) fn relative_time(time: Timestamp, now: Timestamp) -> Markup {
    html! {
        time.nowrap datetime=(rfc3339(time)) title=(time.strftime("%Y-%m-%d %H:%M:%S UTC")) { (response::duration_between(time, now)) }
    }
}

/// A text in code style with a button that copies it. Only the script shows the button.
pub(super) fn copyable(name: &str, text: &str) -> Markup {
    let text = Sanitized(text).to_string();
    copyable_code(name, &text, &html! { (text) })
}

/// `shown` is `text` with places where a line may break. The script copies the text of the `code` element. `data-key` lets it restore the
/// focus after a refresh.
pub(super) fn copyable_code(name: &str, text: &str, shown: &Markup) -> Markup {
    html! {
        span.copyable {
            code { (shown) }
            button.copy.scripted type="button" data-key=(text) aria-label={ "Copy " (name) } title={ "Copy " (name) } hidden { "⧉" }
        }
    }
}

/// The sanitized beginning of a text.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    Sanitized(&excerpt(text, characters)).to_string()
}
