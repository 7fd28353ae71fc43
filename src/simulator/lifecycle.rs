//! Generates the timelines of simulated jobs from a seed.
//!
//! Pure: a timeline is a list of steps. The state of a job is the last step at or before its age. Nothing here reads a clock, so
//! tests know the whole timeline of a job in advance.

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::kinds::Messages;

/// The status of a job. The names are the API's.
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

/// The status of one item. The names are the API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ItemStatus {
    NotStarted,
    InProgress,
    Finished,
    Failed,
}

/// How a job ends, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Outcome {
    Completed,
    CompletedWithFailures,
    Failed,
    Cancelled,
    /// It stays in a status before its end for ever.
    Stuck,
}

/// The statuses of a job from its creation on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timeline {
    pub(super) outcome: Outcome,
    /// Ordered by age. The first step has age zero.
    steps: Vec<Step>,
}

/// The state of a job from an age until the next step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// In whole milliseconds, the precision of a timestamp of the API.
    pub(super) age: Duration,
    pub(super) status: JobStatus,
    pub(super) message: Option<&'static str>,
    pub(super) items: Vec<ItemState>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ItemState {
    pub(super) status: ItemStatus,
    pub(super) message: Option<&'static str>,
}

/// The outcomes of eight jobs of one kind that end, repeated for more jobs. Half of them are the terminal statuses, and most jobs complete.
const OUTCOME_CYCLE: [Outcome; 8] = [
    Outcome::Completed,
    Outcome::CompletedWithFailures,
    Outcome::Failed,
    Outcome::Cancelled,
    Outcome::Completed,
    Outcome::Completed,
    Outcome::Completed,
    Outcome::Completed,
];

const NOT_STARTED: ItemState = ItemState { status: ItemStatus::NotStarted, message: None };
const IN_PROGRESS: ItemState = ItemState { status: ItemStatus::InProgress, message: None };
const FINISHED: ItemState = ItemState { status: ItemStatus::Finished, message: None };

/// The outcomes of `ending` jobs that end and `stuck` jobs that do not. The jobs have `kinds` kinds in turn. The outcomes of each kind are
/// shuffled and begin with another terminal status: few jobs of several kinds reach each status too.
pub(super) fn assign_outcomes(kinds: usize, ending: usize, stuck: usize, rng: &mut Rng) -> Vec<Outcome> {
    let jobs = ending + stuck;
    let of_kind = |kind: usize| {
        let mut cycle = OUTCOME_CYCLE;
        cycle[..4].rotate_left(kind % 4);
        let numbers = (kind..jobs).step_by(kinds).zip(cycle.into_iter().cycle());
        let mut outcomes: Vec<_> =
            numbers.map(|(job, outcome)| if job < ending { outcome } else { Outcome::Stuck }).collect();
        rng.shuffle(&mut outcomes);
        outcomes.into_iter()
    };
    let mut by_kind: Vec<_> = (0..kinds).map(of_kind).collect();
    (0..jobs).filter_map(|job| by_kind[job % kinds].next()).collect()
}

impl Timeline {
    /// Generates the timeline of a job that ends after `duration`. `COMPLETED_WITH_FAILURES` requires at least two `items`.
    pub(super) fn generate(
        outcome: Outcome,
        items: u8,
        duration: Duration,
        messages: &'static Messages,
        rng: &mut Rng,
    ) -> Self {
        let duration = whole_millis(duration);
        let begun = fraction(duration, 0.1..0.3, rng);
        let (ends, end, message) = match outcome {
            Outcome::Completed | Outcome::Cancelled | Outcome::Stuck => {
                (vec![FINISHED; usize::from(items)], JobStatus::Completed, None)
            }
            Outcome::CompletedWithFailures => {
                let ends = partly_failed_ends(items, messages, rng);
                (ends, JobStatus::CompletedWithFailures, Some(messages.job_partly_failed))
            }
            Outcome::Failed => {
                let ends = (0..items).map(|_| failed(messages, rng)).collect();
                (ends, JobStatus::Failed, Some(messages.job_failed))
            }
        };
        let mut steps = uncancelled_steps(begun, duration, &ends, end, message);
        match outcome {
            Outcome::Completed | Outcome::CompletedWithFailures | Outcome::Failed => {}
            Outcome::Cancelled => cancel(&mut steps, fraction(duration, 0.1..0.8, rng), duration, messages),
            Outcome::Stuck => {
                let stuck = fraction(duration, 0.1..0.95, rng);
                if rng.bool() {
                    cancel(&mut steps, stuck, duration, messages);
                    steps.pop();
                } else {
                    steps.retain(|step| step.age <= stuck);
                }
            }
        }
        Self { outcome, steps }
    }

    pub(super) fn at(&self, age: Duration) -> &Step {
        step_at(&self.steps, age)
    }

    /// The first step and the steps that change the job's status.
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

/// The steps of a job without cancellation. Items are processed one after another from `begun` to `ended`.
fn uncancelled_steps(
    begun: Duration,
    ended: Duration,
    ends: &[ItemState],
    end: JobStatus,
    message: Option<&'static str>,
) -> Vec<Step> {
    let mut items = vec![NOT_STARTED; ends.len()];
    let step = |age, status, items: &[ItemState]| Step { age, status, message: None, items: items.to_vec() };
    let mut steps = vec![step(Duration::ZERO, JobStatus::Submitted, &items)];
    let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    let each = whole_millis(ended.saturating_sub(begun) / count);
    let mut age = begun;
    for (nth, end) in ends.iter().enumerate() {
        items[nth] = IN_PROGRESS;
        steps.push(step(age, JobStatus::InProgress, &items));
        items[nth] = *end;
        age += each;
    }
    steps.push(Step { age: ended, status: end, message, items });
    steps
}

/// Replaces the end of a job: CANCELLING at `from`, CANCELLED at `to`.
fn cancel(steps: &mut Vec<Step>, from: Duration, to: Duration, messages: &'static Messages) {
    let cancelled = ItemState { status: ItemStatus::Failed, message: Some(messages.item_cancelled) };
    let mut items = step_at(steps, from).items.clone();
    steps.retain(|step| step.age < from || step.status == JobStatus::Submitted);
    steps.push(Step { age: from, status: JobStatus::Cancelling, message: None, items: items.clone() });
    for item in &mut items {
        if item.status == ItemStatus::InProgress {
            *item = cancelled;
        }
    }
    steps.push(Step { age: to, status: JobStatus::Cancelled, message: None, items });
}

/// The last step at or before `age`. The first step has age zero, so there is always one.
fn step_at(steps: &[Step], age: Duration) -> &Step {
    &steps[steps.partition_point(|step| step.age <= age).saturating_sub(1)]
}

/// At least one end is FINISHED and at least one is FAILED.
fn partly_failed_ends(items: u8, messages: &'static Messages, rng: &mut Rng) -> Vec<ItemState> {
    let failures = rng.u8(1..items.max(2));
    let mut ends: Vec<ItemState> =
        (0..items).map(|nth| if nth < failures { failed(messages, rng) } else { FINISHED }).collect();
    rng.shuffle(&mut ends);
    ends
}

fn failed(messages: &'static Messages, rng: &mut Rng) -> ItemState {
    ItemState { status: ItemStatus::Failed, message: rng.choice(messages.item_failures) }
}

fn fraction(duration: Duration, of: std::ops::Range<f64>, rng: &mut Rng) -> Duration {
    whole_millis(duration.mul_f64(of.start + (of.end - of.start) * rng.f64()))
}

/// Truncates to milliseconds, the precision of a timestamp of the API.
pub(super) fn whole_millis(duration: Duration) -> Duration {
    Duration::new(duration.as_secs(), duration.subsec_millis() * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::kinds::Kind;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    const DURATION: Duration = Duration::from_mins(2);

    fn timelines(jobs: usize, stuck: usize, seed: u64) -> Vec<Timeline> {
        let mut rng = Rng::with_seed(seed);
        let outcomes = assign_outcomes(1, jobs, stuck, &mut rng);
        let messages = &Kind::ReadSetImport.api().messages;
        let timeline = |outcome| Timeline::generate(outcome, rng.u8(2..=6), DURATION, messages, &mut rng);
        outcomes.into_iter().map(timeline).collect()
    }

    /// True if the statuses of the items are possible with the status of the job.
    fn items_fit(step: &Step) -> bool {
        let statuses: BTreeSet<ItemStatus> = step.items.iter().map(|item| item.status).collect();
        let only = |allowed: &[ItemStatus]| statuses.iter().all(|status| allowed.contains(status));
        let has = |status| statuses.contains(&status);
        match step.status {
            JobStatus::Submitted => only(&[ItemStatus::NotStarted]),
            JobStatus::InProgress => has(ItemStatus::InProgress),
            JobStatus::Cancelling => true,
            JobStatus::Cancelled => !has(ItemStatus::InProgress),
            JobStatus::Failed => only(&[ItemStatus::Failed]),
            JobStatus::Completed => only(&[ItemStatus::Finished]),
            JobStatus::CompletedWithFailures => {
                only(&[ItemStatus::Finished, ItemStatus::Failed])
                    && has(ItemStatus::Finished)
                    && has(ItemStatus::Failed)
            }
        }
    }

    proptest! {
        #[test]
        fn eight_jobs_contain_every_status_of_jobs_and_items(seed: u64, more in 0_usize..20) {
            let timelines = timelines(8 + more, 0, seed);
            let steps = || timelines.iter().flat_map(|timeline| &timeline.steps);
            let statuses: BTreeSet<JobStatus> = steps().map(|step| step.status).collect();
            prop_assert_eq!(statuses.len(), 7, "{:?}", statuses);
            let items: BTreeSet<_> = steps().flat_map(|step| &step.items).map(|item| item.status).collect();
            prop_assert_eq!(items.len(), 4, "{:?}", items);
        }

        #[test]
        fn the_statuses_of_jobs_and_items_never_go_back(seed: u64) {
            for timeline in timelines(8, 4, seed) {
                for step in &timeline.steps {
                    prop_assert!(items_fit(step), "{:?}", step);
                    prop_assert_eq!(step.age.subsec_nanos() % 1_000_000, 0);
                    let messages = step.items.iter().filter_map(|item| item.message).chain(step.message);
                    for message in messages {
                        prop_assert!((1..=127).contains(&message.chars().count()), "{:?}", message);
                    }
                }
                for pair in timeline.steps.windows(2) {
                    let ([before, after], known) = ([&pair[0], &pair[1]], pair[0].items.len());
                    prop_assert!(before.age < after.age && before.status <= after.status, "{:?}", pair);
                    prop_assert!(!before.status.is_terminal() && after.items.len() == known);
                    for (before, after) in before.items.iter().zip(&after.items) {
                        let ended = before.status >= ItemStatus::Finished;
                        prop_assert!(before.status <= after.status && (!ended || before == after));
                    }
                }
            }
        }

        #[test]
        fn every_job_ends_on_time_with_its_kind_except_for_stuck_jobs(seed: u64) {
            for timeline in timelines(8, 4, seed) {
                let last = timeline.at(Duration::MAX);
                let end = match timeline.outcome {
                    Outcome::Completed => Some(JobStatus::Completed),
                    Outcome::CompletedWithFailures => Some(JobStatus::CompletedWithFailures),
                    Outcome::Failed => Some(JobStatus::Failed),
                    Outcome::Cancelled => Some(JobStatus::Cancelled),
                    Outcome::Stuck => None,
                };
                match end {
                    Some(end) => prop_assert_eq!((last.status, last.age), (end, DURATION)),
                    None => prop_assert!(!last.status.is_terminal()),
                }
                prop_assert_eq!(timeline.at(Duration::ZERO).status, JobStatus::Submitted);
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_timelines_and_another_seed_gives_others() {
        assert_eq!(timelines(8, 2, 7), timelines(8, 2, 7));
        assert_ne!(timelines(8, 2, 7), timelines(8, 2, 8));
    }

    #[test]
    fn a_cancelled_job_passes_through_cancelling() {
        let timelines = timelines(8, 0, 1);
        let cancelled = timelines
            .iter()
            .find(|timeline| timeline.outcome == Outcome::Cancelled)
            .expect("one in eight is cancelled");
        let path: Vec<JobStatus> = cancelled.transitions().map(|step| step.status).collect();
        assert!(path.ends_with(&[JobStatus::Cancelling, JobStatus::Cancelled]), "{path:?}");
    }
}
