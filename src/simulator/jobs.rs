//! Generates the simulated jobs from a seed: ids, names, items and timelines.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use jiff::SignedDuration;

use super::Options;
use super::items::{self, Ids, SimulatedItem};
use super::kinds::Kind;
use super::lifecycle::{self, Outcome, Timeline};

/// The ids of a simulated job, and a name for a watch list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedJob {
    /// Unique in the simulator.
    pub name: String,
    pub kind: Kind,
    pub store_id: String,
    pub id: String,
}

/// A job and its whole timeline.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    pub(super) identity: SimulatedJob,
    /// Relative to the simulator's start, in whole milliseconds. Initial jobs have a negative value or zero.
    pub(super) created: SignedDuration,
    pub(super) items: Vec<SimulatedItem>,
    pub(super) timeline: Timeline,
}

impl Job {
    /// The age of the job at `now`, the time since the simulator's start. `None` before the job's creation.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        Duration::try_from(SignedDuration::try_from(now).ok()? - self.created).ok()
    }
}

/// The largest age of a job at the simulator's start, as a fraction of its duration. It is still SUBMITTED then.
const AGE_AT_START_MAX: f64 = 0.05;

/// Jobs created after the simulator's start. All are generated in advance; at 100 jobs per hour they last four days.
pub(super) const ARRIVALS_MAX: u32 = 10_000;

/// Generates every job, ordered by store, kind and id.
pub(super) fn generate(options: &Options) -> Vec<Job> {
    let mut rng = Rng::with_seed(options.seed);
    let mut ids = Ids::new(rng.fork());
    let mut stores: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for kind in &options.kinds {
        let new = || (0..options.stores.max(1)).map(|_| ids.next()).collect();
        stores.entry(kind.api().store_path).or_insert_with(new);
    }
    let outcomes =
        lifecycle::assign_outcomes(options.kinds.len(), options.jobs as usize, options.stuck as usize, &mut rng);
    let durations = durations(options, &mut rng);
    let kinds = &options.kinds;
    let mut generator = JobGenerator { kinds, stores, ids, rng, jobs: Vec::with_capacity(outcomes.len()) };
    for (outcome, duration) in outcomes.into_iter().zip(durations) {
        generator.job(outcome, duration, |rng| {
            -SignedDuration::try_from(duration.mul_f64(AGE_AT_START_MAX * rng.f64())).unwrap_or_default()
        });
    }
    generator.arrivals(options);
    let JobGenerator { mut jobs, .. } = generator;
    let key = |job: &Job| (job.identity.store_id.clone(), job.identity.kind, job.identity.id.clone());
    jobs.sort_by_cached_key(key);
    jobs
}

struct JobGenerator<'a> {
    kinds: &'a [Kind],
    /// The ids of the stores by type.
    stores: BTreeMap<&'a str, Vec<String>>,
    ids: Ids,
    rng: Rng,
    jobs: Vec<Job>,
}

impl JobGenerator<'_> {
    fn job(&mut self, outcome: Outcome, duration: Duration, created: impl FnOnce(&mut Rng) -> SignedDuration) {
        let Self { kinds, stores, ids, rng, jobs } = self;
        let kind = kinds[jobs.len() % kinds.len()];
        let nth_of_kind = jobs.len() / kinds.len();
        let stores = &stores[kind.api().store_path];
        let items = items::generate(kind, nth_of_kind, outcome, ids, rng);
        let item_count = u8::try_from(items.len()).unwrap_or(u8::MAX);
        jobs.push(Job {
            identity: SimulatedJob {
                name: items::job_name(kind, nth_of_kind),
                kind,
                store_id: stores[nth_of_kind % stores.len()].clone(),
                id: ids.next(),
            },
            created: SignedDuration::from_millis(created(rng).as_millis().try_into().unwrap_or(0)),
            timeline: Timeline::generate(outcome, item_count, duration, &kind.api().messages, rng),
            items,
        });
    }

    /// Adds the future jobs: one at a random time in each interval.
    fn arrivals(&mut self, options: &Options) {
        if options.arrivals_per_minute <= 0.0 {
            return;
        }
        let outcomes = lifecycle::assign_outcomes(self.kinds.len(), ARRIVALS_MAX as usize, 0, &mut self.rng);
        for (nth, outcome) in (0..ARRIVALS_MAX).zip(outcomes) {
            let duration = duration(options, self.rng.f64());
            let spans = |rng: &mut Rng| f64::from(nth) + rng.f64();
            self.job(outcome, duration, |rng| {
                SignedDuration::from_secs_f64(60.0 / options.arrivals_per_minute * spans(rng))
            });
        }
    }
}

/// The shortest duration for `position` 0, the longest for 1.
fn duration(options: &Options, position: f64) -> Duration {
    options.mean.mul_f64(0.25 + 1.5 * position)
}

/// One duration per job, evenly spaced so that jobs end at different times.
fn durations(options: &Options, rng: &mut Rng) -> Vec<Duration> {
    let count = options.jobs.saturating_add(options.stuck);
    let slot = |nth| duration(options, (f64::from(nth) + 0.5) / f64::from(count));
    let mut durations: Vec<Duration> = (0..count).map(slot).collect();
    rng.shuffle(&mut durations);
    durations
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_jobs_with_unique_names_and_ids() {
        let options = Options { jobs: 150, stuck: 5, stores: 3, seed: 4, ..Options::default() };
        let jobs = generate(&options);
        assert_eq!(jobs, generate(&options));
        assert_ne!(jobs, generate(&Options { seed: 5, ..options }));
        let unique = |of: fn(&Job) -> &str| jobs.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(unique(|job| &job.identity.name), 155);
        assert_eq!(unique(|job| &job.identity.id), 155);
        assert_eq!(unique(|job| &job.identity.store_id), 3);
    }

    #[test]
    fn every_kind_has_jobs_in_stores_of_its_type() {
        let options = Options { jobs: 12, stores: 2, kinds: Kind::ALL.to_vec(), ..Options::default() };
        let jobs = generate(&options);
        let mut stores: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for kind in Kind::ALL {
            let of_kind = || jobs.iter().filter(move |job| job.identity.kind == kind);
            assert_eq!(of_kind().count(), 3, "{kind:?}");
            let ids = of_kind().map(|job| job.identity.store_id.as_str());
            stores.entry(kind.api().store_path).or_default().extend(ids);
        }
        assert!(stores["referencestore"].is_disjoint(&stores["sequencestore"]), "{stores:?}");
        assert_eq!((stores["referencestore"].len(), stores["sequencestore"].len()), (2, 2));
    }

    #[test]
    fn durations_are_a_quarter_to_seven_quarters_of_the_mean_and_the_mean_on_average() {
        let mean = Duration::from_mins(1);
        for jobs in [1, 2, 200] {
            let mut durations = durations(&Options { jobs, mean, ..Options::default() }, &mut Rng::with_seed(1));
            durations.sort();
            assert!(durations[0] >= mean / 4 && durations[durations.len() - 1] <= mean * 7 / 4, "{durations:?}");
            let average = durations.iter().sum::<Duration>() / jobs;
            assert!(average.abs_diff(mean) < Duration::from_millis(1), "{average:?}");
            let apart = mean.mul_f64(1.5 / f64::from(jobs));
            let even = |pair: &[Duration]| pair[1].abs_diff(pair[0]).abs_diff(apart) < Duration::from_millis(1);
            assert!(durations.windows(2).all(even), "{durations:?}");
        }
    }

    #[test]
    fn some_jobs_have_equal_items_and_every_job_has_its_first_status_at_the_start() {
        let jobs = generate(&Options { jobs: 50, ..Options::default() });
        let equal = |job: &&Job| job.items.len() > 1 && job.items[0].requested == job.items[1].requested;
        assert!(jobs.iter().any(|job| equal(&job)) && !jobs.iter().all(|job| equal(&job)));
        for job in &jobs {
            let age = job.age(Duration::ZERO).expect("it is there");
            assert_eq!(job.timeline.at(age), job.timeline.at(Duration::ZERO));
        }
    }

    #[test]
    fn future_jobs_do_not_change_the_initial_jobs_and_are_not_created_in_the_order_of_their_ids() {
        let options = Options { jobs: 20, ..Options::default() };
        let jobs = generate(&Options { arrivals_per_minute: 6.0, ..options.clone() });
        let (initial, mut future): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| !job.created.is_positive());
        assert_eq!(initial, generate(&options));
        assert_eq!(future.len(), ARRIVALS_MAX as usize);
        assert!(!future.is_sorted_by_key(|job| job.created));
        future.sort_by_key(|job| job.created);
        for (nth, job) in (0..).zip(&future) {
            let second = job.created.as_secs();
            assert!((10 * nth..10 * (nth + 1)).contains(&second), "the {nth}th at {second} s");
        }
        let created = Duration::try_from(future[7].created).expect("after the start");
        assert_eq!(future[7].age(created), Some(Duration::ZERO));
        assert_eq!(future[7].age(created.saturating_sub(Duration::from_millis(1))), None);
    }
}
