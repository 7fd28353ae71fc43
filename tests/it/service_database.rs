//! A command in a shell finds the database of the service. The service has `STATE_DIRECTORY`, the shell has not.
//!
//! Mounts of the test replace `/etc` and `/var/lib`. Without root the test is skipped.

use std::fs;
use std::process::Command;

use crate::disk_faults::skipped;
use crate::process::{Process, Workspace, eventually, with_prefix};

/// Starts a daemon whose `/etc` and `/var/lib` are directories of the workspace. `None` if this user may not mount.
fn service(workspace: &Workspace, config: &str, state_directory: &str) -> Option<Process> {
    let [etc, lib] = ["etc", "lib"].map(|name| workspace.path(name).display().to_string());
    // The AWS SDK requires certificates.
    let script = format!(
        "mount --bind /etc/ssl {etc}/ssl && mount --rbind {etc} /etc && mount --bind {lib} /var/lib && exec \"$@\""
    );
    let mut run = workspace.refwatch(&["--config", config, "run"]);
    run.env("STATE_DIRECTORY", state_directory);
    let mut daemon = workspace.spawn(with_prefix(&["unshare", "--mount", "sh", "-c", &script, "sh"], &run));
    let socket = workspace.path(state_directory.trim_start_matches("/var/")).join("refwatch.db.sock");
    eventually("a daemon or an early exit", || (daemon.has_ended() || socket.exists()).then_some(()));
    if daemon.has_ended() {
        assert!(["unshare:", "mount:"].iter().any(|what| daemon.stderr().contains(what)), "{}", daemon.stderr());
        return skipped(&daemon.stderr());
    }
    Some(daemon)
}

#[test]
fn commands_in_a_shell_use_the_database_of_the_service_of_their_configuration() {
    let workspace = Workspace::new();
    let (_simulator, _, simulated) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let simulated = simulated.replace("path = \"refwatch.db\"\n", "");
    assert!(!simulated.contains("refwatch.db"), "{simulated}");
    fs::create_dir_all(workspace.path("etc/ssl")).expect("a directory");
    for instance in ["refwatch", "refwatch/second"] {
        fs::create_dir_all(workspace.path(&format!("etc/{instance}"))).expect("a directory");
        fs::create_dir_all(workspace.path(&format!("lib/{instance}"))).expect("a directory");
        workspace.write(&format!("etc/{instance}/refwatch.toml"), &simulated);
    }
    for instance in ["refwatch", "refwatch/second"] {
        let config = format!("/etc/{instance}/refwatch.toml");
        let Some(daemon) = service(&workspace, &config, &format!("/var/lib/{instance}")) else { return };
        let shell = |arguments: &[&str]| {
            let refwatch = workspace.refwatch(&[&["--config", &config], arguments].concat());
            let pid = daemon.pid().to_string();
            let mut command: Command = with_prefix(&["nsenter", "--mount", "--target", &pid], &refwatch);
            let output = command.output().expect("nsenter");
            let text = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(text).expect("text"))
        };
        eventually("the first observations", || {
            let (status, history) = shell(&["history"]);
            assert_eq!(status, Some(0), "{history}");
            (history.matches("SUBMITTED").count() == 2).then_some(())
        });
        for command in [&["check"][..], &["reload"], &["status"], &["add", "1234567890/9876543210"]] {
            let (status, output) = shell(command);
            assert_eq!(status, Some(0), "{command:?}: {output}");
        }
        eventually("the added job", || shell(&["status"]).1.contains("9876543210").then_some(()));
    }
}
