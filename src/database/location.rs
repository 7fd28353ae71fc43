//! The path of the database: resolves symbolic links, and rejects every file that refwatch has not made. A file with a lock file
//! of refwatch beside it counts as made by refwatch, because a damaged database may have lost its header.
//!
//! Opens files for reading only, and before SQLite does: SQLite would change a file of another program.

use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{self, Path, PathBuf};

use rustix::fs::OFlags;

use super::errors::{FileError, with_suffix};
use super::schema;

/// The maximum number of symbolic links that are followed, as in Linux.
const LINKS_MAX: usize = 40;

/// The header of an SQLite file, and its parts.
const HEADER_LENGTH: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
const SCHEMA_COOKIE_RANGE: Range<usize> = 40..44;
const APPLICATION_ID_RANGE: Range<usize> = 68..72;

/// A lock file contains nothing, or a process id with padding and a line end.
pub(super) const LOCK_LENGTH_MAX: usize = 20;

/// Flags for `open`: refuse a symbolic link, and do not wait for the other side of a FIFO.
pub(super) fn open_flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

/// Checks that a database can be at `path`: its directory exists, and the file is missing, empty or made by refwatch. Changes nothing.
///
/// Must not be called while this process has a connection to the database: it opens and closes the file, which drops all of SQLite's
/// locks of the process (POSIX).
///
/// # Errors
/// The directory is missing, the file is of another program, or it cannot be read.
pub fn inspect(path: &Path) -> Result<(), FileError> {
    inspect_files(&resolve(path)?)
}

/// Makes the path absolute and resolves symbolic links, so that all links to a database share its lock file. The target of a link need
/// not exist yet.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, FileError> {
    let mut path = path::absolute(path).map_err(FileError::system_mapper(path, "resolve the path"))?;
    for _ in 0..LINKS_MAX {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path) };
        let directory = fs::canonicalize(directory).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::missing_directory(directory),
            _ => FileError::system_mapper(directory, "enter the directory")(error),
        })?;
        let file = directory.join(name);
        match fs::read_link(&file) {
            Ok(target) => path = directory.join(target),
            // Not a link, or missing.
            Err(_) => return Ok(file),
        }
    }
    Err(FileError::system_mapper(&path, "resolve the path")(rustix::io::Errno::LOOP.into()))
}

/// [`inspect`] for a resolved path. Like it, must not be called while this process has a connection to the database.
pub(super) fn inspect_files(path: &Path) -> Result<(), FileError> {
    let lock_path = with_suffix(path, ".lock");
    let lock = read_start(&lock_path, LOCK_LENGTH_MAX + 1)?;
    // After a power cut the file may contain zeros.
    let may_be_in_lock_file = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b' ' | b'\n' | 0);
    if lock.as_ref().is_some_and(|lock| lock.len() > LOCK_LENGTH_MAX || !lock.iter().all(may_be_in_lock_file)) {
        return Err(FileError::foreign(&lock_path, "not a lock file of refwatch"));
    }
    let Some(header) = read_start(path, HEADER_LENGTH)? else {
        let wal = with_suffix(path, "-wal");
        let has_foreign_wal = lock.is_none() && read_start(&wal, 1)?.is_some_and(|wal| !wal.is_empty());
        return if has_foreign_wal { Err(FileError::foreign(&wal, "a log without its database")) } else { Ok(()) };
    };
    // A lock file marks a database of refwatch, even if its header is lost. It is then damaged, and goes to quarantine.
    let is_known = lock.is_some() || header.get(APPLICATION_ID_RANGE) == Some(&schema::APPLICATION_ID.to_be_bytes());
    if header.is_empty() || is_known || is_half_created(path, &header) {
        return Ok(());
    }
    let found = if header.starts_with(MAGIC) { "the database of another program" } else { "not a database" };
    Err(FileError::foreign(path, found))
}

/// Whether the creation of a database was interrupted: the header has no schema yet, or a power cut has left only zeros and the rollback
/// journal.
fn is_half_created(path: &Path, header: &[u8]) -> bool {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let is_unset = |range| header.get(range).is_some_and(is_zero);
    (header.starts_with(MAGIC) && is_unset(SCHEMA_COOKIE_RANGE) && is_unset(APPLICATION_ID_RANGE))
        || (is_zero(header) && with_suffix(path, "-journal").exists())
}

/// Reads at most `length` bytes of a regular file. `None` if there is no file.
fn read_start(path: &Path, length: usize) -> Result<Option<Vec<u8>>, FileError> {
    let to_error = FileError::system_mapper(path, "read the file");
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(to_error(error)),
        Ok(metadata) if !metadata.is_file() => return Err(FileError::foreign(path, name_of(metadata.file_type()))),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let file = File::options().read(true).custom_flags(open_flags()).open(path).map_err(&to_error)?;
    file.take(length as u64).read_to_end(&mut bytes).map_err(to_error)?;
    Ok(Some(bytes))
}

fn name_of(file_type: FileType) -> &'static str {
    match file_type {
        _ if file_type.is_dir() => "a directory",
        _ if file_type.is_symlink() => "a symbolic link",
        _ if file_type.is_fifo() => "a FIFO",
        _ if file_type.is_socket() => "a socket",
        _ => "a device",
    }
}
