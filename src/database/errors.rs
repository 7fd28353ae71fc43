//! Every way in which the database can fail, and how SQLite's errors become these.
//!
//! The distinction that matters: a damaged file is moved aside, and everything else is waited for or reported.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use rustix::fs::{Access, access};

/// The files of a database: the database, its write-ahead log, the index of that. A damaged one is moved aside in this order:
/// a log without its database is noticed at the next start, a database without its log may look whole.
pub(super) const FILES: [&str; 3] = ["", "-wal", "-shm"];

/// The database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Only a reader reports this; the daemon creates the file.
    #[error("{path}: there is no database")]
    Missing { path: PathBuf },
    /// `pid` is `None` if the other process has not written its id yet.
    #[error("{path}: the database is in use by {}", holder(*.pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    /// The file is unchanged.
    #[error(
        "{path}: its schema version {found} is newer than version {known} of this refwatch: install a newer refwatch"
    )]
    NewerSchema { path: PathBuf, found: usize, known: usize },
    /// Only a reader reports this; the daemon migrates the file.
    #[error(
        "{path}: its schema version {found} is older than version {known} of this refwatch: start the daemon, which migrates it"
    )]
    OlderSchema { path: PathBuf, found: usize, known: usize },
    /// The file is unchanged. Only the start of a daemon moves it aside.
    #[error("{path}: not a refwatch database, or damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// SQLite ignores a setting that durability needs, as on some network file systems.
    #[error("{path}: {setting} is {found:?} after it was set to {wanted:?}")]
    PragmaRejected {
        path: PathBuf,
        setting: &'static str,
        wanted: rusqlite::types::Value,
        found: rusqlite::types::Value,
    },
    /// A system call failed.
    #[error("{path}: cannot {operation}: {error}")]
    System {
        path: PathBuf,
        operation: &'static str,
        #[source]
        error: io::Error,
    },
    /// The file or directory belongs to another user.
    #[error("{path}: cannot {operation}: permission denied: {owners}: run as that user or as root")]
    PermissionDenied { path: PathBuf, operation: &'static str, owners: String },
    /// SQLite may not open the file or one of its companions.
    #[error(
        "{path}: cannot open the database: permission denied: this user must be able to read it, and to write its directory \
         if the daemon was killed"
    )]
    NoAccess { path: PathBuf },
    /// SQLite failed, for a reason that is not damage.
    #[error("{path}: {error}")]
    Sqlite {
        path: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
}

/// A request to the writer failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The writer thread has ended. It does not come back.
    #[error("the thread that writes the database has ended")]
    WriterGone,
    /// SQLite failed. The next request opens the file again.
    #[error("{0}")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// SQLite failed before, and the file cannot be opened again.
    #[error("{0}")]
    Reopen(#[source] Arc<OpenError>),
}

impl OpenError {
    /// Whether the error is one of the disk or of a lock, and may pass without a change to this process or its files.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sqlite { .. } => true,
            Self::System { error, .. } => {
                matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
                ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
            _ => false,
        }
    }

    /// SQLite reports a damaged file by three codes. `Unknown` and `SqlInputError` are `SQLITE_ERROR`: a format or a column that
    /// refwatch did not write. No error of a disk, a lock or a permission has one of these.
    pub(super) fn of_sqlite(path: &Path, error: rusqlite::Error) -> Self {
        if let rusqlite::Error::SqlInputError { .. } = error {
            return Self::damaged(path, &error);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => {
                Self::damaged(path, &error)
            }
            Some(ErrorCode::CannotOpen) if is_denied(path) => Self::NoAccess { path: path.into() },
            Some(_) | None => Self::Sqlite { path: path.into(), error },
        }
    }

    pub(super) fn damaged(path: &Path, reason: &dyn Display) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }

    /// A system call on `path` failed. `operation` completes "cannot".
    pub(super) fn of_system(path: &Path, operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::PermissionDenied { path: path.into(), operation, owners: owners(path) }
            }
            _ => Self::System { path: path.into(), operation, error },
        }
    }
}

/// SQLite reports CANTOPEN for a missing permission and for a full or failing disk alike.
fn is_denied(path: &Path) -> bool {
    let files = FILES.map(|suffix| beside(path, suffix));
    let existing = files.iter().filter(|file| file.exists()).map(|file| &**file);
    existing.chain(path.parent()).any(|path| access(path, Access::READ_OK | Access::WRITE_OK).is_err())
}

/// The file whose name is that of `path` and `suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

/// The user of this process, and the owner of the path or of its first ancestor that can be read.
fn owners(path: &Path) -> String {
    let existing = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    let owner = existing.map(|(path, found)| format!(", and {} belongs to user {}", path.display(), found.uid()));
    format!("refwatch runs as user {}{}", rustix::process::geteuid().as_raw(), owner.unwrap_or_default())
}
