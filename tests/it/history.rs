//! `refwatch history`: filters, following, the cursor, and the hook of `systemd/examples` that uses both.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use refwatch::core::job::JobStatus;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::database::{TestDatabase, id, transition};
use crate::disk_faults::skipped;
use crate::process::{Process, Workspace, eventually};
use crate::transition_rows::{ended, transitions};

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// Commits a transition of job 1 to each of these statuses, one every 12 hours from 2023-11-14T22:13:20Z.
async fn database_with(statuses: &[&str]) -> TestDatabase {
    let db = TestDatabase::new();
    let database = db.open();
    for (status, half_days) in statuses.iter().zip(0..) {
        database.append(&id(1), &transition(None, status, half_days * 43_200)).await.expect("a commit");
    }
    database.close().await;
    db
}

/// Runs `history` and returns the printed ids, or the error.
fn ids(workspace: &Workspace, database: &Path, arguments: &[&str]) -> Result<Vec<i64>, String> {
    let path = database.to_str().expect("text");
    let arguments = [&["history", "--json", "--database", path], arguments].concat();
    let (status, shown, error) = workspace.run(&arguments);
    if status != 0 {
        assert_eq!(shown, "");
        return Err(error);
    }
    let rows: Vec<Value> = serde_json::from_str(&shown).expect("an array");
    Ok(rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect())
}

#[tokio::test]
async fn history_selects_by_time_status_and_number() {
    let db = database_with(&["SUBMITTED", "IN_PROGRESS", "PAUSED", "FAILED", "COMPLETED"]).await;
    let workspace = Workspace::new();
    let selected = |arguments: &[&str]| ids(&workspace, &db.path, arguments).expect("rows");
    assert_eq!(selected(&[]), [1, 2, 3, 4, 5]);
    assert_eq!(selected(&["--since", "2023-11-16"]), [4, 5]);
    assert_eq!(selected(&["--until", "2023-11-16"]), [1, 2, 3]);
    assert_eq!(selected(&["--since", "2023-11-15", "--until", "2023-11-15T22:13:20Z"]), [2]);
    assert_eq!(selected(&["--since", "1d"]), [0; 0]);
    assert_eq!(selected(&["--status", "failed,COMPLETED"]), [4, 5]);
    assert_eq!(selected(&["--status", "UNKNOWN", "--status", "SUBMITTED"]), [1, 3]);
    assert_eq!(selected(&["--limit", "2"]), [4, 5]);
    assert_eq!(selected(&["--until", "2023-11-16", "--limit", "2"]), [2, 3]);
    for (wrong, error) in [
        (["--since", "yesterday"], "a date (2026-01-30, in UTC)"),
        (["--status", "FAILD"], "COMPLETED_WITH_FAILURES"),
        (["--limit", "0"], "0 is not in 1.."),
        // The cursor would pass over the later transitions.
        (["--until=2026-01-30", "--cursor=cursor"], "cannot be used with"),
    ] {
        let message = ids(&workspace, &db.path, &wrong).expect_err("wrong use");
        assert!(message.contains(error), "{message}");
    }
}

#[tokio::test]
async fn history_follow_ends_when_its_reader_has_gone_and_nothing_is_committed() {
    let db = database_with(&["SUBMITTED", "COMPLETED"]).await;
    let workspace = Workspace::new();
    let history = workspace.refwatch(&["history", "--follow", "--json", "--database", db.path.to_str().expect("text")]);
    let mut pipe = Command::new("sh");
    pipe.args(["-c", "\"$@\" | head -n 1", "sh"]).arg(history.get_program()).args(history.get_args());
    let mut pipe = workspace.spawn(pipe);
    assert!(pipe.end().success());
    assert_eq!(pipe.rest().len(), 1);
}

#[tokio::test]
async fn a_cursor_starts_at_the_present_and_continues_after_the_last_printed_transition() {
    let db = database_with(&["SUBMITTED", "IN_PROGRESS"]).await;
    let workspace = Workspace::new();
    let cursor = workspace.path("cursor");
    let new =
        |more: &[&str]| ids(&workspace, &db.path, &[&["--cursor", cursor.to_str().expect("text")], more].concat());
    assert_eq!(new(&[]), Ok(vec![]));
    assert_eq!(fs::metadata(&cursor).expect("a cursor").permissions().mode() & 0o777, 0o600);
    let database = db.open();
    for (status, seconds) in [("FAILED", 90_000), ("IN_PROGRESS", 90_001), ("COMPLETED", 90_002)] {
        database.append(&id(1), &transition(None, status, seconds)).await.expect("a commit");
    }
    assert_eq!(new(&["--since", "1s", "--limit", "1", "--status", "FAILED,IN_PROGRESS"]), Ok(vec![3, 4]));
    assert_eq!(new(&[]), Ok(vec![]), "rows that do not match are not read again");
    fs::remove_file(&cursor).expect("a cursor");
    assert_eq!(new(&["--limit", "2"]), Ok(vec![4, 5]));
    assert_eq!(fs::read_to_string(&cursor).expect("a cursor"), "5\n");

    fs::write(&cursor, "6\n").expect("a cursor");
    let error = new(&[]).expect_err("a row that was never written");
    assert!(error.contains(&format!("{}: no row has the id 6: the last one is 5", cursor.display())), "{error}");
    assert!(error.trim_end().ends_with("remove the file to start at the present"), "{error}");
    fs::write(&cursor, "five").expect("a cursor");
    let error = new(&[]).expect_err("no number");
    assert!(error.contains("not a cursor of refwatch history"), "{error}");
    database.close().await;
}

#[tokio::test]
async fn without_permission_history_advises_to_join_the_group() {
    let db = database_with(&["SUBMITTED"]).await;
    let workspace = Workspace::new();
    // `nobody` may not read the build directory.
    workspace.copy_binary();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our directory");
    open(&workspace.path(""));
    if rustix::process::geteuid().as_raw() != 0 {
        return skipped::<()>("only root can start a process as another user").unwrap_or_default();
    }
    // First the directory may not be entered, then the file may not be read.
    for _ in 0..2 {
        let mut command = Command::new(workspace.path("refwatch"));
        command.args(["history", "--database"]).arg(&db.path).uid(NOBODY).gid(NOBODY);
        let mut history = workspace.spawn(command);
        assert_eq!(history.end().code(), Some(1));
        let error = history.stderr();
        assert!(error.starts_with("error: permission denied opening ") && !error.contains("chown"), "{error}");
        assert!(error.contains("run as root or join the group refwatch"), "{error}");
        open(db.directory.path());
    }
}

/// A daemon on simulated jobs, and the path of its database.
fn daemon(workspace: &Workspace, jobs: &str) -> ([Process; 2], std::path::PathBuf) {
    let (simulator, _, config) = workspace.simulate(&["--jobs", jobs, "--mean-seconds", "4"]);
    let database = workspace.path("refwatch.db");
    let (daemon, _) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    ([simulator, daemon], database)
}

#[test]
fn history_follow_prints_each_transition_and_continues_after_a_kill() {
    let workspace = Workspace::new();
    let (_processes, database) = daemon(&workspace, "6");
    let database_path = database.to_str().expect("text");
    let cursor = workspace.path("cursor");
    fs::write(&cursor, "0\n").expect("a cursor");
    let arguments =
        ["history", "--database", database_path, "--follow", "--json", "--cursor", cursor.to_str().expect("text")];
    let id = |line: String| serde_json::from_str::<Value>(&line).expect("an object")["id"].as_i64().expect("an id");
    let mut printed = Vec::new();
    eventually("six ends", || {
        // A kill at the second line: it may or may not be in the cursor.
        let mut follow = workspace.start(&arguments);
        let rows = transitions(&database);
        let all: BTreeSet<i64> = rows.iter().map(|row| row.id).collect();
        let saved: i64 = fs::read_to_string(&cursor).expect("a cursor").trim().parse().expect("a number");
        // The cursor counts the rows of all tables.
        if ended(&rows) == 6 && all.last().is_some_and(|last| *last <= saved) {
            return Some(());
        }
        printed.push(id(follow.line()));
        follow.signal(Signal::KILL);
        follow.end();
        printed.extend(follow.rest().into_iter().map(id));
        None
    });
    let all: Vec<i64> = transitions(&database).iter().map(|row| row.id).collect();
    assert_eq!(printed.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), all);

    let follow = workspace.start(&["history", "--database", database_path, "--follow", "--limit", "2"]);
    assert!(follow.line().starts_with("OBSERVED AT"));
    // A message may be under the first row.
    for _ in 0..2 {
        while !follow.line().contains("Z  ") {}
    }
    drop(follow);
}

/// Kills a process and its children, as systemd does. They may have ended.
fn kill_group(process: &Process) {
    let group = Pid::from_raw(process.pid().cast_signed()).expect("a process id");
    if let Err(error) = kill_process_group(group, Signal::KILL) {
        assert_eq!(error, rustix::io::Errno::SRCH);
    }
}

#[test]
fn the_hook_runs_its_command_for_each_end_despite_kills_and_failures() {
    let workspace = Workspace::new();
    if Command::new("jq").arg("--version").output().is_err() {
        return skipped::<()>("the hook needs jq").unwrap_or_default();
    }
    let bin = Path::new(env!("CARGO_BIN_EXE_refwatch")).parent().expect("a directory");
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/examples/refwatch-hook");
    // The first run for each end fails before it does anything.
    let command = "#!/bin/sh\nid=$(jq .id)\nmkdir \"$HOME/run-$id\" 2>/dev/null && exit 1\n\
                   echo \"$id $REFWATCH_STATUS $REFWATCH_JOB\" >>\"$HOME/ends\"\n";
    let command = workspace.write("on-job-end", command);
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).expect("our file");
    let database = workspace.path("refwatch.db");
    let start = || {
        let mut process = Command::new(&hook);
        process.arg(&command).env_clear().env("HOME", workspace.path("")).env("STATE_DIRECTORY", workspace.path(""));
        process.env("REFWATCH_DATABASE", &database).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        workspace.spawn({
            process.process_group(0);
            process
        })
    };
    let ends = || fs::read_to_string(workspace.path("ends")).unwrap_or_default();
    let (_processes, _) = daemon(&workspace, "6");
    // The first job may end before the hook starts.
    workspace.write("handled", "0\n");
    let mut hook = start();
    let mut killed_at = 0;
    eventually("the end of each job", || {
        let lines = ends().lines().count();
        // As systemd does: restart after a failure, and after a kill of all processes at each new end.
        if lines > killed_at {
            killed_at = lines;
            kill_group(&hook);
        }
        if hook.has_ended() {
            kill_group(&hook);
            hook = start();
        }
        let rows = transitions(&database);
        let handled: BTreeSet<String> = ends().lines().map(str::to_owned).collect();
        (ended(&rows) == 6 && handled.len() == 6).then_some(())
    });
    kill_group(&hook);
    let first: Vec<String> = transitions(&database)
        .into_iter()
        .filter(|row| JobStatus::from(&*row.to_status).is_terminal())
        .map(|row| row.id.to_string())
        .collect();
    let mut handled: Vec<String> =
        ends().lines().map(|line| line.split(' ').next().expect("an id").to_owned()).collect();
    handled.dedup();
    assert_eq!(handled, first, "in order; only the last one is repeated");
}
