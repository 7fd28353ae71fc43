//! The file with the id up to which transitions were read and, if they match, printed: a decimal number. It is replaced atomically, so it
//! is never half written.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::super::add::temporary_file;
use super::super::exit::Failure;

/// Only the user of the command reads the file.
const FILE_MODE: u32 = 0o600;

/// Returns `None` if there is no file.
pub(super) fn read(file: &Path) -> Result<Option<i64>, Failure> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| failure("read", file, &error))?,
    };
    let id = text.trim().parse().ok().filter(|id| *id >= 0);
    id.map(Some).ok_or_else(|| {
        let file = file.display();
        Failure::running(format_args!(
            "{file}: not a cursor of refwatch history: remove the file to start at the present"
        ))
    })
}

/// Replaces the file.
pub(super) fn save(file: &Path, id: i64) -> Result<(), Failure> {
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        temporary_file(directory, &format!("{id}\n"), FILE_MODE)?.persist(file)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| failure("write", file, &error))
}

fn failure(verb: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::running(format_args!("cannot {verb} the cursor {}: {error}", file.display()))
}
