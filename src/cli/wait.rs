//! `refwatch wait`: follows jobs to their end, in place of `aws omics wait reference-import-job-completed`.
//!
//! It stands alone: no daemon, no file, no record. It asks as the daemon does, with the same pacing and the same backoff.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::exit::{Exit, Failure, print, remark};
use crate::clock::Clock;
use crate::config::{PollConfig, TargetConfig, parse_endpoint_url};
use crate::core::failure::{FailureReason, PollFailure, RetryClass};
use crate::core::job::{JobKey, JobStatus, SourceStatus, WatchId};
use crate::core::sanitize::Printable;
use crate::core::time::{Monotonic, parse_duration};
use crate::core::tracker::{Known, Next};
use crate::healthomics::{Aws, Target};
use crate::instruments::Instruments;
use crate::tasks::hints::JobHints;
use crate::tasks::job_watcher::Poller;

/// Its arguments.
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
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
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

/// How the following of one job ended.
enum End {
    /// The job ended.
    Job(JobStatus),
    /// Time ran out; the job had this status when it was last seen.
    TimedOut(Option<JobStatus>),
    /// More patience would not help, for this reason.
    Lost(String),
}

/// Runs it.
///
/// # Errors
/// There is no way to ask: no region.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let instruments = Instruments::new().map_err(Failure::running)?;
    let target = TargetConfig {
        region: args.region,
        profile: args.profile,
        endpoint_url: args.endpoint_url,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let target = Target::new(&target, &Aws::new(clock), clock, &instruments).await.map_err(Failure::config)?;
    let target = Arc::new(target);
    let deadline = args.timeout.map(|timeout| clock.now().monotonic + timeout);
    let policy = PollConfig::default().policy();
    let progress = Progress::new();
    let mut followers = JoinSet::new();
    for key in args.jobs.into_iter().collect::<BTreeSet<_>>() {
        let (target, hints, line) = (Arc::clone(&target), JobHints::default(), progress.line(&key));
        let id = WatchId { target: TargetConfig::DEFAULT.into(), key: key.clone() };
        let poller = Poller::new(target, id.into(), policy, None, hints, fastrand::u64(..));
        followers.spawn(async move { (follow(poller, &key, &line, clock, deadline).await, key) });
    }
    let mut exit = Exit::Done;
    while let Some(end) = followers.join_next().await {
        let (end, key) = end.map_err(Failure::running)?;
        let (status, outcome) = match end {
            End::Job(status) => (
                Some(status.to_string()),
                if status == JobStatus::Completed { Exit::Done } else { Exit::EndedOtherwise },
            ),
            End::TimedOut(status) => {
                (Some(status.map_or("not seen".to_owned(), |status| status.to_string())), Exit::TimedOut)
            }
            End::Lost(reason) => {
                progress.beside(|| remark(format_args!("error: {key}: {reason}")));
                (None, Exit::Failed)
            }
        };
        if let Some(status) = status {
            progress.beside(|| print(format_args!("{key} {}\n", Printable(&status))))?;
        }
        exit = graver(exit, outcome);
    }
    Ok(exit)
}

/// The exit status that tells more: a job that could not be followed before time that ran out before another end.
fn graver(one: Exit, other: Exit) -> Exit {
    let order = [Exit::Failed, Exit::TimedOut, Exit::EndedOtherwise];
    order.into_iter().find(|exit| [one, other].contains(exit)).unwrap_or(Exit::Done)
}

/// Follows one job to its end.
async fn follow(mut poller: Poller, key: &JobKey, line: &Line, clock: Clock, deadline: Option<Monotonic>) -> End {
    loop {
        let time_is_up = async {
            match deadline {
                Some(deadline) => clock.sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            done = poller.poll() => done,
            () = time_is_up => return End::TimedOut(poller.known().map(|known| known.status.clone())),
        };
        if let Some(answer) = done {
            match (answer.failure, poller.known()) {
                (Some(failure), known) if is_final(&failure, known.is_some()) => return End::Lost(failure.message),
                (Some(failure), _) => line.trouble(key, &failure),
                (None, Some(known)) => line.seen(key, known, answer.change.transition.is_some()),
                (None, None) => {}
            }
        }
        match poller.next() {
            Next::PollAt(_) => {}
            Next::Finished(status) => return End::Job(status.clone()),
            Next::Parked(reason) => return End::Lost(reason.clone()),
        }
    }
}

/// Whether more patience would not help. Nobody watches a pipeline that waits for a typing mistake; and what worked once may
/// work again.
fn is_final(failure: &PollFailure, was_seen: bool) -> bool {
    let class = failure.reason.class();
    let unknown = failure.reason == FailureReason::NotFound || class.retry == RetryClass::Park;
    unknown || (class.needs_operator && !was_seen)
}

/// Shows how things stand: lines redrawn in place on a terminal, a line for each change elsewhere.
struct Progress(Option<MultiProgress>);

struct Line(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(MultiProgress::new))
    }

    /// Prints beside the lines that are redrawn.
    fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(all) => all.suspend(print),
            None => print(),
        }
    }

    fn line(&self, key: &JobKey) -> Line {
        Line(self.0.as_ref().map(|all| {
            let style = ProgressStyle::with_template("{elapsed:>5} {spinner} {wide_msg}");
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
