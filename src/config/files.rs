//! Reads the files of a configuration, and lists the files that match a pattern of `include`.
//!
//! Diagnostics quote the text that was read here, so a later change of the file does not affect them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostics::{Location, Problem, SourceText};

/// The maximum size of a file in bytes: enough for 10,000 jobs of 100 bytes each.
pub const FILE_SIZE_MAX: u64 = 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedFiles {
    /// The main file and the patterns of `include`. If [`current_stamps`] of them differ from `stamps`, a file has changed.
    pub patterns: Vec<PathBuf>,
    /// The stamps before the files were read.
    pub stamps: Stamps,
}

pub type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// Identifies the content of a file without reading it: device, inode, size and ctime. A change of permissions also changes the ctime.
pub(super) type Stamp = (u64, u64, u64, [i64; 2]);

/// Returns the stamps of the files that match `patterns` now. The stamp is `None` if the metadata of a file cannot be read.
#[must_use]
pub fn current_stamps(patterns: &[PathBuf]) -> Stamps {
    // A directory that cannot be listed has no stamps. `load` reports the error.
    let files = patterns.iter().flat_map(|pattern| matching_files(pattern).unwrap_or_default());
    files.map(|path| (path.clone(), stamp(&path))).collect()
}

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.len(), [file.ctime(), file.ctime_nsec()]))
}

impl SourceText {
    /// Reads a file. The text of an unreadable or binary file is empty. In other files, bytes that are not UTF-8 are replaced.
    pub(super) fn read(path: &Path, help: Option<&str>) -> (Self, Option<Problem>) {
        let path: Arc<Path> = path.into();
        let unreadable = |message: &str| {
            let problem = Problem::new(Location::whole_file(&path), message, help.map(str::to_owned));
            (Self { path: path.clone(), text: String::new() }, Some(problem))
        };
        match read_bytes(&path).map(String::from_utf8) {
            Ok(Ok(text)) => (Self { path, text }, None),
            Ok(Err(error)) if error.as_bytes().contains(&0) => unreadable("this is a binary file or UTF-16, not UTF-8"),
            Ok(Err(error)) => {
                let start = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let source = Self { path, text };
                // The first invalid bytes became one replacement character.
                let location = Location::new(&source, start..start + char::REPLACEMENT_CHARACTER.len_utf8());
                let help = "save the file as UTF-8".to_owned();
                (source, Some(Problem::new(location, "this is not UTF-8", Some(help))))
            }
            Err(message) => unreadable(&message),
        }
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    crate::files::read(path, FILE_SIZE_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            format!("this file is larger than {} KiB: split it with `include`", FILE_SIZE_MAX / 1024)
        }
        _ => format!("this file cannot be read: {error}"),
    })
}

/// Returns the files that match `pattern`, ordered by name. A pattern without `*` is returned as it is, even if the file does not
/// exist. A hidden file matches only if the pattern's last part begins with a dot. If the directory does not exist, nothing matches.
///
/// # Errors
/// The directory cannot be listed.
pub(super) fn matching_files(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    if !file_name(pattern).contains('*') {
        return Ok(vec![pattern.to_owned()]);
    }
    let directory = pattern.parent().unwrap_or(Path::new(""));
    let entries = match fs::read_dir(if directory.as_os_str().is_empty() { Path::new(".") } else { directory }) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if include_matches_name(pattern, &name.to_string_lossy()) {
            files.push(directory.join(&name));
        }
    }
    files.sort();
    Ok(files)
}

/// Returns whether the last part of `pattern` has a `*` and matches this file name.
#[must_use]
pub fn include_matches_name(pattern: &Path, name: &str) -> bool {
    let pattern = file_name(pattern);
    let is_excluded = name.starts_with('.') && !pattern.starts_with('.');
    pattern.contains('*') && !is_excluded && wildcard_matches(&pattern, name)
}

/// A `*` of the pattern matches any text.
#[must_use]
pub fn wildcard_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let head = parts.next().unwrap_or_default();
    // `None`: the pattern has no `*`.
    let Some(tail) = parts.next_back() else { return name == pattern };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(tail)
}

fn file_name(path: &Path) -> Cow<'_, str> {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_include_wildcard_matches_by_name_and_skips_hidden_files() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["b.toml", "a.toml", ".a.toml", "a.toml~", "toml"] {
            fs::write(directory.path().join(name), "").expect("a file");
        }
        let names = |pattern: &str| {
            let files = matching_files(&directory.path().join(pattern)).expect("a directory");
            files.iter().map(|file| file.file_name().expect("a name").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("*.toml"), ["a.toml", "b.toml"]);
        assert_eq!(names(".*.toml"), [".a.toml"]);
        assert_eq!(names("a*l"), ["a.toml"]);
        assert_eq!(names("a.toml*a.toml"), [""; 0]);
        assert_eq!(names("missing.toml"), ["missing.toml"]);
        assert_eq!(names("missing/*.toml"), [""; 0]);
    }

    #[test]
    fn a_star_of_a_wildcard_matches_any_text() {
        let table = [
            ("GRCh38", "GRCh38", true),
            ("GRCh38", "GRCh37", false),
            ("*", "", true),
            ("shared *", "shared references", true),
            ("shared *", "shared", false),
            ("*38", "GRCh38", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*b*b*", "b", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(wildcard_matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
