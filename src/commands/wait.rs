//! `refwatch wait`: follows jobs to their end, in place of `aws omics wait reference-import-job-completed`.
//!
//! It stands alone: no daemon, no file, no record. It asks as the daemon does, with the same pacing and the same backoff.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::{Exit, Failure, print, remark};
use crate::clock::Clock;
use crate::config::{PollConfig, TargetConfig};
use crate::core::job::{JobKey, JobStatus, SourceStatus};
use crate::core::outcome::{FailureReason, PollFailure, Remedy};
use crate::core::text::Printable;
use crate::core::time::parse_duration;
use crate::core::watch::{Known, Next};
use crate::hints::JobHints;
use crate::instruments::Instruments;
use crate::omics::Target;
use crate::watcher::{Polled, Poller};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The jobs, each as `REFERENCE_STORE_ID/IMPORT_JOB_ID`
    #[arg(required = true, value_name = "STORE/JOB")]
    jobs: Vec<JobKey>,
    /// Give up after this long (such as 90s or 2h), with exit status 124
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// The AWS region; AWS's own configuration otherwise
    #[arg(long)]
    region: Option<String>,
    /// A profile of the AWS configuration files
    #[arg(long)]
    profile: Option<String>,
    /// An endpoint to use verbatim in place of AWS's
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

/// Runs it.
///
/// # Errors
/// A job cannot be followed: no access, no such job, no credentials.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let instruments = Instruments::new().map_err(Failure::running)?;
    let target = TargetConfig {
        region: args.region,
        profile: args.profile,
        endpoint_url: args.endpoint_url,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let target = Arc::new(Target::new(&target, clock, &instruments).await.map_err(Failure::config)?);
    let policy = PollConfig::default().policy();
    let progress = Progress::new();
    let mut followers = JoinSet::new();
    for key in args.jobs {
        let poller =
            Poller::new(clock, Arc::clone(&target), key.clone(), policy, None, JobHints::none(), fastrand::u64(..));
        followers.spawn(follow(poller, key.clone(), progress.line(&key)));
    }
    let ends = async {
        let mut exit = Exit::Done;
        while let Some(end) = followers.join_next().await {
            let (key, status) = end.map_err(Failure::running)??;
            print(format_args!("{key} {}\n", Printable(status.as_str())))?;
            if status != JobStatus::Completed {
                exit = Exit::EndedOtherwise;
            }
        }
        Ok(exit)
    };
    let Some(timeout) = args.timeout else { return ends.await };
    tokio::select! {
        exit = ends => exit,
        () = clock.sleep(timeout) => {
            let message = format!("not every job ended within {}", humantime::format_duration(timeout));
            Err(Failure::new(Exit::TimedOut, message))
        }
    }
}

/// Follows one job to its end.
async fn follow(mut poller: Poller, key: JobKey, line: Line) -> Result<(JobKey, JobStatus), Failure> {
    while let Some(Polled { failure, change, .. }) = poller.poll().await {
        if let Some(failure) = failure {
            if is_final(&failure, poller.known()) {
                return Err(Failure::running(format_args!("{key}: {}", Printable(&failure.message))));
            }
            line.trouble(&key, &failure);
        } else if let Some(known) = poller.known() {
            line.seen(&key, known, change.transition.is_some());
        }
    }
    match poller.next() {
        Next::Finished(status) => Ok((key, status.clone())),
        Next::Parked(reason) => Err(Failure::running(format_args!("{key}: {}", Printable(reason)))),
        Next::PollAt(_) => unreachable!("a poller with a poll to come polls"),
    }
}

/// Whether more patience would not help. Nobody watches a pipeline that waits for a typing mistake.
fn is_final(failure: &PollFailure, known: Option<&Known>) -> bool {
    match failure.reason.remedy() {
        Remedy::Backoff => failure.reason == FailureReason::Credentials && known.is_none(),
        Remedy::Recheck | Remedy::Park => true,
    }
}

/// Shows how things stand: lines redrawn in place on a terminal, a line for each change elsewhere.
struct Progress(Option<MultiProgress>);

struct Line(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(MultiProgress::new))
    }

    fn line(&self, key: &JobKey) -> Line {
        Line(self.0.as_ref().map(|all| {
            let style = ProgressStyle::with_template("{elapsed:>5} {spinner} {msg}");
            let line = all.add(ProgressBar::new_spinner());
            line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            line.set_message(format!("{key} asking"));
            line.enable_steady_tick(Duration::from_millis(250));
            line
        }))
    }
}

impl Line {
    fn seen(&self, key: &JobKey, known: &Known, changed: bool) {
        let finished = known.sources.values().filter(|source| source.status == SourceStatus::Finished).count();
        let message = known.status_message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        let text = format!("{key} {}, {finished} of {} sources finished{message}", known.status, known.sources.len());
        match &self.0 {
            Some(line) if known.status.is_terminal() => line.finish_with_message(Printable(&text).to_string()),
            Some(line) => line.set_message(Printable(&text).to_string()),
            None if changed => remark(text),
            None => {}
        }
    }

    fn trouble(&self, key: &JobKey, failure: &PollFailure) {
        let text = format!("{key} {}, trying again: {}", failure.reason.label(), failure.message);
        match &self.0 {
            Some(line) => line.set_message(Printable(&text).to_string()),
            None => remark(text),
        }
    }
}
