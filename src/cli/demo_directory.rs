//! The temporary directory of a demo: its configuration and database. A demo holds the lock file in its directory.
//!
//! A demo that was killed leaves its directory, so the next demo of the same user removes it. Directories that are in use, that
//! belong to another user, or that no demo has made are left alone.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::exit::print_note;

const PREFIX: &str = "refwatch-demo-";
const LOCK_FILE: &str = "demo.lock";
const CONFIGURATION: &str = "refwatch.toml";

pub(super) struct DemoDirectory {
    directory: TempDir,
    _lock: File,
}

impl DemoDirectory {
    /// Removes the directories of killed demos, then creates one.
    pub(super) fn create() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        if let Err(error) = remove_stale(&parent) {
            let parent = parent.display();
            print_note(format_args!("warning: cannot remove the directories of killed demos in {parent}: {error}"));
        }
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lock = File::create_new(directory.path().join(LOCK_FILE))?;
        // No other demo waits for this lock: there is no configuration yet.
        lock.lock()?;
        Ok(Self { directory, _lock: lock })
    }

    /// The path for the configuration. The lock is held before the file exists.
    pub(super) fn configuration(&self) -> PathBuf {
        self.directory.path().join(CONFIGURATION)
    }

    /// Writes a file that only the user can read.
    pub(super) fn write_secret(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.directory.path().join(name);
        File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
    }

    pub(super) fn remove(self) -> io::Result<()> {
        self.directory.close()
    }
}

fn remove_stale(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            remove_if_stale(&entry.path())?;
        }
    }
    Ok(())
}

/// Another demo may remove the directory meanwhile.
fn remove_if_stale(directory: &Path) -> io::Result<()> {
    let remove = || {
        let metadata = fs::symlink_metadata(directory)?;
        let is_own = metadata.is_dir() && metadata.uid() == geteuid().as_raw();
        if !is_own || !directory.join(CONFIGURATION).try_exists()? {
            return Ok(());
        }
        match File::options().write(true).open(directory.join(LOCK_FILE))?.try_lock() {
            Ok(()) => fs::remove_dir_all(directory),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    };
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
