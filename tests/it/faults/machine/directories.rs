//! Faults 79, 80, 115 and 136: directories of another user, log directories that are full or not writable, a strict umask, and a directory
//! that cannot be synced.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;

use super::{Tracer, with_database};
use crate::disk_faults::{Mounted, skipped};
use crate::process::{Workspace, eventually, get, metric};
use crate::transition_rows::transitions;

/// The user `nobody`.
const NOBODY: u32 = 65534;

#[test]
fn fault_079_a_state_directory_of_another_user_is_rejected_with_its_path_and_owner() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    // `nobody` may not read the build directory.
    workspace.copy_binary();
    fs::set_permissions(workspace.path(""), fs::Permissions::from_mode(0o777)).expect("our directory");
    fs::create_dir_all(workspace.path("closed/state")).expect("a directory");
    fs::set_permissions(workspace.path("closed"), fs::Permissions::from_mode(0o700)).expect("our directory");
    fs::create_dir(workspace.path("state")).expect("a directory");
    fs::set_permissions(workspace.path("state"), fs::Permissions::from_mode(0o755)).expect("our directory");
    for (database, path, owned) in [
        ("state/refwatch.db", "state/refwatch.db.lock", "state"),
        ("closed/state/refwatch.db", "closed/state", "closed"),
    ] {
        let config = with_database(&config, &workspace.path(database));
        let config = workspace.write("refwatch.toml", &config);
        let mut command = Command::new(workspace.path("refwatch"));
        command.args(["--config", config.to_str().expect("text"), "run"]).env("AWS_EC2_METADATA_DISABLED", "true");
        command.uid(NOBODY).gid(NOBODY);
        if command.get_program() != workspace.path("refwatch") || rustix::process::geteuid().as_raw() != 0 {
            return skipped::<()>("only root can start a process as another user").unwrap_or_default();
        }
        let mut daemon = workspace.spawn(command);
        assert_eq!(daemon.end().code(), Some(1), "{}", daemon.stderr());
        let error = daemon.stderr();
        assert!(error.contains(&format!("{}: ", workspace.path(path).display())), "{error}");
        let owner =
            format!("refwatch runs as user {NOBODY}, and {} belongs to user 0", workspace.path(owned).display());
        assert!(error.contains(&owner) && error.contains("run as the owner"), "{error}");
    }
    assert_eq!(fs::read_dir(workspace.path("state")).expect("a directory").count(), 0, "no file was created");
}

#[test]
fn fault_115_a_job_added_under_a_strict_umask_is_readable_by_the_daemon() {
    let workspace = Workspace::new();
    let config = workspace.write("refwatch.toml", &with_database("", &workspace.path("refwatch.db")));
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_refwatch"), "--config"]);
    command.arg(&config).args(["add", "1234567890/9876543210"]);
    assert!(workspace.spawn(command).end().success());
    let mode = |path: &str| fs::metadata(workspace.path(path)).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode("conf.d"), mode("conf.d/1234567890-9876543210.toml")), (0o755, 0o644));
}

#[test]
fn fault_080_a_full_log_directory_drops_and_counts_lines_and_polling_continues() {
    let Some(disk) = Mounted::in_memory() else { return };
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "8", "--mean-seconds", "6"]);
    let logs = disk.directory.path();
    let config = format!("{config}\n[log]\nrotation = \"never\"\ndirectory = \"{}\"\n", logs.display());
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let file = logs.join("refwatch.log");
    eventually("lines", || fs::read_to_string(&file).ok().filter(|text| text.contains("transition")));
    let filler = disk.fill();
    let dropped = || metric(address, "refwatch_log_lines_dropped_total", &[]).expect("a counter");
    daemon.signal(Signal::HUP);
    eventually("dropped lines", || (dropped() > 0.0).then_some(()));
    let ends = || metric(address, "refwatch_watches", &["finished"]);
    eventually("every end", || (ends() == Some(8.0)).then_some(()));
    assert_eq!(get(address, "/-/ready").0, 200);
    fs::remove_file(filler).expect("space");
    daemon.signal(Signal::HUP);
    let written = || fs::read_to_string(&file).expect("a log");
    eventually("lines that are whole", || {
        let last = daemon.stderr().lines().last()?.split_once(" INFO ")?.1.to_owned();
        written().lines().last()?.ends_with(&last).then_some(())
    });
}

#[test]
fn fault_080_an_unwritable_log_directory_is_reported_and_used_once_writable() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "4", "--mean-seconds", "8"]);
    let logs = workspace.write("logs", "no directory");
    let config = format!("{config}\n[log]\nrotation = \"never\"\ndirectory = \"{}\"\n", logs.display());
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let line = eventually("an error", || {
        let log = daemon.stderr();
        log.lines().find(|line| line.contains("event=\"log_files_failed\"")).map(str::to_owned)
    });
    assert!(line.contains("ERROR") && line.contains(logs.to_str().expect("text")), "{line}");
    let dropped = || metric(address, "refwatch_log_lines_dropped_total", &[]).expect("a counter");
    eventually("dropped lines", || (dropped() > 0.0).then_some(()));
    assert_eq!(get(address, "/-/ready").0, 200);
    fs::remove_file(&logs).expect("the file at the path");
    eventually("a log", || fs::read_to_string(logs.join("refwatch.log")).ok().filter(|log| log.contains("COMPLETED")));
}

#[test]
fn fault_136_a_restored_database_is_used_once_its_directory_can_be_synced() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (directory, database) = (workspace.path("state"), workspace.path("state/refwatch.db"));
    fs::create_dir(&directory).expect("a directory");
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &with_database(&config, &database)));
    eventually("first observations", || (transitions(&database).len() == 2).then_some(()));
    let path = directory.to_str().expect("text");
    let failing_sync = ["-P", path, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"];
    let Some(tracer) = Tracer::on(&daemon, &failing_sync) else { return };
    fs::remove_file(&database).expect("a file");
    eventually("an error", || get(address, "/-/ready").1.contains("sync it to disk").then_some(()));
    assert!(database.exists(), "the database was restored");
    drop(tracer);
    eventually("ready", || (get(address, "/-/ready").0 == 200).then_some(()));
    assert_eq!(transitions(&database).len(), 2);
}
