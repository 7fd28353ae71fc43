//! `refwatch add`: puts one job on the watch list, in a file of its own beside what is there. The daemon takes it up by itself.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use toml::{Table, Value};

use super::exit::{Exit, Failure, load, print};
use crate::config::{self, Loaded, TargetConfig};
use crate::core::job::JobKey;
use crate::core::sanitize::Printable;

/// The daemon runs as another user and has to read it; there is nothing secret in it.
const MODE: u32 = 0o644;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The import job
    #[arg(value_name = "STORE/JOB")]
    job: JobKey,
    /// What it is called in metrics and on pages [default: STORE/JOB]
    #[arg(long)]
    name: Option<String>,
    /// The target that it is asked for through
    #[arg(long, default_value = TargetConfig::DEFAULT)]
    target: String,
}

/// Runs it.
///
/// # Errors
/// The job is watched already, the configuration has mistakes or includes no such file, or it cannot be written.
#[expect(clippy::unused_async, reason = "every command is called the same way")]
pub async fn run(main: &Path, args: Args) -> Result<Exit, Failure> {
    let Loaded { config, files, .. } = load(main)?;
    if !config.targets.contains_key(&*args.target) {
        let targets: Vec<&str> = config.targets.keys().map(|target| &**target).collect();
        let message = format!("there is no [target.{}]; there are: {}", args.target, targets.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    }
    let name = file_name(&args);
    let directory =
        files.iter().skip(1).find(|pattern| config::includes(pattern, &name)).and_then(|file| file.parent());
    let directory = directory.ok_or_else(|| {
        Failure::config(format_args!(
            "{} includes no file called {name}: it needs include = [\"conf.d/*.toml\"]",
            main.display()
        ))
    })?;
    let file = directory.join(name);
    let entry = entry(&args);
    let problems = config::load_with(main, &file, &entry).map_or_else(|problems| problems, |loaded| loaded.problems);
    let problems = problems.of(&file);
    if !problems.is_empty() {
        return Err(Failure { exit: Exit::Usage, ..Failure::problems(&problems) });
    }
    write(&file, &entry).map_err(|error| Failure::running(format_args!("{}: {error}", file.display())))?;
    print(format_args!("{}\n", Printable(&file.to_string_lossy())))?;
    Ok(Exit::Done)
}

fn file_name(Args { job, target, .. }: &Args) -> String {
    let through = if target == TargetConfig::DEFAULT { String::new() } else { format!("{target}-") };
    format!("{through}{}-{}.toml", job.store, job.job)
}

fn entry(Args { job, name, target }: &Args) -> String {
    let text = |text: &str| Some(Value::from(text));
    let keys = [
        ("name", name.as_deref().and_then(text)),
        ("reference_store_id", text(job.store.as_str())),
        ("id", text(job.job.as_str())),
        ("target", text(target).filter(|_| target != TargetConfig::DEFAULT)),
    ];
    let entry: Table = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    format!("[[job]]\n{entry}")
}

/// Writes a file that is not there, all of it at once, and on disk before it is said to be there.
fn write(file: &PathBuf, text: &str) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // No pattern that includes files takes a hidden one.
    let mut new = NamedTempFile::with_prefix_in(".", directory)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(Permissions::from_mode(MODE))?;
    new.as_file().sync_all()?;
    new.persist_noclobber(file)?;
    File::open(directory)?.sync_all()
}
