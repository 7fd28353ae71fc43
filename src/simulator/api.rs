//! The two operations as the API pages say: what is asked, checked; what is answered, in the API's members and errors.
//!
//! Pure but for its input: the time since the simulator's start is an argument.

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
use super::lifecycle::{JobStatus, Kind, SourceStatus, Step};

/// Ids are `[0-9]+`, 10 to 36 characters.
const ID_LENGTH: RangeInclusive<usize> = 10..=36;

/// What `maxResults` may be; without it a page is as long as it may be.
const MAX_RESULTS: RangeInclusive<usize> = 1..=100;

/// Ends every `nextToken`. AWS's are Base64: characters that must be escaped in a query show whether a client does so.
const TOKEN_END: &str = "+/==";

/// So that nobody takes a token for the id that is in it.
const TOKEN_MASK: u64 = 0x5ca1_ab1e_0ddb_a115;

/// The error's name. It may carry `:http://…` behind the name at AWS, but need not.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/HealthOmicsReferenceImport";

/// What the service knows.
#[derive(Debug)]
pub(super) struct Api {
    /// When the simulator started, in whole milliseconds.
    pub(super) started: Timestamp,
    /// Ordered by store and id.
    pub(super) jobs: Vec<Job>,
}

/// An answer in JSON.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    error: Option<&'static str>,
    body: Value,
}

/// An error of the API, with its message. The last two are common to all of AWS.
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

/// A job as `ListReferenceImportJobs` tells it.
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

/// A job as `GetReferenceImportJob` tells it.
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
    filter: Option<Filter>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    status: Option<JobStatus>,
    created_after: Option<Timestamp>,
    created_before: Option<Timestamp>,
}

/// The whole true life of a job, for tests.
#[derive(Serialize)]
struct Truth<'a> {
    name: &'a str,
    reference_store_id: &'a str,
    id: &'a str,
    kind: Kind,
    timeline: Vec<TrueTransition>,
}

#[derive(Serialize)]
struct TrueTransition {
    status: JobStatus,
    at: String,
}

impl Api {
    /// `GetReferenceImportJob`.
    pub(super) fn get(&self, store: &str, id: &str, now: Duration) -> Result<Answer, ApiError> {
        check_id("referenceStoreId", store)?;
        check_id("id", id)?;
        let jobs = self.store(store)?;
        let job = jobs.binary_search_by(|job| job.place.id.as_str().cmp(id)).ok().map(|place| &jobs[place]);
        let job = job.and_then(|job| Some((job, job.life.at(job.age(now)?))));
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
        Ok(Answer::ok(json!(detail)))
    }

    /// `ListReferenceImportJobs`. Jobs come ordered by id and a token names the last one told, so that what changes between
    /// two pages moves no other job from one to the other.
    pub(super) fn list(&self, store: &str, uri: &Uri, body: &[u8], now: Duration) -> Result<Answer, ApiError> {
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

        let jobs = self.store(store)?;
        let told = match &query.next_token {
            None => None,
            Some(token) => Some(read_token(token).ok_or_else(|| invalid(token, "nextToken", "be one of ours"))?),
        };
        let mut rest = jobs
            .iter()
            .skip_while(|job| told.as_ref().is_some_and(|told| job.place.id <= *told))
            .filter_map(|job| Some((job, job.life.at(job.age(now)?))))
            .filter(|(job, step)| filter.lets_through(step.status, self.created(job)));
        let listed: Vec<_> = rest.by_ref().take(page).collect();
        let items: Vec<JobItem<'_>> = listed.iter().map(|(job, step)| self.item(job, step)).collect();
        let mut answer = json!({ "importJobs": items });
        if let (Some((last, _)), Some(_)) = (listed.last(), rest.next()) {
            answer["nextToken"] = json!(token(&last.place.id));
        }
        Ok(Answer::ok(answer))
    }

    /// The whole true life of every job that there is.
    pub(super) fn truth(&self, now: Duration) -> Answer {
        let truth = self.jobs.iter().filter(|job| job.age(now).is_some()).map(|job| Truth {
            name: &job.place.name,
            reference_store_id: &job.place.reference_store_id,
            id: &job.place.id,
            kind: job.life.kind,
            timeline: (job.life.transitions())
                .map(|step| TrueTransition { status: step.status, at: self.at(job, step.age) })
                .collect(),
        });
        Answer::ok(json!(truth.collect::<Vec<_>>()))
    }

    /// The jobs of a store.
    fn store(&self, id: &str) -> Result<&[Job], ApiError> {
        let begin = self.jobs.partition_point(|job| job.place.reference_store_id.as_str() < id);
        let length = self.jobs[begin..].partition_point(|job| job.place.reference_store_id == id);
        match length {
            0 => Err(not_found(format!("There is no reference store {id}."))),
            _ => Ok(&self.jobs[begin..begin + length]),
        }
    }

    fn item<'a>(&self, job: &'a Job, step: &Step) -> JobItem<'a> {
        JobItem {
            id: &job.place.id,
            reference_store_id: &job.place.reference_store_id,
            role_arn: ROLE_ARN,
            status: step.status,
            creation_time: self.at(job, Duration::ZERO),
            completion_time: step.status.is_terminal().then(|| self.at(job, step.age)),
        }
    }

    /// The timestamp of a job's `age`, with fractions and `Z` as the API writes it.
    fn at(&self, job: &Job, age: Duration) -> String {
        let at = self.created(job).saturating_add(age).unwrap_or(Timestamp::MAX);
        format!("{at:.3}")
    }

    fn created(&self, job: &Job) -> Timestamp {
        self.started.saturating_add(job.created).unwrap_or(Timestamp::MAX)
    }
}

impl Filter {
    /// Both bounds are taken as exclusive: the API does not say.
    fn lets_through(&self, status: JobStatus, created: Timestamp) -> bool {
        self.status.is_none_or(|wanted| status == wanted)
            && self.created_after.is_none_or(|after| created > after)
            && self.created_before.is_none_or(|before| created < before)
    }
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, error: None, body }
    }

    /// The answer with every job in it changed. An error has none.
    pub(super) fn with_jobs(mut self, change: impl Fn(&mut Value)) -> Self {
        match (self.error, self.body.get_mut("importJobs").and_then(Value::as_array_mut)) {
            (Some(_), _) => {}
            (None, Some(jobs)) => jobs.iter_mut().for_each(change),
            (None, None) => change(&mut self.body),
        }
        self
    }

    /// The HTTP response, its body made by `body` from the right one.
    pub(super) fn respond_with(self, body: impl FnOnce(Bytes) -> Body) -> Response<Body> {
        let mut response = Response::new(body(Bytes::from(self.body.to_string())));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(error) = self.error {
            response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error));
        }
        response
    }
}

impl ApiError {
    pub(super) fn throttled() -> Self {
        Self::Throttling("The request was denied due to request throttling.")
    }
}

impl From<ApiError> for Answer {
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
        Self { status, error: Some(name), body: json!({ "message": message }) }
    }
}

fn not_found(message: String) -> ApiError {
    ApiError::ResourceNotFound(message)
}

/// AWS's own phrase for a member that breaks a rule.
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

/// The token behind which the page after `id` begins.
fn token(id: &str) -> String {
    let id: u64 = id.parse().unwrap_or_default();
    format!("{:016x}{TOKEN_END}", id ^ TOKEN_MASK)
}

fn read_token(token: &str) -> Option<String> {
    let digits = token.strip_suffix(TOKEN_END).filter(|digits| digits.len() == 16)?;
    let id = u64::from_str_radix(digits, 16).ok()? ^ TOKEN_MASK;
    Some(id.to_string()).filter(|id| id.len() == 10)
}
