//! Writes the log files `refwatch.log`, or `refwatch.DATE.log` with `log.rotation`.
//!
//! At each line it checks that the path still is the open file, so a file that an administrator or logrotate moves or removes is created
//! again. It deletes only files whose names it could have made itself. A failed write loses its line, which the caller counts.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use crate::clock::Clock;
use crate::config::LogRotation;
use crate::files;

/// The log may reveal what a laboratory works on: the owner may write, the group may read, others get no access.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

pub(super) struct LogFiles {
    pub directory: PathBuf,
    pub rotation: LogRotation,
    /// The number of earlier files that are kept.
    pub keep: usize,
    pub clock: Clock,
    pub open_file: Option<OpenFile>,
    /// Whether the last line was lost. Only the first of consecutive failures is logged.
    pub failing: bool,
}

pub(super) struct OpenFile {
    file: File,
    path: PathBuf,
    /// True if the last line may be incomplete. Then the next one starts on a new line.
    torn: bool,
}

impl Write for LogFiles {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.write_line(line);
        let was_failing = std::mem::replace(&mut self.failing, written.is_err());
        if let Err(error) = &written
            && !was_failing
        {
            error!(event = "log_files_failed", directory = %self.directory.display(), %error,
                "cannot write to log.directory; its lines are dropped until it is writable");
        }
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open_file.as_mut().map_or(Ok(()), |open| open.file.flush())
    }
}

impl LogFiles {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let name = self.current_name();
        let path = self.directory.join(&name);
        let still_open = self.open_file.take().filter(|open| open.path == path && is_at(&open.file, &path));
        let open = if let Some(open) = still_open {
            self.open_file.insert(open)
        } else {
            let file = open_or_create(&path).map_err(|error| with_path(&error, &path))?;
            self.prune(&name);
            self.open_file.insert(OpenFile { file, path, torn: false })
        };
        let start: &[u8] = if open.torn { b"\n" } else { b"" };
        let done = open.file.write_all(&[start, line].concat());
        open.torn = done.is_err();
        done.map_err(|error| with_path(&error, &open.path))
    }

    fn current_name(&self) -> String {
        let date = match self.rotation {
            LogRotation::Hourly => "%Y-%m-%d-%H",
            LogRotation::Daily => "%Y-%m-%d",
            LogRotation::Never => return "refwatch.log".to_owned(),
        };
        format!("refwatch.{}.log", self.clock.now().wall.strftime(date))
    }

    /// Deletes the oldest files beyond `keep`. The file of this name is not counted.
    fn prune(&self, current: &str) {
        let result = earlier_files(&self.directory, current).and_then(|names| {
            let excess = names.len().saturating_sub(self.keep);
            names[..excess].iter().try_for_each(|name| fs::remove_file(self.directory.join(name)))
        });
        if let Err(error) = result {
            warn!(event = "log_file_not_deleted", directory = %self.directory.display(), %error,
                "cannot delete the log files beyond log.keep_files; the next attempt is at the next new file");
        }
    }
}

/// Whether `path` leads to this open file. A file that was moved or removed is at no path, or at another one.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, found) = (file.metadata().map(identity), fs::symlink_metadata(path).map(identity));
    matches!((open, found), (Ok(open), Ok(found)) if open == found)
}

/// Creates a missing file, and its directory, but no parent of that: a missing parent may be a disk that is not mounted. The umask
/// does not change the modes of a new file and directory. Existing ones keep their modes.
fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).mode(FILE_MODE);
    match files::open_nofollow(&options, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.exists() {
        DirBuilder::new().mode(DIRECTORY_MODE).create(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))?;
    }
    let file = files::open_nofollow(options.create_new(true), path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// The dated log files but `current`, the oldest first.
fn earlier_files(directory: &Path, current: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name != current && is_dated(&name) && entry.file_type()?.is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a name is `refwatch.DATE.log` with a date of either rotation.
fn is_dated(name: &str) -> bool {
    let date = name.strip_prefix("refwatch.").and_then(|rest| rest.strip_suffix(".log")).unwrap_or_default();
    let pattern = date.replace(|c: char| c.is_ascii_digit(), "0");
    ["0000-00-00", "0000-00-00-00"].contains(&pattern.as_str())
}

fn with_path(error: &io::Error, path: &Path) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
