//! From files to a [`Config`]: reads the main file and those that it includes, and collects the problems of all.
//!
//! An included file with a problem is left out whole, so that the others stay watched. A problem of the main file rejects the
//! configuration.

use std::collections::BTreeSet;
use std::mem::take;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::Config;
use super::cross_check::cross_check;
use super::diagnostics::{Problem, Problems, Source};
use super::files::matching_files;
use super::raw::{ConfigFile, File, INCLUDED_KEYS, TABLES};
use super::reader::{Reader, Table as _};
use super::resolve::{self, Settings};
use super::syntax;

/// Problems that are reported of one file.
const PROBLEMS_MAX: usize = 100;

/// With the size of each file, this bounds what a configuration can cost.
const INCLUDED_FILES_MAX: usize = 1000;

/// The default of `include`.
const INCLUDE_DEFAULT: &str = "conf.d/*.toml";

/// A configuration, and what was left out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// From the main file and every included file without a problem.
    pub config: Config,
    /// The problems of the included files that were left out.
    pub problems: Problems,
    /// The main file, the patterns of `include`, and the files that match them.
    pub files: Vec<PathBuf>,
}

/// Loads a configuration: the file at `path` and those that it includes.
///
/// # Errors
/// Every problem of every file, if the main one has any.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_files(path, None)
}

/// Loads a configuration as if it also included a file at `new` with this text.
///
/// # Errors
/// As with [`load`].
pub fn load_with(path: &Path, new: &Path, text: &str) -> Result<Loaded, Problems> {
    load_files(path, Some(Source { path: new.into(), text: text.to_owned() }))
}

fn load_files(path: &Path, new: Option<Source>) -> Result<Loaded, Problems> {
    let (source, unreadable) = Source::read(path);
    let help = "name another file with --config or REFWATCH_CONFIG";
    let unreadable = unreadable.map(|problem| if path.exists() { problem } else { problem.with_help(help) });
    let mut main = read_file(source, unreadable, true);
    let base = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let settings = Settings::resolve(&mut main, base.parent().unwrap_or(Path::new("/")));

    let (patterns, included) = included_files(&mut main);
    let files: Vec<PathBuf> = [path.to_owned()].into_iter().chain(patterns).chain(included.iter().cloned()).collect();
    let mut all = vec![main];
    all.extend(
        included.iter().map(|path| Source::read(path)).map(|(source, problem)| read_file(source, problem, false)),
    );
    all.extend(new.map(|source| read_file(source, None, false)));
    // Without a path for the database there is no `keep` to compare with.
    let keep = settings.record.as_ref().map_or(Duration::MAX, |record| record.keep);
    cross_check(&mut all, settings.poll.min_interval, keep);

    let main_is_good = all[0].problems.is_empty();
    let problems = all.iter().flat_map(sorted_problems).collect();
    let (Some(record), true) = (settings.record.clone(), main_is_good) else {
        return Err(Problems(problems));
    };
    all.retain(|file| file.problems.is_empty());
    Ok(Loaded { config: resolve::config(all, settings, record), problems: Problems(problems), files })
}

fn sorted_problems(file: &ConfigFile) -> Vec<Problem> {
    let mut problems = file.problems.clone();
    problems.sort_by_key(Problem::position);
    problems.truncate(PROBLEMS_MAX);
    problems
}

fn read_file(source: Source, unreadable: Option<Problem>, is_main: bool) -> ConfigFile {
    let (mut document, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader::new(&source, TABLES, errors.is_empty());
    syntax::report(&mut reader, &source, &errors[..errors.len().min(PROBLEMS_MAX)]);
    let broken_lines: BTreeSet<_> = reader.problems.iter().map(|(_, problem)| line(problem)).collect();
    let broken = reader.problems.len();
    let tables = if errors.iter().any(|error| syntax::is_in_header(&source, error)) {
        File::default()
    } else {
        if !is_main {
            reject_main_keys(&mut reader, document.get_mut());
        }
        reader.table::<File>(document.get_ref(), 0..0)
    };
    // The parser's substitute for a value that it cannot read is empty, or ends where the error is.
    let follows = |(span, problem): &(Range<usize>, Problem)| {
        let ends_here = |at: usize| span.contains(&at) || span.end == at;
        broken_lines.contains(&line(problem))
            || (broken > 0 && span.is_empty())
            || errors.iter().filter_map(toml::de::Error::span).any(|error| ends_here(error.start))
    };
    let mut found = take(&mut reader.problems);
    let of_tables = found.split_off(broken).into_iter().filter(|problem| !follows(problem));
    let found: Vec<_> = found.into_iter().chain(of_tables).map(|(_, problem)| problem).chain(unreadable).collect();
    let is_toml = errors.is_empty();
    ConfigFile { tables, problems: found, is_toml, source }
}

fn line(problem: &Problem) -> Option<usize> {
    problem.position().map(|(line, _)| line)
}

/// Reports and removes the keys that only the main file can have.
fn reject_main_keys(reader: &mut Reader<'_>, document: &mut DeTable<'_>) {
    let is_main_key = |key: &str| File::KEYS.iter().any(|known| known.name == key) && !INCLUDED_KEYS.contains(&key);
    let keys: Vec<_> = document.keys().filter(|key| is_main_key(key.get_ref())).cloned().collect();
    for key in keys {
        let name = key.get_ref();
        let message = format!("`{name}` is only allowed in the main file");
        let help = "an included file has [[job]], [[store]] and [target.*]".to_owned();
        reader.report(key.span(), &message, Some(help));
        document.remove(&**name);
    }
}

/// The patterns of `include`, and the files that they match, each once, in the order of the patterns and then of their names.
fn included_files(main: &mut ConfigFile) -> (Vec<PathBuf>, Vec<PathBuf>) {
    // Only a written pattern can have a problem, so the default needs no place.
    let default = || vec![Spanned::new(0..0, INCLUDE_DEFAULT.into())];
    let patterns = main.tables.include.take().unwrap_or_else(default);
    let directory = main.source.path.parent().unwrap_or(Path::new("")).to_owned();
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in &patterns {
        match matching_files(&directory.join(pattern.get_ref())) {
            Ok(found) => {
                for file in found {
                    if *file != *main.source.path && !files.contains(&file) {
                        files.push(file);
                    }
                }
            }
            Err(error) => main.report(pattern.span(), &format!("this directory cannot be read: {error}"), None),
        }
        if files.len() > INCLUDED_FILES_MAX {
            main.report(pattern.span(), &format!("this includes more than {INCLUDED_FILES_MAX} files"), None);
            files.clear();
            break;
        }
    }
    (patterns.iter().map(|pattern| directory.join(pattern.get_ref())).collect(), files)
}
