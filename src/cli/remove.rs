//! `refwatch remove`: removes one job from the included files. The running daemon reads the files without a reload.
//!
//! It does not change the main file, which belongs to the operator.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use super::add::{print_watched, temporary_file};
use super::exit::{Failure, load, print};
use crate::config::{self, JobLocation};
use crate::core::job::JobKey;
use crate::core::sanitize::Sanitized;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job; KIND/STORE/JOB if it is not a reference import
    #[arg(value_name = "[KIND/]STORE/JOB")]
    job: JobKey,
}

/// # Errors
/// Returns an error if the main file has errors, if the job has no entry or one in the main file, or if a file cannot be written.
pub fn run(main: &Path, Args { job }: &Args) -> Result<(), Failure> {
    let problems = load(main)?.problems;
    let locations = config::job_locations(main, job);
    if locations.is_empty() {
        let main = main.display();
        // A file that is not valid TOML is not searched.
        let unsearched =
            if problems.is_empty() { "" } else { "; a file with errors may contain it: run refwatch check" };
        return Err(Failure::usage(format_args!("{job} is not in the watch list of {main}{unsearched}")));
    }
    if let Some(JobLocation { file, line, .. }) = locations.iter().find(|location| location.file == main) {
        let place = format!("{}:{line}", file.display());
        return Err(by_hand(&place, &format!("{job} is in the main file")));
    }
    // A file may have several entries of the job.
    let mut edits = BTreeMap::new();
    for JobLocation { file, line, .. } in &locations {
        let place = format!("{}:{line}", file.display());
        let text = fs::read_to_string(file).map_err(|error| Failure::running(format_args!("{place}: {error}")))?;
        let text = config::without_job(&text, job).ok_or_else(|| by_hand(&place, "the entry has an unusual layout"))?;
        edits.insert(file, text);
    }
    for (file, text) in edits {
        replace(file, &text).map_err(|error| Failure::running(format_args!("{}: {error}", file.display())))?;
        print(format_args!("removed {job} from {}\n", Sanitized(&file.to_string_lossy())))?;
    }
    print_watched(main)
}

fn by_hand(place: &str, reason: &str) -> Failure {
    Failure::usage(format_args!("{place}: {reason}: remove the entry there with an editor"))
}

/// Replaces the text of a file atomically, and keeps its owner and mode. If nothing is left, deletes the file, or the symbolic link.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let is_empty = text.trim().is_empty();
    let file = &if is_empty { std::path::absolute(file)? } else { fs::canonicalize(file)? };
    let directory = file.parent().unwrap_or(Path::new("/"));
    if is_empty {
        fs::remove_file(file)?;
    } else {
        let metadata = fs::metadata(file)?;
        let new = temporary_file(directory, text, metadata.mode())?;
        fchown(new.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
        new.persist(file)?;
    }
    File::open(directory)?.sync_all()
}
