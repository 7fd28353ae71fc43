//! Fault 114: core dumps. The daemon disables them, because its memory holds credentials.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use rustix::process::Signal;

use crate::disk_faults::skipped;
use crate::process::Workspace;

/// `command`, allowed to dump a core of any size.
fn with_cores(workspace: &Workspace, command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    // A shell may have started the tests with SIGQUIT ignored.
    limited
        .args(["--core=unlimited:unlimited", "--", "env", "--default-signal"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(workspace.path("."));
    limited
}

fn cores(workspace: &Workspace) -> usize {
    let files =
        std::fs::read_dir(workspace.path(".")).expect("a directory").map(|file| file.expect("an entry").file_name());
    files.filter(|name| name.to_string_lossy().starts_with("core")).count()
}

#[test]
fn fault_114_no_core_dump_is_written() {
    let workspace = Workspace::new();
    let mut other = Command::new("sh");
    other.args(["-c", "kill -ABRT $$"]);
    match with_cores(&workspace, &other).status() {
        Ok(status) if status.core_dumped() => {}
        other => return skipped::<()>(&format!("no process dumps core here: {other:?}")).unwrap_or_default(),
    }
    let before = cores(&workspace);
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let config = workspace.write("refwatch.toml", &config);
    // SIGSEGV is not in the list: Rust's handler for stack overflows returns from one that was sent by `kill`.
    for signal in [Signal::ABORT, Signal::ILL, Signal::QUIT] {
        let run = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        let mut daemon = workspace.spawn(with_cores(&workspace, &run));
        daemon.address();
        daemon.signal(signal);
        let status = daemon.end();
        assert_eq!((status.signal(), status.core_dumped()), (Some(signal.as_raw()), false), "{status}");
    }
    assert_eq!(cores(&workspace), before);
}
