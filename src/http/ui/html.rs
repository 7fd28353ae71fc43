//! What the pages share: their frame, and how a status, a time and foreign text look on them.
//!
//! Server-rendered, without a script. Foreign text goes through `Printable`, and maud escapes what that leaves.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

use super::words::{job_tone, source_tone};
use crate::core::job::{JobStatus, SourceStatus, Sources};
use crate::core::sanitize::{Printable, excerpt};
use crate::core::time::Timestamp;
use crate::http::response::{self, printable_lines, rfc3339};
use crate::state::{DaemonView, WatchView};

/// Characters shown of a status: more than the longest that is known has.
pub(super) const WORD: usize = 40;

/// `/style.css`.
pub(in crate::http) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css")).into_response()
}

/// Whether a browser asks for a page again by itself.
pub(super) enum Refresh {
    /// It does not.
    Never,
    /// It does, every 10 s; this link stops that, for whoever reads slowly or by ear.
    Stoppable(String),
    /// It was stopped; this link starts it again.
    Stopped(String),
}

/// A whole page.
pub(super) fn page(title: &str, now: Timestamp, refresh: &Refresh, content: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Refresh::Stoppable(_) = refresh { meta http-equiv="refresh" content="10"; }
                title { (Printable(title)) " · refwatch" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header { a.mark href="/" { "refwatch" } span.quiet { "HealthOmics reference imports" } }
                main id="content" { (content) }
                footer {
                    nav aria-label="More" {
                        a href="/metrics" { "Metrics" }
                        a href="/api/v1/watches" { "Watches as JSON" }
                        a href="/api/v1/transitions" { "Transitions as JSON" }
                        a href="/config" { "Configuration" }
                    }
                    p {
                        "As of " (moment(now)) ". "
                        @match refresh {
                            Refresh::Never => {}
                            Refresh::Stoppable(stop) => { "Refreshed every 10 s (" a href=(stop) { "stop" } "). " }
                            Refresh::Stopped(start) => { "Not refreshed (" a href=(start) { "refresh every 10 s" } "). " }
                        }
                        "refwatch " (env!("CARGO_PKG_VERSION"))
                    }
                }
            }
        }
    };
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// What is wrong with the daemon itself, where something is: it comes first on every page.
pub(super) fn alerts(daemon: &DaemonView) -> Markup {
    html! {
        @if let Some(error) = &daemon.config_error {
            (alert(&format!("The configuration has an error: {}", error.in_force), &error.details))
        }
        @if let Some(error) = &daemon.record_error { (alert("The record cannot be written; polling waits for it", error)) }
        @for (target, reason) in &daemon.refused_targets {
            (alert(&format!("Target {target} is down; refwatch probes it with one request at a time"), reason))
        }
        @if daemon.stopping { section.alert role="alert" { h2 { "The daemon is stopping" } } }
    }
}

/// Something that a person should see first.
pub(super) fn alert(title: &str, text: &str) -> Markup {
    html! { section.alert role="alert" { h2 { (Printable(title)) } pre { (printable_lines(text)) } } }
}

/// A job's status.
pub(super) fn job_badge(status: &JobStatus) -> Markup {
    badge(job_tone(status), status.as_str())
}

/// A source's status.
pub(super) fn source_badge(status: &SourceStatus) -> Markup {
    badge(source_tone(status), status.as_str())
}

/// A status in the service's own word, which may be a new one of any length.
pub(super) fn badge(tone: &str, word: &str) -> Markup {
    html! { span class={ "badge " (tone) } { (Printable(&excerpt(word, WORD))) } }
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

/// How long ago a time was, or how far off it is; the time itself where the mouse rests.
pub(super) fn distance(time: Timestamp, now: Timestamp) -> Markup {
    html! {
        time.nowrap datetime=(rfc3339(time)) title=(time.strftime("%Y-%m-%d %H:%M:%S UTC")) { (response::distance(time, now)) }
    }
}

/// The beginning of a message.
pub(super) fn shortened(message: &str, characters: usize) -> String {
    Printable(&excerpt(message, characters)).to_string()
}

/// The path of a job's page.
pub(super) fn job_path(watch: &WatchView) -> String {
    format!("/watch/{}", watch.id.key)
}
