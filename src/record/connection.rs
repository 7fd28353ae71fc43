//! How the record's file is opened: by the one writer, under a lock and with every setting read back, or by a reader
//! that leaves no trace.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::{OpenError, schema};

/// How long to wait for a lock that another process holds: a person in the sqlite3 shell, a backup. Longer than either
/// takes, shorter than the patience of a watchdog.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// A record may tell what a laboratory works on: its owner writes, its group reads.
const FILE_MODE: u32 = 0o640;

/// The mode of a directory made for it.
const DIRECTORY_MODE: u32 = 0o750;

/// The most that is read of a lock file: more than any process id has digits.
const PID_LENGTH_MAX: u64 = 20;

/// A record that this process alone may write, until it is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    /// Its path, absolute and without symbolic links, so that SQLite takes no part of it for a URI and two names are
    /// one lock.
    pub(super) path: PathBuf,
    _lock: File,
}

impl Locked {
    /// Takes the lock and sees to it that there is a file, in a directory. One that is already there is not touched.
    ///
    /// # Errors
    /// Another process has the lock, or the system refuses.
    pub(super) fn new(path: &Path) -> Result<Self, OpenError> {
        let absolute = path::absolute(path).map_err(refused(path, "no such path can be"))?;
        if let Some(directory) = absolute.parent() {
            let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
            made.map_err(refused(directory, "it must be there, and this user must be able to enter it"))?;
        }
        let path = fs::canonicalize(&absolute).unwrap_or(absolute);
        let lock = lock(&path)?;
        // Closed again before SQLite opens it: to close it later would drop the locks that SQLite holds for this
        // process.
        let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&path);
        file.map_err(refused(&path, "this user must be able to write it"))?;
        Ok(Self { path, _lock: lock })
    }
}

/// Takes the lock file beside the record, and writes this process's id into it. The file stays when the lock is gone:
/// to delete it would let two processes lock two files of one name.
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = beside(path, ".lock");
    let refused = refused(&lock_path, "this user must be able to write it");
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&lock_path);
    let mut file = opened.map_err(&refused)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = file.take(PID_LENGTH_MAX).read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim_end().parse().ok());
            return Err(OpenError::InUse { path: path.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(refused(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(refused)?;
    Ok(file)
}

/// Which file stands at `path`: its device and inode. `None` where there is none.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Opens the file for the writer and brings its schema up to date.
///
/// # Errors
/// It is no record, a newer one, or SQLite does not do what is needed.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error| schema::failed(path, error);
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    for (setting, wanted) in [
        ("journal_mode", Value::from("wal".to_owned())),
        // 2 is FULL: a commit returns when the write-ahead log is synced.
        ("synchronous", Value::from(2)),
        // SQLite's advice for a file that others could have written.
        ("trusted_schema", Value::from(0)),
        ("cell_size_check", Value::from(1)),
    ] {
        connection.pragma_update(None, setting, &wanted).map_err(failed)?;
        let found = connection.pragma_query_value(None, setting, |row| row.get::<_, Value>(0)).map_err(failed)?;
        if found != wanted {
            return Err(OpenError::NotInForce { path: path.into(), setting, wanted, found });
        }
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(failed)?;
    schema::migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens the file for `read`, changes nothing and leaves nothing behind.
///
/// A record that nobody has open has no write-ahead log beside it, and is read as the unchanging file it is: that needs
/// no right to write the directory, where SQLite would otherwise put its shared memory. Where a log turns up meanwhile,
/// a daemon has started, and `read` is done again beside it.
///
/// # Errors
/// There is no record, it is not of this version, or `read` failed.
pub(super) fn read_only<T, E: From<OpenError>>(
    path: &Path,
    read: impl Fn(&Connection, &Path) -> Result<T, E>,
) -> Result<T, E> {
    let path = &fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path: path.into() },
        _ => refused(path, "this user must be able to read it")(error),
    })?;
    let log = beside(path, "-wal");
    let attempt = |name: &Path, flags| {
        let connection = open(name, OpenFlags::SQLITE_OPEN_READ_ONLY | flags);
        read(&connection.map_err(|error| schema::failed(path, error))?, path)
    };
    if !log.exists() {
        let answer = attempt(&immutable(path), OpenFlags::SQLITE_OPEN_URI);
        if !log.exists() {
            return answer;
        }
    }
    attempt(path, OpenFlags::empty())
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// The URI by which SQLite takes the file for one that nobody changes.
fn immutable(path: &Path) -> PathBuf {
    let escaped = |&byte: &u8| match byte {
        b'/' | b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let name: String = path.as_os_str().as_bytes().iter().map(escaped).collect();
    format!("file:{name}?immutable=1").into()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn refused(path: &Path, needed: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::System { path: path.into(), needed, error }
}
