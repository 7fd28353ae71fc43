//! `/history`: the jobs that ended in a time range, from the database. They need not be watched any more.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::ToSpan as _;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use maud::{Markup, html};
use serde::{Deserialize, Deserializer, de};

use super::html::{Page, absolute_time, job_badge, page, shortened, table};
use super::watch_table::{MESSAGE_CHARS_MAX, ids, job_path};
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::database::Row;
use crate::http::app_state::AppState;
use crate::http::parameters::{InvalidParameters, Parameters};
use crate::http::response::duration_between;
use crate::state::WatchStatus;

/// If there are more, only the latest are shown.
const ROWS_MAX: usize = 500;

/// The range without parameters, and the links to others.
const DAYS_DEFAULT: i32 = 7;
const DAYS_LINKED: [i32; 4] = [1, DAYS_DEFAULT, 30, 365];

/// Days in UTC, both included.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::http) struct Query {
    #[serde(deserialize_with = "date_or_empty")]
    since: Option<Date>,
    #[serde(deserialize_with = "date_or_empty")]
    until: Option<Date>,
}

/// A form sends a cleared field as an empty text.
fn date_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}

pub(in crate::http) async fn show(
    State(state): State<AppState>,
    parameters: Result<Parameters<Query>, InvalidParameters>,
) -> Response {
    let (status, query, error) = match parameters {
        Ok(Parameters(query)) => (StatusCode::OK, query, None),
        Err(error) => (StatusCode::BAD_REQUEST, Query::default(), Some(error.to_string())),
    };
    let renderer = state.renderer.clone();
    renderer
        .response(move || {
            let today = Offset::UTC.to_datetime(state.clock.now().wall).date();
            let until = query.until.unwrap_or(today);
            let since = query.since.unwrap_or(until.saturating_sub((DAYS_DEFAULT - 1).days()));
            let midnight = |day: Date| {
                // A `Date` reaches further than a `Timestamp`.
                let bound = if day.year() < 0 { Timestamp::MIN } else { Timestamp::MAX };
                Offset::UTC.to_timestamp(day.to_datetime(Time::midnight())).unwrap_or(bound)
            };
            let range = midnight(since)..midnight(until.saturating_add(1.day()));
            let rows = state.database.ended_jobs(&range, ROWS_MAX);
            let status = if rows.is_err() { StatusCode::SERVICE_UNAVAILABLE } else { status };
            let content = html! {
                h1 { "Ended jobs" }
                p.summary { "From the database, watched or not. Days are in UTC." }
                @if let Some(error) = &error { p.note role="status" { (shortened(error, MESSAGE_CHARS_MAX)) } }
                (range_form(since, until, today))
                @match &rows {
                    Ok(rows) => (ended_table(rows, &state.shared.watches())),
                    Err(error) => p.bad { (Sanitized(&error.to_string())) },
                }
            };
            (status, page(&state, Page::new("Ended jobs", content))).into_response()
        })
        .await
}

fn range_form(since: Date, until: Date, today: Date) -> Markup {
    html! {
        div.filters {
            nav aria-label="Ranges" {
                ul {
                    @for days in DAYS_LINKED {
                        @let first = today.saturating_sub((days - 1).days());
                        @let chosen = (since, until) == (first, today);
                        li { a href={ "./history?since=" (first) } aria-current=[chosen.then_some("true")] {
                            @if days == 1 { "Today" } @else { (days) " days" }
                        } }
                    }
                }
            }
            form method="get" action="./history" {
                label { "From " input type="date" name="since" value=(since); }
                label { "To " input type="date" name="until" value=(until); }
                button { "Show" }
            }
        }
    }
}

fn ended_table(rows: &[Row<Transition>], watches: &[std::sync::Arc<WatchStatus>]) -> Markup {
    let several_kinds = rows.iter().any(|row| row.target_job.key.kind != rows[0].target_job.key.kind);
    let cells = rows.iter().map(|row| {
        let (key, last) = (&row.target_job.key, &row.value);
        let watch = watches.iter().find(|watch| *watch.id == row.target_job);
        // As `presentation::ended_at`.
        let ended_at = last.completed_at.map_or(last.observed_at, |at| at.min(last.observed_at));
        [
            html! {
                a href=(job_path(key)) { (Sanitized(watch.map_or(key.job.as_str(), |watch| &watch.name))) }
                small { @if several_kinds { (key.kind) " " } (ids(key)) }
            },
            job_badge(&last.to),
            html! { @if let Some(created_at) = last.created_at { (duration_between(created_at.min(ended_at), ended_at)) } },
            absolute_time(ended_at),
            html! { (Sanitized(last.status_message.as_deref().unwrap_or_default())) },
        ]
    });
    let caption = html! {
        (rows.len()) @if rows.len() == 1 { " job" } @else { " jobs" }
        @if rows.len() == ROWS_MAX { small { "The latest ones. Choose a shorter range to see the others." } }
    };
    html! {
        @if rows.is_empty() { p { "No job ended in this time." } }
        @else { (table(&caption, ["Job", "Status", "Duration", "Ended", "Message"], cells)) }
    }
}
