//! The jobs that the simulated service knows: ids, names, sources and lives, all drawn from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use jiff::SignedDuration;

use super::Options;
use super::lifecycle::{self, Kind, Life};

/// Where a simulated job is found, and a name for a watch list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedJob {
    /// A name that no other job of the simulator has.
    pub name: String,
    /// Its reference store.
    pub reference_store_id: String,
    /// Its id.
    pub id: String,
}

/// A job and everything that will ever be true of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    pub(super) place: SimulatedJob,
    /// When the job is created, counted from the simulator's start, in whole milliseconds; those that are there at the start were
    /// created before.
    pub(super) created: SignedDuration,
    pub(super) sources: Vec<Source>,
    pub(super) life: Life,
}

impl Job {
    /// How old the job is at `now`, counted from the simulator's start; `None` before it is created.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        Duration::try_from(SignedDuration::try_from(now).ok()? - self.created).ok()
    }
}

/// What the requester said of one source, and the id of the reference that it becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) file: String,
    pub(super) description: Option<&'static str>,
    pub(super) tags: Vec<(&'static str, &'static str)>,
    pub(super) reference_id: String,
}

/// Sources of one job; the API allows 100.
const SOURCES_MAX: u8 = 6;

/// A job may be this part of its length old when the simulator starts: created before, but still SUBMITTED, since that
/// takes longer.
const AGE_AT_START_MAX: f64 = 0.05;

/// Jobs that are created after the simulator's start: all are drawn at once. A hundred an hour last for four days.
pub(super) const ARRIVALS_MAX: u32 = 10_000;

/// Genome assemblies that people import: name, organism, file.
const REFERENCES: [(&str, &str, &str); 12] = [
    ("GRCh38", "Homo sapiens", "GRCh38.primary_assembly.genome.fa.gz"),
    ("T2T-CHM13v2.0", "Homo sapiens", "chm13v2.0.fa.gz"),
    ("GRCm39", "Mus musculus", "GRCm39.primary_assembly.genome.fa.gz"),
    ("GRCh37", "Homo sapiens", "human_g1k_v37.fasta.gz"),
    ("mRatBN7.2", "Rattus norvegicus", "mRatBN7.2.dna.toplevel.fa.gz"),
    ("GRCz11", "Danio rerio", "GRCz11.dna.primary_assembly.fa.gz"),
    ("BDGP6.46", "Drosophila melanogaster", "BDGP6.46.dna.toplevel.fa.gz"),
    ("WBcel235", "Caenorhabditis elegans", "WBcel235.dna.toplevel.fa.gz"),
    ("TAIR10", "Arabidopsis thaliana", "TAIR10.dna.toplevel.fa.gz"),
    ("R64-1-1", "Saccharomyces cerevisiae", "R64-1-1.dna.toplevel.fa.gz"),
    ("ARS-UCD1.3", "Bos taurus", "ARS-UCD1.3.dna.toplevel.fa.gz"),
    ("Sscrofa11.1", "Sus scrofa", "Sscrofa11.1.dna.toplevel.fa.gz"),
];

/// Ids of ten digits, none twice.
struct Ids {
    rng: Rng,
    drawn: BTreeSet<u64>,
}

impl Ids {
    fn draw(&mut self) -> String {
        loop {
            let id = self.rng.u64(1_000_000_000..10_000_000_000);
            if self.drawn.insert(id) {
                return id.to_string();
            }
        }
    }
}

/// Draws every job, ordered by store and id.
pub(super) fn draw(options: &Options) -> Vec<Job> {
    let mut rng = Rng::with_seed(options.seed);
    let mut ids = Ids { rng: rng.fork(), drawn: BTreeSet::new() };
    let stores: Vec<String> = (0..options.stores.max(1)).map(|_| ids.draw()).collect();
    let kinds = lifecycle::deal(options.jobs as usize, options.stuck as usize, &mut rng);
    let lengths = lengths(options, &mut rng);
    let mut draw = Draw { stores, ids, rng, jobs: Vec::with_capacity(kinds.len()) };
    for (kind, length) in kinds.into_iter().zip(lengths) {
        draw.job(kind, length, |rng| {
            -SignedDuration::try_from(length.mul_f64(AGE_AT_START_MAX * rng.f64())).unwrap_or_default()
        });
    }
    draw.arrivals(options);
    let Draw { mut jobs, .. } = draw;
    let place = |job: &Job| (job.place.reference_store_id.clone(), job.place.id.clone());
    jobs.sort_by_cached_key(place);
    jobs
}

/// The jobs drawn so far, and what draws the next.
struct Draw {
    stores: Vec<String>,
    ids: Ids,
    rng: Rng,
    jobs: Vec<Job>,
}

impl Draw {
    fn job(&mut self, kind: Kind, length: Duration, created: impl FnOnce(&mut Rng) -> SignedDuration) {
        let Self { stores, ids, rng, jobs } = self;
        let nth = jobs.len();
        let sources = draw_sources(nth, kind, ids, rng);
        let (name, round) = (sources[0].name, nth / REFERENCES.len());
        jobs.push(Job {
            place: SimulatedJob {
                name: if round == 0 { name.to_owned() } else { format!("{name} ({})", round + 1) },
                reference_store_id: stores[nth % stores.len()].clone(),
                id: ids.draw(),
            },
            created: SignedDuration::from_millis(created(rng).as_millis().try_into().unwrap_or(0)),
            life: Life::draw(kind, u8::try_from(sources.len()).unwrap_or(u8::MAX), length, rng),
            sources,
        });
    }

    /// The jobs to come: one in each span of time, somewhere in it.
    fn arrivals(&mut self, options: &Options) {
        if options.arrivals_per_minute <= 0.0 {
            return;
        }
        for (nth, kind) in (0..ARRIVALS_MAX).zip(lifecycle::deal(ARRIVALS_MAX as usize, 0, &mut self.rng)) {
            let length = length(options, self.rng.f64());
            let spans = |rng: &mut Rng| f64::from(nth) + rng.f64();
            self.job(kind, length, |rng| {
                SignedDuration::from_secs_f64(60.0 / options.arrivals_per_minute * spans(rng))
            });
        }
    }
}

/// The length of a job that is `part` of the way, from 0 to 1, from the shortest to the longest.
fn length(options: &Options, part: f64) -> Duration {
    options.mean.mul_f64(0.25 + 1.5 * part)
}

/// One length for each job, evenly spread so that the ends do not come together.
fn lengths(options: &Options, rng: &mut Rng) -> Vec<Duration> {
    let count = options.jobs.saturating_add(options.stuck);
    let slot = |nth| length(options, (f64::from(nth) + 0.5) / f64::from(count));
    let mut lengths: Vec<Duration> = (0..count).map(slot).collect();
    rng.shuffle(&mut lengths);
    lengths
}

/// The sources of the `nth` job. Jobs begin with different references, so that they can be named after the first one; in
/// some jobs the first two sources are alike, which the API allows.
fn draw_sources(nth: usize, kind: Kind, ids: &mut Ids, rng: &mut Rng) -> Vec<Source> {
    let least = if kind == Kind::CompletedWithFailures { 2 } else { 1 };
    let count = usize::from(rng.u8(least..=SOURCES_MAX));
    let alike = rng.u8(0..4) == 0;
    let reference = |place: usize| if alike && place == 1 { nth } else { nth + place };
    (0..count).map(|place| source(reference(place), ids)).collect()
}

/// A source for the `nth` reference. Only the status of a source is required by the API, so some lack what others have.
fn source(nth: usize, ids: &mut Ids) -> Source {
    let (name, organism, file) = REFERENCES[nth % REFERENCES.len()];
    Source {
        name,
        file: format!("s3://example-reference-genomes/{name}/{file}"),
        description: (!nth.is_multiple_of(5)).then_some(organism),
        tags: if nth.is_multiple_of(3) { vec![("organism", organism), ("assembly", name)] } else { Vec::new() },
        reference_id: ids.draw(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_jobs_with_names_and_ids_of_their_own() {
        let options = Options { jobs: 150, stuck: 5, stores: 3, seed: 4, ..Options::default() };
        let jobs = draw(&options);
        assert_eq!(jobs, draw(&options));
        assert_ne!(jobs, draw(&Options { seed: 5, ..options }));
        let unique = |of: fn(&Job) -> &str| jobs.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(unique(|job| &job.place.name), 155);
        assert_eq!(unique(|job| &job.place.id), 155);
        assert_eq!(unique(|job| &job.place.reference_store_id), 3);
    }

    #[test]
    fn jobs_take_from_a_quarter_of_the_mean_to_one_and_three_quarters_and_the_mean_on_average() {
        let mean = Duration::from_mins(1);
        for jobs in [1, 2, 200] {
            let mut lengths = lengths(&Options { jobs, mean, ..Options::default() }, &mut Rng::with_seed(1));
            lengths.sort();
            assert!(lengths[0] >= mean / 4 && lengths[lengths.len() - 1] <= mean * 7 / 4, "{lengths:?}");
            let average = lengths.iter().sum::<Duration>() / jobs;
            assert!(average.abs_diff(mean) < Duration::from_millis(1), "{average:?}");
            let apart = mean.mul_f64(1.5 / f64::from(jobs));
            let even = |pair: &[Duration]| pair[1].abs_diff(pair[0]).abs_diff(apart) < Duration::from_millis(1);
            assert!(lengths.windows(2).all(even), "{lengths:?}");
        }
    }

    #[test]
    fn some_jobs_have_sources_alike_and_every_job_is_young_at_the_start() {
        let jobs = draw(&Options { jobs: 50, ..Options::default() });
        let alike = |job: &&Job| job.sources.len() > 1 && job.sources[0].file == job.sources[1].file;
        assert!(jobs.iter().any(|job| alike(&job)) && !jobs.iter().all(|job| alike(&job)));
        for job in &jobs {
            let age = job.age(Duration::ZERO).expect("it is there");
            assert_eq!(job.life.at(age), job.life.at(Duration::ZERO));
        }
    }

    #[test]
    fn jobs_to_come_change_none_of_those_that_are_there_and_are_not_created_in_the_order_of_their_ids() {
        let options = Options { jobs: 20, ..Options::default() };
        let jobs = draw(&Options { arrivals_per_minute: 6.0, ..options.clone() });
        let (there, mut to_come): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| !job.created.is_positive());
        assert_eq!(there, draw(&options));
        assert_eq!(to_come.len(), ARRIVALS_MAX as usize);
        assert!(!to_come.is_sorted_by_key(|job| job.created));
        to_come.sort_by_key(|job| job.created);
        for (nth, job) in (0..).zip(&to_come) {
            let second = job.created.as_secs();
            assert!((10 * nth..10 * (nth + 1)).contains(&second), "the {nth}th at {second} s");
        }
        let created = Duration::try_from(to_come[7].created).expect("after the start");
        assert_eq!(to_come[7].age(created), Some(Duration::ZERO));
        assert_eq!(to_come[7].age(created.saturating_sub(Duration::from_millis(1))), None);
    }
}
