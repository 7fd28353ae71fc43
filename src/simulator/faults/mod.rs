//! The faults that the simulated service can be told to have: their names and their rates. What each does is in `strike`.

mod strike;
mod trickle;

use std::str::FromStr;

pub(super) use strike::OffScript;

/// The faults and their names on the command line, each written once.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            /// Every fault.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$fault),*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)*
                }
            }
        }
    };
}

faults! {
    /// 429 `ThrottlingException`, whatever the quota says.
    Throttling = "throttling",
    /// 429 with HTML and no error code, as from a gateway.
    ThrottlingHtml = "throttling_html",
    /// 429 `ThrottlingException` with a `Retry-After` of two seconds.
    RetryAfterSeconds = "retry_after_seconds",
    /// 503 with HTML and a `Retry-After` that is the date in two seconds.
    RetryAfterDate = "retry_after_date",
    /// 429 `ThrottlingException` with an `x-amz-retry-after` of no sense.
    RetryAfterAbsurd = "retry_after_absurd",
    /// 500 `InternalServerException`.
    Internal = "internal",
    /// 408 `RequestTimeoutException`.
    RequestTimeout = "request_timeout",
    /// 408 with HTML and no error code.
    RequestTimeoutHtml = "request_timeout_html",
    /// 403 `AccessDeniedException`.
    AccessDenied = "access_denied",
    /// 403 `AccessDeniedException` to `ListReferenceImportJobs` alone.
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
    /// 599, which no standard knows, with HTML.
    UnknownHttp = "unknown_http",
    /// 307 to another host.
    Redirect = "redirect",
    /// 200 with HTML, as from a proxy.
    Html = "html",
    /// 200 with an empty body.
    Empty = "empty",
    /// The right answer, its JSON cut in the middle.
    Truncated = "truncated",
    /// The right answer, said to be plain text.
    WrongType = "wrong_type",
    /// The right answer, with a member that is nested a thousand deep.
    Deep = "deep",
    /// The right answer, after another status under the same key.
    DuplicateKeys = "duplicate_keys",
    /// The right answer, with a status message that is no UTF-8.
    InvalidUtf8 = "invalid_utf8",
    /// 200 with a few hundred kilobytes of gzip, which nobody asked for, and which are 41 MB of zeros.
    GzipBomb = "gzip_bomb",
    /// No answer, ever.
    Hang = "hang",
    /// An answer whose headers do not end, one every tenth of a second.
    EndlessHeaders = "endless_headers",
    /// The connection is reset before any answer.
    Reset = "reset",
    /// The right answer; the connection is closed after it, which nothing announced.
    Closed = "closed",
    /// The connection is closed within the body.
    CutOff = "cut_off",
    /// The right answer behind more than a mebibyte of white space.
    Huge = "huge",
    /// The right answer, one byte a second.
    Slow = "slow",
    /// The right answer, but about another job.
    WrongJob = "wrong_job",
    /// The right answer, but with a status that the API does not have.
    UnknownStatus = "unknown_status",
    /// The right answer, but as if the job had only just been submitted.
    StatusBack = "status_back",
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

impl FromStr for FaultRate {
    type Err = InvalidFaultRate;

    fn from_str(text: &str) -> Result<Self, InvalidFaultRate> {
        let (name, rate) = text.split_once('=').ok_or(InvalidFaultRate::NoRate)?;
        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or(InvalidFaultRate::Name)?;
        let rate = rate.parse().ok().filter(|rate| (0.0..=1.0).contains(rate)).ok_or(InvalidFaultRate::Rate)?;
        Ok(Self { fault, rate })
    }
}

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
