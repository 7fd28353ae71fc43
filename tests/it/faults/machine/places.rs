//! Directories that are full, or are somebody else's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;

use super::with_record;
use crate::process::{Scene, eventually, get, metric};
use crate::trouble::{Mounted, skipped};

/// Nobody's user id, on every Linux.
const NOBODY: u32 = 65534;

#[test]
fn fault_079_a_state_directory_of_another_user_is_refused_with_its_path_and_its_owner() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    // Nobody may not come to where this was built.
    fs::copy(env!("CARGO_BIN_EXE_refwatch"), scene.path("refwatch")).expect("a copy");
    fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o777)).expect("ours");
    fs::create_dir_all(scene.path("closed/state")).expect("a directory");
    fs::set_permissions(scene.path("closed"), fs::Permissions::from_mode(0o700)).expect("ours");
    fs::create_dir(scene.path("state")).expect("a directory");
    fs::set_permissions(scene.path("state"), fs::Permissions::from_mode(0o755)).expect("ours");
    for (database, path, owned) in [
        ("state/refwatch.db", "state/refwatch.db.lock", "state"),
        ("closed/state/refwatch.db", "closed/state", "closed"),
        ("state/missing/refwatch.db", "state/missing", "state"),
    ] {
        let config = with_record(&config, &scene.path(database));
        let config = scene.write("refwatch.toml", &config);
        let mut command = Command::new(scene.path("refwatch"));
        command.args(["--config", config.to_str().expect("text"), "run"]).env("AWS_EC2_METADATA_DISABLED", "true");
        command.uid(NOBODY).gid(NOBODY);
        if command.get_program() != scene.path("refwatch") || rustix::process::geteuid().as_raw() != 0 {
            return skipped::<()>("only root can start a process as somebody else").unwrap_or_default();
        }
        let mut daemon = scene.spawn(command);
        assert_eq!(daemon.end().code(), Some(1), "{}", daemon.stderr());
        let said = daemon.stderr();
        assert!(said.contains(&format!("{}: ", scene.path(path).display())), "{said}");
        let owner = format!("refwatch runs as user {NOBODY}, and {} belongs to user 0", scene.path(owned).display());
        assert!(said.contains(&owner) && said.contains("chown"), "{said}");
    }
    assert_eq!(fs::read_dir(scene.path("state")).expect("a directory").count(), 0, "nothing was made");
}

#[test]
fn fault_080_a_full_log_directory_costs_lines_that_are_counted_and_no_poll() {
    let Some(disk) = Mounted::in_memory() else { return };
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "8", "--mean-seconds", "6"]);
    let logs = disk.folder.path();
    let config = format!("{config}\n[log]\nrotation = \"never\"\ndirectory = \"{}\"\n", logs.display());
    let (daemon, address) = scene.daemon(&scene.write("refwatch.toml", &config));
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
fn fault_080_a_log_directory_that_cannot_be_written_is_told_of_and_written_once_it_can_be() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "4", "--mean-seconds", "8"]);
    let logs = scene.write("logs", "no directory");
    let config = format!("{config}\n[log]\nrotation = \"never\"\ndirectory = \"{}\"\n", logs.display());
    let (daemon, address) = scene.daemon(&scene.write("refwatch.toml", &config));
    let told = daemon.stderr();
    let line = told.lines().find(|line| line.contains("event=\"log_files_failed\"")).expect("a line");
    assert!(line.contains("ERROR") && line.contains(logs.to_str().expect("text")), "{line}");
    let dropped = || metric(address, "refwatch_log_lines_dropped_total", &[]).expect("a counter");
    eventually("dropped lines", || (dropped() > 0.0).then_some(()));
    assert_eq!(get(address, "/-/ready").0, 200);
    fs::remove_file(&logs).expect("what was in the way");
    eventually("a log", || fs::read_to_string(logs.join("refwatch.log")).ok().filter(|log| log.contains("COMPLETED")));
}
