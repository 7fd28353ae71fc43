//! Checks that depend on several keys, entries or files: duplicates, undefined targets, kinds that are missing or not those of the store,
//! swapped ids, and durations limited by another table.
//!
//! A conflict between two files is reported only in the later file, so that the earlier file is still used. The order of files is: the main
//! file, the files without a problem, the files with a problem.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::diagnostics::{Location, Problem};
use super::duration_text::DurationText;
use super::raw::{JobTable, ParsedFile, StoreTable};
use super::resolve::interval_error;
use super::suggest::nearest;
use super::watch_list::StoreSettings;
use super::{Config, TargetConfig};
use crate::core::job::{JobId, StoreId};
use crate::core::kind::{JobKind, StoreType};

/// The index of a file and a byte range in it.
type FileSpan = (usize, Range<usize>);

/// A `[[job]]`, or a `[[store]]` if `job_id` is `None`.
struct Watch<'a> {
    file: usize,
    store_id: &'a Spanned<StoreId>,
    /// The kind of the job, or the kinds of the store.
    kinds: BTreeSet<JobKind>,
    job_id: Option<&'a Spanned<JobId>>,
    name: &'a Option<Spanned<String>>,
    target: &'a Option<Spanned<String>>,
    /// The outer `None`: the key is absent. The inner `None`: "auto".
    interval: &'a Option<Spanned<Option<Duration>>>,
}

/// Adds the problems to the files. A file with a problem will be left out, and an entry of another file may lose its target by that. So the
/// files are checked in rounds. The first round checks all files. Each later round checks only the files that still have no problem. The
/// last round finds no new problem. A round first checks every entry by itself, and then all entries for conflicts. File 0 is the main
/// file: a problem in it rejects the configuration and ends the checks.
pub(super) fn cross_check(files: &mut [ParsedFile], settings: &Config) {
    // Without the main file's targets and settings, the other files would get false errors.
    if !files[0].is_syntax_valid {
        return;
    }
    let mut remaining: Vec<usize> = (0..files.len()).collect();
    loop {
        let mut checker = Checker { files, problems: Vec::new() };
        checker.check_entries(&remaining, settings);
        add_problems(files, checker.problems);
        // A conflict is reported at the later file. Files with a problem come last, so that they add no problem to another file. They are
        // removed after this round. The main file stays first.
        remaining.sort_by_key(|&index| index != 0 && !files[index].problems.is_empty());
        let mut checker = Checker { files, problems: Vec::new() };
        checker.check_conflicts(&remaining);
        add_problems(files, checker.problems);
        let count_before = remaining.len();
        remaining.retain(|&index| files[index].problems.is_empty());
        if remaining.len() == count_before || !files[0].problems.is_empty() {
            return;
        }
    }
}

fn add_problems(files: &mut [ParsedFile], problems: Vec<(usize, Problem)>) {
    for (index, problem) in problems {
        files[index].problems.push(problem);
    }
}

/// Returns the jobs and stores of a file in the order of the file.
fn watches(file: usize, ParsedFile { root, .. }: &ParsedFile) -> Vec<Watch<'_>> {
    let jobs = root.job.iter().flatten().filter_map(|raw| {
        let JobTable { name, kind, id, target, interval, .. } = raw;
        let (store_id, job_id) = (raw.store_id_and_type()?.0, Some(id.as_ref()?));
        let kinds = [kind.as_ref().map_or(JobKind::ReferenceImport, |kind| *kind.get_ref())].into();
        Some(Watch { file, store_id, kinds, job_id, name, target, interval })
    });
    let stores = root.store.iter().flatten().filter_map(|raw| {
        let StoreTable { name, kinds, target, interval, .. } = raw;
        let (store_id, store_type) = raw.store_id_and_type()?;
        let kinds = match kinds {
            Some(kinds) => kinds.iter().flatten().map(|kind| *kind.get_ref()).collect(),
            None => JobKind::of_store(store_type).collect(),
        };
        Some(Watch { file, store_id, kinds, job_id: None, name, target, interval })
    });
    let mut entries: Vec<Watch<'_>> = jobs.chain(stores).collect();
    entries.sort_by_key(|entry| entry.id_span().1.start);
    entries
}

impl Watch<'_> {
    /// The place of the job's id, or of the store's id if the entry is a store.
    fn id_span(&self) -> FileSpan {
        (self.file, self.job_id.map_or_else(|| self.store_id.span(), Spanned::span))
    }

    fn target_or_default(&self) -> &str {
        self.target.as_ref().map_or(TargetConfig::DEFAULT, |target| target.get_ref())
    }

    /// The ids of store and job.
    fn ids(&self) -> (&str, Option<&str>) {
        (self.store_id.get_ref().as_str(), self.job_id.map(|id| id.get_ref().as_str()))
    }

    /// Returns the name, or the default name with the span of the id.
    fn name_or_default(&self) -> (String, FileSpan) {
        match (self.name, self.ids()) {
            (Some(name), _) => (name.get_ref().clone(), (self.file, name.span())),
            (None, (store, Some(job))) if self.kinds.contains(&JobKind::ReferenceImport) => {
                (format!("{store}/{job}"), self.id_span())
            }
            (None, (store, Some(job))) => {
                let kind = self.kinds.first().map(|kind| kind.as_str()).unwrap_or_default();
                (format!("{kind}/{store}/{job}"), self.id_span())
            }
            (None, (store, None)) => (store.to_owned(), self.id_span()),
        }
    }
}

struct Checker<'a> {
    files: &'a [ParsedFile],
    /// Each with the index of its file.
    problems: Vec<(usize, Problem)>,
}

impl Checker<'_> {
    /// Runs the checks that concern one entry. They need the other files only to see which targets exist.
    fn check_entries(&mut self, remaining: &[usize], settings: &Config) {
        let files = self.files;
        let targets: BTreeSet<&str> = remaining
            .iter()
            .flat_map(|&file| &files[file].root.target)
            .map(|(name, _)| name.get_ref().as_str())
            .collect();
        for &file in remaining {
            self.check_external_ids(file);
            self.check_stores_and_kinds(file);
            self.check_against_retention(file, settings.database.retention);
            for entry in watches(file, &files[file]) {
                self.check_target_exists(&entry, &targets);
                if let Some((span, message)) = interval_error(entry.interval.as_ref(), settings.poll.min_interval) {
                    self.report((file, span), &message, None);
                }
            }
        }
    }

    /// Checks for targets, entries and names that exist twice, and for swapped ids.
    fn check_conflicts(&mut self, remaining: &[usize]) {
        let files = self.files;
        self.check_target_names(remaining);
        let entries: Vec<Watch<'_>> = remaining.iter().flat_map(|&file| watches(file, &files[file])).collect();
        self.check_duplicates(&entries);
        self.check_swapped_ids(&entries);
    }

    fn location(&self, (file, span): FileSpan) -> Location {
        Location::new(&self.files[file].source, span)
    }

    fn report(&mut self, span: FileSpan, message: &str, help: Option<&str>) {
        self.problems.push((span.0, Problem::new(self.location(span), message, help.map(str::to_owned))));
    }

    fn report_conflict(&mut self, span: FileSpan, other: FileSpan, message: &str, help: &str) {
        let (file, other) = (span.0, self.location(other));
        let problem = Problem::new(self.location(span), message, Some(help.to_owned()));
        self.problems.push((file, problem.with_other(other)));
    }

    fn check_external_ids(&mut self, file: usize) {
        let files = self.files;
        for (_, target) in &files[file].root.target {
            // An invalid `role_arn` reads as absent and is reported already, so this is reported only if the file has no other problem.
            if let (Some(id), None) = (&target.external_id, &target.role_arn)
                && files[file].problems.is_empty()
            {
                self.report((file, id.span()), "`external_id` needs `role_arn`", None);
            }
        }
    }

    fn check_target_exists(&mut self, entry: &Watch<'_>, targets: &BTreeSet<&str>) {
        let target = entry.target_or_default();
        if targets.contains(target) {
            return;
        }
        let defines_it = |file: &&ParsedFile| file.root.target.iter().any(|(name, _)| name.get_ref() == target);
        // If a file defines the target although `targets` lacks it, an earlier round has removed that file.
        let defining_file = self.files.iter().find(defines_it);
        // Without a definition, entries use the built-in target `default`. If a file that was left out defines `default`, entries of other
        // files must not use the built-in target instead.
        if target == TargetConfig::DEFAULT && defining_file.is_none() {
            return;
        }
        let help = if let Some(file) = defining_file {
            format!("correct the errors in {}, which defines it", file.source.path.display())
        } else if let Some(file) = self.files.iter().find(|file| !file.is_syntax_valid) {
            format!("correct the syntax of {}, which may define it", file.source.path.display())
        } else if let Some(near) = nearest(target, targets.iter().copied().chain([TargetConfig::DEFAULT])) {
            format!("did you mean \"{near}\"?")
        } else {
            format!("define it: [target.{target}]")
        };
        let span = entry.target.as_ref().map_or_else(|| entry.id_span(), |target| (entry.file, target.span()));
        self.report(span, &format!("there is no target \"{target}\""), Some(&help));
    }

    fn check_target_names(&mut self, remaining: &[usize]) {
        let files = self.files;
        let mut names: BTreeMap<&str, FileSpan> = BTreeMap::new();
        for &file in remaining {
            for (name, _) in &files[file].root.target {
                let span = (file, name.span());
                if let Some(other) = names.insert(name.get_ref(), span.clone()) {
                    self.report_conflict(span, other, "this target is defined twice", "remove or rename one of them");
                }
            }
        }
    }

    fn check_duplicates(&mut self, entries: &[Watch<'_>]) {
        let (mut ids, mut names) = (BTreeMap::new(), BTreeMap::new());
        for entry in entries {
            let mut other = None;
            for kind in &entry.kinds {
                let id = (*kind, entry.target_or_default(), entry.ids());
                // If several kinds conflict, the message names one of the earlier entries.
                other = ids.insert(id, entry.id_span()).or(other);
            }
            if let Some(other) = other {
                let noun = if entry.job_id.is_some() { "job" } else { "store" };
                let message = format!("this {noun} is in the watch list twice");
                self.report_conflict(entry.id_span(), other, &message, "remove one of them");
                continue;
            }
            let (name, span) = entry.name_or_default();
            if let Some(other) = names.insert(name.clone(), span.clone()) {
                let message = format!("two watches have the name \"{name}\"");
                self.report_conflict(span, other, &message, "give one of them another `name`");
            }
        }
    }

    /// Reports entries with two stores, and kinds that are missing or do not belong to the store.
    fn check_stores_and_kinds(&mut self, file: usize) {
        let files = self.files;
        for job in files[file].root.job.iter().flatten() {
            self.check_only_one_store(file, job.reference_store_id.as_ref(), job.sequence_store_id.as_ref());
            let Some((id, store_type)) = job.store_id_and_type() else { continue };
            // An invalid kind reads as absent and is reported already, so a missing kind is reported only if the file has no other problem.
            if job.kind.is_none() && store_type == StoreType::Sequence && files[file].problems.is_empty() {
                let help = format!("set `kind` to one of {}", kind_names(store_type));
                self.report((file, id.span()), "the key `kind` is missing", Some(&help));
            }
            self.check_kind(file, job.kind.as_ref(), store_type);
        }
        for entry in files[file].root.store.iter().flatten() {
            self.check_only_one_store(file, entry.reference_store_id.as_ref(), entry.sequence_store_id.as_ref());
            let Some((id, store_type)) = entry.store_id_and_type() else { continue };
            // `List` keeps only the spans of its elements, so an empty array is reported at the id.
            if entry.kinds.as_ref().is_some_and(Vec::is_empty) {
                let help = format!("remove it, or name one of {}", kind_names(store_type));
                self.report((file, id.span()), "`kinds` of this store names no kind", Some(&help));
            }
            for kind in entry.kinds.iter().flatten() {
                self.check_kind(file, kind.as_ref(), store_type);
            }
        }
    }

    fn check_only_one_store<T>(&mut self, file: usize, reference: Option<&Spanned<T>>, sequence: Option<&Spanned<T>>) {
        if let (Some(_), Some(sequence)) = (reference, sequence) {
            let help = "write one entry for each store";
            self.report((file, sequence.span()), "the entry also has a `reference_store_id`", Some(help));
        }
    }

    fn check_kind(&mut self, file: usize, kind: Option<&Spanned<JobKind>>, store: StoreType) {
        if let Some(kind) = kind.filter(|kind| kind.get_ref().info().store != store) {
            let message = format!("a {} has no jobs of the kind {}", store.noun(), kind.get_ref());
            let store_key_for_kind = kind.get_ref().info().store.id_key();
            let help = format!("write `{store_key_for_kind}`, or one of {}", kind_names(store));
            self.report((file, kind.span()), &message, Some(&help));
        }
    }

    /// Reports durations of stores that are longer than `retention`, after which the rows of an ended job are deleted. With a longer
    /// `created_within`, refwatch would discover an ended job again after a restart, because its rows are deleted. The rows of a job that
    /// is still shown are not deleted, so a longer `remove_after` would keep them beyond `retention`.
    fn check_against_retention(&mut self, file: usize, retention: Duration) {
        for store in self.files[file].root.store.iter().flatten() {
            let Some((id, _)) = store.store_id_and_type() else { continue };
            for (key, raw, default) in [
                ("created_within", &store.created_within, StoreSettings::CREATED_WITHIN_DEFAULT),
                ("remove_after", &store.remove_after, StoreSettings::REMOVE_AFTER_DEFAULT),
            ] {
                let (length, span) = raw.as_ref().map_or((default, id.span()), |raw| (*raw.get_ref(), raw.span()));
                if length > retention {
                    let (length, retention) = (DurationText(length), DurationText(retention));
                    let message =
                        format!("`{key}`, {length}, must not be longer than `retention` in [database], {retention}");
                    self.report((file, span), &message, None);
                }
            }
        }
    }

    /// Reports a `[[job]]` entry (store S, job J) if an entry has J as its store. An id has at least 10 digits, so J is not by chance both
    /// a store and a job: one of the entries has its ids swapped. The entry is correct, and not reported, if S is more likely than J to be
    /// a store. Let first(X) be the first entry with X as its store. S is more likely a store in these cases:
    /// 1. first(S) and first(J) are in different files, and first(S) comes first.
    /// 2. first(S) and first(J) are in one file, and more entries of that file use S than J as their store.
    /// 3. As 2, but with equal numbers: first(S) comes first, and the mirrored entry (store J, job S) exists. That entry is then reported.
    ///    Without it nothing else would be reported.
    fn check_swapped_ids(&mut self, entries: &[Watch<'_>]) {
        // For each store, the index of its first entry, and the number of its entries in that entry's file.
        let mut stores: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let (first, count) = stores.entry(entry.ids().0).or_insert((index, 0));
            *count += usize::from(entries[*first].file == entry.file);
        }
        for entry in entries {
            let (store, Some(job)) = entry.ids() else { continue };
            let Some(&(j_first, j_count)) = stores.get(job) else { continue };
            let (s_first, s_count) = stores[store];
            let other = &entries[j_first];
            let is_mutual = || entries.iter().any(|candidate| candidate.ids() == (job, Some(store)));
            let s_is_the_store = if entries[s_first].file == other.file {
                s_count > j_count || (s_count == j_count && s_first < j_first && is_mutual())
            } else {
                s_first < j_first
            };
            if s_is_the_store {
                continue;
            }
            let message = "this is the id of a store, not of a job";
            let help = "are the ids of store and job swapped?";
            self.report_conflict(entry.id_span(), (other.file, other.store_id.span()), message, help);
        }
    }
}

fn kind_names(store: StoreType) -> String {
    let names: Vec<String> = JobKind::of_store(store).map(|kind| format!("\"{kind}\"")).collect();
    names.join(", ")
}
