//! The operations of the API reference, `Get` and `List` of each kind of job: checks requests, and builds responses with the API's members
//! and errors.
//!
//! It reads no clock: the time since the simulator's start is an argument.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode, Uri};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::jobs::Job;
use super::kinds::Kind;
use super::lifecycle::{ItemStatus, JobStatus, Outcome, Step};

/// Ids are `[0-9]+`, 10 to 36 characters.
const ID_LENGTH: RangeInclusive<usize> = 10..=36;

/// The range of `maxResults`. The default is its maximum.
const MAX_RESULTS: RangeInclusive<usize> = 1..=100;

/// Ends every `nextToken`. These characters of Base64, which AWS uses, show whether a client escapes them in a query.
const TOKEN_SUFFIX: &str = "+/==";

/// Hides the id in a token: clients must treat tokens as opaque.
const TOKEN_MASK: u64 = 0x5ca1_ab1e_0ddb_a115;

/// The header with the name of the error.
const ERROR_NAME: HeaderName = HeaderName::from_static("x-amzn-errortype");

#[derive(Debug)]
pub(super) struct Api {
    /// When the simulator started, in whole milliseconds.
    pub(super) started: Timestamp,
    /// Ordered by store, kind and id.
    pub(super) jobs: Vec<Job>,
}

/// A JSON response, before a fault changes it.
#[derive(Debug)]
pub(super) struct ApiResponse {
    status: StatusCode,
    error_name: Option<&'static str>,
    body: Value,
}

/// An error of the API. The last two errors are common to all services of AWS.
#[derive(Debug)]
pub(super) enum ApiError {
    AccessDenied(&'static str),
    InternalServer(&'static str),
    RequestTimeout(&'static str),
    ResourceNotFound(String),
    Throttling(&'static str),
    Validation(String),
    MissingAuthenticationToken,
    UnknownOperation,
}

/// The query of a `List` operation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// The body of a `List` operation.
#[derive(Default, Deserialize)]
struct ListBody {
    filter: Option<ListFilter>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListFilter {
    status: Option<JobStatus>,
    created_after: Option<Timestamp>,
    created_before: Option<Timestamp>,
}

/// The timeline of a job in a response of `/-/jobs`.
#[derive(Serialize)]
struct JobTimeline<'a> {
    name: &'a str,
    kind: Kind,
    store_id: &'a str,
    id: &'a str,
    outcome: Outcome,
    timeline: Vec<TimedStatus>,
}

#[derive(Serialize)]
struct TimedStatus {
    status: JobStatus,
    at: String,
}

impl Api {
    pub(super) fn get(&self, kind: Kind, store: &str, id: &str, now: Duration) -> Result<ApiResponse, ApiError> {
        let api = kind.api();
        check_id(api.store_member, store)?;
        check_id("id", id)?;
        let jobs = self.jobs_in_store(kind, store)?;
        let job = jobs.binary_search_by(|job| job.identity.id.as_str().cmp(id)).ok().map(|index| &jobs[index]);
        let job = job.and_then(|job| Some((job, job.timeline.at(job.age(now)?))));
        let no_job = || not_found(format!("There is no job {id} of this kind in {} {store}.", store_noun(kind)));
        let (job, step) = job.ok_or_else(no_job)?;
        let items = job.items.iter().zip(&step.items).map(|(item, state)| {
            let mut item_json = item.requested.clone();
            item_json.insert("status".to_owned(), json!(state.status));
            insert_some(&mut item_json, "statusMessage", state.message);
            if let Some(member) = api.result_member.filter(|_| state.status == ItemStatus::Finished) {
                item_json.insert(member.to_owned(), json!(item.result_id));
            }
            Value::Object(item_json)
        });
        let mut detail = self.listed_job(job, step);
        detail.insert(api.items_member.to_owned(), items.collect());
        insert_some(&mut detail, "statusMessage", step.message);
        Ok(ApiResponse::ok(Value::Object(detail)))
    }

    /// Lists jobs ordered by id. A token contains the last id of its page, so new jobs between two requests move no other job to
    /// another page.
    pub(super) fn list(
        &self,
        kind: Kind,
        store: &str,
        uri: &Uri,
        body: &[u8],
        now: Duration,
    ) -> Result<ApiResponse, ApiError> {
        let api = kind.api();
        check_id(api.store_member, store)?;
        let Query(query) =
            Query::<ListQuery>::try_from_uri(uri).map_err(|error| ApiError::Validation(error.body_text()))?;
        let page = query.max_results.unwrap_or(*MAX_RESULTS.end());
        if !MAX_RESULTS.contains(&page) {
            let (min, max) = MAX_RESULTS.into_inner();
            return Err(invalid(&page.to_string(), "maxResults", &format!("be between {min} and {max}")));
        }
        let body = if body.is_empty() { b"{}" } else { body };
        let body: ListBody = serde_json::from_slice(body).map_err(|error| ApiError::Validation(error.to_string()))?;
        let filter = body.filter.unwrap_or_default();

        let jobs = self.jobs_in_store(kind, store)?;
        let last_id = match &query.next_token {
            None => None,
            Some(token) => Some(
                read_token(token).ok_or_else(|| invalid(token, "nextToken", "be a token of a previous response"))?,
            ),
        };
        let mut rest = jobs
            .iter()
            .skip_while(|job| last_id.as_ref().is_some_and(|last_id| job.identity.id <= *last_id))
            .filter_map(|job| Some((job, job.timeline.at(job.age(now)?))))
            .filter(|(job, step)| filter.matches(step.status, self.created(job)));
        let listed: Vec<_> = rest.by_ref().take(page).collect();
        let jobs: Value = listed.iter().map(|(job, step)| self.listed_job(job, step)).collect();
        let mut response = json!({ api.list_member: jobs });
        if let (Some((last, _)), Some(_)) = (listed.last(), rest.next()) {
            response["nextToken"] = json!(token(&last.identity.id));
        }
        Ok(ApiResponse::ok(response))
    }

    /// The timelines of all jobs that exist at `now`. They include future statuses.
    pub(super) fn timelines(&self, now: Duration) -> ApiResponse {
        let timelines = self.jobs.iter().filter(|job| job.age(now).is_some()).map(|job| JobTimeline {
            name: &job.identity.name,
            kind: job.identity.kind,
            store_id: &job.identity.store_id,
            id: &job.identity.id,
            outcome: job.timeline.outcome,
            timeline: (job.timeline.transitions())
                .map(|step| TimedStatus { status: step.status, at: self.at(job, step.age) })
                .collect(),
        });
        ApiResponse::ok(json!(timelines.collect::<Vec<_>>()))
    }

    /// The jobs of a kind in a store. A store without jobs of any kind does not exist.
    fn jobs_in_store(&self, kind: Kind, store: &str) -> Result<&[Job], ApiError> {
        let place = |job: &Job| (job.identity.store_id.as_str().cmp(store), job.identity.kind.cmp(&kind));
        let begin = self.jobs.partition_point(|job| place(job) < (Ordering::Equal, Ordering::Equal));
        let end = self.jobs.partition_point(|job| place(job) <= (Ordering::Equal, Ordering::Equal));
        let is_in_store =
            |job: &Job| job.identity.store_id == store && job.identity.kind.api().store_path == kind.api().store_path;
        if !self.jobs.iter().any(is_in_store) {
            return Err(not_found(format!("There is no {} {store}.", store_noun(kind))));
        }
        Ok(&self.jobs[begin..end])
    }

    /// The members of a job that `Get` and `List` have in common.
    fn listed_job(&self, job: &Job, step: &Step) -> Map<String, Value> {
        let api = job.identity.kind.api();
        let mut members = Map::new();
        members.insert("id".to_owned(), json!(job.identity.id));
        members.insert(api.store_member.to_owned(), json!(job.identity.store_id));
        members.insert("status".to_owned(), json!(step.status));
        members.insert("creationTime".to_owned(), json!(self.at(job, Duration::ZERO)));
        if let Some((member, value)) = api.job_member {
            members.insert(member.to_owned(), json!(value));
        }
        insert_some(&mut members, "completionTime", step.status.is_terminal().then(|| self.at(job, step.age)));
        members
    }

    /// The time at which the job has `age`, in the API's format.
    fn at(&self, job: &Job, age: Duration) -> String {
        let at = self.created(job).saturating_add(age).unwrap_or(Timestamp::MAX);
        format!("{at:.3}")
    }

    fn created(&self, job: &Job) -> Timestamp {
        self.started.saturating_add(job.created).unwrap_or(Timestamp::MAX)
    }
}

impl ListFilter {
    /// Both bounds are exclusive. The API reference does not specify this.
    fn matches(&self, status: JobStatus, created: Timestamp) -> bool {
        self.status.is_none_or(|wanted| status == wanted)
            && self.created_after.is_none_or(|after| created > after)
            && self.created_before.is_none_or(|before| created < before)
    }
}

impl ApiResponse {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, error_name: None, body }
    }

    /// Applies `change` to every job in the response. An error response has no jobs.
    pub(super) fn with_jobs(mut self, change: impl Fn(&mut Value)) -> Self {
        if self.error_name.is_some() {
            return self;
        }
        let is_list = |member: &&str| self.body.get(*member).is_some_and(Value::is_array);
        match Kind::ALL.map(|kind| kind.api().list_member).into_iter().find(is_list) {
            Some(member) => self.body[member].as_array_mut().into_iter().flatten().for_each(change),
            None => change(&mut self.body),
        }
        self
    }

    /// Builds the HTTP response. `body` may replace the correct body.
    pub(super) fn respond_with(self, body: impl FnOnce(Bytes) -> Body) -> Response<Body> {
        let mut response = Response::new(body(Bytes::from(self.body.to_string())));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(name) = self.error_name {
            response.headers_mut().insert(ERROR_NAME, HeaderValue::from_static(name));
        }
        response
    }
}

impl ApiError {
    pub(super) fn throttled() -> Self {
        Self::Throttling("The request was denied due to request throttling.")
    }
}

impl From<ApiError> for ApiResponse {
    fn from(error: ApiError) -> Self {
        let (status, name, message) = match error {
            ApiError::AccessDenied(message) => (StatusCode::FORBIDDEN, "AccessDeniedException", message.to_owned()),
            ApiError::InternalServer(message) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerException", message.to_owned())
            }
            ApiError::RequestTimeout(message) => {
                (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", message.to_owned())
            }
            ApiError::ResourceNotFound(message) => (StatusCode::NOT_FOUND, "ResourceNotFoundException", message),
            ApiError::Throttling(message) => (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException", message.to_owned()),
            ApiError::Validation(message) => (StatusCode::BAD_REQUEST, "ValidationException", message),
            ApiError::MissingAuthenticationToken => (
                StatusCode::FORBIDDEN,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token".to_owned(),
            ),
            ApiError::UnknownOperation => {
                (StatusCode::NOT_FOUND, "UnknownOperationException", "There is no such operation.".to_owned())
            }
        };
        Self { status, error_name: Some(name), body: json!({ "message": message }) }
    }
}

fn insert_some(members: &mut Map<String, Value>, name: &str, value: Option<impl Serialize>) {
    members.extend(value.map(|value| (name.to_owned(), json!(value))));
}

fn store_noun(kind: Kind) -> String {
    kind.api().store_path.replace("store", " store")
}

fn not_found(message: String) -> ApiError {
    ApiError::ResourceNotFound(message)
}

/// AWS's message for an invalid member.
fn invalid(value: &str, member: &str, rule: &str) -> ApiError {
    ApiError::Validation(format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member must {rule}"
    ))
}

fn check_id(member: &str, value: &str) -> Result<(), ApiError> {
    let (min, max) = ID_LENGTH.into_inner();
    if !ID_LENGTH.contains(&value.len()) {
        Err(invalid(value, member, &format!("have length between {min} and {max}")))
    } else if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        Err(invalid(value, member, "satisfy regular expression pattern: [0-9]+"))
    } else {
        Ok(())
    }
}

/// The token of the page that ends with `id`.
fn token(id: &str) -> String {
    let id: u64 = id.parse().unwrap_or_default();
    format!("{:016x}{TOKEN_SUFFIX}", id ^ TOKEN_MASK)
}

fn read_token(token: &str) -> Option<String> {
    let digits = token.strip_suffix(TOKEN_SUFFIX).filter(|digits| digits.len() == 16)?;
    let id = u64::from_str_radix(digits, 16).ok()? ^ TOKEN_MASK;
    Some(id.to_string()).filter(|id| id.len() == 10)
}
