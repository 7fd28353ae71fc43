//! The file of the database: lock, open, check, quarantine.
//!
//! The writer writes its process id into the lock file before SQLite opens the database, and empties the lock file after SQLite has closed
//! it. A process id or a WAL that is left at the next start counts as an unclean stop. SQLite then checks the database
//! before the writer uses it. Readers do not use the lock file.
//!
//! The files may be moved, deleted or replaced while the daemon runs. SQLite does not notice that: `is_in_place` detects it, and
//! `save_commits` saves the data.

use std::fs::{self, DirBuilder, File, Metadata, Permissions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{NFS_SUPER_MAGIC, fstatfs};

use super::errors::{DATABASE_FILE_SUFFIXES, FileError, with_suffix};
use super::{location, schema};
use crate::core::time::Timestamp;

/// How long SQLite waits for a lock of another process, such as a backup. Shorter than the watchdog's timeout.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The database may reveal what a laboratory works on: the owner may write, the group may read, others get no access.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// The process id in the lock file is padded to this width, so that a new id overwrites every byte of the old one.
const PID_WIDTH: usize = location::LOCK_LENGTH_MAX - 1;

/// A reader that stays open lets the WAL grow. After the reader has ended, the WAL file is cut to this many bytes.
const WAL_BYTES_KEPT: i64 = 4 << 20;

/// Offset of the write version in the header of a database file, and the highest version: WAL.
const WRITE_VERSION_OFFSET: u64 = 18;
const WRITE_VERSION_MAX: u8 = 2;

/// The bytes of a path that are percent-encoded in a URI.
const ENCODED_IN_URI: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a database, and the locks on its lock file and on the database. Until it is dropped, no other refwatch can write the
/// database, not even through a hard link. (On NFS only the lock file is locked.) Other programs are not locked out.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    /// Absolute, so that SQLite does not parse it as a URI, and without symbolic links.
    pub(super) path: PathBuf,
    lock_file: File,
    /// The database, locked with `flock`, which is independent of SQLite's locks. `None` before the first `lock_database`, after a
    /// quarantine, and after a deleted file was restored. The descriptor stays open while SQLite uses the file at the path: closing any
    /// descriptor of a file drops all of SQLite's locks on that file (POSIX).
    locked_database: Option<File>,
    /// Whether the next [`Self::connect`] must run SQLite's check.
    needs_check: bool,
    /// The identities of the database, its WAL and the WAL's index when SQLite opened them.
    opened_identities: [Option<Identity>; DATABASE_FILE_SUFFIXES.len()],
}

/// The device and inode of a file.
type Identity = (u64, u64);

impl DatabaseFile {
    /// Takes the locks and writes the process id. Does not open the database with SQLite.
    ///
    /// # Errors
    /// Another process has a lock, the file is of another program, its directory is missing, or a system call fails.
    pub(super) fn acquire(path: &Path) -> Result<Self, FileError> {
        let path = location::resolve(path)?;
        location::inspect_files(&path)?;
        let lock_path = with_suffix(&path, ".lock");
        let to_error = FileError::system_mapper(&lock_path, "write the lock file");
        // The lock file is never deleted: otherwise two processes could lock two files of the same name.
        let mut lock_file = open_or_create(&lock_path).map_err(&to_error)?;
        let locked = lock_file.try_lock();
        // The id of the process that holds the lock, or of the last writer after an unclean stop. Empty after a clean stop.
        let mut pid = String::new();
        let read = lock_file.read_to_string(&mut pid);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FileError::InUse { path, pid: pid.trim_end().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(to_error(error)),
        }
        let needs_check = read.map_or(true, |length| length > 0);
        let mut file = Self {
            path,
            lock_file,
            locked_database: None,
            needs_check,
            opened_identities: [None; DATABASE_FILE_SUFFIXES.len()],
        };
        if file.path.exists() {
            file.lock_database()?;
        }
        let pid = format!("{:<width$}\n", std::process::id(), width = PID_WIDTH);
        file.lock_file.write_all_at(pid.as_bytes(), 0).map_err(to_error)?;
        Ok(file)
    }

    /// Opens the file at the path and locks it, unless that is done already. Creates a missing file. The lock file alone is not enough:
    /// it may be deleted, and a hard link to the database has a lock file of its own.
    fn lock_database(&mut self) -> Result<&File, FileError> {
        let file = match self.locked_database.take() {
            Some(file) if file.metadata().ok().as_ref().map(identity) == identity_at(&self.path) => file,
            Some(file) => {
                self.locked_database = Some(file);
                return Err(FileError::Moved { path: self.path.clone() });
            }
            None => {
                // Allowed here: without a locked database the writer has no connection.
                location::inspect_files(&self.path)?;
                let to_error = FileError::system_mapper(&self.path, "read and write the file");
                let file = open_or_create(&self.path).map_err(&to_error)?;
                // On NFS, flock is a lock of the same kind as SQLite's, and would keep SQLite out.
                let is_nfs = fstatfs(&file).is_ok_and(|found| found.f_type == NFS_SUPER_MAGIC);
                match if is_nfs { Ok(()) } else { file.try_lock() } {
                    Ok(()) => file,
                    Err(TryLockError::WouldBlock) => {
                        return Err(FileError::InUse { path: self.path.clone(), pid: None });
                    }
                    Err(TryLockError::Error(error)) => return Err(to_error(error)),
                }
            }
        };
        Ok(self.locked_database.insert(file))
    }

    /// Opens the database for the writer, and migrates its schema. Creates a missing database.
    ///
    /// # Errors
    /// The file is damaged or of another program, its schema is newer, or the system or SQLite fails.
    pub(super) fn connect(&mut self) -> Result<Connection, FileError> {
        self.lock_and_check_format()?;
        let path = &*self.path;
        let to_error = |error| FileError::of_sqlite(path, error);
        let wal = with_suffix(path, "-wal");
        let has_wal = wal.exists();
        // A crash before WAL mode was set leaves a hot journal, which only a writable connection can roll back. Any read
        // through that connection starts the rollback.
        if with_suffix(path, "-journal").exists() {
            let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(to_error)?;
            connection.query_one("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)).map_err(to_error)?;
        }
        // The check opens the file read-only. A writable connection would write the WAL into the database when it closes, even if the check
        // has found damage.
        read_only(path, |connection, path| schema::check(connection, path, self.needs_check || has_wal))?;
        let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(to_error)?;
        for (setting, wanted) in [
            ("journal_mode", Value::from("wal".to_owned())),
            // 2 is FULL: a commit returns once the WAL is synced.
            ("synchronous", Value::from(2)),
            ("journal_size_limit", Value::from(WAL_BYTES_KEPT)),
            // SQLite recommends the next two for a file that other programs may have written.
            ("trusted_schema", Value::from(0)),
            ("cell_size_check", Value::from(1)),
        ] {
            connection.pragma_update(None, setting, &wanted).map_err(to_error)?;
            let found = connection.pragma_query_value(None, setting, |row| row.get::<_, Value>(0)).map_err(to_error)?;
            if found != wanted {
                return Err(FileError::PragmaRejected { path: path.into(), setting, wanted, found });
            }
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(to_error)?;
        schema::migrate(&mut connection, path)?;
        if has_wal {
            // A daemon that was killed during a commit may have written rows without syncing them. They must reach the disk before
            // they are used.
            [Some(&*wal), path.parent()].into_iter().flatten().filter(|path| path.exists()).try_for_each(sync)?;
        }
        self.needs_check = false;
        self.opened_identities = self.identities();
        Ok(connection)
    }

    /// Makes the next [`Self::connect`] run SQLite's check.
    pub(super) fn require_check(&mut self) {
        self.needs_check = true;
    }

    /// Empties the lock file: the database was closed, and the next start need not run SQLite's check.
    ///
    /// # Errors
    /// The system call fails. The next start then runs the check.
    pub(super) fn empty_lock_file(&self) -> io::Result<()> {
        self.lock_file.set_len(0)
    }

    /// Locks the file, and creates an empty one if there is none. Rejects a WAL without a database, because SQLite would delete it, and
    /// an unknown write version, which SQLite would open read-only without an error.
    fn lock_and_check_format(&mut self) -> Result<(), FileError> {
        if length(&self.path) == 0 && length(&with_suffix(&self.path, "-wal")) > 0 {
            let reason = "its write-ahead log has content, but the database does not";
            return Err(FileError::damaged(&self.path, &reason));
        }
        let mut version = [0];
        let read = self.lock_database()?.read_at(&mut version, WRITE_VERSION_OFFSET);
        read.map_err(FileError::system_mapper(&self.path, "read the file"))?;
        if version[0] > WRITE_VERSION_MAX {
            return Err(FileError::damaged(&self.path, &format!("its SQLite write version {} is unknown", version[0])));
        }
        Ok(())
    }

    /// Reads all bytes of the files, so that a failing disk shows as an I/O error and not as damage.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn read_all(&self) -> Result<(), FileError> {
        for file in
            DATABASE_FILE_SUFFIXES.map(|suffix| with_suffix(&self.path, suffix)).iter().filter(|file| file.exists())
        {
            let read = File::open(file).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
            read.map_err(FileError::system_mapper(file, "read the file"))?;
        }
        Ok(())
    }

    /// Moves the database, its WAL and the WAL's index into a new directory next to them, and returns the directory. The next
    /// [`Self::connect`] creates a new database.
    ///
    /// # Errors
    /// A system call fails. Earlier files stay moved. If only the database was moved, the next start finds a non-empty WAL without it
    /// and moves that, too.
    pub(super) fn quarantine(&mut self, now: Timestamp) -> Result<PathBuf, FileError> {
        let directory = with_suffix(&self.path, &format!(".damaged-{}", now.strftime("%Y%m%dT%H%M%S%.3fZ")));
        let to_error =
            |error| FileError::system_mapper(&directory, "move the damaged database to this directory")(error);
        DirBuilder::new().mode(DIRECTORY_MODE).create(&directory).map_err(to_error)?;
        for file in DATABASE_FILE_SUFFIXES.map(|suffix| with_suffix(&self.path, suffix)) {
            if let Some(name) = file.file_name().filter(|_| file.exists()) {
                fs::rename(&file, directory.join(name)).map_err(to_error)?;
            }
        }
        self.locked_database = None;
        self.needs_check = false;
        Ok(directory)
    }

    /// Whether the database, the WAL and its index are the files that SQLite opened. SQLite writes to a deleted file without an error.
    pub(super) fn is_in_place(&self) -> bool {
        self.identities() == self.opened_identities
    }

    /// Saves all commits of `connection` after one of the files has changed: writes the WAL into the database, and copies a deleted
    /// database back to its path. After that the connection may be closed, and the database opened again.
    ///
    /// # Errors
    /// The database itself was moved, or another file is at its path; a reader prevents the checkpoint; or the disk fails. The connection
    /// must stay open: it may have the only copy of the data.
    pub(super) fn save_commits(&mut self, connection: &Connection) -> Result<(), FileError> {
        self.needs_check = true;
        // This writes the WAL to the database through the open descriptors. It also empties the WAL, which SQLite would otherwise apply
        // to another database at the path.
        let busy = connection.query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        if busy.map_err(|error| FileError::of_sqlite(&self.path, error))? {
            let busy = io::ErrorKind::ResourceBusy.into();
            return Err(FileError::system_mapper(&self.path, "move the write-ahead log into the database")(busy));
        }
        let at_path = identity_at(&self.path);
        // The locked file may be in place (nothing to do), moved or replaced (an error), or deleted (restored below).
        if let Some(database) = &self.locked_database {
            let metadata = database.metadata().map_err(FileError::system_mapper(&self.path, "read the file"))?;
            if at_path == Some(identity(&metadata)) {
                return Ok(());
            }
            if metadata.nlink() > 0 || at_path.is_some() {
                return Err(FileError::Moved { path: self.path.clone() });
            }
        }
        // If an earlier call made the copy, but its `sync` (below) failed, `locked_database` is `None` and the copy is at the path. Only
        // the `sync` is repeated then.
        if at_path.is_none() {
            self.copy_to_path(connection)?;
        }
        // Closes the deleted file, which drops SQLite's locks on it. No other process can open a deleted file, so the locks are not needed.
        self.locked_database = None;
        sync(self.directory())
    }

    /// Writes a copy of the deleted database to the path. The caller syncs the directory.
    fn copy_to_path(&self, connection: &Connection) -> Result<(), FileError> {
        let to_error = FileError::system_mapper(&self.path, "restore the deleted file");
        let copy = tempfile::Builder::new().prefix(".refwatch-").tempfile_in(self.directory()).map_err(&to_error)?;
        let name = ToSqlOutput::Borrowed(ValueRef::Text(copy.path().as_os_str().as_bytes()));
        connection.execute("VACUUM INTO ?", [name]).map_err(|error| FileError::of_sqlite(&self.path, error))?;
        copy.as_file().set_permissions(Permissions::from_mode(FILE_MODE)).map_err(&to_error)?;
        copy.as_file().sync_all().map_err(&to_error)?;
        copy.persist_noclobber(&self.path).map_err(|error| to_error(error.error))?;
        Ok(())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn identities(&self) -> [Option<Identity>; DATABASE_FILE_SUFFIXES.len()] {
        DATABASE_FILE_SUFFIXES.map(|suffix| identity_at(&with_suffix(&self.path, suffix)))
    }

    /// The sizes of the database and its WAL in bytes, 0 for a missing file.
    pub(super) fn sizes(&self) -> [u64; 2] {
        [length(&self.path), length(&with_suffix(&self.path, "-wal"))]
    }
}

/// Opens or creates a file of refwatch. Fails for a symbolic link. A new file has [`FILE_MODE`] whatever the umask.
fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(location::open_flags());
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match options.create_new(true).mode(FILE_MODE).open(path) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.create_new(false).open(path),
        created => created.and_then(|file| file.set_permissions(Permissions::from_mode(FILE_MODE)).map(|()| file)),
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn identity_at(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().as_ref().map(identity)
}

/// Opens the file read-only and calls `read`.
///
/// A database that was closed has no WAL and is opened as an immutable file, which creates no file and needs no write permission. If
/// a WAL appears meanwhile, a writer has started, and `read` is repeated. With a WAL, SQLite uses the `-shm` file, and creates it
/// if a killed daemon has left none.
///
/// # Errors
/// The file is missing or cannot be opened, or `read` failed.
pub(super) fn read_only<T, E: From<FileError>>(
    path: &Path,
    read: impl Fn(&Connection, &Path) -> Result<T, E>,
) -> Result<T, E> {
    let path = &fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FileError::Missing { path: path.into() },
        _ => FileError::system_mapper(path, "read the file")(error),
    })?;
    let wal = with_suffix(path, "-wal");
    let open_and_read = |path_or_uri: &Path, flags| {
        let connection = open(path_or_uri, OpenFlags::SQLITE_OPEN_READ_ONLY | flags);
        read(&connection.map_err(|error| FileError::of_sqlite(path, error))?, path)
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

/// Creates the directory `path`, in which a database will be, and its ancestors.
///
/// # Errors
/// A system call fails.
pub fn create_directory(path: &Path) -> Result<(), FileError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|directory| !directory.exists()).collect();
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
    made.map_err(FileError::system_mapper(path, "create or enter the directory"))?;
    // Without a sync, a power cut could remove the new directories and the database in them.
    missing.into_iter().filter_map(Path::parent).try_for_each(sync)
}

fn sync(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(FileError::system_mapper(path, "sync it to disk"))
}
