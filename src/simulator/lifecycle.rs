//! The lives of simulated import jobs, drawn from a seed.
//!
//! Pure: a life is a list of steps, and its state at an age is the last step reached. Nothing here reads a clock, so the
//! whole truth about a job is known before its first request.

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// The status of an import job, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum JobStatus {
    Submitted,
    InProgress,
    Cancelling,
    Cancelled,
    Failed,
    Completed,
    CompletedWithFailures,
}

/// The status of one source, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum SourceStatus {
    NotStarted,
    InProgress,
    Finished,
    Failed,
}

/// How a job ends, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Kind {
    Completed,
    CompletedWithFailures,
    Failed,
    Cancelled,
    /// It stops on its way and never ends.
    Stuck,
}

/// A job from its creation on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Life {
    pub(super) kind: Kind,
    /// Ordered by age; the first one stands at age zero.
    steps: Vec<Step>,
}

/// What the service says of a job from one age to the next step's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// The age of the job when the step is reached, in whole milliseconds: what a timestamp of the API can tell.
    pub(super) age: Duration,
    pub(super) status: JobStatus,
    pub(super) message: Option<&'static str>,
    pub(super) sources: Vec<SourceState>,
}

/// What the service says of one source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SourceState {
    pub(super) status: SourceStatus,
    pub(super) message: Option<&'static str>,
}

/// The kinds of every eight jobs that end, the commoner ones first where there are fewer: every terminal status comes up,
/// most jobs complete.
const HAND: [Kind; 8] = [
    Kind::Completed,
    Kind::CompletedWithFailures,
    Kind::Failed,
    Kind::Cancelled,
    Kind::Completed,
    Kind::Completed,
    Kind::Completed,
    Kind::Completed,
];

/// Why a source fails, as the service might put it; at most 127 characters.
const SOURCE_FAILURES: [&str; 4] = [
    "The source file is not a valid FASTA file: sequence 'chrM' has no bases",
    "The service role is not allowed to read the source file: s3:GetObject was denied",
    "The source file was not found",
    "The reference’s MD5 checksum differs from that of an existing reference of the same name",
];

const NOT_STARTED: SourceState = SourceState { status: SourceStatus::NotStarted, message: None };
const IN_PROGRESS: SourceState = SourceState { status: SourceStatus::InProgress, message: None };
const FINISHED: SourceState = SourceState { status: SourceStatus::Finished, message: None };
const CANCELLED: SourceState = SourceState {
    status: SourceStatus::Failed,
    message: Some("The import job was cancelled before this source was imported"),
};

/// Deals out the kinds of `ending` jobs that end and `stuck` ones that do not, in an order drawn from `rng`.
pub(super) fn deal(ending: usize, stuck: usize, rng: &mut Rng) -> Vec<Kind> {
    let ending = HAND.into_iter().cycle().take(ending);
    let mut kinds: Vec<Kind> = ending.chain(std::iter::repeat_n(Kind::Stuck, stuck)).collect();
    rng.shuffle(&mut kinds);
    kinds
}

impl Life {
    /// Draws the life of a job with `sources` sources that ends after `length`. `COMPLETED_WITH_FAILURES` takes at least two
    /// sources.
    pub(super) fn draw(kind: Kind, sources: u8, length: Duration, rng: &mut Rng) -> Self {
        let length = whole_millis(length);
        let begun = part(length, 0.1..0.3, rng);
        let (ends, end, message) = match kind {
            Kind::Completed | Kind::Cancelled | Kind::Stuck => {
                (vec![FINISHED; usize::from(sources)], JobStatus::Completed, None)
            }
            Kind::CompletedWithFailures => {
                let message = "At least one source was not imported; see the sources’ messages";
                (some_failed(sources, rng), JobStatus::CompletedWithFailures, Some(message))
            }
            Kind::Failed => {
                let ends = (0..sources).map(|_| failed(rng)).collect();
                (ends, JobStatus::Failed, Some("No source was imported; see the sources’ messages"))
            }
        };
        let mut steps = import(begun, length, &ends, end, message);
        match kind {
            Kind::Completed | Kind::CompletedWithFailures | Kind::Failed => {}
            Kind::Cancelled => cancel(&mut steps, part(length, 0.1..0.8, rng), length),
            Kind::Stuck => {
                let stuck = part(length, 0.1..0.95, rng);
                if rng.bool() {
                    cancel(&mut steps, stuck, length);
                    steps.pop();
                } else {
                    steps.retain(|step| step.age <= stuck);
                }
            }
        }
        Self { kind, steps }
    }

    /// The state at `age`.
    pub(super) fn at(&self, age: Duration) -> &Step {
        reached(&self.steps, age)
    }

    /// The steps at which the job's status changes, the first one included.
    pub(super) fn transitions(&self) -> impl Iterator<Item = &Step> {
        let mut before = None;
        self.steps.iter().filter(move |step| before.replace(step.status) != Some(step.status))
    }
}

impl JobStatus {
    pub(super) fn is_terminal(self) -> bool {
        match self {
            Self::Submitted | Self::InProgress | Self::Cancelling => false,
            Self::Cancelled | Self::Failed | Self::Completed | Self::CompletedWithFailures => true,
        }
    }
}

/// The steps of an import that is not disturbed: one source after another from `begun` to `ended`.
fn import(
    begun: Duration,
    ended: Duration,
    ends: &[SourceState],
    end: JobStatus,
    message: Option<&'static str>,
) -> Vec<Step> {
    let mut sources = vec![NOT_STARTED; ends.len()];
    let step = |age, status, sources: &[SourceState]| Step { age, status, message: None, sources: sources.to_vec() };
    let mut steps = vec![step(Duration::ZERO, JobStatus::Submitted, &sources)];
    let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    let each = whole_millis(ended.saturating_sub(begun) / count);
    let mut age = begun;
    for (nth, end) in ends.iter().enumerate() {
        sources[nth] = IN_PROGRESS;
        steps.push(step(age, JobStatus::InProgress, &sources));
        sources[nth] = *end;
        age += each;
    }
    steps.push(Step { age: ended, status: end, message, sources });
    steps
}

/// Cuts an import short: CANCELLING at `from`, CANCELLED at `to`.
fn cancel(steps: &mut Vec<Step>, from: Duration, to: Duration) {
    let mut sources = reached(steps, from).sources.clone();
    steps.retain(|step| step.age < from || step.status == JobStatus::Submitted);
    steps.push(Step { age: from, status: JobStatus::Cancelling, message: None, sources: sources.clone() });
    for source in &mut sources {
        if source.status == SourceStatus::InProgress {
            *source = CANCELLED;
        }
    }
    steps.push(Step { age: to, status: JobStatus::Cancelled, message: None, sources });
}

/// The last step reached at `age`. The first step stands at zero, so there is one.
fn reached(steps: &[Step], age: Duration) -> &Step {
    &steps[steps.partition_point(|step| step.age <= age).saturating_sub(1)]
}

/// Ends of which at least one is FINISHED and at least one FAILED.
fn some_failed(sources: u8, rng: &mut Rng) -> Vec<SourceState> {
    let failures = rng.u8(1..sources.max(2));
    let mut ends: Vec<SourceState> =
        (0..sources).map(|nth| if nth < failures { failed(rng) } else { FINISHED }).collect();
    rng.shuffle(&mut ends);
    ends
}

fn failed(rng: &mut Rng) -> SourceState {
    SourceState { status: SourceStatus::Failed, message: rng.choice(SOURCE_FAILURES) }
}

fn part(length: Duration, of: std::ops::Range<f64>, rng: &mut Rng) -> Duration {
    whole_millis(length.mul_f64(of.start + (of.end - of.start) * rng.f64()))
}

/// Cut to what a timestamp of the API can tell.
pub(super) fn whole_millis(duration: Duration) -> Duration {
    Duration::new(duration.as_secs(), duration.subsec_millis() * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    const LENGTH: Duration = Duration::from_mins(2);

    fn lives(jobs: usize, stuck: usize, seed: u64) -> Vec<Life> {
        let mut rng = Rng::with_seed(seed);
        let kinds = deal(jobs, stuck, &mut rng);
        kinds.into_iter().map(|kind| Life::draw(kind, rng.u8(2..=6), LENGTH, &mut rng)).collect()
    }

    /// What the status of a job allows its sources to be.
    fn sources_fit(step: &Step) -> bool {
        let statuses: BTreeSet<SourceStatus> = step.sources.iter().map(|source| source.status).collect();
        let only = |allowed: &[SourceStatus]| statuses.iter().all(|status| allowed.contains(status));
        let has = |status| statuses.contains(&status);
        match step.status {
            JobStatus::Submitted => only(&[SourceStatus::NotStarted]),
            JobStatus::InProgress => has(SourceStatus::InProgress),
            JobStatus::Cancelling => true,
            JobStatus::Cancelled => !has(SourceStatus::InProgress),
            JobStatus::Failed => only(&[SourceStatus::Failed]),
            JobStatus::Completed => only(&[SourceStatus::Finished]),
            JobStatus::CompletedWithFailures => {
                only(&[SourceStatus::Finished, SourceStatus::Failed])
                    && has(SourceStatus::Finished)
                    && has(SourceStatus::Failed)
            }
        }
    }

    proptest! {
        #[test]
        fn eight_jobs_are_enough_to_see_every_end_and_every_source_status(seed: u64, more in 0_usize..20) {
            let lives = lives(8 + more, 0, seed);
            let steps = || lives.iter().flat_map(|life| &life.steps);
            let statuses: BTreeSet<JobStatus> = steps().map(|step| step.status).collect();
            prop_assert_eq!(statuses.len(), 7, "{:?}", statuses);
            let sources: BTreeSet<_> = steps().flat_map(|step| &step.sources).map(|source| source.status).collect();
            prop_assert_eq!(sources.len(), 4, "{:?}", sources);
        }

        #[test]
        fn a_life_goes_forward_and_its_sources_go_with_it(seed: u64) {
            for life in lives(8, 4, seed) {
                for step in &life.steps {
                    prop_assert!(sources_fit(step), "{:?}", step);
                    prop_assert_eq!(step.age.subsec_nanos() % 1_000_000, 0);
                    let messages = step.sources.iter().filter_map(|source| source.message).chain(step.message);
                    for message in messages {
                        prop_assert!((1..=127).contains(&message.chars().count()), "{:?}", message);
                    }
                }
                for pair in life.steps.windows(2) {
                    let ([before, after], known) = ([&pair[0], &pair[1]], pair[0].sources.len());
                    prop_assert!(before.age < after.age && before.status <= after.status, "{:?}", pair);
                    prop_assert!(!before.status.is_terminal() && after.sources.len() == known);
                    for (before, after) in before.sources.iter().zip(&after.sources) {
                        let ended = before.status >= SourceStatus::Finished;
                        prop_assert!(before.status <= after.status && (!ended || before == after));
                    }
                }
            }
        }

        #[test]
        fn every_life_ends_on_time_in_its_own_way_but_for_the_stuck_ones(seed: u64) {
            for life in lives(8, 4, seed) {
                let last = life.at(Duration::MAX);
                let end = match life.kind {
                    Kind::Completed => Some(JobStatus::Completed),
                    Kind::CompletedWithFailures => Some(JobStatus::CompletedWithFailures),
                    Kind::Failed => Some(JobStatus::Failed),
                    Kind::Cancelled => Some(JobStatus::Cancelled),
                    Kind::Stuck => None,
                };
                match end {
                    Some(end) => prop_assert_eq!((last.status, last.age), (end, LENGTH)),
                    None => prop_assert!(!last.status.is_terminal()),
                }
                prop_assert_eq!(life.at(Duration::ZERO).status, JobStatus::Submitted);
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_lives_and_another_seed_gives_others() {
        assert_eq!(lives(8, 2, 7), lives(8, 2, 7));
        assert_ne!(lives(8, 2, 7), lives(8, 2, 8));
    }

    #[test]
    fn a_cancelled_job_passes_through_cancelling() {
        let lives = lives(8, 0, 1);
        let cancelled = lives.iter().find(|life| life.kind == Kind::Cancelled).expect("one in eight is cancelled");
        let path: Vec<JobStatus> = cancelled.transitions().map(|step| step.status).collect();
        assert!(path.ends_with(&[JobStatus::Cancelling, JobStatus::Cancelled]), "{path:?}");
    }
}
