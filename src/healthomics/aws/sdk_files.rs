//! Checks the files of the AWS SDK before the SDK reads them.
//!
//! The SDK reads files with blocking calls on the runtime thread, where a FIFO or a file system that hangs would stop all polls and the
//! watchdog. Here each is first read on a blocking thread. The SDK reads it after that. The SDK itself reports files that are missing or
//! unreadable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::files;
use crate::healthomics::service::TargetError;

/// The variables that name files, and the default below the home directory.
const FILES: [(&str, Option<&str>); 5] = [
    ("AWS_CONFIG_FILE", Some(".aws/config")),
    ("AWS_SHARED_CREDENTIALS_FILE", Some(".aws/credentials")),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", None),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", None),
    ("SSL_CERT_FILE", None),
];

/// Scripts set a variable to this device if the file shall not be used.
const NO_FILE: &str = "/dev/null";

/// The bytes that are read of a file. If they can be read, its file system responds.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// The timeout of a check. It should be shorter than the deadline of a fetch of credentials, whose error would not name the files. That
/// deadline is 0.9 × `poll.timeout`, by default 18 s. It is the shorter one only if `poll.timeout` is less than about 4.4 s.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Allows one check at a time. A check that hangs keeps its permit, so that at most one thread hangs. All other checks then time out.
static CHECKS: Semaphore = Semaphore::const_new(1);

/// Checks the files that the SDK reads for every target, and the token file that a profile names.
///
/// # Errors
/// A path is something else than a regular file, or its file system does not respond.
pub(super) async fn check(token_file: Option<PathBuf>) -> Result<(), TargetError> {
    if let Ok(checked) = tokio::time::timeout(TIMEOUT, check_on_thread(token_file)).await {
        return checked.map_err(TargetError::Invalid);
    }
    let seconds = TIMEOUT.as_secs();
    let message = format!("the file system of the AWS SDK's files does not respond within {seconds} s");
    Err(TargetError::FilesTimeout(message))
}

async fn check_on_thread(token_file: Option<PathBuf>) -> Result<(), String> {
    let Ok(permit) = CHECKS.acquire().await else { unreachable!("never closed") };
    let check = spawn_blocking(move || {
        let _permit = permit;
        check_files(token_file.as_deref())
    });
    check.await.unwrap_or_else(|panic| Err(panic.to_string()))
}

fn check_files(token_file: Option<&Path>) -> Result<(), String> {
    read_certificate_directories();
    if let Some(path) = token_file {
        check_file(path, "web_identity_token_file of the profile")?;
    }
    for (variable, default) in FILES {
        if let Some(path) = file_path(variable, default) {
            check_file(&path, variable)?;
        }
    }
    Ok(())
}

/// `setting` is the variable or the setting of the profile that contains `path`.
fn check_file(path: &Path, setting: &str) -> Result<(), String> {
    if path == Path::new(NO_FILE) {
        return Ok(());
    }
    match files::read(path, READ_BYTES_MAX) {
        // Not a regular file.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Err(format!("{} ({setting}): {error}", path.display()))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Reads and discards the files, so that a file system that hangs is reported within [`TIMEOUT`]. The SDK skips everything but regular
/// files, and ignores missing directories.
fn read_certificate_directories() {
    let directories = std::env::var_os("SSL_CERT_DIR").unwrap_or_default();
    for entry in std::env::split_paths(&directories).filter_map(|path| path.read_dir().ok()).flatten().flatten() {
        drop(files::read(&entry.path(), READ_BYTES_MAX));
    }
}

/// The path in `variable`, or else the default below the home directory. Like the SDK, replaces a `~` at the start.
fn file_path(variable: &str, default: Option<&str>) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match std::env::var_os(variable).map(PathBuf::from) {
        None => Some(home()?.join(default?)),
        Some(path) => match path.strip_prefix("~") {
            Ok(below_home) => Some(home()?.join(below_home)),
            Err(_) => Some(path),
        },
    }
}
