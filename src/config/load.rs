//! Loads a [`Config`] from the main file and the included files, and collects the problems of all files.
//!
//! An included file with a problem is left out as a whole, and the other files apply. A problem in the main file rejects the
//! configuration.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::Config;
use super::cross_check::cross_check;
use super::diagnostics::{Problem, Problems, Source};
use super::files::matching_files;
use super::raw::{ConfigFile, File, IncludedFile};
use super::reader::Reader;
use super::{resolve, syntax};

/// The maximum number of problems reported for one file.
const PROBLEMS_MAX: usize = 100;

/// The default of `include`.
const INCLUDE_DEFAULT: &str = "conf.d/*.toml";

/// A configuration, and the problems of the files that were left out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The main file and every included file without a problem.
    pub config: Config,
    /// The problems of the included files that were left out.
    pub problems: Problems,
    /// The main file, the patterns of `include`, and the matching files.
    pub files: Vec<PathBuf>,
}

/// Loads the file at `path` and the files that it includes.
///
/// # Errors
/// The problems of all files, if the main file has any.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_files(path, None)
}

/// Loads a configuration as if it included one more file at `new` with this text.
///
/// # Errors
/// As with [`load`].
pub fn load_with(path: &Path, new: &Path, text: &str) -> Result<Loaded, Problems> {
    load_files(path, Some(Source { path: new.into(), text: text.to_owned() }))
}

fn load_files(path: &Path, new: Option<Source>) -> Result<Loaded, Problems> {
    let mut main = read_file(Source::read(path, Some("name another file with --config or REFWATCH_CONFIG")), true);
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut config = resolve::settings(&mut main, absolute.parent().unwrap_or(Path::new("/")));

    let (patterns, included) = included_files(&mut main);
    let files: Vec<PathBuf> = [path.to_owned()].into_iter().chain(patterns).chain(included.iter().cloned()).collect();
    let mut all = vec![main];
    all.extend(included.iter().map(|path| read_file(Source::read(path, None), false)));
    all.extend(new.map(|source| read_file((source, None), false)));
    cross_check(&mut all, &config);

    let main_is_good = all[0].problems.is_empty();
    let problems = Problems(all.iter().flat_map(sorted_problems).collect());
    if !main_is_good {
        return Err(problems);
    }
    let good_files = all.into_iter().filter(|file| file.problems.is_empty());
    resolve::add_entries(&mut config, good_files.map(|file| file.tables));
    Ok(Loaded { config, problems, files })
}

fn sorted_problems(file: &ConfigFile) -> Vec<Problem> {
    let mut problems = file.problems.clone();
    problems.sort_by_key(Problem::position);
    problems.truncate(PROBLEMS_MAX);
    problems
}

/// If the file is not valid TOML, only its syntax errors are reported: its values are not known.
fn read_file((source, unreadable): (Source, Option<Problem>), is_main: bool) -> ConfigFile {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader::new(&source);
    let mut tables = File::default();
    if !errors.is_empty() {
        reader.problems = syntax::problems(&source, &errors[..errors.len().min(PROBLEMS_MAX)]);
    } else if is_main {
        tables = reader.table(document.get_ref(), 0..0);
    } else {
        let IncludedFile { target, job, store } = reader.table(document.get_ref(), 0..0);
        tables = File { target, job, store, ..tables };
    }
    let problems = reader.problems.into_iter().chain(unreadable).collect();
    ConfigFile { source, tables, problems }
}

/// Returns the patterns of `include` and the matching files without duplicates, by pattern and then by name.
fn included_files(main: &mut ConfigFile) -> (Vec<PathBuf>, Vec<PathBuf>) {
    // The span of the default is used only if the directory `conf.d` cannot be read.
    let default = || vec![Some(Spanned::new(0..0, INCLUDE_DEFAULT.into()))];
    let patterns = main.tables.include.take().unwrap_or_else(default);
    let directory = main.source.path.parent().unwrap_or(Path::new("")).to_owned();
    let (mut paths, mut files) = (Vec::new(), Vec::new());
    for pattern in patterns.into_iter().flatten() {
        let path = directory.join(pattern.get_ref());
        match matching_files(&path) {
            Ok(found) => {
                for file in found {
                    if *file != *main.source.path && !files.contains(&file) {
                        files.push(file);
                    }
                }
            }
            Err(error) => main.report(pattern.span(), &format!("this directory cannot be read: {error}"), None),
        }
        paths.push(path);
    }
    (paths, files)
}
