//! Checks the entries of all files against one another: duplicates, undefined targets, limits that depend on other tables.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::diagnostics::{Location, Problem};
use super::duration_text::DurationText;
use super::raw::{ConfigFile, Job, Store};
use super::resolve::too_short;
use super::suggest::nearest;
use super::watch_list::StoreEntry;
use super::{Config, TargetConfig};
use crate::core::job::{ImportJobId, ReferenceStoreId};

/// A part of a file, by the file's index.
type Place = (usize, Range<usize>);

/// A `[[job]]`, or a `[[store]]` if `job` is `None`.
struct Watch<'a> {
    file: usize,
    store: &'a Spanned<ReferenceStoreId>,
    job: Option<&'a Spanned<ImportJobId>>,
    name: &'a Option<Spanned<String>>,
    target: &'a Option<Spanned<String>>,
    interval: &'a Option<Spanned<Option<Duration>>>,
}

/// Repeats the checks until the files without a problem need no entry of a file with one.
pub(super) fn cross_check(files: &mut [ConfigFile], settings: &Config) {
    let mut includes_bad_files = true;
    loop {
        let is_checked = |file: &ConfigFile| includes_bad_files || file.problems.is_empty();
        let mut order: Vec<usize> = (0..files.len()).filter(|&index| is_checked(&files[index])).collect();
        // A duplicate is reported in the later file, or in the one that is left out anyway.
        order.sort_by_key(|&index| index != 0 && !files[index].problems.is_empty());
        let mut checker = Checker { files, found: Vec::new(), targets: BTreeMap::new() };
        for &index in &order {
            checker.check_targets(index);
            checker.check_limits(index, settings.database.retention);
        }
        let watches: Vec<Watch<'_>> = order.iter().flat_map(|&index| watches(index, &files[index])).collect();
        checker.check_watches(&watches, settings.poll.min_interval);
        checker.check_swapped_ids(&watches);
        let found = checker.found;
        if found.is_empty() && !includes_bad_files {
            return;
        }
        for (index, problem) in found {
            files[index].problems.push(problem);
        }
        if !files[0].problems.is_empty() {
            return;
        }
        includes_bad_files = false;
    }
}

/// The watches of one file in the order in which they are written.
fn watches(file: usize, ConfigFile { tables, .. }: &ConfigFile) -> Vec<Watch<'_>> {
    let jobs = tables.job.iter().flatten().filter_map(|Job { name, reference_store_id, id, target, interval }| {
        let (store, job) = (reference_store_id.as_ref()?, Some(id.as_ref()?));
        Some(Watch { file, store, job, name, target, interval })
    });
    let stores =
        tables.store.iter().flatten().filter_map(|Store { name, reference_store_id, target, interval, .. }| {
            let store = reference_store_id.as_ref()?;
            Some(Watch { file, store, job: None, name, target, interval })
        });
    let mut watches: Vec<Watch<'_>> = jobs.chain(stores).collect();
    watches.sort_by_key(|watch| watch.place().1.start);
    watches
}

impl Watch<'_> {
    /// The place of its own id.
    fn place(&self) -> Place {
        (self.file, self.job.map_or_else(|| self.store.span(), Spanned::span))
    }

    fn target(&self) -> &str {
        self.target.as_ref().map_or(TargetConfig::DEFAULT, |target| target.get_ref())
    }

    fn ids(&self) -> (&str, Option<&str>) {
        (self.store.get_ref().as_str(), self.job.map(|job| job.get_ref().as_str()))
    }

    fn name(&self) -> (String, Place) {
        match (self.name, self.ids()) {
            (Some(name), _) => (name.get_ref().clone(), (self.file, name.span())),
            (None, (store, Some(job))) => (format!("{store}/{job}"), self.place()),
            (None, (store, None)) => (store.to_owned(), self.place()),
        }
    }
}

struct Checker<'a> {
    files: &'a [ConfigFile],
    /// Each with the index of its file.
    found: Vec<(usize, Problem)>,
    targets: BTreeMap<&'a str, Place>,
}

impl Checker<'_> {
    fn location(&self, (file, span): Place) -> Location {
        Location::new(&self.files[file].source, span)
    }

    fn report(&mut self, place: Place, message: &str, help: Option<&str>) {
        self.found.push((place.0, Problem::new(self.location(place), message, help.map(str::to_owned))));
    }

    fn report_pair(&mut self, place: Place, other: Place, message: &str, help: &str) {
        let (file, other) = (place.0, self.location(other));
        let problem = Problem::new(self.location(place), message, Some(help.to_owned()));
        self.found.push((file, problem.related(other)));
    }

    fn check_targets(&mut self, file: usize) {
        let files = self.files;
        for (name, target) in &files[file].tables.target {
            let place = (file, name.span());
            if let Some(other) = self.targets.insert(name.get_ref(), place.clone()) {
                let help = "remove one of them, or give it another name";
                self.report_pair(place, other, "this target is defined twice", help);
            }
            if let (Some(id), None) = (&target.external_id, &target.role_arn) {
                self.report((file, id.span()), "`external_id` needs `role_arn`", None);
            }
        }
    }

    fn check_watches(&mut self, watches: &[Watch<'_>], min_interval: Duration) {
        let (mut seen, mut names) = (BTreeMap::new(), BTreeMap::new());
        for watch in watches {
            self.check_target(watch);
            if let Some((span, message)) = too_short(watch.interval.as_ref(), min_interval) {
                self.report((watch.file, span), &message, None);
            }
            if let Some(other) = seen.insert((watch.target(), watch.ids()), watch.place()) {
                let kind = if watch.job.is_some() { "job" } else { "store" };
                let message = format!("this {kind} is in the watch list twice");
                self.report_pair(watch.place(), other, &message, "remove one of them");
                continue;
            }
            let (name, place) = watch.name();
            if let Some(other) = names.insert(name.clone(), place.clone()) {
                let message = format!("two watches have the name \"{name}\"");
                self.report_pair(place, other, &message, "give one of them another `name`");
            }
        }
    }

    fn check_target(&mut self, watch: &Watch<'_>) {
        let Some(written) = watch.target else { return };
        let target = watch.target();
        if target == TargetConfig::DEFAULT || self.targets.contains_key(target) {
            return;
        }
        let help = match nearest(target, self.targets.keys().copied().chain([TargetConfig::DEFAULT])) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("define it: [target.{target}]"),
        };
        self.report((watch.file, written.span()), &format!("there is no target \"{target}\""), Some(&help));
    }

    /// A job that the database no longer has would count as new if it were still listed.
    fn check_limits(&mut self, index: usize, retention: Duration) {
        for store in self.files[index].tables.store.iter().flatten() {
            let Some(id) = &store.reference_store_id else { continue };
            for (key, written, default) in [
                ("created_within", &store.created_within, StoreEntry::CREATED_WITHIN),
                ("remove_after", &store.remove_after, StoreEntry::REMOVE_AFTER),
            ] {
                let (length, span) = written.as_ref().map_or((default, id.span()), |it| (*it.get_ref(), it.span()));
                if length > retention {
                    let (length, retention) = (DurationText(length), DurationText(retention));
                    let message =
                        format!("`{key}`, {length}, must not be longer than `retention` in [database], {retention}");
                    self.report((index, span), &message, None);
                }
            }
        }
    }

    /// Looks for jobs that have the id of a store. Ids are long and random, so equal ones are a mistake.
    fn check_swapped_ids(&mut self, watches: &[Watch<'_>]) {
        let mut stores: BTreeMap<&str, (usize, Place)> = BTreeMap::new();
        for watch in watches {
            stores.entry(watch.ids().0).or_insert_with(|| (0, (watch.file, watch.store.span()))).0 += 1;
        }
        for watch in watches {
            let (store, Some(job)) = watch.ids() else { continue };
            let Some((count, other)) = stores.get(job) else { continue };
            // The other entry has its ids swapped.
            if store != job && *count < stores.get(store).map_or(0, |(count, _)| *count) {
                continue;
            }
            let message = "this is the id of a reference store, not of a job";
            self.report_pair(watch.place(), other.clone(), message, "are `reference_store_id` and `id` swapped?");
        }
    }
}
