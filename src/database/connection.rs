//! How the record's file is opened: by the one writer, under a lock, checked for damage and with every setting read back, or by a
//! reader that leaves no trace. And how a damaged one is set aside.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};
use sha2::{Digest as _, Sha256};

use super::chain::Link;
use super::{OpenError, schema};
use crate::core::time::Timestamp;

/// How long to wait for a lock that another process holds: a person in the sqlite3 shell, a backup. Longer than either
/// takes, shorter than the patience of a watchdog.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// A record may tell what a laboratory works on: its owner writes, its group reads.
const FILE_MODE: u32 = 0o640;

/// The mode of a directory made for it.
const DIRECTORY_MODE: u32 = 0o750;

/// The bytes of a lock file that the process id takes, with the blanks and the line end after it: more than any has digits. The
/// mark follows.
const PID_LENGTH: usize = 20;

/// The bytes of the mark, likewise: an id, a digest in hexadecimal digits.
const MARK_LENGTH: usize = 40;

/// The bytes of the seal after that: a SHA-256.
const SEAL_LENGTH: usize = 32;
const SEAL_AT: u64 = (PID_LENGTH + MARK_LENGTH) as u64;

/// The bytes of a record read at once, to seal it.
const READ_LENGTH: usize = 1 << 16;

/// The largest record that is sealed, in bytes, some 270,000 transitions. Before that it is checked, which takes half a second,
/// and a stop waits for it.
const SEALED_MAX: u64 = 64 << 20;

/// Where the header of a database says which format a writer must know, and the last that SQLite has, that of write-ahead logs.
const WRITE_FORMAT_AT: u64 = 18;
const WRITE_FORMAT_WAL: [u8; 1] = [2];

/// What a record is made of: the database, its write-ahead log, the index of that. In this order they are set aside: a log that
/// was left behind without its database is noticed, a database without its log may look whole.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// A record that this process alone may write, until it is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    /// Its path, absolute and without symbolic links, so that SQLite takes no part of it for a URI and two names are
    /// one lock.
    pub(super) path: PathBuf,
    lock: File,
    /// Whether the lock file was new when it was opened: until then it had no mark.
    new: bool,
}

impl Locked {
    /// Takes the lock, in a directory that is made where there is none. The record is not touched.
    ///
    /// # Errors
    /// Another process has the lock, or the system refuses.
    pub(super) fn new(path: &Path) -> Result<Self, OpenError> {
        let absolute = path::absolute(path).map_err(refused(path, "no such path can be"))?;
        if let Some(directory) = absolute.parent() {
            let missing: Vec<&Path> = directory.ancestors().take_while(|directory| !directory.exists()).collect();
            let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
            made.map_err(refused(directory, "it must be there, and this user must be able to enter it"))?;
            // A loss of power would take a directory whose name is not on disk, and the record with it.
            missing.into_iter().filter_map(Path::parent).try_for_each(sync)?;
        }
        let path = fs::canonicalize(&absolute).unwrap_or(absolute);
        let (lock, new) = lock(&path)?;
        Ok(Self { path, lock, new })
    }

    /// Sees to it that there is a file. One that is already there is not touched.
    ///
    /// # Errors
    /// There is a write-ahead log without its record, the file has a format that is none, or the system refuses.
    pub(super) fn make(&self) -> Result<(), OpenError> {
        if !self.path.exists() {
            let log = beside(&self.path, "-wal");
            if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
                let reason = "its write-ahead log is there without it".to_owned();
                return Err(OpenError::NotARecord { path: self.path.clone(), reason });
            }
            if !self.new {
                self.unmark()?;
            }
        }
        // Closed again before SQLite opens it: to close it later would drop the locks that SQLite holds for this
        // process.
        let file = OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(&self.path);
        let file = file.map_err(refused(&self.path, "this user must be able to read and write it"))?;
        // SQLite calls a file of a later format one that may only be read, as it does one that may not be written.
        let mut format = [0];
        let read = file.read_at(&mut format, WRITE_FORMAT_AT);
        read.map_err(refused(&self.path, "this user must be able to read it"))?;
        if format > WRITE_FORMAT_WAL {
            let reason = format!("a file of SQLite's format {}", format[0]);
            return Err(OpenError::NotARecord { path: self.path.clone(), reason });
        }
        Ok(())
    }

    /// Reads what is there of the record to its end.
    ///
    /// # Errors
    /// The system refuses, as where a disk fails: nothing can be said of the record then.
    pub(super) fn read(&self) -> Result<(), OpenError> {
        for part in PARTS.map(|suffix| beside(&self.path, suffix)) {
            if part.exists() {
                let read = File::open(&part).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
                read.map_err(refused(&part, "this user must be able to read it"))?;
            }
        }
        Ok(())
    }

    /// Moves what is there of the record into a directory of its own beside it, and says which. The next one starts from nothing.
    ///
    /// # Errors
    /// The system refuses. What was moved by then stays moved, and the rest follows at the next start.
    pub(super) fn set_aside(&self, now: Timestamp) -> Result<PathBuf, OpenError> {
        let aside = beside(&self.path, &format!(".damaged-{}", now.strftime("%Y%m%dT%H%M%S%.3fZ")));
        let failed = |error| refused(&aside, "the damaged record must be moved there")(error);
        if !self.path.exists() || self.path.is_file() {
            DirBuilder::new().mode(DIRECTORY_MODE).create(&aside).map_err(failed)?;
        } else {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        for part in PARTS.map(|suffix| beside(&self.path, suffix)) {
            if let Some(name) = part.file_name().filter(|_| part.exists()) {
                fs::rename(&part, aside.join(name)).map_err(failed)?;
            }
        }
        Ok(aside)
    }

    /// The last row that is known to be on disk. A lock file that says none, or nothing readable, asks for none, as does the mark of
    /// an empty record.
    pub(super) fn mark(&self) -> Option<Link> {
        let mut text = [0; MARK_LENGTH];
        self.lock.read_exact_at(&mut text, PID_LENGTH as u64).ok()?;
        let (id, digest) = std::str::from_utf8(&text).ok()?.trim_end().split_once(' ')?;
        let mark = Link { id: id.parse().ok()?, digest: u64::from_str_radix(digest, 16).ok()?.cast_signed() };
        Some(mark).filter(|mark| mark.id > 0)
    }

    /// Notes the last row that is on disk. It is not synced: after a loss of power an older mark is as true.
    ///
    /// # Errors
    /// The system refuses. The mark before it goes on being true.
    pub(super) fn set_mark(&self, last: Link) -> io::Result<()> {
        let text = format!("{} {:016x}", last.id, last.digest.cast_unsigned());
        self.lock.write_all_at(format!("{text:<width$}\n", width = MARK_LENGTH - 1).as_bytes(), PID_LENGTH as u64)
    }

    /// Notes what the record holds, byte for byte, if it is sound and closed: its next start needs no other check. Nothing takes
    /// a seal away, since one that is old or torn fits no record that would not be sound.
    ///
    /// # Errors
    /// It is not sound, or the system refuses.
    pub(super) fn seal(&self) -> Result<(), OpenError> {
        if self.is_closed_and_small() {
            read_only(&self.path, |connection, path| schema::check(connection, path, self.mark(), false))?;
            self.set_seal().map_err(refused(&self.path, "its lock file must be written"))?;
        }
        Ok(())
    }

    pub(super) fn set_seal(&self) -> io::Result<()> {
        self.lock.write_all_at(&self.digest()?, SEAL_AT)
    }

    /// Whether the record is, byte for byte, what was sealed.
    fn is_sealed(&self) -> bool {
        let mut seal = [0; SEAL_LENGTH];
        let read = self.lock.read_exact_at(&mut seal, SEAL_AT);
        read.is_ok() && self.is_closed_and_small() && self.digest().is_ok_and(|digest| digest == seal)
    }

    fn is_closed_and_small(&self) -> bool {
        let small = fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() <= SEALED_MAX);
        small && !beside(&self.path, "-wal").exists()
    }

    fn digest(&self) -> io::Result<[u8; SEAL_LENGTH]> {
        let (mut file, mut digest, mut buffer) = (File::open(&self.path)?, Sha256::new(), vec![0; READ_LENGTH]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digest.finalize().into()),
                count => digest.update(&buffer[..count]),
            }
        }
    }

    /// Takes the mark away, for good before this returns: its row may be deleted now. The seal goes with it.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn unmark(&self) -> Result<(), OpenError> {
        let unmarked = self.lock.set_len(PID_LENGTH as u64).and_then(|()| self.lock.sync_data());
        unmarked.map_err(|error| refused(&self.path, "its lock file must be written")(error))
    }
}

/// Takes the lock file beside the record, writes this process's id into it, and says whether it is new. The file stays when the lock is
/// gone: to delete it would let two processes lock two files of one name.
fn lock(path: &Path) -> Result<(File, bool), OpenError> {
    let lock_path = beside(path, ".lock");
    let refused = refused(&lock_path, "this user must be able to write it");
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&lock_path);
    let file = opened.map_err(&refused)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = file.take(PID_LENGTH as u64).read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim_end().parse().ok());
            return Err(OpenError::InUse { path: path.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(refused(error)),
    }
    let new = file.metadata().map_err(&refused)?.len() == 0;
    let pid = format!("{:<width$}\n", std::process::id(), width = PID_LENGTH - 1);
    file.write_all_at(pid.as_bytes(), 0).map_err(refused)?;
    Ok((file, new))
}

/// Which file stands at `path`: its device and inode. `None` where there is none.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Opens the file for the writer, checked, and brings its schema up to date.
///
/// # Errors
/// It is no record, a damaged one, a newer one, or SQLite does not do what is needed.
pub(super) fn connect(file: &Locked) -> Result<Connection, OpenError> {
    let path = &*file.path;
    // A process that was killed may have left a commit that the system knows and the disk does not. What is read now is shown.
    let log = beside(path, "-wal");
    let killed = log.exists();
    // Before its first row a record is made with a rollback journal. One that a loss of power left goes before anything is read.
    if beside(path, "-journal").exists() {
        let rolled_back = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .and_then(|connection| connection.query_one("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)));
        rolled_back.map_err(|error| schema::failed(path, error))?;
    }
    // Before a connection that could write: to close one would move the log of a newer or a damaged record into its file.
    read_only(path, |connection, path| schema::check(connection, path, file.mark(), file.is_sealed()))?;
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
    // Plans by the statement alone: else a statement is compiled again for each value that is looked up.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    schema::migrate(&mut connection, path)?;
    if killed {
        [Some(&*log), path.parent()].into_iter().flatten().filter(|part| part.exists()).try_for_each(sync)?;
    }
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

/// Whether this user may not read and write the record and what goes with it. SQLite does not say whether it is that by which a file
/// cannot be opened, or a disk that is full or fails.
pub(super) fn is_denied(path: &Path) -> bool {
    let parts = PARTS.map(|suffix| beside(path, suffix));
    let parts = parts.iter().filter(|part| part.exists()).map(|part| &**part);
    let mut needed = parts.chain(path.parent());
    needed.any(|path| access(path, Access::READ_OK | Access::WRITE_OK).is_err())
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

/// Returns when a file's content, or a directory's names, are on disk.
fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(refused(path, "it must be on disk"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn refused(path: &Path, needed: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| match error.kind() {
        io::ErrorKind::PermissionDenied => OpenError::NotOurs { path: path.into(), needed, whose: whose(path) },
        _ => OpenError::System { path: path.into(), needed, error },
    }
}

/// Who this process is, and to whom what keeps it out belongs: the path, or the first above it that can be looked at.
fn whose(path: &Path) -> String {
    let there = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    let owner = there.map(|(path, there)| format!(", and {} belongs to user {}", path.display(), there.uid()));
    format!("refwatch runs as user {}{}", rustix::process::geteuid().as_raw(), owner.unwrap_or_default())
}
