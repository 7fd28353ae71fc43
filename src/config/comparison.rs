//! Compares the entries of all files with one another: what stands twice, what names a target that there is not.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::TargetConfig;
use super::check::Part;
use super::file::{Job, Spanned, Store, Table};
use super::key::nearest;
use super::problem::Problem;
use super::source::Source;
use super::value::{Interval, TargetName, Text, WatchName, Written};
use super::watch_list::StoreEntry;

/// A piece of a file. Its line is counted only where a problem names it.
type Piece<'a> = (&'a Source, Range<usize>);

/// What the files said so far.
pub(super) struct Comparison<'a> {
    min_interval: Duration,
    keep: Duration,
    targets: BTreeMap<&'a str, Piece<'a>>,
    /// By target, store and, where it is no store as a whole, job.
    watches: BTreeMap<(&'a str, &'a str, Option<&'a str>), Piece<'a>>,
    names: BTreeMap<String, Piece<'a>>,
    /// Jobs with the index of their file, and where their store and their own id are written.
    jobs: Vec<(usize, &'a Job, Piece<'a>)>,
    /// How many entries are about a store, and the first of them.
    stores: BTreeMap<&'a str, (usize, Piece<'a>)>,
    /// Each with the index of its file.
    pub found: Vec<(usize, Problem)>,
}

/// What a job and a store have in common.
struct Watch<'a> {
    store: &'a str,
    job: Option<&'a str>,
    /// Where the entry says which job or store it is about.
    span: Range<usize>,
    name: Option<&'a Spanned<Text<WatchName>>>,
    target: Option<&'a Spanned<Text<TargetName>>>,
    interval: Option<&'a Spanned<Text<Interval>>>,
}

impl<'a> Comparison<'a> {
    /// `keep` is how long the record keeps a job.
    pub(super) fn new(min_interval: Duration, keep: Duration) -> Self {
        let (targets, watches, names) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (jobs, stores, found) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { min_interval, keep, targets, watches, names, jobs, stores, found }
    }

    pub(super) fn add_targets(&mut self, index: usize, part: &'a Part) {
        let source = &part.source;
        for (name, Table(target)) in &part.targets {
            let Text(text) = name.get_ref();
            if let Some((first, span)) = self.targets.get(text.0.as_str()) {
                let problem = Problem::new(source.place(name.span()), "this target is defined twice");
                self.found.push((index, problem.related("first defined here", first.place(span.clone()))));
            } else {
                self.targets.insert(&text.0, (source, name.span()));
            }
            if let (Some(id), None) = (&target.external_id, &target.role_arn) {
                let problem =
                    Problem::new(source.place(id.span()), "an external id is for a role: `role_arn` is missing");
                self.found.push((index, problem));
            }
        }
    }

    pub(super) fn add_watches(&mut self, index: usize, part: &'a Part) {
        let jobs = part.jobs.iter().map(|Table(job)| Watch {
            store: job.reference_store_id.get_ref().0.as_str(),
            job: Some(job.id.get_ref().0.as_str()),
            span: job.id.span(),
            name: job.name.as_ref(),
            target: job.target.as_ref(),
            interval: job.interval.as_ref(),
        });
        let stores = part.stores.iter().map(|Table(store)| Watch {
            store: store.reference_store_id.get_ref().0.as_str(),
            job: None,
            span: store.reference_store_id.span(),
            name: store.name.as_ref(),
            target: store.target.as_ref(),
            interval: store.interval.as_ref(),
        });
        let mut watches: Vec<Watch> = jobs.chain(stores).collect();
        // In the order of the file, so that of two alike the first one is that.
        watches.sort_by_key(|watch| watch.span.start);
        for watch in watches {
            let problems = self.problems(&part.source, &watch);
            self.found.extend(problems.into_iter().map(|problem| (index, problem)));
        }
        for Table(job) in &part.jobs {
            let first = || (0, (&part.source, job.reference_store_id.span()));
            self.stores.entry(job.reference_store_id.get_ref().0.as_str()).or_insert_with(first).0 += 1;
            self.jobs.push((index, job, (&part.source, job.id.span())));
        }
        for Table(store) in &part.stores {
            let first = || (0, (&part.source, store.reference_store_id.span()));
            self.stores.entry(store.reference_store_id.get_ref().0.as_str()).or_insert_with(first).0 += 1;
            let problems = longer_than_kept(self.keep, &part.source, store);
            self.found.extend(problems.map(|problem| (index, problem)));
        }
    }

    /// Looks for jobs whose id is that of a store, once every file was added: ids are long and drawn at random, so that is no chance.
    pub(super) fn find_swapped_ids(&mut self) {
        for (index, job, (source, span)) in &self.jobs {
            let (store, id) = (job.reference_store_id.get_ref().0.as_str(), job.id.get_ref().0.as_str());
            let Some((entries, (first, place))) = self.stores.get(id) else { continue };
            let problem = Problem::new(source.place(span.clone()), "this is the id of a reference store, not of a job");
            let problem = if store == id {
                problem.help("the job's own id is in the answer of StartReferenceImportJob".to_owned())
            } else if *entries < self.stores.get(store).map_or(0, |(entries, _)| *entries) {
                // It is the other entry that has them the wrong way round.
                continue;
            } else {
                problem.help("are `reference_store_id` and `id` swapped?".to_owned())
            };
            self.found.push((*index, problem.related("the store is named here", first.place(place.clone()))));
        }
    }

    fn problems(&mut self, source: &'a Source, watch: &Watch<'a>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let &Watch { store, job, .. } = watch;
        let target = watch.target.map_or(TargetConfig::DEFAULT, |target| &target.get_ref().0.0);
        if let Some(written) = watch.target
            && target != TargetConfig::DEFAULT
            && !self.targets.contains_key(target)
        {
            let near = nearest(target, self.targets.keys().copied().chain([TargetConfig::DEFAULT]));
            let help = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("define it: [target.{target}]"),
            };
            let problem = Problem::new(source.place(written.span()), &format!("there is no target \"{target}\""));
            problems.push(problem.help(help));
        }
        if let Some(interval) = watch.interval
            && let Some(message) = too_short(interval, self.min_interval)
        {
            problems.push(Problem::new(source.place(interval.span()), &message));
        }
        if let Some((first, span)) = self.watches.get(&(target, store, job)) {
            let what = if job.is_some() { "job" } else { "store" };
            let problem =
                Problem::new(source.place(watch.span.clone()), &format!("this {what} is in the watch list twice"));
            problems.push(problem.related("first named here", first.place(span.clone())));
            return problems;
        }
        self.watches.insert((target, store, job), (source, watch.span.clone()));
        let default_name = || job.map_or_else(|| store.to_owned(), |job| format!("{store}/{job}"));
        let name = watch.name.map_or_else(default_name, |name| name.get_ref().0.0.clone());
        let span = watch.name.map_or_else(|| watch.span.clone(), Spanned::span);
        if let Some((first, span_of_first)) = self.names.get(&name) {
            let problem = Problem::new(source.place(span), &format!("two watches have the name \"{name}\""));
            let help = "give one of them another `name`";
            problems.push(problem.help(help.to_owned()).related("the first one", first.place(span_of_first.clone())));
        } else {
            self.names.insert(name, (source, span));
        }
        problems
    }
}

/// What would bring jobs back that the record no longer has: as if nobody had seen them before.
fn longer_than_kept(keep: Duration, source: &Source, store: &Store) -> impl Iterator<Item = Problem> {
    let since = store.since.as_ref().map(|since| (since.span(), since.get_ref().0.0));
    let forget_after = store.forget_after.as_ref().map(|after| (after.span(), after.get_ref().0.0));
    let keys = [("since", since, StoreEntry::SINCE), ("forget_after", forget_after, StoreEntry::FORGET_AFTER)];
    keys.into_iter().filter_map(move |(key, written, default)| {
        let unless_set = if written.is_some() { "" } else { " unless set" };
        let (span, length) = written.unwrap_or_else(|| (store.reference_store_id.span(), default));
        let (longer, length, keep) = (length > keep, Written(length), Written(keep));
        let message = format!("{key}, {length}{unless_set}, must not be longer than keep in [record], {keep}");
        let help = format!("set `{key}` here to \"{keep}\" or less, or `keep` to \"{length}\" or more");
        longer.then(|| Problem::new(source.place(span), &message).help(help))
    })
}

/// What is wrong with a fixed interval, if anything.
pub(super) fn too_short(interval: &Spanned<Text<Interval>>, min_interval: Duration) -> Option<String> {
    let Text(Interval(fixed)) = interval.get_ref();
    let min = Written(min_interval);
    fixed.filter(|fixed| *fixed < min_interval).map(|_| format!("this is shorter than min_interval in [poll], {min}"))
}
