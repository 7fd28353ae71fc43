//! `refwatch wait`: waits until jobs have ended, like `aws omics wait reference-import-job-completed`.
//!
//! It needs no daemon, no configuration and no database. It polls with the pacing and the backoff of the daemon.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::exit::{Exit, Failure, print, print_note};
use crate::clock::Clock;
use crate::config::{PollConfig, TargetConfig, parse_endpoint_url, parse_profile_name, parse_region};
use crate::core::failure::{FailureReason, RequestFailure, RetryClass};
use crate::core::job::{JobKey, JobStatus, SourceStatus, WatchId};
use crate::core::sanitize::Sanitized;
use crate::core::time::{Monotonic, parse_duration};
use crate::core::tracker::{JobState, NextAction};
use crate::healthomics::{AwsFactory, Target};
use crate::instruments::Instruments;
use crate::tasks::job_watcher::Poller;
use crate::tasks::registry::WatcherSlot;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 every job is COMPLETED; 1 a job cannot be polled; 3 a job ended with another status; 124 \
                        timed out. Each job's last status goes to standard output."
)]
pub struct Args {
    /// The jobs, each as `REFERENCE_STORE_ID/IMPORT_JOB_ID`
    #[arg(required = true, value_name = "STORE/JOB")]
    jobs: Vec<JobKey>,
    /// The longest time to wait (such as 90s or 2h)
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = parse_duration)]
    timeout: Duration,
    /// The AWS region [default: as in AWS's configuration files and environment]
    #[arg(long, value_parser = parse_region)]
    region: Option<String>,
    /// A profile of the AWS configuration files
    #[arg(long, value_parser = parse_profile_name)]
    profile: Option<String>,
    /// Send requests to this URL instead of AWS's endpoint
    // Parsed later: an error of clap quotes the value, which may contain a password.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

/// How the wait for a job ended.
enum End {
    Job(JobStatus),
    /// Contains the last known status.
    TimedOut(Option<JobStatus>),
    /// The job cannot be polled, for this reason.
    Failed(String),
}

/// # Errors
/// Returns an error if there is no region or another part of AWS's configuration is unusable.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let instruments = Instruments::new().map_err(Failure::running)?;
    let endpoint_url = args.endpoint_url.map(|url| parse_endpoint_url(&url)).transpose();
    let endpoint_url = endpoint_url.map_err(|rule| Failure::new(Exit::Usage, format_args!("--endpoint-url {rule}")))?;
    let target = TargetConfig {
        region: args.region,
        profile: args.profile,
        endpoint_url,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let target = Target::new(&target, &AwsFactory::new(clock), clock, &instruments).await.map_err(Failure::config)?;
    let target = Arc::new(target);
    let deadline = clock.now().monotonic + args.timeout;
    let policy = PollConfig::default().policy();
    // It draws nothing unless standard error is a terminal.
    let progress = MultiProgress::new();
    let mut waits = JoinSet::new();
    for key in args.jobs.into_iter().collect::<BTreeSet<_>>() {
        let (target, bar) = (Arc::clone(&target), progress.add(ProgressBar::new_spinner()));
        let id = WatchId { target: TargetConfig::DEFAULT.into(), key: key.clone() };
        let poller = Poller::new(target, id.into(), policy, None, WatcherSlot::default(), fastrand::u64(..));
        waits.spawn(async move { (wait_for_end(poller, &key, &bar, clock, deadline).await, key) });
    }
    let mut exit = Exit::Done;
    while let Some(joined) = waits.join_next().await {
        let (end, key) = joined.map_err(Failure::running)?;
        let (status, job_exit) = match end {
            End::Job(JobStatus::Completed) => (Some(JobStatus::Completed.to_string()), Exit::Done),
            End::Job(status) => (Some(status.to_string()), Exit::NotCompleted),
            End::TimedOut(None) => (Some("not seen".to_owned()), Exit::TimedOut),
            End::TimedOut(Some(status)) => (Some(status.to_string()), Exit::TimedOut),
            End::Failed(reason) => {
                progress.suspend(|| print_note(format_args!("error: {key}: {reason}")));
                (None, Exit::Failed)
            }
        };
        if let Some(status) = status {
            progress.suspend(|| print(format_args!("{key} {}\n", Sanitized(&status))))?;
        }
        exit = worse(exit, job_exit);
    }
    Ok(exit)
}

fn worse(one: Exit, other: Exit) -> Exit {
    let worst_first = [Exit::Failed, Exit::TimedOut, Exit::NotCompleted];
    worst_first.into_iter().find(|exit| [one, other].contains(exit)).unwrap_or(Exit::Done)
}

/// Polls one job until it has ended.
async fn wait_for_end(mut poller: Poller, key: &JobKey, bar: &ProgressBar, clock: Clock, deadline: Monotonic) -> End {
    let style = ProgressStyle::with_template("{elapsed:>5} {spinner} {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(format!("{key} waiting for the first response"));
    bar.enable_steady_tick(Duration::from_millis(250));
    loop {
        let decision = tokio::select! {
            decision = poller.poll() => decision,
            () = clock.sleep_until(deadline) => return End::TimedOut(poller.known().map(|known| known.status.clone())),
        };
        if let Some(decision) = decision {
            match (decision.failure, poller.known()) {
                (Some(failure), known) if is_final(&failure, known.is_some()) => return End::Failed(failure.message),
                (Some(failure), _) => {
                    let text = format!("{key} {}, retrying: {}", failure.reason.label(), failure.message);
                    show(bar, &text, true);
                }
                (None, Some(known)) => show(bar, &status_line(key, known), decision.change.transition.is_some()),
                (None, None) => {}
            }
        }
        match poller.next_action() {
            NextAction::PollAt(_) => {}
            NextAction::Finished(status) => {
                bar.finish();
                return End::Job(status.clone());
            }
            NextAction::Parked(reason) => return End::Failed(reason.clone()),
        }
    }
}

/// True if a retry is useless. An error that needs an operator is final only before the first successful poll.
fn is_final(failure: &RequestFailure, was_seen: bool) -> bool {
    let class = failure.reason.class();
    let is_invalid = failure.reason == FailureReason::NotFound || class.retry == RetryClass::Park;
    is_invalid || (class.needs_operator && !was_seen)
}

/// Redraws the job's line on a terminal. Elsewhere prints `text` if it is new.
fn show(bar: &ProgressBar, text: &str, is_new: bool) {
    if !bar.is_hidden() {
        bar.set_message(Sanitized(text).to_string());
    } else if is_new {
        print_note(text);
    }
}

fn status_line(key: &JobKey, known: &JobState) -> String {
    let finished = known.sources.values().filter(|source| source.status == SourceStatus::Finished).count();
    let message = known.status_message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("{key} {}, {finished} of {} sources finished{message}", known.status, known.sources.len())
}
