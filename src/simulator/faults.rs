//! The faults that the simulated service can be told to have: their names, their rates, and what each does to an answer.

use std::error::Error;
use std::fmt::{self, Display};
use std::future::{self, Future};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::{Value, json};

use super::api::{Answer, ApiError};
use crate::clock::Clock;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429 `ThrottlingException`, whatever the quota says.
    Throttling,
    /// 500 `InternalServerException`.
    Internal,
    /// 408 `RequestTimeoutException`.
    RequestTimeout,
    /// 403 `AccessDeniedException`.
    AccessDenied,
    /// 403 `AccessDeniedException` to `ListReferenceImportJobs` alone.
    ListDenied,
    /// 404 `ResourceNotFoundException`.
    NotFound,
    /// 400 `ValidationException`.
    Validation,
    /// 503 with HTML, as from a load balancer.
    UnavailableHtml,
    /// 200 with HTML, as from a proxy.
    Html,
    /// 200 with an empty body.
    Empty,
    /// The right answer, its JSON cut in the middle.
    Truncated,
    /// No answer, ever.
    Hang,
    /// The connection is reset before any answer.
    Reset,
    /// The connection is closed within the body.
    CutOff,
    /// The right answer behind more than a mebibyte of white space.
    Huge,
    /// The right answer, one byte a second.
    Slow,
    /// The right answer, but about another job.
    WrongJob,
    /// The right answer, but with a status that the API does not have.
    UnknownStatus,
}

/// A fault and the part of all requests, from 0 to 1, that it hits. Written `NAME=RATE`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultRate {
    /// The fault.
    pub fault: Fault,
    /// The part of the requests.
    pub rate: f64,
}

/// A text that is no [`FaultRate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFaultRate {
    /// No name, or no rate.
    #[error("a fault is written NAME=RATE")]
    NoRate,
    /// The rate is no number from 0 to 1.
    #[error("the rate must be a number from 0 to 1")]
    Rate,
    /// There is no such fault.
    #[error("there is no such fault; there are: {}", Fault::ALL.map(Fault::name).join(", "))]
    Name,
}

/// The connection is to be reset: the error that tells the server so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset;

/// What the status of [`Fault::UnknownStatus`] is.
const UNKNOWN_STATUS: &str = "PAUSED";

/// More than any answer of the service, and more than a careful client reads.
const HUGE: usize = 1 << 20;

/// The pace of [`Fault::Slow`].
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// Before [`Fault::CutOff`] closes the connection: long enough for what was sent before to arrive as an answer begun.
const CUT_OFF_PAUSE: Duration = Duration::from_millis(50);

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 18] = [
        Self::Throttling,
        Self::Internal,
        Self::RequestTimeout,
        Self::AccessDenied,
        Self::ListDenied,
        Self::NotFound,
        Self::Validation,
        Self::UnavailableHtml,
        Self::Html,
        Self::Empty,
        Self::Truncated,
        Self::Hang,
        Self::Reset,
        Self::CutOff,
        Self::Huge,
        Self::Slow,
        Self::WrongJob,
        Self::UnknownStatus,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttling => "throttling",
            Self::Internal => "internal",
            Self::RequestTimeout => "request_timeout",
            Self::AccessDenied => "access_denied",
            Self::ListDenied => "list_denied",
            Self::NotFound => "not_found",
            Self::Validation => "validation",
            Self::UnavailableHtml => "unavailable_html",
            Self::Html => "html",
            Self::Empty => "empty",
            Self::Truncated => "truncated",
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::CutOff => "cut_off",
            Self::Huge => "huge",
            Self::Slow => "slow",
            Self::WrongJob => "wrong_job",
            Self::UnknownStatus => "unknown_status",
        }
    }

    /// What becomes of the `honest` answer.
    pub(super) async fn strike(self, honest: Answer, clock: Clock) -> Result<Response<Body>, Reset> {
        let answer = match self {
            Self::Throttling => ApiError::throttled().into(),
            Self::Internal => ApiError::InternalServer("An unexpected error occurred. Try the request again.").into(),
            Self::RequestTimeout => ApiError::RequestTimeout("The request timed out.").into(),
            Self::AccessDenied | Self::ListDenied => {
                ApiError::AccessDenied("You do not have sufficient access to perform this action.").into()
            }
            Self::NotFound => ApiError::ResourceNotFound("The target resource was not found.".to_owned()).into(),
            Self::Validation => {
                ApiError::Validation("The input fails to satisfy the constraints of the service.".to_owned()).into()
            }
            Self::UnavailableHtml => return Ok(html(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable")),
            Self::Html => return Ok(html(StatusCode::OK, "Welcome to the guest network")),
            Self::Empty => return Ok(honest.respond_with(|_| Body::empty())),
            Self::Truncated => return Ok(honest.respond_with(|body| Body::from(first_half(&body)))),
            Self::Hang => future::pending().await,
            Self::Reset => return Err(Reset),
            Self::CutOff => return Ok(honest.respond_with(|body| Body::new(Trickle::cut_off(body, clock)))),
            Self::Huge => return Ok(honest.respond_with(|body| Body::from([&*vec![b' '; HUGE], &*body].concat()))),
            Self::Slow => return Ok(honest.respond_with(|body| Body::new(Trickle::slow(body, clock)))),
            Self::WrongJob => honest.with_jobs(|job| job["id"] = json!(another_id(&job["id"]))),
            Self::UnknownStatus => honest.with_jobs(|job| job["status"] = json!(UNKNOWN_STATUS)),
        };
        Ok(answer.respond_with(Body::from))
    }
}

impl FromStr for FaultRate {
    type Err = InvalidFaultRate;

    fn from_str(text: &str) -> Result<Self, InvalidFaultRate> {
        let (name, rate) = text.split_once('=').ok_or(InvalidFaultRate::NoRate)?;
        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or(InvalidFaultRate::Name)?;
        let rate = rate.parse().ok().filter(|rate| (0.0..=1.0).contains(rate)).ok_or(InvalidFaultRate::Rate)?;
        Ok(Self { fault, rate })
    }
}

fn html(status: StatusCode, title: &str) -> Response<Body> {
    let page = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n");
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
    response
}

fn first_half(body: &Bytes) -> Bytes {
    body.slice(..body.len() / 2)
}

/// An id as long as `id`, and another.
fn another_id(id: &Value) -> String {
    let digits = id.as_str().unwrap_or_default();
    digits.chars().map(|digit| if digit == '9' { '0' } else { '9' }).collect()
}

/// A body that does not come at once.
struct Trickle {
    rest: Bytes,
    /// Bytes in one piece.
    piece: usize,
    /// Before each piece but the first, and before the end.
    pause: Duration,
    /// How many bytes never come: where there are any, the body ends in an error.
    withheld: usize,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    clock: Clock,
}

impl Trickle {
    fn slow(body: Bytes, clock: Clock) -> Self {
        Self { rest: body, piece: 1, pause: SLOW_PAUSE, withheld: 0, waiting: None, clock }
    }

    fn cut_off(body: Bytes, clock: Clock) -> Self {
        let piece = body.len() / 2;
        Self { withheld: body.len() - piece, rest: body, piece, pause: CUT_OFF_PAUSE, waiting: None, clock }
    }
}

impl HttpBody for Trickle {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(context));
        }
        let (clock, pause) = (self.clock, self.pause);
        self.waiting = Some(Box::pin(clock.sleep(pause)));
        let piece = self.piece.min(self.rest.len() - self.withheld);
        Poll::Ready(match piece {
            0 if self.withheld > 0 => Some(Err(Reset)),
            0 => None,
            _ => Some(Ok(Frame::data(self.rest.split_to(piece)))),
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated service closes the connection")
    }
}

impl Error for Reset {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_as_name_and_rate() {
        for fault in Fault::ALL {
            assert_eq!(format!("{}=0.25", fault.name()).parse(), Ok(FaultRate { fault, rate: 0.25 }));
        }
        let refused = |text: &str| text.parse::<FaultRate>().expect_err(text);
        assert_eq!(refused("hang"), InvalidFaultRate::NoRate);
        for rate in ["hang=", "hang=often", "hang=1.1", "hang=-0.1", "hang=NaN"] {
            assert_eq!(refused(rate), InvalidFaultRate::Rate, "{rate}");
        }
        let unknown = refused("hnag=1").to_string();
        assert!(Fault::ALL.iter().all(|fault| unknown.contains(fault.name())), "{unknown}");
    }
}
