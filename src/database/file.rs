//! The file of the database: lock, open, check, quarantine.
//!
//! The writer writes its process id into the lock file before it opens the database, and empties the lock file after it has closed the
//! database. A process id or a WAL that is left at the next start counts as an unclean stop. SQLite then checks the database
//! before the writer uses it. Readers do not use the lock file.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::errors::{OpenError, SUFFIXES, with_suffix};
use super::schema;
use crate::core::time::Timestamp;

/// How long SQLite waits for a lock of another process, such as a backup. Shorter than the watchdog's timeout.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The database may reveal what a laboratory works on: the owner may write, the group may read, others get no access.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// The process id in the lock file is padded to this width, so that a shorter id overwrites a longer one.
const PID_WIDTH: usize = 19;

const WAL_BYTES_MAX: i64 = 4 << 20;

/// Offset of the write version in the header of a database file, and the highest version: WAL.
const WRITE_VERSION_OFFSET: u64 = 18;
const WRITE_VERSION_MAX: u8 = 2;

/// The bytes of a path that are percent-encoded in a URI.
const ENCODED_IN_URI: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a database, and the locked lock file beside it. Until it is dropped, no other process can acquire the same path.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    /// Absolute, so that SQLite does not parse it as a URI. If the file existed before, symbolic links are resolved: every link to the
    /// file leads to the same lock file.
    pub(super) path: PathBuf,
    lock_file: File,
    /// Whether the database was not closed, or an operation has failed since it was opened.
    unclean: bool,
}

impl DatabaseFile {
    /// Creates the directory if it is missing, takes the lock and writes the process id. Does not open the database.
    ///
    /// # Errors
    /// Another process has the lock, or a system call fails.
    pub(super) fn acquire(path: &Path) -> Result<Self, OpenError> {
        let absolute = path::absolute(path).map_err(OpenError::of_system(path, "resolve the path"))?;
        if let Some(directory) = absolute.parent() {
            let missing: Vec<&Path> = directory.ancestors().take_while(|directory| !directory.exists()).collect();
            let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
            made.map_err(OpenError::of_system(directory, "create or enter the directory"))?;
            // Without a sync, a power cut could remove the new directories and the database in them.
            missing.into_iter().filter_map(Path::parent).try_for_each(sync)?;
        }
        let path = fs::canonicalize(&absolute).unwrap_or(absolute);
        let lock_path = with_suffix(&path, ".lock");
        let failed = OpenError::of_system(&lock_path, "write the lock file");
        // The lock file is never deleted: otherwise two processes could lock two files of the same name.
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&lock_path);
        let mut lock_file = opened.map_err(&failed)?;
        let locked = lock_file.try_lock();
        // If another process holds the lock: its process id. Otherwise empty, unless the last stop was unclean.
        let mut pid = String::new();
        let read = lock_file.read_to_string(&mut pid);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { path, pid: pid.trim_end().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let unclean = read.map_or(true, |length| length > 0);
        let pid = format!("{:<width$}\n", std::process::id(), width = PID_WIDTH);
        lock_file.write_all_at(pid.as_bytes(), 0).map_err(failed)?;
        Ok(Self { path, lock_file, unclean })
    }

    /// Opens the database for the writer, and migrates its schema. Creates a missing database.
    ///
    /// # Errors
    /// The file is damaged or of another program, its schema is newer, or the system or SQLite fails.
    pub(super) fn connect(&mut self) -> Result<Connection, OpenError> {
        self.create_or_reject()?;
        let path = &*self.path;
        let failed = |error| OpenError::of_sqlite(path, error);
        let wal = with_suffix(path, "-wal");
        let has_wal = wal.exists();
        // A crash before WAL mode was set leaves a hot journal, which only a writable connection can roll back. Any read does it.
        if with_suffix(path, "-journal").exists() {
            let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
            connection.query_one("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
        }
        // The check itself is read-only: closing a writable connection would move the WAL into a file that may be rejected.
        read_only(path, |connection, path| schema::check(connection, path, self.unclean || has_wal))?;
        let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        for (setting, wanted) in [
            ("journal_mode", Value::from("wal".to_owned())),
            // 2 is FULL: a commit returns once the WAL is synced.
            ("synchronous", Value::from(2)),
            // A reader that stays open lets the WAL grow. After it has ended, the file is cut to this many bytes.
            ("journal_size_limit", Value::from(WAL_BYTES_MAX)),
            // SQLite recommends the next two for a file that other programs may have written.
            ("trusted_schema", Value::from(0)),
            ("cell_size_check", Value::from(1)),
        ] {
            connection.pragma_update(None, setting, &wanted).map_err(failed)?;
            let found = connection.pragma_query_value(None, setting, |row| row.get::<_, Value>(0)).map_err(failed)?;
            if found != wanted {
                return Err(OpenError::PragmaRejected { path: path.into(), setting, wanted, found });
            }
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(failed)?;
        schema::migrate(&mut connection, path)?;
        if has_wal {
            // A daemon that was killed during a commit may have written rows without syncing them. They must reach the disk before
            // they are used.
            [Some(&*wal), path.parent()].into_iter().flatten().filter(|file| file.exists()).try_for_each(sync)?;
        }
        self.unclean = false;
        Ok(connection)
    }

    /// Makes the next [`Self::connect`] run SQLite's check.
    pub(super) fn mark_unclean(&mut self) {
        self.unclean = true;
    }

    /// Empties the lock file: the database was closed, and the next start need not run SQLite's check.
    ///
    /// # Errors
    /// The system call fails. The next start then runs the check.
    pub(super) fn mark_closed(&self) -> io::Result<()> {
        self.lock_file.set_len(0)
    }

    /// Creates an empty file if there is none. Rejects a WAL without a database, because SQLite would delete it, and a format that
    /// SQLite would open read-only without an error.
    fn create_or_reject(&self) -> Result<(), OpenError> {
        let wal = with_suffix(&self.path, "-wal");
        if !self.path.exists() && fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0) {
            return Err(OpenError::damaged(&self.path, &"its write-ahead log exists, but the database does not"));
        }
        // POSIX: closing any descriptor of a file drops all locks of the process on that file. This descriptor is therefore closed
        // before SQLite opens the file for writing. Known gap: at a reopen, this also drops the lock of a `DatabaseReader` in this
        // process. If another program then closes the database, it could delete the WAL.
        let file = OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(&self.path);
        let file = file.map_err(OpenError::of_system(&self.path, "read and write the file"))?;
        let mut version = [0];
        let read = file.read_at(&mut version, WRITE_VERSION_OFFSET);
        read.map_err(OpenError::of_system(&self.path, "read the file"))?;
        if version[0] > WRITE_VERSION_MAX {
            return Err(OpenError::damaged(&self.path, &format!("its SQLite write version {} is unknown", version[0])));
        }
        Ok(())
    }

    /// Reads all bytes of the files, so that a failing disk shows as an I/O error and not as damage.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn read_all(&self) -> Result<(), OpenError> {
        for file in SUFFIXES.map(|suffix| with_suffix(&self.path, suffix)).iter().filter(|file| file.exists()) {
            let read = File::open(file).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
            read.map_err(OpenError::of_system(file, "read the file"))?;
        }
        Ok(())
    }

    /// Moves the files into a new directory next to them, and returns the directory. The next [`Self::connect`] creates a new database.
    ///
    /// # Errors
    /// A system call fails. Earlier files stay moved. If only the database was moved, the next start finds a non-empty WAL without it
    /// and moves that, too.
    pub(super) fn quarantine(&mut self, now: Timestamp) -> Result<PathBuf, OpenError> {
        let directory = with_suffix(&self.path, &format!(".damaged-{}", now.strftime("%Y%m%dT%H%M%S%.3fZ")));
        let failed = |error| OpenError::of_system(&directory, "move the damaged database to this directory")(error);
        // Only regular files are moved: the path may be a device.
        if self.path.exists() && !self.path.is_file() {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        DirBuilder::new().mode(DIRECTORY_MODE).create(&directory).map_err(failed)?;
        for file in SUFFIXES.map(|suffix| with_suffix(&self.path, suffix)) {
            if let Some(name) = file.file_name().filter(|_| file.exists()) {
                fs::rename(&file, directory.join(name)).map_err(failed)?;
            }
        }
        self.unclean = false;
        Ok(directory)
    }

    /// The device and inode of the file at the path, if there is a file.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }
}

/// Opens the file read-only and calls `read`.
///
/// A database that was closed has no WAL and is opened as an immutable file, which creates no file and needs no write permission. If
/// a WAL appears meanwhile, a writer has started, and `read` is repeated. With a WAL, SQLite uses the `-shm` file, and creates it
/// if a killed daemon has left none.
///
/// # Errors
/// The file is missing or cannot be opened, or `read` failed.
pub(super) fn read_only<T, E: From<OpenError>>(
    path: &Path,
    read: impl Fn(&Connection, &Path) -> Result<T, E>,
) -> Result<T, E> {
    let path = &fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path: path.into() },
        _ => OpenError::of_system(path, "read the file")(error),
    })?;
    let wal = with_suffix(path, "-wal");
    let open_and_read = |name: &Path, flags| {
        let connection = open(name, OpenFlags::SQLITE_OPEN_READ_ONLY | flags);
        read(&connection.map_err(|error| OpenError::of_sqlite(path, error))?, path)
    };
    if !wal.exists() {
        let uri = format!("file:{}?immutable=1", percent_encode(path.as_os_str().as_bytes(), ENCODED_IN_URI));
        let result = open_and_read(Path::new(&uri), OpenFlags::SQLITE_OPEN_URI);
        if !wal.exists() {
            return result;
        }
    }
    open_and_read(path, OpenFlags::empty())
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(OpenError::of_system(path, "sync it to disk"))
}
