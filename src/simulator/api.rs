//! The two operations of the API reference: checks requests, and builds responses with the API's members and errors.
//!
//! It reads no clock: the time since the simulator's start is an argument.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode, Uri};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::jobs::Job;
use super::lifecycle::{JobStatus, Outcome, SourceStatus, Step};

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

const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/HealthOmicsReferenceImport";

#[derive(Debug)]
pub(super) struct Api {
    /// When the simulator started, in whole milliseconds.
    pub(super) started: Timestamp,
    /// Ordered by store and id.
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

/// A job in a response of `ListReferenceImportJobs`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobItem<'a> {
    id: &'a str,
    reference_store_id: &'a str,
    role_arn: &'static str,
    status: JobStatus,
    creation_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_time: Option<String>,
}

/// The response of `GetReferenceImportJob`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobDetail<'a> {
    #[serde(flatten)]
    item: JobItem<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'static str>,
    sources: Vec<SourceItem<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceItem<'a> {
    source_file: &'a str,
    status: SourceStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'static str>,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'static str>,
    tags: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_id: Option<&'a str>,
}

/// The query of `ListReferenceImportJobs`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// The body of `ListReferenceImportJobs`.
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
    reference_store_id: &'a str,
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
    pub(super) fn get(&self, store: &str, id: &str, now: Duration) -> Result<ApiResponse, ApiError> {
        check_id("referenceStoreId", store)?;
        check_id("id", id)?;
        let jobs = self.jobs_in_store(store)?;
        let job = jobs.binary_search_by(|job| job.identity.id.as_str().cmp(id)).ok().map(|index| &jobs[index]);
        let job = job.and_then(|job| Some((job, job.timeline.at(job.age(now)?))));
        let no_job = || not_found(format!("There is no import job {id} in reference store {store}."));
        let (job, step) = job.ok_or_else(no_job)?;
        let sources = job.sources.iter().zip(&step.sources).map(|(source, state)| SourceItem {
            source_file: &source.file,
            status: state.status,
            status_message: state.message,
            name: source.name,
            description: source.description,
            tags: source.tags.iter().copied().collect(),
            reference_id: (state.status == SourceStatus::Finished).then_some(source.reference_id.as_str()),
        });
        let detail = JobDetail { item: self.item(job, step), status_message: step.message, sources: sources.collect() };
        Ok(ApiResponse::ok(json!(detail)))
    }

    /// Lists jobs ordered by id. A token contains the last id of its page, so new jobs between two requests move no other job to
    /// another page.
    pub(super) fn list(&self, store: &str, uri: &Uri, body: &[u8], now: Duration) -> Result<ApiResponse, ApiError> {
        check_id("referenceStoreId", store)?;
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

        let jobs = self.jobs_in_store(store)?;
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
        let items: Vec<JobItem<'_>> = listed.iter().map(|(job, step)| self.item(job, step)).collect();
        let mut response = json!({ "importJobs": items });
        if let (Some((last, _)), Some(_)) = (listed.last(), rest.next()) {
            response["nextToken"] = json!(token(&last.identity.id));
        }
        Ok(ApiResponse::ok(response))
    }

    /// The timelines of all jobs that exist at `now`. They include future statuses.
    pub(super) fn timelines(&self, now: Duration) -> ApiResponse {
        let timelines = self.jobs.iter().filter(|job| job.age(now).is_some()).map(|job| JobTimeline {
            name: &job.identity.name,
            reference_store_id: &job.identity.reference_store_id,
            id: &job.identity.id,
            outcome: job.timeline.outcome,
            timeline: (job.timeline.transitions())
                .map(|step| TimedStatus { status: step.status, at: self.at(job, step.age) })
                .collect(),
        });
        ApiResponse::ok(json!(timelines.collect::<Vec<_>>()))
    }

    fn jobs_in_store(&self, id: &str) -> Result<&[Job], ApiError> {
        let begin = self.jobs.partition_point(|job| job.identity.reference_store_id.as_str() < id);
        let length = self.jobs[begin..].partition_point(|job| job.identity.reference_store_id == id);
        match length {
            0 => Err(not_found(format!("There is no reference store {id}."))),
            _ => Ok(&self.jobs[begin..begin + length]),
        }
    }

    fn item<'a>(&self, job: &'a Job, step: &Step) -> JobItem<'a> {
        JobItem {
            id: &job.identity.id,
            reference_store_id: &job.identity.reference_store_id,
            role_arn: ROLE_ARN,
            status: step.status,
            creation_time: self.at(job, Duration::ZERO),
            completion_time: step.status.is_terminal().then(|| self.at(job, step.age)),
        }
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
        match (self.error_name, self.body.get_mut("importJobs").and_then(Value::as_array_mut)) {
            (Some(_), _) => {}
            (None, Some(jobs)) => jobs.iter_mut().for_each(change),
            (None, None) => change(&mut self.body),
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
