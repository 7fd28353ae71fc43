//! Finds the `[[job]]` entries of one job in the files of a configuration, and removes them from the text of a file.
//!
//! A removal deletes the lines of the entry, except lines with only a comment. The result is parsed again. Nothing is removed unless
//! exactly the entries of the other jobs remain, without a new problem: otherwise the layout was not understood.

use std::path::{Path, PathBuf};

use super::TargetConfig;
use super::diagnostics::{Problem, SourceText};
use super::load::{parse_files, parse_included_text};
use super::raw::{JobTable, ParsedFile};
use crate::core::job::JobKey;
use crate::core::kind::JobKind;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLocation {
    pub file: PathBuf,
    /// The line of the job's id, counted from 1.
    pub line: usize,
    pub target: String,
}

/// A `[[job]]` entry of a file, with a store and an id.
struct JobInFile<'a> {
    job: JobKey,
    target: &'a str,
    /// The start of the job's id, in bytes.
    id_offset: usize,
}

/// The entries of a job in the main file and the included files, including files with errors, except syntax errors.
#[must_use]
pub fn job_locations(main: &Path, job: &JobKey) -> Vec<JobLocation> {
    let mut locations = Vec::new();
    for file in parse_files(main) {
        locations.extend(job_entries(&file).filter(|entry| entry.job == *job).map(|entry| JobLocation {
            file: file.source.path.to_path_buf(),
            line: line_index(&file.source.text, entry.id_offset) + 1,
            target: entry.target.to_owned(),
        }));
    }
    locations
}

/// The text of an included file without the entries of a job. Other entries may have errors. `None` if the entries cannot be removed
/// by deleting whole lines.
#[must_use]
pub fn without_job(text: &str, job: &JobKey) -> Option<String> {
    let parsed = parse(text);
    let (removed, kept): (Vec<_>, Vec<_>) = job_entries(&parsed).partition(|entry| entry.job == *job);
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    // From the last entry to the first, so that the earlier lines keep their numbers.
    for entry in removed.iter().rev() {
        let id_line = line_index(text, entry.id_offset);
        let start = (0..=id_line).rev().find(|line| is_job_header(lines[*line]))?;
        let end = (id_line..lines.len()).find(|line| starts_other_table(lines[*line])).unwrap_or(lines.len());
        let comments: Vec<&str> = lines.drain(start..end).filter(|line| line.trim_start().starts_with('#')).collect();
        drop(lines.splice(start..start, comments));
    }
    let text = lines.concat();
    let result = parse(&text);
    // Only messages are compared, because the lines have changed.
    let existed_before = |problem: &Problem| parsed.problems.iter().any(|known| known.message == problem.message);
    let is_same =
        |(kept, entry): (&JobInFile<'_>, &JobInFile<'_>)| (&kept.job, kept.target) == (&entry.job, entry.target);
    let result_entries: Vec<_> = job_entries(&result).collect();
    let keeps_others = kept.len() == result_entries.len() && kept.iter().zip(&result_entries).all(is_same);
    (keeps_others && result.problems.iter().all(existed_before)).then_some(text)
}

fn parse(text: &str) -> ParsedFile {
    parse_included_text(SourceText { path: Path::new("").into(), text: text.to_owned() })
}

/// The `[[job]]` entries with a store and an id, in the order of the file.
fn job_entries(file: &ParsedFile) -> impl Iterator<Item = JobInFile<'_>> {
    file.root.job.iter().flatten().filter_map(|raw| {
        let JobTable { kind, id, target, .. } = raw;
        let (store, id) = (raw.store_id_and_type()?.0, id.as_ref()?);
        let kind = kind.as_ref().map_or(JobKind::ReferenceImport, |kind| *kind.get_ref());
        let job = JobKey { kind, store: store.get_ref().clone(), job: id.get_ref().clone() };
        let target = target.as_ref().map_or(TargetConfig::DEFAULT, |target| target.get_ref());
        Some(JobInFile { job, target, id_offset: id.span().start })
    })
}

fn line_index(text: &str, offset: usize) -> usize {
    text[..text.floor_char_boundary(offset.min(text.len()))].matches('\n').count()
}

/// `[[job]]`, in any spacing.
fn is_job_header(line: &str) -> bool {
    normalized(line).starts_with("[[job]]")
}

/// Whether the line is the header of a table that does not belong to the entry above it.
fn starts_other_table(line: &str) -> bool {
    let header = normalized(line);
    header.starts_with('[') && !header.starts_with("[job.") && !header.starts_with("[[job.")
}

/// A header without spaces and quotes: `["job" . labels]` is `[job.labels]`.
fn normalized(line: &str) -> String {
    line.chars().filter(|c| !c.is_whitespace() && !['"', '\''].contains(c)).collect()
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
        let labelled = format!("{}\n[\"job\".labels]\nrun = \"7\"\n", entry.trim_end());
        assert_eq!(without(&format!("{OTHER}{labelled}")), Some(format!("{OTHER}# for Ada\n")));
        let of_kind = entry.replace("reference_store_id", "kind = \"read_set_import\"\nsequence_store_id");
        assert_eq!(without(&of_kind), Some(of_kind), "a job of another kind");
    }

    #[test]
    fn errors_of_the_removed_entry_and_of_entries_below_it_do_not_prevent_the_removal() {
        let entry = "[[job]]\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n";
        let other = format!("{OTHER}intervall = \"30s\"\n");
        assert_eq!(without(&format!("{entry}{other}")), Some(other.clone()));
        assert_eq!(without(&format!("{other}{entry}intervall = \"30s\"\n")), Some(other));
    }

    #[test]
    fn an_entry_in_an_unknown_layout_is_not_removed() {
        let inline = "job = [{ reference_store_id = \"1234567890\", id = \"9876543210\" }]\n";
        assert_eq!(without(inline), None);
        let ids = "reference_store_id = \"1234567890\"\nid = \"9876543210\"\n";
        assert_eq!(without(&format!("[[job]]\n{ids}name = \"\"\"\n[x]\"\"\"\n")), None);
    }
}
