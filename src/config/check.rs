//! From files to a [`Config`]: reads them, compares what they say with one another, and tells every problem at once.

use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Config;
use super::comparison::{Comparison, too_short};
use super::effective;
use super::file::{IncludedFile, Job, MainFile, Spanned, Store, Table, Targets};
use super::parse::{PROBLEMS_MAX, Parsed, parse};
use super::problem::{Place, Problem, Problems};
use super::source::{Source, matching_files};
use super::value::{IncludePattern, Text, Written};

/// Included files: with the size of each, this bounds what a configuration can cost.
const INCLUDED_FILES_MAX: usize = 1000;

/// What is included where the file does not say: whoever starts an import can drop a file in.
const INCLUDE_DEFAULT: &str = "conf.d/*.toml";

/// A configuration, and what was left out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Made of the main file and of every included file without a problem.
    pub config: Config,
    /// The problems of the included files that were left out.
    pub problems: Problems,
    /// What it was read from: the main file, what `include` names, as written, and the files that this is.
    pub files: Vec<PathBuf>,
}

/// What one file says of targets and watches, and what is wrong with the file.
pub(super) struct Part {
    pub source: Source,
    pub targets: Targets,
    pub jobs: Vec<Table<Job>>,
    pub stores: Vec<Table<Store>>,
    problems: Vec<Problem>,
    is_toml: bool,
}

/// Loads a configuration: the file at `path` and those that it includes. An included file with a problem is left out whole.
///
/// # Errors
/// Every problem of every file, where the main one has any.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_parts(path, None)
}

/// Loads a configuration as it would be if it included a file more, at `new` and with this text.
///
/// # Errors
/// As with [`load`].
pub fn load_with(path: &Path, new: &Path, text: &str) -> Result<Loaded, Problems> {
    load_parts(path, Some(Source { path: new.into(), text: text.to_owned() }))
}

fn load_parts(path: &Path, new: Option<Source>) -> Result<Loaded, Problems> {
    let (mut main, settings) = Part::read_main(path);
    let base = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = base.parent().unwrap_or(Path::new("/"));
    let record = effective::record(&settings.record.0, base);
    if record.is_none() {
        let problem = Problem::new(Place::file(&main.source.path), "there is no place for the record");
        let help = "set `path` in [record]: none of STATE_DIRECTORY, XDG_STATE_HOME and HOME is set";
        main.problems.push(problem.help(help.to_owned()));
    }
    let poll = effective::poll(&settings.poll.0);
    main.check_poll(&settings);
    let included = main.included_files(&settings);
    let files = main.files(path, &settings).chain(included.iter().cloned()).collect();
    let mut parts = vec![main];
    parts.extend(included.iter().map(|path| Part::read_included(path)));
    parts.extend(new.map(|source| Part::included((source, None))));
    // Without a place for the record there is nothing to compare with.
    let keep = record.as_ref().map_or(Duration::MAX, |record| record.keep);
    compare(&mut parts, poll.min_interval, keep);

    let main_is_good = parts[0].problems.is_empty();
    let problems = Problems(parts.iter().flat_map(Part::sorted_problems).collect());
    let (Some(record), true) = (record, main_is_good) else {
        return Err(problems);
    };
    parts.retain(|part| part.problems.is_empty());
    let config = Config {
        targets: effective::targets(parts.iter().flat_map(|part| &part.targets), &settings),
        watch_list: effective::watch_list(
            parts.iter().flat_map(|part| &part.jobs),
            parts.iter().flat_map(|part| &part.stores),
            &poll,
        ),
        poll,
        record,
        http: effective::http(&settings.http.0, base),
        log: effective::log(&settings.log.0, base),
    };
    Ok(Loaded { config, problems, files })
}

impl Part {
    fn read_main(path: &Path) -> (Self, MainFile) {
        let (source, unreadable) = Source::read(path);
        let Parsed { mut file, mut problems, is_toml } = parse::<MainFile>(&source);
        let elsewhere = || "name another file with --config or REFWATCH_CONFIG".to_owned();
        problems.extend(unreadable.map(|problem| if path.exists() { problem } else { problem.help(elsewhere()) }));
        let (targets, jobs) = (mem::take(&mut file.target), mem::take(&mut file.job));
        let stores = mem::take(&mut file.store);
        (Self { source, targets, jobs, stores, problems, is_toml }, file)
    }

    fn read_included(path: &Path) -> Self {
        Self::included(Source::read(path))
    }

    fn included((source, unreadable): (Source, Option<Problem>)) -> Self {
        let Parsed { file, mut problems, is_toml } = parse::<IncludedFile>(&source);
        problems.extend(unreadable);
        Self { source, targets: file.target, jobs: file.job, stores: file.store, problems, is_toml }
    }

    fn problem(&mut self, span: Range<usize>, message: &str) {
        self.problems.push(Problem::new(self.source.place(span), message));
    }

    /// Compares the keys of `[poll]` with one another.
    fn check_poll(&mut self, settings: &MainFile) {
        let (written, poll) = (&settings.poll.0, effective::poll(&settings.poll.0));
        let backoff = written.backoff_initial.as_ref().map(Spanned::span);
        let backoff = backoff.or(written.backoff_max.as_ref().map(Spanned::span));
        if let Some(span) = backoff.filter(|_| poll.backoff.initial > poll.backoff.max) {
            let (initial, max) = (Written(poll.backoff.initial), Written(poll.backoff.max));
            self.problem(span, &format!("backoff_initial, {initial}, must not be longer than backoff_max, {max}"));
        }
        if let Some(interval) = &written.interval
            && let Some(message) = too_short(interval, poll.min_interval)
        {
            self.problem(interval.span(), &message);
        }
    }

    /// The main file and the patterns of `include`, from where the file is.
    fn files(&self, path: &Path, settings: &MainFile) -> impl Iterator<Item = PathBuf> {
        let patterns = patterns(settings).into_iter().map(|pattern| self.directory().join(&pattern.get_ref().0.0));
        std::iter::once(path.to_owned()).chain(patterns)
    }

    fn directory(&self) -> &Path {
        self.source.path.parent().unwrap_or(Path::new(""))
    }

    /// The files that `include` names, each once, in the order of the patterns and then of their names.
    fn included_files(&mut self, settings: &MainFile) -> Vec<PathBuf> {
        let directory = self.directory().to_owned();
        let mut files: Vec<PathBuf> = Vec::new();
        for pattern in patterns(settings) {
            let Text(written) = pattern.get_ref();
            match matching_files(&directory.join(&written.0)) {
                Ok(found) => {
                    for file in found {
                        if *file != *self.source.path && !files.contains(&file) {
                            files.push(file);
                        }
                    }
                }
                Err(error) => self.problem(pattern.span(), &format!("this directory cannot be read: {error}")),
            }
            if files.len() > INCLUDED_FILES_MAX {
                self.problem(pattern.span(), &format!("this includes more than {INCLUDED_FILES_MAX} files"));
                return Vec::new();
            }
        }
        files
    }

    fn sorted_problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.clone();
        problems.sort_by_key(Problem::position);
        problems.truncate(PROBLEMS_MAX);
        problems
    }
}

/// What `include` says, or would.
fn patterns(settings: &MainFile) -> Vec<Spanned<Text<IncludePattern>>> {
    // Only patterns that are written can have a mistake, so the default needs no place.
    let default = || vec![Spanned::new(0..0, Text(IncludePattern(INCLUDE_DEFAULT.into())))];
    settings.include.clone().unwrap_or_else(default)
}

/// Compares the files with one another until those without a problem stand on their own: an entry of theirs may need one of a
/// file that is left out.
fn compare(parts: &mut [Part], min_interval: Duration, keep: Duration) {
    let mut everything = true;
    loop {
        let considered = |part: &Part| part.is_toml && (everything || part.problems.is_empty());
        let mut order: Vec<usize> = (0..parts.len()).filter(|&index| considered(&parts[index])).collect();
        // Where two files have the same entry, the problem is in the later one, or in the one that is left out anyway.
        order.sort_by_key(|&index| index != 0 && !parts[index].problems.is_empty());
        let mut comparison = Comparison::new(min_interval, keep);
        for &index in &order {
            comparison.add_targets(index, &parts[index]);
        }
        for &index in &order {
            comparison.add_watches(index, &parts[index]);
        }
        comparison.find_swapped_ids();
        let found = comparison.found;
        if found.is_empty() && !everything {
            return;
        }
        for (index, problem) in found {
            parts[index].problems.push(problem);
        }
        // Without the main file nothing stands on its own.
        if !parts[0].problems.is_empty() {
            return;
        }
        everything = false;
    }
}
