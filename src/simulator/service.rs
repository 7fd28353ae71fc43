//! Responds to a request: selects the operation, gets a verdict from `traffic`, calls `api`, and injects faults.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use serde_json::json;

use super::api::{Api, ApiError, ApiResponse};
use super::faults::{ConnectionFault, Fault};
use super::kinds::Kind;
use super::server::{BodyError, read_body};
use super::traffic::{ApiOperation, Traffic, Verdict};
use crate::clock::Clock;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// Shared by all connections.
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

    /// Returns a [`ConnectionFault`] if the fault cannot be an HTTP response.
    pub(super) async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>, ConnectionFault> {
        let (response, fault) = self.handle(request).await.unwrap_or_else(|error| (error.into(), None));
        let mut response = match fault {
            None => response.respond_with(Body::from),
            Some(fault) => fault.inject(response, self.clock).await?,
        };
        response.headers_mut().insert(REQUEST_ID, self.request_id());
        Ok(response)
    }

    /// The correct response, and the fault to inject into it.
    async fn handle(&self, request: Request<Incoming>) -> Result<(ApiResponse, Option<Fault>), ApiError> {
        let (head, body) = request.into_parts();
        let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let operation = match (&head.method, &*segments) {
            (&Method::GET, ["-", "jobs"]) => return Ok((self.api.timelines(self.elapsed()), None)),
            (&Method::GET, ["-", "calls"]) => return Ok((ApiResponse::ok(json!(self.traffic().calls())), None)),
            (method, [store_path, _, rest @ ..]) => {
                operation(method, store_path, rest).ok_or(ApiError::UnknownOperation)?
            }
            _ => return Err(ApiError::UnknownOperation),
        };
        if !head.headers.contains_key(header::AUTHORIZATION) {
            return Err(ApiError::MissingAuthenticationToken);
        }
        let fault = match self.traffic().admit(operation, self.elapsed()) {
            Verdict::Respond => None,
            Verdict::Throttle => return Err(ApiError::throttled()),
            Verdict::Fault(fault) => Some(fault),
        };
        let body = read_body(body).await?;
        let result = match operation {
            ApiOperation::Get(kind) => self.api.get(kind, segments[1], segments[3], self.elapsed()),
            ApiOperation::List(kind) => self.api.list(kind, segments[1], &head.uri, &body, self.elapsed()),
        };
        Ok((result.unwrap_or_else(ApiResponse::from), fault))
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().monotonic.elapsed()
    }

    // A poisoned lock is usable: it protects only numbers.
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// AWS uses random UUIDs. These are numbered, so that tests are reproducible.
    fn request_id(&self) -> HeaderValue {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("00000000-0000-4000-8000-{nth:012x}"))
            .unwrap_or(HeaderValue::from_static("00000000-0000-4000-8000-000000000000"))
    }
}

/// The operation of a method and a path. `rest` are the segments after the store's id.
fn operation(method: &Method, store_path: &str, rest: &[&str]) -> Option<ApiOperation> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.api().store_path == store_path);
    let mut operations = kinds.filter_map(|kind| match (method, rest) {
        (&Method::GET, [path, _]) if *path == kind.api().get_path => Some(ApiOperation::Get(kind)),
        (&Method::POST, [path]) if *path == kind.api().list_path => Some(ApiOperation::List(kind)),
        _ => None,
    });
    operations.next()
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Unreadable(error) => Self::Validation(format!("The request body cannot be read: {error}")),
            BodyError::Timeout => Self::RequestTimeout("The request body did not arrive in time."),
        }
    }
}
