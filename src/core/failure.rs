//! Every way in which one poll can end.

use std::time::Duration;

use super::job::Snapshot;

/// An operation of the service that refwatch calls. Each has a quota of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reads one job.
    GetReferenceImportJob,
    /// Lists the jobs of a store, a page at a time.
    ListReferenceImportJobs,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 2] = [Self::GetReferenceImportJob, Self::ListReferenceImportJobs];

    /// The API's name: the metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GetReferenceImportJob => "GetReferenceImportJob",
            Self::ListReferenceImportJobs => "ListReferenceImportJobs",
        }
    }
}

/// How one poll ended.
pub type PollOutcome = Result<Snapshot, PollFailure>;

/// A poll that brought no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PollFailure {
    /// Its class.
    pub reason: FailureReason,
    /// What happened and, where a person can mend it, what to do. It may quote the service.
    pub message: String,
    /// How long the service asked to wait (`Retry-After`, `x-amz-retry-after`).
    pub retry_after: Option<Duration>,
}

/// The class of a failed poll: the metric label `reason`, and what follows for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureReason {
    /// The request rate was over the quota (429, `ThrottlingException`).
    Throttled,
    /// The identity may not do this (403).
    AccessDenied,
    /// The service does not know the job (404).
    NotFound,
    /// The service calls the request malformed (400 `ValidationException`).
    Validation,
    /// A deadline passed, here or there (408).
    Timeout,
    /// No connection: name, route, TLS, proxy, reset.
    Connect,
    /// The service failed (5xx).
    Internal,
    /// An answer that is none: not JSON, cut short, too long, or about another job.
    Protocol,
    /// There are no credentials, or the service does not accept them.
    Credentials,
    /// Anything else: the request is refused for a reason that refwatch does not know.
    Other,
}

/// What a failed poll means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It will pass, or a person will mend it: come back after an exponential backoff.
    Backoff,
    /// It is not likely to change: look again at the longest backoff.
    Recheck,
    /// It cannot change while the configuration stays as it is.
    Park,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Throttled,
        Self::AccessDenied,
        Self::NotFound,
        Self::Validation,
        Self::Timeout,
        Self::Connect,
        Self::Internal,
        Self::Protocol,
        Self::Credentials,
        Self::Other,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::AccessDenied => "access_denied",
            Self::NotFound => "not_found",
            Self::Validation => "validation",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Internal => "internal",
            Self::Protocol => "protocol",
            Self::Credentials => "credentials",
            Self::Other => "other",
        }
    }

    /// Whether this may befall every request to the service alike, and end for all of them at once.
    #[must_use]
    pub const fn may_be_an_outage(self) -> bool {
        match self {
            Self::Timeout | Self::Connect | Self::Internal | Self::Protocol | Self::Credentials => true,
            Self::Throttled | Self::AccessDenied | Self::NotFound | Self::Validation | Self::Other => false,
        }
    }

    /// What follows for the job.
    #[must_use]
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::Throttled
            | Self::AccessDenied
            | Self::Timeout
            | Self::Connect
            | Self::Internal
            | Self::Protocol
            | Self::Credentials => Remedy::Backoff,
            Self::NotFound | Self::Other => Remedy::Recheck,
            Self::Validation => Remedy::Park,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_reasons_have_the_names_that_users_rely_on() {
        assert_eq!(Operation::ALL.map(Operation::as_str), ["GetReferenceImportJob", "ListReferenceImportJobs"]);
        let reasons =
            "throttled access_denied not_found validation timeout connect internal protocol credentials other";
        assert_eq!(FailureReason::ALL.map(FailureReason::label).join(" "), reasons);
    }
}
