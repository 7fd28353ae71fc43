//! `/`: the status page. By default, watches that need attention come first.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::filters::filters;
use super::html::{Page, alert, copyable, page, shortened};
use super::quota;
use super::selection::{Refresh, Selection};
use super::sinks;
use super::watch_table::{MESSAGE_CHARS_MAX, watch_table};
use crate::core::job::JobStatus;
use crate::core::time::{Now, Timestamp};
use crate::http::api::stores;
use crate::http::app_state::AppState;
use crate::http::filter::{Severity, severity};
use crate::http::parameters::{InvalidParameters, Parameters};
use crate::http::response;
use crate::state::{DaemonStatus, SharedState, StoreStatus, WatchStatus};

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    parameters: Result<Parameters<Selection>, InvalidParameters>,
) -> Response {
    let checked_selection = parameters.map_err(|error| error.to_string()).and_then(|Parameters(selection)| {
        let checked = selection.filter().validate().map_err(|error| format!("invalid query: {error}"));
        checked.map(|()| selection)
    });
    let (http_status, selection, error) = match checked_selection {
        Ok(selection) => (StatusCode::OK, selection, None),
        Err(error) => (StatusCode::BAD_REQUEST, Selection::default(), Some(error)),
    };
    let renderer = state.renderer.clone();
    renderer.response(move || {
        let Now { monotonic, wall: now } = state.clock.now();
        let (stores, watches) = (state.shared.stores(), state.shared.watches());
        // A refresh replaces each `data-part` that has changed, see `Page`.
        let content = html! {
            div data-part="top" {
                @for store in &stores { (store_alerts(store, now)) }
                (headline(&watches))
                @if let Some(error) = &error { p.note role="status" { (shortened(error, MESSAGE_CHARS_MAX)) } }
            }
            @if !watches.is_empty() { (filters(&selection, &watches)) }
            div data-part="watches" {
                @if watches.is_empty() { (no_watches(&state.shared)) } @else { (watch_table(&state, &selection, &watches, now)) }
            }
            div data-part="sinks" { (sinks::section(&state.shared.sinks(), now)) }
            div data-part="quota" { (quota::section(&state.instruments.rates(monotonic))) }
        };
        let refresh = selection.refresh;
        // The link keeps the page of the table. By itself, `link_with` leads to the first page.
        let link = |refresh| selection.link_with(|changed| (changed.page, changed.refresh) = (selection.page, refresh));
        // One link is visible: "stop" if the page is refreshed, otherwise "start". By default (`Script`), only a browser that runs the
        // script refreshes. The server does not know whether the browser runs the script, so both links are sent: the script shows "stop",
        // `noscript` shows "start".
        let start = html! { a href=(link(Refresh::ScriptOrBrowser)) { "Refresh every 10 s." } };
        let stop = link(Refresh::Off);
        let footer = html! {
            @match refresh {
                Refresh::Script => { a.scripted href=(stop) hidden { "Stop refreshing." } noscript { (start) } },
                Refresh::ScriptOrBrowser => a href=(stop) { "Stop refreshing." },
                Refresh::Off => (start),
            }
        };
        (http_status, page(&state, Page { refresh, footer, ..Page::new("Watches", content) })).into_response()
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
        @if let Some(message) = &store.limit_message {
            (alert(&format!("Some {} jobs of the store {} were not discovered", store.id.kind, store_name(store)), message))
        }
    }
}

fn store_name(store: &StoreStatus) -> String {
    stores::display_name(&store.name, store.id.store.as_str())
}

/// "12 watches, 2 failed" and "4 not ended, 6 completed. 3 need attention."
fn headline(watches: &[Arc<WatchStatus>]) -> Markup {
    let count = |matches: &dyn Fn(&JobStatus) -> bool| {
        watches.iter().filter(|watch| watch.known.as_ref().is_some_and(|job| matches(&job.status))).count()
    };
    let failures = [
        (count(&|status| *status == JobStatus::Failed), "failed"),
        (count(&|status| *status == JobStatus::CompletedWithFailures), "completed with failures"),
    ];
    let others = [
        (count(&|status| !status.is_terminal()), "not ended"),
        (count(&|status| *status == JobStatus::Completed), "completed"),
        (count(&|status| *status == JobStatus::Cancelled), "cancelled"),
        (watches.iter().filter(|watch| watch.known.is_none()).count(), "not seen yet"),
    ];
    let others = others.iter().filter(|(number, _)| *number > 0).map(|(number, text)| format!("{number} {text}"));
    let others = others.collect::<Vec<_>>().join(", ");
    let attention = watches.iter().filter(|watch| severity(watch) == Severity::Attention).count();
    html! {
        h1 {
            (watches.len()) @if watches.len() == 1 { " watch" } @else { " watches" }
            @for (number, text) in failures { @if number > 0 { ", " span.bad.nowrap { (number) " " (text) } } }
        }
        p.summary {
            @if !others.is_empty() { (others) "." }
            @if attention > 0 { " " strong { (attention) @if attention == 1 { " needs" } @else { " need" } " attention." } }
        }
    }
}

/// Names the file to edit and the command to run.
fn no_watches(shared: &SharedState) -> Markup {
    let stores = shared.stores();
    // `stores` has one element for each store and kind. The kinds of a store are adjacent.
    let mut names: Vec<String> = stores.iter().map(|store| store_name(store)).collect();
    names.dedup();
    let DaemonStatus { config_file, .. } = shared.daemon();
    let file = config_file.to_string_lossy();
    html! {
        @if stores.is_empty() {
            p { "No job is watched yet. Add one with this command:" }
            p { (copyable("the command", &format!("refwatch --config {} add STORE/JOB", quoted_for_shell(&file)))) }
            p { "Or add a " code { "[[job]]" } " or, for every job of a store, a " code { "[[store]]" } " to this file. Edits apply within two seconds:" }
            p { (copyable("the path", &file)) }
        } @else {
            p { "No job was discovered yet in " (names.join(", ")) "." }
        }
    }
}

fn quoted_for_shell(text: &str) -> String {
    let is_safe = text.chars().all(|c| c.is_alphanumeric() || "/._-@".contains(c));
    if is_safe { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
