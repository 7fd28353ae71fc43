//! Loads a [`Config`] from the main file and the included files, and collects the problems of all files.
//!
//! An included file with a problem is left out as a whole, and so is a directory that cannot be listed. The other files are used. A problem
//! in the main file rejects the configuration. The problem of a directory points at `include` in the main file, but rejects nothing.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::Config;
use super::cross_check::cross_check;
use super::diagnostics::{Location, Problem, Problems, SourceText};
use super::files::{LoadedFiles, Stamps, matching_files, stamp};
use super::raw::{IncludedRootTable, ParsedFile, RootTable};
use super::reader::Reader;
use super::{resolve, syntax};

/// The maximum number of problems reported for one file.
const PROBLEMS_MAX: usize = 100;

/// The span of the root table, and of the default of `include`.
const NO_SPAN: Range<usize> = 0..0;

const INCLUDE_DEFAULT: &str = "conf.d/*.toml";

/// A configuration, and the problems of the files and directories that were left out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The main file and every included file without a problem.
    pub config: Config,
    /// The problems of the included files that were left out, and of directories that cannot be listed.
    pub problems: Problems,
    /// To detect a later change of the files.
    pub files: LoadedFiles,
    /// The main file contains only comments and blank lines.
    pub is_blank: bool,
}

/// Loads the file at `path` and the files that it includes.
///
/// # Errors
/// The problems of all files, if the main file has any.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_files(path, None)
}

/// Loads the file at `path` as if it also included a file with the path `extra` and the content `text`. `extra` must not exist, or a
/// pattern could include it a second time.
///
/// # Errors
/// As with [`load`].
pub fn load_with(path: &Path, extra: &Path, text: &str) -> Result<Loaded, Problems> {
    load_files(path, Some(SourceText { path: extra.into(), text: text.to_owned() }))
}

/// Returns the settings of the main file. Unlike `parse_file`, it also reads the values of a file with a syntax error, as far as the parser
/// understands them. An invalid or missing setting has its default.
#[must_use]
pub fn main_settings(path: &Path) -> Config {
    let (source, _) = SourceText::read(path, None);
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let root = Reader::new(&source).read_table(document.get_ref(), NO_SPAN);
    let mut main = ParsedFile { source, is_syntax_valid: errors.is_empty(), root, problems: Vec::new() };
    resolve::take_settings(&mut main, &directory_of(path))
}

/// The main file and the included files, without cross-checks.
pub(super) fn parse_files(path: &Path) -> Vec<ParsedFile> {
    let mut main = parse_file(SourceText::read(path, None), FileRole::Main);
    let included = take_includes(&mut main).files;
    let included = included.iter().map(|path| parse_file(SourceText::read(path, None), FileRole::Included));
    [main].into_iter().chain(included).collect()
}

/// Parses a text as an included file.
pub(super) fn parse_included_text(source: SourceText) -> ParsedFile {
    parse_file((source, None), FileRole::Included)
}

fn load_files(path: &Path, extra: Option<SourceText>) -> Result<Loaded, Problems> {
    let main_stamp = stamp(path);
    let help = "name another file with --config or REFWATCH_CONFIG";
    let mut main = parse_file(SourceText::read(path, Some(help)), FileRole::Main);
    let mut config = resolve::take_settings(&mut main, &directory_of(path));

    let mut lines = main.source.text.lines().map(str::trim);
    let is_blank = lines.all(|line| line.is_empty() || line.starts_with('#'));
    let Included { patterns, files: included, mut stamps, problems: directory_problems } = take_includes(&mut main);
    let patterns = [path.to_owned()].into_iter().chain(patterns).collect();
    // If a pattern matches the main file, `take_includes` has stamped the main file after the read. `main_stamp` is from before the read.
    stamps.insert(path.to_owned(), main_stamp);
    let mut files = vec![main];
    files.extend(included.iter().map(|path| parse_file(SourceText::read(path, None), FileRole::Included)));
    files.extend(extra.map(|source| parse_file((source, None), FileRole::Included)));
    cross_check(&mut files, &config);

    let main_is_good = files[0].problems.is_empty();
    let problems = Problems(directory_problems.into_iter().chain(files.iter().flat_map(sorted_problems)).collect());
    if !main_is_good {
        return Err(problems);
    }
    let good_files = files.into_iter().filter(|file| file.problems.is_empty());
    resolve::add_entries(&mut config, good_files.map(|file| file.root));
    Ok(Loaded { config, problems, files: LoadedFiles { patterns, stamps }, is_blank })
}

/// The absolute directory of the file. Relative paths in the file start there.
fn directory_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

fn sorted_problems(file: &ParsedFile) -> Vec<Problem> {
    let mut problems = file.problems.clone();
    problems.sort_by_key(Problem::position);
    problems.truncate(PROBLEMS_MAX);
    problems
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FileRole {
    Main,
    Included,
}

/// Parses the text from [`SourceText::read`], and adds `read_problem`. After a syntax error, values are not checked.
fn parse_file((source, read_problem): (SourceText, Option<Problem>), role: FileRole) -> ParsedFile {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader::new(&source);
    let mut root = RootTable::default();
    if !errors.is_empty() {
        reader.problems = syntax::problems(&source, &errors[..errors.len().min(PROBLEMS_MAX)]);
    } else if role == FileRole::Main {
        root = reader.read_table(document.get_ref(), NO_SPAN);
    } else {
        let IncludedRootTable { target, job, store } = reader.read_table(document.get_ref(), NO_SPAN);
        root = RootTable { target, job, store, ..root };
    }
    let problems = reader.problems.into_iter().chain(read_problem).collect();
    ParsedFile { source, is_syntax_valid: errors.is_empty(), root, problems }
}

/// The files and directories that `include` of the main file names.
#[derive(Default)]
struct Included {
    patterns: Vec<PathBuf>,
    /// The matching files except the main file, each once, by pattern and then by name.
    files: Vec<PathBuf>,
    /// The stamps of all matching files, before the included files are read.
    stamps: Stamps,
    /// The directories that cannot be listed.
    problems: Vec<Problem>,
}

/// Takes `include` out of the main file and finds the files.
fn take_includes(main: &mut ParsedFile) -> Included {
    let default = || vec![Some(Spanned::new(NO_SPAN, INCLUDE_DEFAULT.into()))];
    let configured = main.root.include.take().unwrap_or_else(default);
    let directory = main.source.path.parent().unwrap_or(Path::new("")).to_owned();
    let main_path = main.source.path.canonicalize().ok();
    let mut included = Included::default();
    // `flatten` skips invalid patterns, which are `None`.
    for include in configured.into_iter().flatten() {
        let pattern = directory.join(include.get_ref());
        match matching_files(&pattern) {
            Ok(found) => {
                for file in found {
                    included.stamps.insert(file.clone(), stamp(&file));
                    // The pattern may lead to the main file by another path.
                    let is_main = main_path.is_some() && file.canonicalize().ok() == main_path;
                    if !is_main && !included.files.contains(&file) {
                        included.files.push(file);
                    }
                }
            }
            Err(error) => included.problems.push(listing_problem(&main.source, include.span(), &pattern, &error)),
        }
        included.patterns.push(pattern);
    }
    included
}

fn listing_problem(main: &SourceText, span: Range<usize>, pattern: &Path, error: &io::Error) -> Problem {
    let location = if span.is_empty() { Location::whole_file(&main.path) } else { Location::new(main, span) };
    let directory =
        pattern.parent().filter(|directory| *directory != Path::new("")).unwrap_or(Path::new(".")).display();
    let help = (error.kind() == io::ErrorKind::PermissionDenied)
        .then(|| format!("the daemon's user must be able to list it: run `chmod 0755 {directory}`"));
    Problem::new(location, &format!("the directory {directory} cannot be listed: {error}"), help)
}
