//! The frame of the pages, and how statuses, times, tables and untrusted text look on them.
//!
//! Pages are rendered by the server and have no script. Untrusted text passes `Sanitized`, and maud escapes the rest.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

use super::words::{job_tone, source_tone};
use crate::core::job::{JobStatus, SourceStatus, Sources};
use crate::core::sanitize::{Sanitized, excerpt};
use crate::core::time::Timestamp;
use crate::http::response::{self, rfc3339, sanitized_lines};
use crate::state::DaemonStatus;

/// Characters shown of a status. The longest known status is shorter.
const STATUS_LENGTH_MAX: usize = 40;

/// `/style.css`.
pub(in crate::http) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css")).into_response()
}

/// A whole page. `footer` says whether the browser refreshes it, which it does every 10 s if `refreshed`.
pub(super) fn page(title: &str, now: Timestamp, refreshed: bool, footer: &Markup, content: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if refreshed { meta http-equiv="refresh" content="10"; }
                title { (Sanitized(title)) " · refwatch" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header { a.mark href="/" { "refwatch" } span.quiet { "HealthOmics reference imports" } }
                main id="content" { (content) }
                footer {
                    nav aria-label="More" {
                        a href="/metrics" { "Metrics" }
                        a href="/api/v1/jobs" { "Jobs as JSON" }
                        a href="/api/v1/transitions" { "Transitions as JSON" }
                        a href="/config" { "Configuration" }
                    }
                    p { "As of " (moment(now)) ". " (footer) " refwatch " (env!("CARGO_PKG_VERSION")) }
                }
            }
        }
    };
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// A table whose first column names its rows. On a phone each row becomes a card.
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

/// The errors of the daemon itself. They come first on every page.
pub(super) fn alerts(daemon: &DaemonStatus) -> Markup {
    html! {
        @if let Some(error) = &daemon.config_error {
            (alert(&format!("The configuration has an error: {}", error.in_force), &error.details))
        }
        @if let Some(error) = &daemon.database_error { (alert("The database cannot be written; polling waits for it", error)) }
        @for (target, reason) in &daemon.targets_down {
            (alert(&format!("Target {target} is down; refwatch probes it with one request at a time"), reason))
        }
    }
}

/// An error that a person should see first.
pub(super) fn alert(title: &str, text: &str) -> Markup {
    html! {
        section.alert role="alert" { h2 { (Sanitized(title)) } pre { (sanitized_lines(text)) } }
    }
}

pub(super) fn job_badge(status: &JobStatus) -> Markup {
    badge(job_tone(status), status.as_str())
}

pub(super) fn source_badge(status: &SourceStatus) -> Markup {
    badge(source_tone(status), status.as_str())
}

pub(super) fn badge(tone: &str, status: &str) -> Markup {
    html! { span class={ "badge " (tone) } { (status_text(status)) } }
}

/// A status in AWS's own word, which may be an unknown one of any length.
pub(super) fn status_text(status: &str) -> String {
    shortened(status, STATUS_LENGTH_MAX)
}

/// How many sources are done, in words and as a bar.
pub(super) fn progress(sources: &Sources) -> Markup {
    let count = |status| sources.values().filter(|source| source.status == status).count();
    let (finished, failed, all) = (count(SourceStatus::Finished), count(SourceStatus::Failed), sources.len());
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
            progress class=(tone) max=(all) value=(finished + failed) aria-label="Sources done" {}
        }
    }
}

/// A time in full.
pub(super) fn moment(time: Timestamp) -> Markup {
    html! { time datetime=(rfc3339(time)) { (time.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// The time between `time` and `now`, with `time` itself as the tooltip.
pub(super) fn distance(time: Timestamp, now: Timestamp) -> Markup {
    html! {
        time.nowrap datetime=(rfc3339(time)) title=(time.strftime("%Y-%m-%d %H:%M:%S UTC")) { (response::distance(time, now)) }
    }
}

/// The beginning of a message.
pub(super) fn shortened(message: &str, characters: usize) -> String {
    Sanitized(&excerpt(message, characters)).to_string()
}
