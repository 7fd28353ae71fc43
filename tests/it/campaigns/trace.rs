//! What processes did to the files of one directory, as strace saw it: every write with its bytes, every sync, and every
//! acknowledgement that was printed, in order.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::trouble::skipped;

/// Everything by which a file can change or get to the disk, so that what the model does not know is noticed.
const CALLS: &str = "trace=openat,open,creat,mkdir,mkdirat,link,linkat,symlink,symlinkat,unlink,unlinkat,rename,renameat,\
    renameat2,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,msync,\
    copy_file_range,sendfile";

/// Printed by a traced process before a number: so many steps hold.
pub(super) const ACKNOWLEDGED: &str = "acknowledged ";

/// One thing that a process did. Paths begin at the traced directory, which itself is the empty path.
#[derive(Debug)]
pub(super) enum Operation {
    MakeDirectory(PathBuf),
    /// Or opened what was there.
    Create(PathBuf),
    Remove(PathBuf),
    Write {
        path: PathBuf,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        length: usize,
    },
    Sync(PathBuf),
    Acknowledge(usize),
}

impl Operation {
    pub(super) fn acknowledged(&self) -> Option<usize> {
        match self {
            Self::Acknowledge(steps) => Some(*steps),
            Self::MakeDirectory(_)
            | Self::Create(_)
            | Self::Remove(_)
            | Self::Write { .. }
            | Self::Truncate { .. }
            | Self::Sync(_) => None,
        }
    }
}

/// Runs a test of this binary in a process of its own, and says what it did beneath `root`. `options` are strace's. `None` where
/// nothing can be traced.
pub(super) fn traced(
    root: &Path,
    test: &str,
    options: &[&str],
    environment: &[(&str, &str)],
) -> Option<Vec<Operation>> {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-xx", "-s", "1000000", "-e", CALLS, "-o"]).arg(&trace).args(options);
    command.arg(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).envs(environment.iter().copied());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return skipped(&format!("strace: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = fs::read_to_string(&trace).unwrap_or_default();
    if said.contains("ptrace") && !lines.contains("openat") {
        return skipped(&format!("strace: {said}"));
    }
    assert!(output.status.success() || options.concat().contains("KILL"), "{said}{:?}", output.status);
    Some(lines.lines().filter_map(|line| operation(root, line)).collect())
}

/// What a line tells of a call that succeeded: `PID NAME(ARGUMENTS) = RESULT`, with all text in hexadecimal.
fn operation(root: &Path, line: &str) -> Option<Operation> {
    let (_, call) = line.split_once(' ')?;
    let (name, rest) = call.trim_start().split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if result.starts_with(['-', '?']) {
        return None;
    }
    let text =
        |open, close| arguments.split_once(open).and_then(|(_, rest)| Some(unescaped(rest.split_once(close)?.0)));
    let named = |bytes: Option<Vec<u8>>| {
        let path = PathBuf::from(OsString::from_vec(bytes?));
        let path = path.strip_prefix(root).ok()?.to_path_buf();
        // It is shared memory, and made anew.
        (!path.as_os_str().to_string_lossy().ends_with("-shm")).then_some(path)
    };
    let (by_name, by_number) = (|| named(text('"', '"')), || named(text('<', '>')));
    let last =
        || arguments.trim_end().strip_suffix(')').and_then(|all| all.rsplit(", ").next()?.parse().ok()).expect(line);
    match name {
        "openat" if arguments.contains("O_TRUNC") && by_name().is_some() => panic!("not in the model: {line:.200}"),
        "openat" => Some(Operation::Create(by_name().filter(|_| arguments.contains("O_CREAT"))?)),
        "mkdir" => Some(Operation::MakeDirectory(by_name()?)),
        "unlink" => Some(Operation::Remove(by_name()?)),
        "pwrite64" => Some(Operation::Write { path: by_number()?, at: last(), bytes: text('"', '"').expect(line) }),
        "ftruncate" => Some(Operation::Truncate { path: by_number()?, length: last() }),
        "fsync" | "fdatasync" => Some(Operation::Sync(by_number()?)),
        "write" if arguments.starts_with("1<") => {
            let said = String::from_utf8(text('"', '"')?).ok()?;
            Some(Operation::Acknowledge(said.rsplit_once(ACKNOWLEDGED)?.1.trim_end().parse().expect(line)))
        }
        _ => by_name().or_else(by_number).map(|path| panic!("not in the model: {name} of {}", path.display())),
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let byte = |digits| u8::from_str_radix(digits, 16).expect("hexadecimal");
    text.split("\\x").skip(1).map(byte).collect()
}
