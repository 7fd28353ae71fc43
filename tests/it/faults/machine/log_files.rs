//! Fault 138: log files that others move, remove or replace, and files with secrets that every user can read.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::certificate_authority::CertificateAuthority;
use crate::process::{Process, Workspace, eventually, metric};

const IDLE: &str =
    "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n[target.default]\nregion = \"us-west-2\"\n";

/// Writes a configuration without jobs whose logs are in `logs`.
fn with_logs(workspace: &Workspace, log: &str) -> PathBuf {
    workspace.write("refwatch.toml", &format!("{IDLE}[log]\ndirectory = \"logs\"\n{log}\n"))
}

/// Reloads, which writes one line with `reloaded`, and waits until the file has it.
fn reload(daemon: &Process, file: &Path) {
    daemon.signal(Signal::HUP);
    eventually("a log", || fs::read_to_string(file).ok().filter(|log| log.contains("event=\"reloaded\"")));
}

fn reloads(text: &str) -> usize {
    text.matches("event=\"reloaded\"").count()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn fault_138_a_moved_or_removed_log_file_or_directory_is_created_again_without_a_lost_line() {
    let workspace = Workspace::new();
    let (daemon, address) = workspace.daemon(&with_logs(&workspace, "rotation = \"never\""));
    let (logs, file) = (workspace.path("logs"), workspace.path("logs/refwatch.log"));
    reload(&daemon, &file);
    fs::rename(&file, logs.join("refwatch.log.1")).expect("a file");
    reload(&daemon, &file);
    fs::rename(&logs, workspace.path("moved")).expect("a directory");
    reload(&daemon, &file);
    let kept = ["moved/refwatch.log.1", "moved/refwatch.log", "logs/refwatch.log"];
    let kept = kept.map(|name| fs::read_to_string(workspace.path(name)).expect("a log"));
    assert_eq!(kept.map(|log| reloads(&log)), [1; 3]);
    fs::remove_file(&file).expect("a file");
    reload(&daemon, &file);
    fs::remove_dir_all(&logs).expect("a directory");
    reload(&daemon, &file);
    assert_eq!(metric(address, "refwatch_log_lines_dropped_total", &[]), Some(0.0));
    assert!(!daemon.stderr().contains("log_files_failed"), "{}", daemon.stderr());
}

#[test]
fn fault_138_a_missing_parent_of_the_log_directory_is_not_created_and_its_lines_are_counted() {
    let workspace = Workspace::new();
    let config = format!("{IDLE}[log]\ndirectory = \"mount/logs\"\n");
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    eventually("an error", || daemon.stderr().contains("event=\"log_files_failed\"").then_some(()));
    let dropped = || metric(address, "refwatch_log_lines_dropped_total", &[]).expect("a counter");
    eventually("dropped lines", || (dropped() > 0.0).then_some(()));
    assert!(!workspace.path("mount").exists());
    fs::create_dir(workspace.path("mount")).expect("a directory");
    daemon.signal(Signal::HUP);
    let files = || fs::read_dir(workspace.path("mount/logs")).ok()?.next();
    eventually("a log", files).expect("a file");
}

#[test]
fn fault_138_only_the_oldest_dated_log_files_of_refwatch_are_deleted() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("logs")).expect("a directory");
    let others = [
        "refwatch-audit.log",
        "refwatch.log",
        "refwatch.old.log",
        "refwatch.2026-01-01.log.gz",
        "refwatch.2026-01.log",
    ];
    let old = ["refwatch.2026-01-01-23.log", "refwatch.2026-01-01.log"];
    let crashed = "refwatch.2026-01-02.log";
    for name in others.iter().chain(&old).chain([&crashed]) {
        workspace.write(&format!("logs/{name}"), "the last words\n");
    }
    fs::create_dir(workspace.path("logs/refwatch.2025-01-01.log")).expect("a directory");
    symlink("refwatch.log", workspace.path("logs/refwatch.2025-01-02.log")).expect("a link");
    let (_daemon, _) = workspace.daemon(&with_logs(&workspace, "keep_files = 1"));
    let exists = |name: &str| fs::symlink_metadata(workspace.path(&format!("logs/{name}"))).is_ok();
    eventually("a deletion", || (!old.iter().any(|name| exists(name))).then_some(()));
    let kept = others.iter().chain([&crashed, &"refwatch.2025-01-01.log", &"refwatch.2025-01-02.log"]);
    let missing: Vec<_> = kept.filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn fault_138_the_log_of_the_previous_run_stays_if_one_file_is_kept() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("logs")).expect("a directory");
    let file = workspace.write("logs/refwatch.log", "the last words\n");
    let (_daemon, _) = workspace.daemon(&with_logs(&workspace, "rotation = \"never\"\nkeep_files = 1"));
    let log = || fs::read_to_string(&file).ok().filter(|log| log.contains("event=\"started\""));
    assert!(eventually("a log", log).starts_with("the last words\n"));
}

#[test]
fn fault_138_a_log_file_that_is_a_symbolic_link_is_not_followed() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("logs")).expect("a directory");
    let victim = workspace.write("victim", "of another program\n");
    symlink(&victim, workspace.path("logs/refwatch.log")).expect("a link");
    let (daemon, address) = workspace.daemon(&with_logs(&workspace, "rotation = \"never\""));
    eventually("an error", || daemon.stderr().contains("refwatch.log: a symbolic link").then_some(()));
    let dropped = || metric(address, "refwatch_log_lines_dropped_total", &[]).expect("a counter");
    eventually("dropped lines", || (dropped() > 0.0).then_some(()));
    assert_eq!(fs::read_to_string(&victim).expect("a file"), "of another program\n");
}

#[test]
fn fault_138_new_log_files_have_the_same_mode_under_every_umask() {
    for umask in ["000", "077"] {
        let workspace = Workspace::new();
        let config = with_logs(&workspace, "rotation = \"never\"");
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("umask {umask} && exec \"$@\""),
            "sh",
            env!("CARGO_BIN_EXE_refwatch"),
            "--config",
        ]);
        command.arg(&config).arg("run").env("AWS_EC2_METADATA_DISABLED", "true");
        let daemon = workspace.spawn(command);
        daemon.address();
        let file = workspace.path("logs/refwatch.log");
        eventually("a log", || fs::read_to_string(&file).ok().filter(|log| log.contains("event=\"started\"")));
        assert_eq!((mode(&file), mode(&workspace.path("logs"))), (0o640, 0o750), "umask {umask}");
        // A mode that an administrator has set stays.
        drop(daemon);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our file");
        let (daemon, _) = workspace.daemon(&config);
        reload(&daemon, &file);
        assert_eq!(mode(&file), 0o644);
    }
}

#[test]
fn fault_138_keys_and_password_hashes_that_every_user_can_read_cause_warnings() {
    let workspace = Workspace::new();
    let (certificate, key) = CertificateAuthority::new("a").certificate("refwatch.example", 2999);
    workspace.write("server.crt", &certificate.pem());
    let key = workspace.write("server.key", &key.serialize_pem());
    let hash = bcrypt::hash("a", 10).expect("a hash");
    let http = "[http]\ntls = { cert = \"server.crt\", key = \"server.key\" }\nusers = { a = \"HASH\" }\n";
    let config = workspace.write("refwatch.toml", &IDLE.replace("[http]\n", &http.replace("HASH", &hash)));
    for (mode, warned) in [(0o644, true), (0o640, false)] {
        for file in [&key, &config] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("our file");
        }
        let (status, _, checked) = workspace.run(&["--config", config.to_str().expect("text"), "check"]);
        assert_eq!(status, 0, "{checked}");
        let log = workspace.daemon(&config).0.stderr();
        for file in [&key, &config] {
            let command = format!("run `chmod o-rwx {}`", file.display());
            assert_eq!(checked.contains(&command), warned, "{checked}");
            let line = log.lines().any(|line| line.contains("event=\"secret_readable\"") && line.contains(&command));
            assert_eq!(line, warned, "{log}");
        }
    }
}
