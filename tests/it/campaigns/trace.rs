//! Traces with strace what a process does to the files of one directory: writes with their bytes, syncs, and printed
//! acknowledgements, in order.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk_faults::skipped;

/// All calls that change or sync a file. A call that the model does not know fails the campaign.
const CALLS: &str = "trace=openat,open,creat,mkdir,mkdirat,link,linkat,symlink,symlinkat,unlink,unlinkat,rename,renameat,\
    renameat2,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,msync,\
    copy_file_range,sendfile";

/// A traced process prints this before the number of durable steps.
pub(super) const ACKNOWLEDGED: &str = "acknowledged ";

/// One operation. Paths are relative to the traced directory.
#[derive(Debug)]
pub(super) enum Operation {
    MakeDirectory(PathBuf),
    /// Creates a file, or opens an existing one.
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

/// Runs a test of this binary in a process under strace, and returns its operations below `root`. `options` are further options of
/// strace. `None` if tracing is not possible.
pub(super) fn traced(
    root: &Path,
    test: &str,
    options: &[&str],
    environment: &[(&str, &str)],
) -> Option<Vec<Operation>> {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-xx", "-s", "1000000", "-e", CALLS, "-o"]).arg(&trace).args(options);
    command.arg(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).envs(environment.iter().copied());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return skipped(&format!("strace: {error}")),
    };
    let output_text = String::from_utf8_lossy(&output.stderr);
    let lines = fs::read_to_string(&trace).unwrap_or_default();
    if output_text.contains("ptrace") && !lines.contains("openat") {
        return skipped(&format!("strace: {output_text}"));
    }
    assert!(output.status.success() || options.concat().contains("KILL"), "{output_text}{:?}", output.status);
    Some(lines.lines().filter_map(|line| operation(root, line)).collect())
}

/// Parses the line of a successful call: `PID NAME(ARGUMENTS) = RESULT`, with text in hexadecimal.
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
        // Shared memory; it is recreated at each start.
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
            let output_text = String::from_utf8(text('"', '"')?).ok()?;
            Some(Operation::Acknowledge(output_text.rsplit_once(ACKNOWLEDGED)?.1.trim_end().parse().expect(line)))
        }
        _ => by_name().or_else(by_number).map(|path| panic!("not in the model: {name} of {}", path.display())),
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let byte = |digits| u8::from_str_radix(digits, 16).expect("hexadecimal");
    text.split("\\x").skip(1).map(byte).collect()
}
