//! From a request to its response: which operation, whether it is let in, and what is answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::api::{Answer, Api, ApiError};
use super::faults::{Fault, OffScript};
use super::traffic::{Operation, Traffic, Verdict};
use crate::clock::Clock;

/// The largest request body that is read: a filter takes far less.
const REQUEST_BODY_MAX: usize = 64 << 10;

/// How long a request body may take to arrive.
const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// Everything that connections share.
#[derive(Debug)]
pub(super) struct Service {
    /// Its origin is the simulator's start.
    clock: Clock,
    pub(super) api: Api,
    traffic: Mutex<Traffic>,
    requests: AtomicU64,
}

impl Service {
    pub(super) fn new(clock: Clock, api: Api, traffic: Traffic) -> Self {
        Self { clock, api, traffic: Mutex::new(traffic), requests: AtomicU64::new(0) }
    }

    /// The response to `request`; an error where HTTP ends.
    pub(super) async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>, OffScript> {
        let (answer, fault) = self.answer(request).await.unwrap_or_else(|error| (error.into(), None));
        let mut response = match fault {
            None => answer.respond_with(Body::from),
            Some(fault) => fault.strike(answer, self.clock).await?,
        };
        response.headers_mut().insert(REQUEST_ID, self.request_id());
        Ok(response)
    }

    /// The honest answer, and the fault that is to strike it.
    async fn answer(&self, request: Request<Incoming>) -> Result<(Answer, Option<Fault>), ApiError> {
        let (head, body) = request.into_parts();
        let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let operation = match (&head.method, &*segments) {
            (&Method::GET, ["-", "jobs"]) => return Ok((self.api.truth(self.elapsed()), None)),
            (&Method::GET, ["-", "calls"]) => return Ok((Answer::ok(json!(self.traffic().calls())), None)),
            (&Method::GET, ["referencestore", _, "importjob", _]) => Operation::GetReferenceImportJob,
            (&Method::POST, ["referencestore", _, "importjobs"]) => Operation::ListReferenceImportJobs,
            _ => return Err(ApiError::UnknownOperation),
        };
        if !head.headers.contains_key(header::AUTHORIZATION) {
            return Err(ApiError::MissingAuthenticationToken);
        }
        let fault = match self.traffic().admit(operation, self.elapsed()) {
            Verdict::Answer => None,
            Verdict::Throttle => return Err(ApiError::throttled()),
            Verdict::Fault(fault) => Some(fault),
        };
        let body = read(body).await?;
        let honest = match operation {
            Operation::GetReferenceImportJob => self.api.get(segments[1], segments[3], self.elapsed()),
            Operation::ListReferenceImportJobs => self.api.list(segments[1], &head.uri, &body, self.elapsed()),
        };
        Ok((honest.unwrap_or_else(Answer::from), fault))
    }

    /// The time since the simulator's start.
    fn elapsed(&self) -> Duration {
        self.clock.now().monotonic.elapsed()
    }

    // A panic while the lock was held leaves whole numbers behind.
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// AWS's are UUIDs. Ours count, so that the requests of a test can be told apart and come out the same each time.
    fn request_id(&self) -> HeaderValue {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("00000000-0000-4000-8000-{nth:012x}"))
            .unwrap_or(HeaderValue::from_static("00000000-0000-4000-8000-000000000000"))
    }
}

/// Reads a request body.
async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(REQUEST_BODY_TIMEOUT, Limited::new(body, REQUEST_BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(ApiError::Validation(format!("The request body cannot be read: {error}"))),
        Err(_elapsed) => Err(ApiError::RequestTimeout("The request body did not arrive in time.")),
    }
}
