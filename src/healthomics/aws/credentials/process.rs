//! Runs the `credential_process` of a profile.
//!
//! The process has a process group of its own. If the fetch is cancelled before the process has ended, the whole group is killed. The
//! standard error may contain secrets, so it is redacted and goes to the log only. The command may contain secrets too, so only its program
//! is shown.

use std::fmt::{self, Debug};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::attributes::AccountId;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, sink};
use tokio::process::Command;
use tracing::{debug, warn};

use super::failure::{CredentialFailure, CredentialProblem};
use crate::clock::Clock;
use crate::healthomics::aws::redact::redacted_output;

/// The longest output that is read. Credentials with a large session token have 4 KiB.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// The longest standard error that is logged; the rest is discarded. Most tracebacks are shorter.
const STDERR_BYTES_MAX: usize = 4 * 1024;

/// The shell's exit statuses for a command that cannot be executed or does not exist.
const NOT_EXECUTED: [i32; 2] = [126, 127];

#[derive(Clone)]
pub(super) struct CredentialProcess {
    profile: String,
    command: String,
    account_id: Option<String>,
}

/// The documented JSON, version 1.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrintedCredentials {
    version: Option<u32>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    expiration: Option<String>,
    account_id: Option<String>,
}

/// Kills the process group when it is dropped. `None` once the process has been awaited: another group may then have its id.
struct ProcessGroup(Option<Pid>);

impl CredentialProcess {
    pub(super) fn new(profile: &str, command: &str, account_id: Option<&str>) -> Self {
        Self { profile: profile.to_owned(), command: command.to_owned(), account_id: account_id.map(str::to_owned) }
    }

    /// The program and the profile. The program is omitted if the command starts with an assignment, such as `KEY='a b' program`.
    pub(super) fn name(&self) -> String {
        let program = self.command.split_whitespace().next().filter(|word| !word.contains('='));
        let program = program.map(|word| format!("{} ", word.trim_matches(['"', '\'']))).unwrap_or_default();
        format!("credential_process {program}of profile \"{}\"", self.profile)
    }

    /// Dropping the future kills the process group.
    async fn run(&self) -> Result<Credentials, CredentialFailure> {
        let failed = |problem, detail: &str| CredentialFailure::new(problem, &self.name(), detail);
        let (status, stdout, stderr) = self.run_command().await.map_err(|error| {
            // The usual remedy refers to the log, which has nothing here.
            let (problem, remedy) = (CredentialProblem::ProcessFailed, "refwatch retries");
            CredentialFailure::with_remedy(problem, &self.name(), &error.to_string(), remedy)
        })?;
        let is_executed = status.code().is_none_or(|code| !NOT_EXECUTED.contains(&code));
        let result = if status.success() {
            self.credentials(&stdout).map_err(|detail| failed(CredentialProblem::ProcessFailed, &detail))
        } else {
            let problem = if is_executed { CredentialProblem::ProcessFailed } else { CredentialProblem::Misconfigured };
            Err(failed(problem, &status.to_string()))
        };
        if result.is_err() {
            let stderr = redacted_output(complete_words(&String::from_utf8_lossy(&stderr)).trim_end());
            warn!(event = "credential_process_failed", profile = self.profile, "{}: {status}: {stderr}", self.name());
        }
        result
    }

    async fn run_command(&self) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).process_group(0).kill_on_drop(true);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| io::Error::other(format!("cannot run it: {error}")))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut group = ProcessGroup(pid);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else { unreachable!("piped") };
        let (stdout, stderr) = tokio::try_join!(read_stdout(stdout), read_stderr(stderr))?;
        let status = child.wait().await?;
        group.0 = None;
        Ok((status, stdout, stderr))
    }

    /// The error is the reason, without a quote of the output.
    fn credentials(&self, output: &[u8]) -> Result<Credentials, String> {
        let printed: PrintedCredentials = serde_json::from_slice(output).map_err(|error| {
            format!("its output is not the documented JSON: line {}, column {}", error.line(), error.column())
        })?;
        if printed.version != Some(1) {
            return Err("its output has no \"Version\": 1".to_owned());
        }
        let access_key_id = printed.access_key_id.ok_or("its output has no `AccessKeyId`")?;
        let secret_access_key = printed.secret_access_key.ok_or("its output has no `SecretAccessKey`")?;
        let expiration = printed.expiration.map(|text| text.parse::<Timestamp>()).transpose();
        let expiration = expiration.map_err(|_| "the `Expiration` in its output is no RFC 3339 time")?;
        if let Some(time) = expiration.filter(|&time| time <= Clock::system().now().wall) {
            return Err(format!("its credentials expired at {time}"));
        }
        let mut credentials = Credentials::builder()
            .access_key_id(access_key_id)
            .secret_access_key(secret_access_key)
            .provider_name("CredentialProcess");
        credentials.set_session_token(printed.session_token);
        credentials.set_expiry(expiration.map(SystemTime::try_from).transpose().map_err(|error| error.to_string())?);
        credentials.set_account_id(printed.account_id.or_else(|| self.account_id.clone()).map(AccountId::from));
        Ok(credentials.build())
    }
}

async fn read_stdout(mut pipe: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    (&mut pipe).take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut output).await?;
    if output.len() as u64 > OUTPUT_BYTES_MAX {
        return Err(io::Error::other(format!("it printed more than {OUTPUT_BYTES_MAX} bytes")));
    }
    Ok(output)
}

/// Reads to the end, so that the process does not wait for a reader.
async fn read_stderr(mut pipe: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut errors = Vec::new();
    (&mut pipe).take(STDERR_BYTES_MAX as u64).read_to_end(&mut errors).await?;
    tokio::io::copy(&mut pipe, &mut sink()).await?;
    Ok(errors)
}

/// Drops the last word of a text of the maximum length: it may be the beginning of a secret, which would not be recognised.
fn complete_words(text: &str) -> &str {
    if text.len() < STDERR_BYTES_MAX {
        text
    } else {
        text.rsplit_once(char::is_whitespace).map_or("", |(words, _)| words)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            debug!("the credential process has ended already: {error}");
        }
    }
}

impl Debug for CredentialProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl ProvideCredentials for CredentialProcess {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.run().await.map_err(CredentialsError::provider_error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_has_the_program_unless_a_variable_precedes_it() {
        for (command, name) in [
            ("'/opt/vault' --role lab", "credential_process /opt/vault of profile \"lab\""),
            ("KEY='a b' /opt/vault", "credential_process of profile \"lab\""),
        ] {
            assert_eq!(CredentialProcess::new("lab", command, None).name(), name);
        }
    }

    #[test]
    fn a_word_at_the_limit_is_dropped() {
        let text = format!("{} KEY", "a".repeat(STDERR_BYTES_MAX - 4));
        assert_eq!(complete_words(&text).len(), STDERR_BYTES_MAX - 4);
        assert_eq!(complete_words(&"K".repeat(STDERR_BYTES_MAX)), "");
        assert_eq!(complete_words("no role\n"), "no role\n");
    }
}
