//! The file of the database: lock, open, check, move aside.
//!
//! The lock file holds the process id while the writer has the database open. An id that is still there at the next start,
//! or a write-ahead log, means an unclean stop; then SQLite checks the file before anything else uses it. Readers take no lock
//! and leave nothing behind.

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

use super::errors::{FILES, OpenError, beside};
use super::schema;
use crate::core::time::Timestamp;

/// How long to wait for a lock of another process: a person in the sqlite3 shell, a backup. Longer than either takes, shorter
/// than the timeout of a watchdog.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The database may tell what a laboratory works on: its owner writes, its group reads.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// The characters of the process id in the lock file, with blanks: more than any has digits.
const PID_WIDTH: usize = 19;

/// Where the header of a database says which format a writer must know, and the highest that SQLite has.
const WRITE_FORMAT_AT: u64 = 18;
const WRITE_FORMAT_MAX: u8 = 2;

/// What a path keeps in a URI.
const IN_URI: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A database that this process alone may write, until it is dropped.
#[derive(Debug)]
pub(super) struct LockedFile {
    /// Absolute and without symbolic links, so that SQLite takes no part of it for a URI and two names are one lock.
    pub(super) path: PathBuf,
    lock: File,
    /// Whether the last writer did not close the database.
    unclean: bool,
}

impl LockedFile {
    /// Takes the lock, in a directory that is created where there is none. The database is not touched.
    ///
    /// # Errors
    /// Another process has the lock, or the system refuses.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let absolute = path::absolute(path).map_err(OpenError::of_system(path, "resolve the path"))?;
        if let Some(directory) = absolute.parent() {
            let missing: Vec<&Path> = directory.ancestors().take_while(|directory| !directory.exists()).collect();
            let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
            made.map_err(OpenError::of_system(directory, "create or enter the directory"))?;
            // A power cut removes a directory whose entry was not synced, and the database with it.
            missing.into_iter().filter_map(Path::parent).try_for_each(sync)?;
        }
        let path = fs::canonicalize(&absolute).unwrap_or(absolute);
        let lock_path = beside(&path, ".lock");
        let failed = OpenError::of_system(&lock_path, "write the lock file");
        // The file stays: if it were deleted, two processes could lock two files of one name.
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&lock_path);
        let mut lock = opened.map_err(&failed)?;
        let locked = lock.try_lock();
        let mut pid = String::new();
        let read = lock.read_to_string(&mut pid);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { path, pid: pid.trim_end().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let unclean = read.map_or(true, |length| length > 0);
        let pid = format!("{:<width$}\n", std::process::id(), width = PID_WIDTH);
        lock.write_all_at(pid.as_bytes(), 0).map_err(failed)?;
        Ok(Self { path, lock, unclean })
    }

    /// Opens the database for the writer, creates it where there is none, and migrates its schema.
    ///
    /// # Errors
    /// It is damaged, no database of refwatch, a newer one, or the system refuses.
    pub(super) fn connect(&mut self) -> Result<Connection, OpenError> {
        self.create()?;
        let path = &*self.path;
        let failed = |error| OpenError::of_sqlite(path, error);
        let wal = beside(path, "-wal");
        let killed = wal.exists();
        // A new database begins with a rollback journal. What a power cut left of it is rolled back before anything is read.
        if beside(path, "-journal").exists() {
            let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
            connection.query_one("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
        }
        // Read-only, because closing a connection that can write moves the log of a newer or a damaged database into its file.
        read_only(path, |connection, path| schema::check(connection, path, self.unclean || killed))?;
        let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        for (setting, wanted) in [
            ("journal_mode", Value::from("wal".to_owned())),
            // 2 is FULL: a commit returns once the write-ahead log is synced.
            ("synchronous", Value::from(2)),
            // SQLite's advice for a file that others may have written.
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
        if killed {
            // The killed process may have left a commit that is in the page cache and not on disk. Its rows are shown from now on.
            [Some(&*wal), path.parent()].into_iter().flatten().filter(|file| file.exists()).try_for_each(sync)?;
        }
        self.unclean = false;
        Ok(connection)
    }

    /// Notes that an operation failed: the next [`Self::connect`] checks the file, in this process or the next.
    pub(super) fn mark_unclean(&mut self) {
        self.unclean = true;
    }

    /// Notes that the database was closed: the next start needs no check.
    ///
    /// # Errors
    /// The system refuses. The next start then checks the file.
    pub(super) fn mark_closed(&self) -> io::Result<()> {
        self.lock.set_len(0)
    }

    fn create(&self) -> Result<(), OpenError> {
        let wal = beside(&self.path, "-wal");
        if !self.path.exists() && fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0) {
            return Err(OpenError::damaged(&self.path, &"its write-ahead log is there without it"));
        }
        // Closed before SQLite opens it: closing it later would drop the locks that SQLite holds for this process.
        let file = OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(&self.path);
        let file = file.map_err(OpenError::of_system(&self.path, "read and write the file"))?;
        // SQLite opens a file of a later format read-only, as if the file system were.
        let mut format = [0];
        let read = file.read_at(&mut format, WRITE_FORMAT_AT);
        read.map_err(OpenError::of_system(&self.path, "read the file"))?;
        if format[0] > WRITE_FORMAT_MAX {
            return Err(OpenError::damaged(&self.path, &format!("a file of SQLite's format {}", format[0])));
        }
        Ok(())
    }

    /// Reads the files to their ends.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn read_through(&self) -> Result<(), OpenError> {
        for file in FILES.map(|suffix| beside(&self.path, suffix)).iter().filter(|file| file.exists()) {
            let read = File::open(file).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
            read.map_err(OpenError::of_system(file, "read the file"))?;
        }
        Ok(())
    }

    /// Moves the files into a new directory beside them and returns that. The next [`Self::connect`] starts from nothing.
    ///
    /// # Errors
    /// The system refuses. The files that were moved stay moved; the next start moves the rest.
    pub(super) fn quarantine(&mut self, now: Timestamp) -> Result<PathBuf, OpenError> {
        let aside = beside(&self.path, &format!(".damaged-{}", now.strftime("%Y%m%dT%H%M%S%.3fZ")));
        let failed = |error| OpenError::of_system(&aside, "move the damaged database there")(error);
        if self.path.exists() && !self.path.is_file() {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        DirBuilder::new().mode(DIRECTORY_MODE).create(&aside).map_err(failed)?;
        for file in FILES.map(|suffix| beside(&self.path, suffix)) {
            if let Some(name) = file.file_name().filter(|_| file.exists()) {
                fs::rename(&file, aside.join(name)).map_err(failed)?;
            }
        }
        self.unclean = false;
        Ok(aside)
    }

    /// The device and inode of the file at the path; `None` where there is none.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }
}

/// Opens the file for `read`, changes nothing and leaves nothing behind.
///
/// A database that nobody has open has no write-ahead log, and is read as an immutable file: that needs no right to write the
/// directory, where SQLite would otherwise put its shared memory. If a log turns up meanwhile, a daemon has started, and
/// `read` is repeated beside it.
///
/// # Errors
/// There is no file, it is not of this version, or `read` failed.
pub(super) fn read_only<T, E: From<OpenError>>(
    path: &Path,
    read: impl Fn(&Connection, &Path) -> Result<T, E>,
) -> Result<T, E> {
    let path = &fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path: path.into() },
        _ => OpenError::of_system(path, "read the file")(error),
    })?;
    let wal = beside(path, "-wal");
    let attempt = |name: &Path, flags| {
        let connection = open(name, OpenFlags::SQLITE_OPEN_READ_ONLY | flags);
        read(&connection.map_err(|error| OpenError::of_sqlite(path, error))?, path)
    };
    if !wal.exists() {
        let uri = format!("file:{}?immutable=1", percent_encode(path.as_os_str().as_bytes(), IN_URI));
        let result = attempt(Path::new(&uri), OpenFlags::SQLITE_OPEN_URI);
        if !wal.exists() {
            return result;
        }
    }
    attempt(path, OpenFlags::empty())
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Returns once a file's content, or a directory's entries, are on disk.
fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(OpenError::of_system(path, "sync it to disk"))
}
