//! The file with the id of the last transition that was printed: a decimal number. It is replaced atomically, so it is never half written.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

use super::super::exit::Failure;

pub(super) struct Cursor<'a> {
    file: &'a Path,
}

impl Display for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a Path) -> Self {
        Self { file }
    }

    /// `None` if there is no file.
    pub(super) fn read(&self) -> Result<Option<i64>, Failure> {
        let text = match fs::read_to_string(self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| self.failure("read", &error))?,
        };
        let id = text.trim().parse().ok().filter(|id| *id >= 0);
        let wrong = || format!("{self}: not a cursor of refwatch history: remove the file to start at the present");
        id.map(Some).ok_or_else(|| Failure::running(wrong()))
    }

    /// Replaces the file, with the mode 0600.
    pub(super) fn save(&self, id: i64) -> Result<(), Failure> {
        let directory = self.file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || {
            let mut file = NamedTempFile::with_prefix_in(".", directory)?;
            writeln!(file, "{id}")?;
            file.as_file().sync_all()?;
            file.persist(self.file)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|error| self.failure("write", &error))
    }

    fn failure(&self, verb: &str, error: &io::Error) -> Failure {
        Failure::running(format_args!("cannot {verb} the cursor {self}: {error}"))
    }
}
