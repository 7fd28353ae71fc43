//! `refwatch wait`: follows jobs to their end, in place of `aws omics wait reference-import-job-completed`.
//!
//! It needs no daemon, no configuration and no database. It polls as the daemon does, with the same pacing and backoff.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::exit::{Exit, Failure, print, remark};
use crate::clock::Clock;
use crate::config::{PollConfig, TargetConfig, parse_endpoint_url};
use crate::core::failure::{FailureReason, PollFailure, RetryClass};
use crate::core::job::{JobKey, JobStatus, SourceStatus, WatchId};
use crate::core::sanitize::Sanitized;
use crate::core::time::{Monotonic, parse_duration};
use crate::core::tracker::{JobState, NextAction};
use crate::healthomics::{AwsFactory, Target};
use crate::instruments::Instruments;
use crate::tasks::hints::JobHints;
use crate::tasks::job_watcher::Poller;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 every job is COMPLETED; 1 a job could not be followed; 3 a job ended otherwise; 124 \
                        time ran out. Each job's last status goes to standard output."
)]
pub struct Args {
    /// The jobs, each as `REFERENCE_STORE_ID/IMPORT_JOB_ID`
    #[arg(required = true, value_name = "STORE/JOB")]
    jobs: Vec<JobKey>,
    /// Give up after this long (such as 90s or 2h)
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = parse_duration)]
    timeout: Duration,
    /// The AWS region; AWS's own configuration otherwise
    #[arg(long)]
    region: Option<String>,
    /// A profile of the AWS configuration files
    #[arg(long)]
    profile: Option<String>,
    /// An endpoint to use verbatim in place of AWS's
    #[arg(long, value_name = "URL", value_parser = parse_endpoint_url)]
    endpoint_url: Option<String>,
}

enum End {
    Job(JobStatus),
    /// With the last known status.
    TimedOut(Option<JobStatus>),
    /// The job cannot be followed, for this reason.
    Lost(String),
}

/// # Errors
/// There is no region, or another part of AWS's configuration cannot be used.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let instruments = Instruments::new().map_err(Failure::running)?;
    let target = TargetConfig {
        region: args.region,
        profile: args.profile,
        endpoint_url: args.endpoint_url,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let target = Target::new(&target, &AwsFactory::new(clock), clock, &instruments).await.map_err(Failure::config)?;
    let target = Arc::new(target);
    let deadline = clock.now().monotonic + args.timeout;
    let policy = PollConfig::default().policy();
    // Hidden unless standard error is a terminal.
    let progress = MultiProgress::new();
    let mut followers = JoinSet::new();
    for key in args.jobs.into_iter().collect::<BTreeSet<_>>() {
        let (target, hints, line) =
            (Arc::clone(&target), JobHints::default(), progress.add(ProgressBar::new_spinner()));
        let id = WatchId { target: TargetConfig::DEFAULT.into(), key: key.clone() };
        let poller = Poller::new(target, id.into(), policy, None, hints, fastrand::u64(..));
        followers.spawn(async move { (follow(poller, &key, &line, clock, deadline).await, key) });
    }
    let mut exit = Exit::Done;
    while let Some(end) = followers.join_next().await {
        let (end, key) = end.map_err(Failure::running)?;
        let (status, outcome) = match end {
            End::Job(JobStatus::Completed) => (Some(JobStatus::Completed.to_string()), Exit::Done),
            End::Job(status) => (Some(status.to_string()), Exit::EndedOtherwise),
            End::TimedOut(None) => (Some("not seen".to_owned()), Exit::TimedOut),
            End::TimedOut(Some(status)) => (Some(status.to_string()), Exit::TimedOut),
            End::Lost(reason) => {
                progress.suspend(|| remark(format_args!("error: {key}: {reason}")));
                (None, Exit::Failed)
            }
        };
        if let Some(status) = status {
            progress.suspend(|| print(format_args!("{key} {}\n", Sanitized(&status))))?;
        }
        exit = worse(exit, outcome);
    }
    Ok(exit)
}

/// A job that could not be followed is worse than a timeout, and a timeout is worse than an end other than COMPLETED.
fn worse(one: Exit, other: Exit) -> Exit {
    let order = [Exit::Failed, Exit::TimedOut, Exit::EndedOtherwise];
    order.into_iter().find(|exit| [one, other].contains(exit)).unwrap_or(Exit::Done)
}

/// Follows one job to its end.
async fn follow(mut poller: Poller, key: &JobKey, line: &ProgressBar, clock: Clock, deadline: Monotonic) -> End {
    let style = ProgressStyle::with_template("{elapsed:>5} {spinner} {wide_msg}");
    line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    line.set_message(format!("{key} asking"));
    line.enable_steady_tick(Duration::from_millis(250));
    loop {
        let done = tokio::select! {
            done = poller.poll() => done,
            () = clock.sleep_until(deadline) => return End::TimedOut(poller.known().map(|known| known.status.clone())),
        };
        if let Some(answer) = done {
            match (answer.failure, poller.known()) {
                (Some(failure), known) if is_final(&failure, known.is_some()) => return End::Lost(failure.message),
                (Some(failure), _) => {
                    let text = format!("{key} {}, trying again: {}", failure.reason.label(), failure.message);
                    show(line, &text, true);
                }
                (None, Some(known)) => show(line, &status_line(key, known), answer.change.transition.is_some()),
                (None, None) => {}
            }
        }
        match poller.next() {
            NextAction::PollAt(_) => {}
            NextAction::Finished(status) => {
                line.finish();
                return End::Job(status.clone());
            }
            NextAction::Parked(reason) => return End::Lost(reason.clone()),
        }
    }
}

/// Whether another attempt is useless. Missing permissions may be temporary if they were there before.
fn is_final(failure: &PollFailure, was_seen: bool) -> bool {
    let class = failure.reason.class();
    let unknown = failure.reason == FailureReason::NotFound || class.retry == RetryClass::Park;
    unknown || (class.needs_operator && !was_seen)
}

/// Redraws a job's line on a terminal; elsewhere prints a line if something has changed.
fn show(line: &ProgressBar, text: &str, changed: bool) {
    if !line.is_hidden() {
        line.set_message(Sanitized(text).to_string());
    } else if changed {
        remark(text);
    }
}

fn status_line(key: &JobKey, known: &JobState) -> String {
    let finished = known.sources.values().filter(|source| source.status == SourceStatus::Finished).count();
    let message = known.status_message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("{key} {}, {finished} of {} sources finished{message}", known.status, known.sources.len())
}
