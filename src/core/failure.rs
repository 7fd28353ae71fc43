//! Every way in which a request can fail, in one table.
//!
//! Each reason has one row, which holds everything that follows from the reason. Other modules match on single reasons at most.
//! `healthomics::aws` finds the reason of an error.

use std::time::Duration;

use super::job::Snapshot;
use super::kind::{JobKind, KindInfo};

/// An operation of the service that refwatch calls. Each has its own quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Get(JobKind),
    List(JobKind),
}

impl Operation {
    /// The operations of every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        JobKind::ALL.into_iter().flat_map(|kind| [Self::Get(kind), Self::List(kind)])
    }

    #[must_use]
    pub const fn kind(self) -> JobKind {
        match self {
            Self::Get(kind) | Self::List(kind) => kind,
        }
    }

    /// The API's name: the metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get(kind) => kind.info().get_operation,
            Self::List(kind) => kind.info().list_operation,
        }
    }
}

pub type PollResult = Result<Snapshot, RequestFailure>;

/// A failed poll, listing or STS request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestFailure {
    pub reason: FailureReason,
    /// The problem and its remedy. It may quote the service.
    pub message: String,
    /// How long the service asked to wait (`Retry-After`, `x-amz-retry-after`).
    pub retry_after: Option<Duration>,
}

/// When a job is polled again after a failed poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// After an exponential backoff.
    Backoff,
    /// After the longest backoff, because the failure is unlikely to pass. `JobTracker` retries a new job sooner.
    Recheck,
    /// After a change of the configuration. Nothing else can end the failure.
    Park,
}

/// The requests that fail for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// No other request. Throttles are here too, because the pacer handles them.
    Job,
    /// Every request of the same operation to the same store.
    Store,
    /// Every request through the same target.
    Target,
}

/// The conclusion about the request rate from the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaEvidence {
    /// The rate is over the quota.
    Exceeded,
    /// The response was no throttle.
    WithinQuota,
    /// The request may not have reached the quota.
    Inconclusive,
}

/// Everything that follows from a failure's reason.
#[derive(Clone, Copy, Debug)]
pub struct FailureInfo {
    pub label: &'static str,
    pub retry: RetryClass,
    pub scope: Scope,
    pub quota: QuotaEvidence,
    /// True for missing credentials, and for rejections that usually last until a person acts.
    pub needs_operator: bool,
    /// The reason in at most four words, for people.
    pub summary: &'static str,
    /// The remedy for a failed poll, for a person.
    pub advice: &'static str,
}

/// Defines every reason once: its variant and its info.
macro_rules! failure_reasons {
    ($($(#[$doc:meta])* $reason:ident: $label:literal, $retry:ident, $scope:ident, $quota:ident, $needs_operator:literal,
        $summary:literal, $advice:literal;)*) => {
        /// Why a request failed. [`FailureReason::info`] says what follows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FailureReason {
            $($(#[$doc])* $reason,)*
        }

        impl FailureReason {
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$reason),*];

            #[must_use]
            pub const fn info(self) -> FailureInfo {
                match self {
                    $(Self::$reason => FailureInfo {
                        label: $label,
                        retry: RetryClass::$retry,
                        scope: Scope::$scope,
                        quota: QuotaEvidence::$quota,
                        needs_operator: $needs_operator,
                        summary: $summary,
                        advice: $advice,
                    },)*
                }
            }
        }
    };
}

// Reason: label, retry class, scope, quota evidence, needs an operator, summary, advice.
failure_reasons! {
    /// 429, `ThrottlingException`.
    Throttled: "throttled", Backoff, Job, Exceeded, false, "too many requests",
        "The account's quota is used up. refwatch polls more slowly and speeds up again by itself. If this lasts, lower \
         quota.share or ask AWS for a higher quota.";
    /// 401 or 403: the identity lacks a permission.
    AccessDenied: "access_denied", Backoff, Store, WithinQuota, true, "access denied",
        "Allow omics:{operation} on this {store} for the target's identity. The next poll uses the new policy.";
    /// 404 with the service's own error code.
    NotFound: "not_found", Recheck, Job, WithinQuota, true, "not found",
        "Check the entry's {store_key} and id, and the target's region and account. If the job was deleted, remove its \
         entry.";
    /// 400 `ValidationException`.
    Validation: "validation", Park, Job, WithinQuota, true, "malformed request",
        "AWS rejects these ids. Correct the entry and reload.";
    /// A deadline passed, here or at the service (408).
    Timeout: "timeout", Backoff, Target, Inconclusive, false, "no response in time",
        "refwatch retries less and less often. If this lasts, check the network path to AWS (proxy, firewall) or raise \
         poll.timeout.";
    /// No connection, or a broken connection: name, route, TLS, proxy or reset.
    Connect: "connect", Backoff, Target, Inconclusive, false, "no connection",
        "refwatch retries less and less often. If this lasts, check name resolution, route, proxy and certificate authorities \
         on this host, and endpoint_url.";
    /// 5xx.
    Internal: "internal", Backoff, Target, WithinQuota, false, "AWS error",
        "refwatch retries less and less often. Check the AWS Health Dashboard for an outage.";
    /// A response that is not HealthOmics's: not its JSON, too long, a redirect, or about another job.
    Protocol: "protocol", Backoff, Target, WithinQuota, false, "not a HealthOmics response",
        "Something other than HealthOmics answers, most often a proxy or a captive portal. Check HTTPS_PROXY and endpoint_url.";
    /// No credentials, or credentials that the service rejects.
    Credentials: "credentials", Backoff, Target, Inconclusive, true, "no valid credentials",
        "Check the target's credentials: profile, role, instance role. refwatch uses corrected credentials without a restart.";
    /// The source of the credentials fails for now: STS, SSO, a metadata service or a credential process.
    CredentialsUnavailable: "credentials", Backoff, Target, Inconclusive, false, "no credentials for now",
        "refwatch retries less and less often. If this lasts, check the source of the credentials that the message names.";
    /// Rejected for a reason that refwatch does not know.
    Other: "other", Recheck, Job, WithinQuota, true, "rejected",
        "AWS rejects the request for a reason that refwatch does not know. Read its message.";
}

impl FailureReason {
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.info().label
    }

    /// The advice for a failed poll of a job of `kind`.
    #[must_use]
    pub fn advice(self, kind: JobKind) -> String {
        let KindInfo { get_operation, store, .. } = kind.info();
        let advice = self.info().advice.replace("{operation}", get_operation);
        advice.replace("{store}", store.noun()).replace("{store_key}", store.id_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_reasons_keep_their_labels() {
        let operations = "GetReferenceImportJob ListReferenceImportJobs GetReadSetImportJob ListReadSetImportJobs \
            GetReadSetExportJob ListReadSetExportJobs GetReadSetActivationJob ListReadSetActivationJobs";
        assert_eq!(Operation::all().map(Operation::as_str).collect::<Vec<_>>().join(" "), operations);
        let reasons = "throttled access_denied not_found validation timeout connect internal protocol credentials credentials \
             other";
        assert_eq!(FailureReason::ALL.map(FailureReason::label).join(" "), reasons);
    }

    #[test]
    fn advice_names_the_operation_and_the_store_of_the_kind() {
        let denied = FailureReason::AccessDenied.advice(JobKind::ReadSetExport);
        assert!(denied.starts_with("Allow omics:GetReadSetExportJob on this sequence store"), "{denied}");
        let missing = FailureReason::NotFound.advice(JobKind::ReferenceImport);
        assert!(missing.starts_with("Check the entry's reference_store_id and id"), "{missing}");
    }
}
