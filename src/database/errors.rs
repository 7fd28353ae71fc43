//! Errors of the database: of opening, reading and writing, and how SQLite's errors map to them.
//!
//! [`FileError::Damaged`] is the only error after which the daemon moves the file to quarantine.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use rustix::fs::{Access, access};

/// Suffixes of the files in WAL mode: the database, its WAL and the index of the WAL. Quarantine moves them in this order, because it
/// may be interrupted: the next start detects a WAL without its database, but a database without its WAL may look complete.
pub(super) const DATABASE_FILE_SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A reader reports a missing file; the daemon creates it.
    #[error("{path}: there is no database")]
    Missing { path: PathBuf },
    /// `pid` is the content of the lock file. Until the other process has written its id, it is `None` or the id of an earlier writer.
    #[error("{path}: the database is in use by {}", holder(*.pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    /// The daemon creates a missing directory only if it is the default directory of a user (`DatabaseConfig::is_in_user_directory`). The
    /// disk of another directory may not be mounted yet.
    #[error(
        "{path}: there is no such directory for the database: mount its disk, or create it for the user that runs refwatch: \
         install -d -m 750 -o {owner} {path}"
    )]
    MissingDirectory { path: PathBuf, owner: u32 },
    /// Only a running writer reports this. It keeps the old file open.
    #[error(
        "{path}: the database was moved, deleted or replaced by another file: move it back, or restart refwatch, which then uses the \
         file that is there"
    )]
    Moved { path: PathBuf },
    /// refwatch has not made the file, and does not change it.
    #[error("{path}: this is {found}, and refwatch did not make it: set `path` in [database] to another file")]
    Foreign { path: PathBuf, found: &'static str },
    #[error(
        "{path}: its schema version {found} is newer than version {known} of this refwatch: install a newer refwatch"
    )]
    NewerSchema { path: PathBuf, found: usize, known: usize },
    /// Only a reader reports this; the daemon migrates the file.
    #[error(
        "{path}: its schema version {found} is older than version {known} of this refwatch: start the daemon, which migrates it"
    )]
    OlderSchema { path: PathBuf, found: usize, known: usize },
    /// At its start, the daemon moves the file to quarantine. A running writer or a reader only reports the damage.
    #[error("{path}: not a refwatch database, or damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// SQLite did not apply a setting. Some network file systems do not support WAL mode.
    #[error("{path}: {setting} is {found:?} after it was set to {wanted:?}")]
    PragmaRejected {
        path: PathBuf,
        setting: &'static str,
        wanted: rusqlite::types::Value,
        found: rusqlite::types::Value,
    },
    #[error("{path}: cannot {operation}: {error}")]
    System {
        path: PathBuf,
        operation: &'static str,
        #[source]
        error: io::Error,
    },
    /// A system call failed with `EACCES` or `EPERM`.
    #[error("{path}: cannot {operation}: permission denied: {reason}: run as the owner or as root")]
    SystemDenied { path: PathBuf, operation: &'static str, reason: String },
    /// SQLite cannot open a file, and this user may not read or write the file or its directory.
    #[error(
        "{path}: cannot open the database: permission denied: this user must be able to read it, and to write its directory \
         if the daemon was killed"
    )]
    SqliteDenied { path: PathBuf },
    #[error("{path}: {error}")]
    Sqlite {
        path: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
}

/// The database cannot be opened or read by a [`super::DatabaseReader`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Open(#[from] FileError),
    /// After a kill of the daemon, a reader must also write the directory.
    #[error(
        "permission denied opening {path}: run as root or join the group refwatch; if the daemon was killed, start it, or run as root"
    )]
    Denied { path: PathBuf },
    #[error("the database cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// `after` is higher than every id in the database, so it is from a database that was replaced. The highest id is never deleted.
    #[error("no row has the id {after}: the last one is {last}; the database was replaced")]
    UnknownRow { after: i64, last: i64 },
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum WriterError {
    /// This writer never restarts; open a new [`super::Database`].
    #[error("the thread that writes the database has ended")]
    Stopped,
    /// SQLite failed. The next request opens the file again.
    #[error("{0}")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// The file cannot be opened again. It was closed after a failure, or was moved, replaced or deleted.
    #[error("{0}")]
    Reopen(#[source] Arc<FileError>),
}

impl FileError {
    /// Whether a starting daemon keeps trying to open the database: after an error of SQLite, while the disk is full, read-only or
    /// failing, and while the writer's thread cannot start. Any other error ends a starting daemon.
    #[must_use]
    pub fn is_retried(&self) -> bool {
        match self {
            Self::Sqlite { .. } => true,
            Self::System { error, .. } => {
                matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull
                        | io::ErrorKind::QuotaExceeded
                        | io::ErrorKind::ReadOnlyFilesystem
                        // The writer's thread cannot be started.
                        | io::ErrorKind::WouldBlock
                ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
            _ => false,
        }
    }

    /// Maps an error of SQLite. Three codes mean damage: `SQLITE_NOTADB`, `SQLITE_CORRUPT`, and `SQLITE_ERROR`: refwatch's SQL is valid, so
    /// a table or column is missing, or the format is unknown. rusqlite returns `SQLITE_ERROR` as `Unknown`, or as `SqlInputError` if
    /// SQLite knows the offset in the SQL text. A failing disk can look like damage, so `Writer::open` reads all bytes before it moves the
    /// files.
    pub(super) fn of_sqlite(path: &Path, error: rusqlite::Error) -> Self {
        if let rusqlite::Error::SqlInputError { .. } = error {
            return Self::damaged(path, &error);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => {
                Self::damaged(path, &error)
            }
            Some(ErrorCode::CannotOpen) if is_denied(path) => Self::SqliteDenied { path: path.into() },
            Some(_) | None => Self::Sqlite { path: path.into(), error },
        }
    }

    /// Whether only a person can resolve an error that is not retried. The daemon then exits with `EX_CONFIG`, and systemd does not restart
    /// it. After the other errors that are not retried, systemd restarts it.
    #[must_use]
    pub fn outlasts_restart(&self) -> bool {
        matches!(self, Self::NewerSchema { .. } | Self::MissingDirectory { .. } | Self::Foreign { .. })
    }

    pub(super) fn missing_directory(path: &Path) -> Self {
        Self::MissingDirectory { path: path.into(), owner: rustix::process::geteuid().as_raw() }
    }

    pub(super) fn foreign(path: &Path, found: &'static str) -> Self {
        Self::Foreign { path: path.into(), found }
    }

    pub(super) fn damaged(path: &Path, reason: &dyn Display) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }

    /// Returns the function that maps an error of a system call on `path`. `operation` completes "cannot".
    pub(super) fn system_mapper(path: &Path, operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::SystemDenied { path: path.into(), operation, reason: describe_user_and_owner(path) }
            }
            _ => Self::System { path: path.into(), operation, error },
        }
    }
}

/// Whether this process lacks read or write permission for a file or the directory, or the file system is read-only. SQLite reports
/// `SQLITE_CANTOPEN` for this, and also for a full or failing disk.
fn is_denied(path: &Path) -> bool {
    let files = DATABASE_FILE_SUFFIXES.map(|suffix| with_suffix(path, suffix));
    let existing = files.iter().filter(|file| file.exists()).map(|file| &**file);
    existing.chain(path.parent()).any(|path| access(path, Access::READ_OK | Access::WRITE_OK).is_err())
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

/// Names the user of this process, and the owner of the path or of its nearest ancestor with readable metadata.
fn describe_user_and_owner(path: &Path) -> String {
    let existing = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    let owner = existing.map(|(path, found)| format!(", and {} belongs to user {}", path.display(), found.uid()));
    format!("refwatch runs as user {}{}", rustix::process::geteuid().as_raw(), owner.unwrap_or_default())
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
