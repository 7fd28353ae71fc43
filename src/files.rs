//! Opens files that others may have put at the path: configuration, certificates, logs.
//!
//! Only regular files are accepted. Opening a FIFO does not wait for its other end. A file system can still hang, so async code calls
//! these functions on a blocking thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a regular file with `options`.
///
/// # Errors
/// A system call fails. The kind is `InvalidInput` if the path is something else than a regular file.
pub fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    open_with(options, path, OFlags::empty())
}

/// As [`open`], but a symbolic link is an error.
///
/// # Errors
/// See [`open`].
pub fn open_nofollow(options: &OpenOptions, path: &Path) -> io::Result<File> {
    open_with(options, path, OFlags::NOFOLLOW)
}

fn open_with(options: &OpenOptions, path: &Path, flags: OFlags) -> io::Result<File> {
    let special = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.clone().custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            // A FIFO that nobody reads, or a socket.
            Some(Errno::NXIO) => special(),
            Some(Errno::LOOP) => io::Error::other("a symbolic link, which is not followed"),
            _ => error,
        }
    })?;
    // Checks the open file, because the path may be replaced at any time.
    if file.metadata()?.is_file() { Ok(file) } else { Err(special()) }
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`]. The kind is `FileTooLarge` if the file has more than `bytes_max`.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(File::options().read(true), path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {} KiB", bytes_max / 1024)));
    }
    Ok(bytes)
}
