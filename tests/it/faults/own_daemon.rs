//! Fault 139: commands use the daemon of their configuration file, never another one.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk_faults::skipped;
use crate::process::{Process, Workspace, json};

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// A configuration with one job, whose service is unreachable.
fn configuration(workspace: &Workspace, name: &str, database: &str, listen: SocketAddr) -> PathBuf {
    let text = format!(
        "[database]\npath = \"{database}\"\n[http]\nlisten = \"{listen}\"\n[target.default]\nregion = \"us-west-2\"\n\
         endpoint_url = \"http://127.0.0.1:9\"\n[[job]]\nname = \"{name}\"\nreference_store_id = \"1234567890\"\nid = \"2222222222\"\n"
    );
    workspace.write(&format!("{name}.toml"), &text)
}

/// Starts the daemon of a new configuration, whose `listen` is the address of the daemon afterwards.
fn daemon(workspace: &Workspace, name: &str) -> (PathBuf, Process, SocketAddr) {
    let database = format!("{name}.db");
    let file = configuration(workspace, name, &database, "127.0.0.1:0".parse().expect("an address"));
    let (process, address) = workspace.daemon(&file);
    (configuration(workspace, name, &database, address), process, address)
}

fn command(workspace: &Workspace, config: &Path, command: &str) -> (i32, String, String) {
    workspace.run(&["--config", config.to_str().expect("text"), command])
}

#[test]
fn fault_139_status_shows_the_jobs_of_its_own_daemon_even_if_the_file_has_errors() {
    let workspace = Workspace::new();
    let (other, other_daemon, port) = daemon(&workspace, "other");
    // The listener of this file is the other daemon's.
    let own = configuration(&workspace, "own", "own.db", port);
    let text = fs::read_to_string(&own).expect("a file");
    for text in [text.clone(), text.replace("[http]", "[http]\nport = 1"), format!("{text}\n[[job\n")] {
        fs::write(&own, text).expect("a file");
        let (status, shown, error) = command(&workspace, &own, "status");
        assert_eq!((status, shown.as_str()), (1, ""), "{error}");
        let named = format!("{port} is the daemon of {} (process {}, database ", other.display(), other_daemon.pid());
        assert!(error.contains(&named) && error.contains("own.db.sock"), "{error}");
    }

    fs::write(&own, text.replace(&port.to_string(), "127.0.0.1:0")).expect("a file");
    let (own_daemon, address) = workspace.daemon(&own);
    let shown = json(address, "/api/v1/daemon");
    assert_eq!(shown["config_file"], own.to_str().expect("text"));
    assert_eq!(shown["database"], workspace.path("own.db").to_str().expect("text"));
    assert_eq!(shown["pid"], own_daemon.pid());
    let link = workspace.path("link.toml");
    std::os::unix::fs::symlink(&own, &link).expect("a link");
    for (text, warns) in [
        (text.clone(), false),
        (text.replace("[http]", "[http]\nport = 1"), true),
        (format!("{text}\n[[job\n"), true),
        (text.replace("2222222222", "2"), true),
    ] {
        fs::write(&own, text).expect("a file");
        for config in [&own, &link] {
            let (status, shown, error) = command(&workspace, config, "status");
            assert_eq!(status, 0, "{error}");
            assert!(shown.contains("own ") && !shown.contains("other"), "{shown}");
            assert_eq!(error.contains("run refwatch check"), warns, "{error}");
        }
    }
}

#[test]
fn fault_139_a_reload_reaches_only_the_daemon_of_its_file() {
    let workspace = Workspace::new();
    let any_port = "127.0.0.1:0".parse().expect("an address");
    let own = configuration(&workspace, "own", "refwatch.db", any_port);
    let other = configuration(&workspace, "other", "refwatch.db", any_port);
    let (_daemon, _) = workspace.daemon(&own);
    for name in ["reload", "status"] {
        let (status, _, error) = command(&workspace, &own, name);
        assert_eq!(status, 0, "{name}: {error}");
        let (status, shown, error) = command(&workspace, &other, name);
        assert_eq!((status, shown.as_str()), (1, ""), "{name}: {error}");
        assert!(error.contains(&format!("is the daemon of {} (process ", own.display())), "{name}: {error}");
    }
}

/// Runs `status` as a user who may not use the control socket.
fn status_as_nobody(workspace: &Workspace, config: &Path) -> Option<(i32, String, String)> {
    if rustix::process::geteuid().as_raw() != 0 {
        return skipped("only root can start a process as another user");
    }
    // `nobody` may not read the build directory.
    let program = workspace.path("refwatch");
    if !program.exists() {
        // Not `fs::copy`: a process that another test starts at this moment would inherit the open file, which then cannot be executed.
        let copied = Command::new("cp").args([Path::new(env!("CARGO_BIN_EXE_refwatch")), &program]).status();
        assert!(copied.expect("cp").success());
    }
    fs::set_permissions(workspace.path(""), fs::Permissions::from_mode(0o755)).expect("our directory");
    let mut command = Command::new(program);
    command.args(["--config", config.to_str().expect("text"), "status"]).uid(NOBODY).gid(NOBODY);
    let mut process: Process = workspace.spawn(command);
    let status = process.end().code().expect("an exit status");
    Some((status, process.rest().join("\n"), process.stderr()))
}

#[test]
fn fault_139_without_permission_for_the_socket_only_the_own_daemon_is_asked_at_its_listener() {
    let workspace = Workspace::new();
    let (own, _daemon, port) = daemon(&workspace, "own");
    let other = configuration(&workspace, "other", "other.db", port);
    let Some((status, shown, error)) = status_as_nobody(&workspace, &own) else { return };
    assert!(status == 0 && shown.contains("own "), "{shown}{error}");
    let Some((status, shown, error)) = status_as_nobody(&workspace, &other) else { return };
    assert_eq!((status, shown.as_str()), (1, ""), "{error}");
    assert!(error.contains(&format!("{port} is the daemon of {}", own.display())), "{error}");
}
