//! `/api/v1/transitions`: the latest saved transitions that match the query, as JSON.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::core::job::KIND;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::database::Filter;
use crate::http::app_state::AppState;
use crate::http::response::{json, json_error};

const LIMIT_DEFAULT: u32 = 1_000;

/// 10,000 transitions are about 4 MB of JSON.
const LIMIT_MAX: u32 = 10_000;

/// An unknown parameter is an error: a misspelled filter would otherwise be ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Parameters {
    since: Option<Timestamp>,
    kind: Option<String>,
    store_id: Option<String>,
    job_id: Option<String>,
    limit: Option<u32>,
}

pub(in crate::http) async fn list(
    State(state): State<AppState>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let parameters = parameters.map_err(|rejection| rejection.body_text());
    let filter = match parameters.and_then(|Query(parameters)| parameters.filter()) {
        Ok(filter) => filter,
        Err(error) => return json_error(StatusCode::BAD_REQUEST, error),
    };
    let renderer = state.renderer.clone();
    renderer
        .page(move || match state.database.rows::<Transition>(&filter) {
            Ok(rows) => json(StatusCode::OK, &rows),
            Err(error) => json_error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        })
        .await
}

impl Parameters {
    fn filter(self) -> Result<Filter, String> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(format!("limit must be a number from 1 to {LIMIT_MAX}"));
        }
        if self.kind.is_some_and(|kind| kind != KIND) {
            return Err(format!("kind must be {KIND}"));
        }
        Ok(Filter {
            since: self.since,
            store_id: parsed("store_id", self.store_id)?,
            job_id: parsed("job_id", self.job_id)?,
            limit: Some(limit),
        })
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: Option<String>) -> Result<Option<T>, String> {
    text.map(|text| text.parse()).transpose().map_err(|error| format!("{name}: {error}"))
}
