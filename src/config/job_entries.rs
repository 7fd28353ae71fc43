//! Finds the `[[job]]` entries of one job in the files of a configuration, and removes them from the text of a file.
//!
//! A removal keeps all other lines, and comments on lines of their own. Its result is parsed again: an unknown layout is not changed.

use std::path::{Path, PathBuf};

use super::TargetConfig;
use super::diagnostics::SourceText;
use super::load::{parse_files, parse_text};
use super::raw::{Job, ParsedFile};
use crate::core::job::JobKey;
use crate::core::kind::JobKind;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLocation {
    pub file: PathBuf,
    /// The line of the job's id, counted from 1.
    pub line: usize,
    pub target: String,
}

/// The entries of a job in the main file and the included files, also in files with errors.
#[must_use]
pub fn job_locations(main: &Path, job: &JobKey) -> Vec<JobLocation> {
    let files = parse_files(main);
    let locations = files.iter().flat_map(|file| {
        let location = move |(offset, target): (usize, &str)| JobLocation {
            file: file.source.path.to_path_buf(),
            line: line_of(&file.source.text, offset),
            target: target.to_owned(),
        };
        entries(file).filter(move |(key, ..)| key == job).map(move |(_, offset, target)| location((offset, target)))
    });
    locations.collect()
}

/// The text of a file without the entries of a job. `None` if they cannot be removed by deleting whole lines.
#[must_use]
pub fn without_job(text: &str, job: &JobKey) -> Option<String> {
    let parsed = parse(text);
    let (removed, kept): (Vec<_>, Vec<_>) = entries(&parsed).partition(|(key, ..)| key == job);
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut id_lines: Vec<usize> = removed.iter().map(|(_, offset, _)| line_of(text, *offset) - 1).collect();
    id_lines.sort_unstable();
    for id_line in id_lines.into_iter().rev() {
        let start = (0..=id_line).rev().find(|line| is_header(lines[*line]))?;
        let end = (id_line..lines.len()).find(|line| is_other_table(lines[*line])).unwrap_or(lines.len());
        let comments: Vec<&str> = lines.drain(start..end).filter(|line| line.trim_start().starts_with('#')).collect();
        drop(lines.splice(start..start, comments));
    }
    let text = lines.concat();
    let rest = parse(&text);
    let keys = |entries: Vec<(JobKey, usize, &str)>| {
        entries.into_iter().map(|(key, _, target)| (key, target.to_owned())).collect::<Vec<_>>()
    };
    (rest.problems == parsed.problems && keys(entries(&rest).collect()) == keys(kept)).then_some(text)
}

fn parse(text: &str) -> ParsedFile {
    parse_text(SourceText { path: Path::new("").into(), text: text.to_owned() })
}

/// Every complete `[[job]]` entry: the job, the offset of its id, the target.
fn entries(file: &ParsedFile) -> impl Iterator<Item = (JobKey, usize, &str)> {
    file.root.job.iter().flatten().filter_map(|raw| {
        let Job { kind, id, target, .. } = raw;
        let (store, id) = (raw.store()?.0, id.as_ref()?);
        let kind = kind.as_ref().map_or(JobKind::ReferenceImport, |kind| *kind.get_ref());
        let key = JobKey { kind, store: store.get_ref().clone(), job: id.get_ref().clone() };
        Some((key, id.span().start, target.as_ref().map_or(TargetConfig::DEFAULT, |target| target.get_ref())))
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..text.floor_char_boundary(offset.min(text.len()))].matches('\n').count() + 1
}

/// `[[job]]`, in any spacing.
fn is_header(line: &str) -> bool {
    without_spaces(line).starts_with("[[job]]")
}

/// A table that does not belong to the entry above it.
fn is_other_table(line: &str) -> bool {
    let header = without_spaces(line);
    header.starts_with('[') && !header.starts_with("[job.") && !header.starts_with("[[job.")
}

fn without_spaces(line: &str) -> String {
    line.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "# another\n[[job]]\nreference_store_id = \"1234567890\"\nid = \"1111111111\"\n";

    fn without(text: &str) -> Option<String> {
        without_job(text, &"1234567890/9876543210".parse().expect("a job"))
    }

    #[test]
    fn only_the_entry_of_the_job_is_removed_and_every_comment_stays() {
        let entry = "[[ job ]]   # the first\nname = \"GRCh38\"\n# for Ada\nreference_store_id = \"1234567890\"\n\nid = \"9876543210\"\n\n";
        let text = format!("# the jobs\n{entry}{OTHER}");
        assert_eq!(without(&text), Some(format!("# the jobs\n# for Ada\n{OTHER}")));
        assert_eq!(without(&format!("{OTHER}{entry}{entry}")), Some(format!("{OTHER}# for Ada\n# for Ada\n")));
        assert_eq!(without(OTHER), Some(OTHER.to_owned()));
        let of_kind = entry.replace("reference_store_id", "kind = \"read_set_import\"\nsequence_store_id");
        assert_eq!(without(&of_kind), Some(of_kind), "a job of another kind");
    }

    #[test]
    fn an_entry_in_an_unknown_layout_is_not_removed() {
        let inline = "job = [{ reference_store_id = \"1234567890\", id = \"9876543210\" }]\n";
        assert_eq!(without(inline), None);
        let tricky = "[[job]]\nname = \"\"\"\n[x]\"\"\"\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n";
        assert_ne!(without(tricky).as_deref(), Some(tricky));
    }
}
