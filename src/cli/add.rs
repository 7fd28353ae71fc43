//! `refwatch add`: adds one job to the watch list, in its own file. The running daemon reads the file without a reload.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;
use toml::{Table, Value};

use super::exit::{Exit, Failure, count, load, print, print_note};
use crate::config::{self, Config, JobLocation, Loaded, TargetConfig};
use crate::core::job::JobKey;
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;

/// Readable by all: the daemon runs as another user. The file contains no secrets.
pub(super) const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job; KIND/STORE/JOB if it is not a reference import
    #[arg(value_name = "[KIND/]STORE/JOB")]
    job: JobKey,
    /// The name of the watch in metrics and on pages [default: the job]
    #[arg(long)]
    name: Option<String>,
    /// The target for its requests
    #[arg(long, default_value = TargetConfig::DEFAULT)]
    target: String,
}

/// # Errors
/// Returns an error if the job is already watched, the configuration has errors or does not include the file, or the file cannot be
/// written.
pub fn run(main: &Path, args: &Args) -> Result<(), Failure> {
    let Loaded { config, files, .. } = load(main)?;
    if !config.targets.contains_key(&*args.target) {
        let targets: Vec<&str> = config.targets.keys().map(|target| &**target).collect();
        let (target, targets) = (&args.target, targets.join(", "));
        return Err(Failure::usage(format_args!("there is no [target.{target}]; use one of: {targets}")));
    }
    let locations = config::job_locations(main, &args.job);
    if let Some(JobLocation { file, line, .. }) = locations.iter().find(|location| location.target == args.target) {
        let (job, file) = (&args.job, file.display());
        return Err(Failure::usage(format_args!("{job} is already watched: {file}:{line}")));
    }
    let name = file_name(args);
    let included = files.patterns.iter().skip(1).find(|path| config::include_matches_name(path, &name));
    let Some(directory) = included.and_then(|path| path.parent()) else {
        let message = format!("{}: `include` does not match {name}: set include = [\"conf.d/*.toml\"]", main.display());
        return Err(Failure::config(message));
    };
    let file = directory.join(name);
    let entry = entry(args);
    let problems = config::load_with(main, &file, &entry).map_or_else(|problems| problems, |loaded| loaded.problems);
    let problems = problems.in_file(&file);
    if !problems.is_empty() {
        return Err(Failure { exit: Exit::Usage, ..Failure::problems(&problems.0) });
    }
    write(&file, &entry).map_err(|error| Failure::running(format_args!("{}: {error}", file.display())))?;
    print(format_args!("added {} in {}\n", args.job, Sanitized(&file.to_string_lossy())))?;
    print_watched(main)
}

/// Prints what the files of the configuration watch.
pub(super) fn print_watched(main: &Path) -> Result<(), Failure> {
    let Loaded { config, problems, .. } = load(main)?;
    print(format_args!("now watched: {}\n", watched(&config)))?;
    if !problems.is_empty() {
        let problem = problems.summary();
        print_note(format_args!(
            "warning: {problem}: until this is corrected, a running daemon ends no watch: run refwatch check"
        ));
    }
    Ok(())
}

/// Such as: 3 jobs on 1 target.
pub(super) fn watched(Config { watch_list, .. }: &Config) -> String {
    format!("{watch_list} on {}", count(watch_list.targets().len(), "target"))
}

fn file_name(Args { job, target, .. }: &Args) -> String {
    let prefix = if target == TargetConfig::DEFAULT { String::new() } else { format!("{target}-") };
    format!("{prefix}{}.toml", job.to_string().replace('/', "-"))
}

fn entry(Args { job, name, target }: &Args) -> String {
    let text = |text: &str| Some(Value::from(text));
    let keys = [
        ("name", name.as_deref().and_then(text)),
        ("kind", text(job.kind.as_str()).filter(|_| job.kind != JobKind::ReferenceImport)),
        (job.kind.info().store.id_key(), text(job.store.as_str())),
        ("id", text(job.job.as_str())),
        ("target", text(target).filter(|_| target != TargetConfig::DEFAULT)),
    ];
    let entry: Table = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    format!("[[job]]\n{entry}")
}

/// Creates the file atomically and syncs it to disk. Fails if it exists.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The daemon runs as another user, and the umask may be strict.
    let missing: Vec<_> =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        fs::create_dir(path)?;
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
    }
    temporary_file(directory, text, FILE_MODE)?.persist_noclobber(file)?;
    File::open(directory)?.sync_all()
}

/// Writes and syncs a file that the caller moves into place. The name begins with a dot, so no pattern of `include` matches it.
pub(super) fn temporary_file(directory: &Path, text: &str, mode: u32) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix_in(".", directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}
