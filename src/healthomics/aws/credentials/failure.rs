//! Why a source returned no credentials. `CredentialProblem::describe` maps each problem to its failure reason, text and remedy.
//!
//! `classify` maps an error to a [`CredentialProblem`]. Its [`FailureReason`] is `Credentials` if a person must act, and
//! `CredentialsUnavailable` if a retry may help.

use crate::core::failure::FailureReason;
use crate::healthomics::service::TargetError;

/// The source in messages about unusable AWS files.
pub(super) const FILES_SOURCE_NAME: &str = "AWS's configuration files";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum CredentialProblem {
    /// No source is configured.
    NoSource,
    /// The identity may not assume the role.
    Denied,
    /// The source rejects the credentials, the token or the session that it received.
    Rejected,
    /// A file, a variable or a command is unusable, or the source rejects the request as invalid.
    Misconfigured,
    Throttled,
    /// The source has an internal error, or an unknown one.
    Unavailable,
    Unreachable,
    TimedOut,
    /// A credential process failed, or printed no usable credentials.
    ProcessFailed,
}

/// A source returned no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(in super::super) struct CredentialFailure {
    pub(in super::super) reason: FailureReason,
    /// The problem, its remedy and, except for `NoSource`, the source. Quotes no output of a process.
    pub(in super::super) message: String,
}

impl CredentialProblem {
    /// Returns the reason, the problem and its remedy.
    const fn describe(self) -> (FailureReason, &'static str, &'static str) {
        use FailureReason::{Credentials, CredentialsUnavailable};
        match self {
            Self::NoSource => (
                Credentials,
                "no AWS credentials",
                "give refwatch an instance role, a profile, or environment variables",
            ),
            Self::Denied => (
                Credentials,
                "access denied",
                "allow it in the policy of the calling identity and in the role's trust policy",
            ),
            Self::Rejected => {
                (Credentials, "rejected", "renew the credentials that it uses; check this machine's clock")
            }
            Self::Misconfigured => {
                (Credentials, "wrong configuration", "correct AWS's configuration files and environment variables")
            }
            Self::Throttled => (CredentialsUnavailable, "too many requests", "refwatch retries"),
            Self::Unavailable => (CredentialsUnavailable, "error of the source", "refwatch retries"),
            Self::Unreachable => {
                (CredentialsUnavailable, "no connection", "refwatch retries; check name resolution, route and proxy")
            }
            Self::TimedOut => {
                (CredentialsUnavailable, "no response in time", "refwatch retries; check the source of the credentials")
            }
            Self::ProcessFailed => (
                CredentialsUnavailable,
                "the process failed",
                "refwatch retries; the log has the standard error of the process",
            ),
        }
    }
}

impl CredentialFailure {
    /// `source` names the source, such as `sts:AssumeRole on ROLE`.
    pub(super) fn new(problem: CredentialProblem, source: &str, detail: &str) -> Self {
        let (_, _, remedy) = problem.describe();
        Self::with_remedy(problem, source, detail, remedy)
    }

    /// `error` is from `sdk_files::check`, so never `NoRegion`.
    pub(in super::super) fn from_files_error(error: &TargetError) -> Self {
        let problem = match error {
            TargetError::FilesTimeout(_) => CredentialProblem::TimedOut,
            TargetError::NoRegion(_) | TargetError::Invalid(_) => CredentialProblem::Misconfigured,
        };
        Self::new(problem, FILES_SOURCE_NAME, &error.to_string())
    }

    pub(super) fn with_remedy(problem: CredentialProblem, source: &str, detail: &str, remedy: &str) -> Self {
        let (reason, problem_text, _) = problem.describe();
        let message = if problem == CredentialProblem::NoSource {
            format!("{problem_text}; {remedy} ({detail})")
        } else {
            format!("cannot get credentials: {source}: {problem_text}: {detail} ({remedy})")
        };
        Self { reason, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hang_are_a_temporary_failure_and_files_that_are_unusable_are_not() {
        let reason = |error| CredentialFailure::from_files_error(&error).reason;
        assert_eq!(reason(TargetError::FilesTimeout("a".to_owned())), FailureReason::CredentialsUnavailable);
        assert_eq!(reason(TargetError::Invalid("a".to_owned())), FailureReason::Credentials);
    }
}
