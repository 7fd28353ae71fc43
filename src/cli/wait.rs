//! `refwatch wait`: waits until jobs have ended, like `aws omics wait reference-import-job-completed`.
//!
//! It needs no daemon, no configuration and no database. It polls with the pacing and the backoff of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io::stderr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;

use super::exit::{Exit, Failure, count, json_line, print, print_note};
use super::terminal;
use crate::clock::Clock;
use crate::config::{PollConfig, TargetConfig, parse_endpoint_url, parse_profile_name, parse_region, parse_role_arn};
use crate::core::failure::{FailureReason, RequestFailure, RetryClass};
use crate::core::job::{ItemStatus, JobKey, JobStatus, TargetJob};
use crate::core::sanitize::Sanitized;
use crate::core::time::{Monotonic, parse_duration};
use crate::core::tracker::{JobState, NextAction};
use crate::healthomics::{AwsFactory, Target, TargetError};
use crate::instruments::Instruments;
use crate::tasks::job_watcher::Poller;
use crate::tasks::registry::WatcherSlot;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The jobs; KIND/STORE/JOB for a job that is not a reference import
    #[arg(required = true, value_name = "[KIND/]STORE/JOB")]
    jobs: Vec<JobKey>,
    /// The longest time to wait (such as 90s or 2h)
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = parse_duration)]
    timeout: Duration,
    /// The AWS region [default: as in AWS's configuration files and environment]
    #[arg(long, value_parser = parse_region)]
    region: Option<String>,
    /// End when the first job has ended; its status is the exit status
    #[arg(long)]
    any: bool,
    /// One JSON object a line for each job, in place of text
    #[arg(long)]
    json: bool,
    /// A role to assume for the requests
    #[arg(long, value_name = "ARN", value_parser = parse_role_arn)]
    role_arn: Option<String>,
    /// A profile of the AWS configuration files
    #[arg(long, value_parser = parse_profile_name)]
    profile: Option<String>,
    /// Send requests to this URL instead of AWS's endpoint
    // Parsed later: an error of clap quotes the value, which may contain a password.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

/// How the wait for a job ended.
struct Outcome {
    key: JobKey,
    exit: Exit,
    /// The last known state.
    known: Option<Arc<JobState>>,
    /// Why the job cannot be polled.
    error: Option<String>,
}

/// # Errors
/// Returns an error if there is no region or another part of AWS's configuration is unusable.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let instruments = Instruments::new().map_err(Failure::running)?;
    let endpoint_url = args.endpoint_url.map(|url| parse_endpoint_url(&url)).transpose();
    let endpoint_url = endpoint_url.map_err(|rule| Failure::usage(format_args!("--endpoint-url {rule}")))?;
    let target = TargetConfig {
        region: args.region,
        profile: args.profile,
        role_arn: args.role_arn,
        endpoint_url,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let target =
        Target::new(&target, &AwsFactory::new(clock), clock, &instruments).await.map_err(|error| match error {
            TargetError::NoRegion(_) => {
                Failure::config("no AWS region: set --region, AWS_REGION, or a region in the AWS profile")
            }
            error @ TargetError::Invalid(_) => Failure::config(error),
            error @ TargetError::FilesTimeout(_) => Failure::running(error),
        })?;
    let target = Arc::new(target);
    let deadline = clock.now().monotonic + args.timeout;
    let policy = PollConfig::default().policy();
    let draws = terminal::understands_escapes(&stderr());
    let drawn_on = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let progress = MultiProgress::with_draw_target(drawn_on);
    let jobs: BTreeSet<JobKey> = args.jobs.into_iter().collect();
    let job_count = jobs.len();
    let mut waits = JoinSet::new();
    for key in jobs {
        let (target, bar) = (Arc::clone(&target), progress.add(ProgressBar::new_spinner()));
        let id = TargetJob { target: TargetConfig::DEFAULT.into(), key: key.clone() };
        let poller = Poller::new(target, id.into(), policy, None, WatcherSlot::default(), fastrand::u64(..));
        waits.spawn(async move {
            let outcome = wait_for_end(poller, key, &bar, clock, deadline).await;
            // The result is printed in its place.
            bar.finish_and_clear();
            outcome
        });
    }
    let (mut exit, mut not_ended) = (Exit::Done, BTreeMap::new());
    while let Some(joined) = waits.join_next().await {
        let outcome = joined.map_err(Failure::running)?;
        // `suspend` panics if the terminal has gone. The result is still printed.
        match progress.clear() {
            Ok(()) => progress.suspend(|| outcome.print(args.json))?,
            Err(_) => outcome.print(args.json)?,
        }
        if args.any && outcome.has_ended() {
            drop(progress.clear());
            return Ok(outcome.exit);
        }
        exit = worse(exit, outcome.exit);
        if outcome.exit == Exit::TimedOut {
            let status = outcome.known.map_or("not seen".to_owned(), |known| format!("still {}", known.status));
            *not_ended.entry(status).or_default() += 1;
        }
    }
    if !not_ended.is_empty() {
        let timeout = humantime::format_duration(args.timeout);
        print_note(format_args!("timed out after {timeout}: {}", summary(&not_ended, job_count)));
    }
    Ok(exit)
}

impl Outcome {
    fn has_ended(&self) -> bool {
        matches!(self.exit, Exit::Done | Exit::NotCompleted)
    }

    /// Prints the job's last status, or why there is none.
    fn print(&self, json: bool) -> Result<(), Failure> {
        let Self { key, exit, known, error } = self;
        if json {
            return print(json_line(&self.json())?);
        }
        if let Some(error) = error {
            print_note(format_args!("error: {key}: {error}"));
            return Ok(());
        }
        let status = known.as_ref().map_or("not seen", |known| known.status.as_str());
        let message = known.as_ref().and_then(|known| known.status_message.as_deref());
        let message = message.filter(|_| *exit == Exit::NotCompleted).map(|message| format!("  {message}"));
        let text = format!("{status}{}", message.unwrap_or_default());
        print(format_args!("{key} {}\n", Sanitized(&text)))
    }

    fn json(&self) -> serde_json::Value {
        let Self { key, known, error, .. } = self;
        let known = known.as_ref();
        serde_json::json!({
            "kind": key.kind.as_str(), "store_id": key.store.as_str(), "job_id": key.job.as_str(),
            "status": known.map(|known| known.status.as_str()),
            "status_message": known.and_then(|known| known.status_message.as_deref()),
            "created_at": known.and_then(|known| known.created_at),
            "completed_at": known.and_then(|known| known.completed_at),
            "ended": self.has_ended(), "error": error,
        })
    }
}

/// Such as: 1 of 4 jobs still `IN_PROGRESS`, 2 of 4 jobs not seen.
fn summary(not_ended: &BTreeMap<String, usize>, job_count: usize) -> String {
    let jobs = count(job_count, "job");
    let counts = not_ended.iter().map(|(status, count)| format!("{count} of {jobs} {status}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn worse(one: Exit, other: Exit) -> Exit {
    let worst_first = [Exit::Failed, Exit::TimedOut, Exit::NotCompleted];
    worst_first.into_iter().find(|exit| [one, other].contains(exit)).unwrap_or(Exit::Done)
}

/// Polls one job until it has ended.
async fn wait_for_end(
    mut poller: Poller,
    key: JobKey,
    bar: &ProgressBar,
    clock: Clock,
    deadline: Monotonic,
) -> Outcome {
    let style = ProgressStyle::with_template("{elapsed:>5} {spinner} {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(format!("{key} waiting for the first response"));
    bar.enable_steady_tick(Duration::from_millis(250));
    let failed = |key, error, known: Option<&Arc<JobState>>| Outcome {
        key,
        exit: Exit::Failed,
        known: known.cloned(),
        error: Some(error),
    };
    loop {
        let decision = tokio::select! {
            decision = poller.poll() => decision,
            () = clock.sleep_until(deadline) => {
                return Outcome { key, exit: Exit::TimedOut, known: poller.known().cloned(), error: None };
            }
        };
        if let Some(decision) = decision {
            match (decision.failure, poller.known()) {
                (Some(failure), known) if is_final(&failure, known.is_some()) => {
                    return failed(key, failure.message, known);
                }
                (Some(failure), _) => {
                    let text = format!("{key} {}, retrying: {}", failure.reason.label(), failure.message);
                    show(bar, &text, true, clock);
                }
                // The end of a job is printed once, as its result.
                (None, Some(known)) if !known.status.is_terminal() => {
                    show(bar, &status_line(&key, known), decision.change.transition.is_some(), clock);
                }
                (None, _) => {}
            }
        }
        match (poller.next_action(), poller.known()) {
            (NextAction::Finished(_), Some(known)) => {
                let exit = if known.status == JobStatus::Completed { Exit::Done } else { Exit::NotCompleted };
                return Outcome { key, exit, known: Some(Arc::clone(known)), error: None };
            }
            (NextAction::Parked(reason), known) => return failed(key, reason.clone(), known),
            (NextAction::PollAt(_) | NextAction::Finished(_), _) => {}
        }
    }
}

/// True if a retry is useless. An error that needs an operator is final only before the first successful poll.
fn is_final(failure: &RequestFailure, was_seen: bool) -> bool {
    let info = failure.reason.info();
    let is_invalid = failure.reason == FailureReason::NotFound || info.retry == RetryClass::Park;
    is_invalid || (info.needs_operator && !was_seen)
}

/// Redraws the job's line on a terminal. Elsewhere prints `text` with the time if it is new.
fn show(bar: &ProgressBar, text: &str, is_new: bool, clock: Clock) {
    if !bar.is_hidden() {
        bar.set_message(Sanitized(text).to_string());
    } else if is_new {
        print_note(format_args!("{:.0} {text}", clock.now().wall));
    }
}

fn status_line(key: &JobKey, known: &JobState) -> String {
    let finished = known.items.values().filter(|item| item.status == ItemStatus::Finished).count();
    let message = known.status_message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let (status, total, item) = (&known.status, known.items.len(), key.kind.info().item_noun);
    format!("{key} {status}, {finished} of {total} {item}s finished{message}")
}
