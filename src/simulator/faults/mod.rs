//! The faults that the simulator can inject: their names and rates. `inject` implements them.

mod inject;
mod trickle;

use std::str::FromStr;

use fastrand::Rng;

pub(super) use inject::ConnectionFault;
pub(super) use trickle::Trickle;

/// A kind of faults with names on the command line.
pub trait NamedFault: Copy + 'static {
    const ALL: &'static [Self];

    /// The name on the command line.
    fn name(self) -> &'static str;
}

/// Defines faults and their names on the command line.
macro_rules! faults {
    ($(#[$enum_doc:meta])* $Fault:ident: $($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Fault {
            $($(#[$doc])* $fault,)*
        }

        impl $crate::simulator::faults::NamedFault for $Fault {
            const ALL: &'static [Self] = &[$(Self::$fault),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)*
                }
            }
        }
    };
}
pub(super) use faults;

faults! {
    /// A fault of the simulated service.
    Fault:
    /// 429 `ThrottlingException`, independent of the quota.
    Throttling = "throttling",
    /// 429 with HTML and no error name, as from a gateway.
    ThrottlingHtml = "throttling_html",
    /// 429 `ThrottlingException` with `Retry-After: 2`.
    RetryAfterSeconds = "retry_after_seconds",
    /// 503 with HTML and a `Retry-After` with the date in 2 s.
    RetryAfterDate = "retry_after_date",
    /// 429 `ThrottlingException` with an `x-amz-retry-after` that is negative and out of range.
    RetryAfterAbsurd = "retry_after_absurd",
    /// 500 `InternalServerException`.
    Internal = "internal",
    /// 408 `RequestTimeoutException`.
    RequestTimeout = "request_timeout",
    /// 408 with HTML and no error name.
    RequestTimeoutHtml = "request_timeout_html",
    /// 403 `AccessDeniedException`.
    AccessDenied = "access_denied",
    /// 403 `AccessDeniedException` for `List` operations only.
    ListDenied = "list_denied",
    /// 404 `ResourceNotFoundException`.
    NotFound = "not_found",
    /// 400 `ValidationException`.
    Validation = "validation",
    /// 502 with HTML.
    BadGatewayHtml = "bad_gateway_html",
    /// 503 with HTML, as from a load balancer.
    UnavailableHtml = "unavailable_html",
    /// 504 with HTML.
    GatewayTimeoutHtml = "gateway_timeout_html",
    /// 599, a status without a standard meaning, with HTML.
    UnknownHttp = "unknown_http",
    /// 307 to another host.
    Redirect = "redirect",
    /// 200 with HTML, as from a proxy.
    Html = "html",
    /// 200 with an empty body.
    Empty = "empty",
    /// The correct response, with the second half of the JSON missing.
    Truncated = "truncated",
    /// The correct response with the content type `text/plain`.
    WrongType = "wrong_type",
    /// The correct response with a member that is nested 1,000 levels deep.
    Deep = "deep",
    /// The correct response with a second `status` before the correct one.
    DuplicateKeys = "duplicate_keys",
    /// The correct response with a status message that is not UTF-8.
    InvalidUtf8 = "invalid_utf8",
    /// 200 with unrequested gzip: 340 kB that decompress to 41 MB of zeros.
    GzipBomb = "gzip_bomb",
    /// No response.
    Hang = "hang",
    /// An endless response head: one header every 100 ms.
    EndlessHeaders = "endless_headers",
    /// The connection is reset before the response.
    Reset = "reset",
    /// The correct response; then the connection is closed without `Connection: close`.
    Closed = "closed",
    /// The connection is closed within the body.
    CutOff = "cut_off",
    /// The correct response after 1 MiB of white space.
    Huge = "huge",
    /// The correct response, one byte per second.
    Slow = "slow",
    /// The correct response with the id of another job.
    WrongJob = "wrong_job",
    /// The correct response with a status that the API does not have.
    UnknownStatus = "unknown_status",
    /// The correct response with the status SUBMITTED.
    StatusBack = "status_back",
}

/// A fault and the fraction of requests, from 0 to 1, that it affects. Written `NAME=RATE`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultRate<F = Fault> {
    pub fault: F,
    pub rate: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFaultRate {
    #[error("a fault is written NAME=RATE")]
    NoRate,
    #[error("the rate must be a number from 0 to 1")]
    Rate,
    #[error("unknown fault; use one of: {0}")]
    Name(String),
}

impl<F: NamedFault> FromStr for FaultRate<F> {
    type Err = InvalidFaultRate;

    fn from_str(text: &str) -> Result<Self, InvalidFaultRate> {
        let (name, rate) = text.split_once('=').ok_or(InvalidFaultRate::NoRate)?;
        let fault = F::ALL.iter().find(|fault| fault.name() == name);
        let fault = *fault.ok_or_else(|| InvalidFaultRate::Name(fault_names::<F>()))?;
        let rate = rate.parse().ok().filter(|rate| (0.0..=1.0).contains(rate)).ok_or(InvalidFaultRate::Rate)?;
        Ok(Self { fault, rate })
    }
}

fn fault_names<F: NamedFault>() -> String {
    F::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ")
}

/// The help of an option with a [`FaultRate`]. `affected` is the plural of what the faults affect.
#[must_use]
pub fn fault_help<F: NamedFault>(affected: &str) -> String {
    format!(
        "A fault and the fraction of {affected}, 0 to 1, that it affects; repeatable. Faults: {}",
        fault_names::<F>()
    )
}

/// The fault of the next request, if any. At most one is drawn, in the order of `faults`.
pub(super) fn draw<F: NamedFault>(faults: impl IntoIterator<Item = FaultRate<F>>, rng: &mut Rng) -> Option<F> {
    faults.into_iter().find(|fault| rng.f64() < fault.rate).map(|drawn| drawn.fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_as_name_and_rate() {
        for &fault in Fault::ALL {
            assert_eq!(format!("{}=0.25", fault.name()).parse(), Ok(FaultRate { fault, rate: 0.25 }));
        }
        let error = |text: &str| text.parse::<FaultRate>().expect_err(text);
        assert_eq!(error("hang"), InvalidFaultRate::NoRate);
        for rate in ["hang=", "hang=often", "hang=1.1", "hang=-0.1", "hang=NaN"] {
            assert_eq!(error(rate), InvalidFaultRate::Rate, "{rate}");
        }
        let unknown = error("hnag=1").to_string();
        assert!(Fault::ALL.iter().all(|fault| unknown.contains(fault.name())), "{unknown}");
    }
}
