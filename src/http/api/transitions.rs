//! `/api/v1/transitions`: the saved transitions that match the query, as JSON, in the order in which they were saved.
//!
//! With `after` or `since` it returns the oldest matches and a link to the next page, otherwise the latest matches.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use crate::core::kind::JobKind;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::database::{Filter, ReadError, Row, RowLimit};
use crate::http::app_state::AppState;
use crate::http::parameters::Parameters;
use crate::http::response::{json, json_error};

const LIMIT_DEFAULT: usize = 1_000;

/// 10,000 transitions are about 4 MB of JSON.
const LIMIT_MAX: usize = 10_000;

/// The parameters. Also serialized for the link to the next page, which omits those that are `None`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Query {
    /// The id of the last transition that the client has.
    after: Option<u64>,
    since: Option<Timestamp>,
    kind: Option<String>,
    store_id: Option<String>,
    job_id: Option<String>,
    limit: Option<usize>,
}

pub(in crate::http) async fn list(State(state): State<AppState>, Parameters(query): Parameters<Query>) -> Response {
    let filter = match query.filter() {
        Ok(filter) => filter,
        Err(error) => return json_error(StatusCode::BAD_REQUEST, error),
    };
    let renderer = state.renderer.clone();
    renderer.response(move || match state.database.rows::<Transition>(&filter) {
        Ok(mut rows) => {
            let link = query.cut_page(&mut rows).map(|next| (header::LINK, format!("<{next}>; rel=\"next\"")));
            (AppendHeaders(link), json(StatusCode::OK, &rows)).into_response()
        }
        Err(ReadError::UnknownRow { after, last }) => {
            let error = format!(
                "after={after}: no transition has this id, because the database was replaced; the last id is {last}: \
                 begin again with after=0"
            );
            json_error(StatusCode::GONE, error)
        }
        Err(error) => json_error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    })
    .await
}

impl Query {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT)
    }

    fn filter(&self) -> Result<Filter, String> {
        let limit = self.limit();
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(format!("limit must be a number from 1 to {LIMIT_MAX}"));
        }
        // The query reads one row more than the page has: that row shows that there is a next page. No page follows the latest rows.
        let limit = if self.begins_with_oldest() { RowLimit::Oldest(limit + 1) } else { RowLimit::Latest(limit) };
        Ok(Filter {
            after: self.after.map(|id| i64::try_from(id).unwrap_or(i64::MAX)),
            since: self.since,
            kind: parsed::<JobKind>("kind", self.kind.as_deref())?,
            store_id: parsed("store_id", self.store_id.as_deref())?,
            job_id: parsed("job_id", self.job_id.as_deref())?,
            limit: Some(limit),
            ..Filter::default()
        })
    }

    /// Whether the response has the oldest rows that match, or the latest.
    fn begins_with_oldest(&self) -> bool {
        self.after.is_some() || self.since.is_some()
    }

    /// Cuts the rows to one page. Returns the link to the next page, if there is one, relative to the path of the request.
    fn cut_page(&self, rows: &mut Vec<Row<Transition>>) -> Option<String> {
        let is_last = rows.len() <= self.limit();
        rows.truncate(self.limit());
        let last = rows.last().filter(|_| !is_last)?;
        let next = Self { after: u64::try_from(last.id).ok(), ..self.clone() };
        // Strings and numbers always serialize.
        Some(format!("?{}", serde_urlencoded::to_string(next).ok()?))
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(str::parse).transpose().map_err(|error| format!("{name}: {error}"))
}
