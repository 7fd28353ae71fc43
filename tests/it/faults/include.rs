//! Fault 134: a directory or file of `include` that cannot be read.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::service::{JOB, STORE, Service, config, job};
use crate::process::{Workspace, eventually, get, metric};

/// Cannot be listed or read, even by root.
const UNREADABLE: &str = "/proc/self/mem";

fn entry(id: &str) -> String {
    format!("[[job]]\nreference_store_id = \"{STORE}\"\nid = \"{id}\"\n")
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the owner");
}

#[test]
fn fault_134_an_unreadable_include_directory_is_one_error_and_the_rest_applies() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let text = format!("include = [\"more/*.toml\", \"conf.d/*.toml\"]\n{text}");
    let file = workspace.write("refwatch.toml", &text);
    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/a.toml", &entry("1000000001"));
    symlink(UNREADABLE, workspace.path("more")).expect("a link");

    let (status, _, error) = workspace.run(&["--config", file.to_str().expect("text"), "check"]);
    assert_eq!((status, error.matches("error: ").count()), (78, 1), "{error}");
    assert!(error.contains("refwatch.toml:1:12: the directory "), "{error}");
    assert!(error.contains("more cannot be listed: Not a directory"), "{error}");

    let (daemon, address) = workspace.daemon(&file);
    let watched = |count: f64| (metric(address, "refwatch_watches", &["live"]) == Some(count)).then_some(());
    let reload = |result: f64| {
        let last = || metric(address, "refwatch_config_last_reload_successful", &[]);
        eventually("the result of the load", || (last() == Some(result)).then_some(()));
    };
    eventually("the main file's job and that of the other directory", || watched(2.0));
    reload(0.0);
    assert!(get(address, "/").1.contains("more cannot be listed"));

    fs::remove_file(workspace.path("more")).expect("the link");
    fs::create_dir(workspace.path("more")).expect("a directory");
    workspace.write("more/b.toml", &entry("1000000002"));
    eventually("the job of the repaired directory", || watched(3.0));
    reload(1.0);

    // Its jobs stay watched while it cannot be listed again.
    fs::remove_dir_all(workspace.path("more")).expect("the directory");
    symlink(UNREADABLE, workspace.path("more")).expect("a link");
    workspace.write("conf.d/c.toml", &entry("1000000003"));
    eventually("the new job, and those that were watched", || watched(4.0));
    reload(0.0);
    assert!(!daemon.stderr().contains("event=\"reload_failed\""), "{}", daemon.stderr());
}

#[test]
fn fault_134_a_repaired_permission_is_noticed_without_an_edit() {
    let user = rustix::process::getuid();
    if !user.is_root() {
        return crate::disk_faults::skipped::<()>("only root can start a daemon as another user").unwrap_or_default();
    }
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let file = workspace.write("refwatch.toml", &text);
    let directory = workspace.path("conf.d");
    fs::create_dir(&directory).expect("a directory");
    let included = workspace.write("conf.d/a.toml", &entry("1000000001"));
    mode(&workspace.path("."), 0o777);
    mode(&directory, 0o700);
    let mut command = Command::new("setpriv");
    let alone = workspace.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(alone.get_program()).args(alone.get_args());
    command.env_clear().envs(alone.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = workspace.spawn(command);
    let address = daemon.address();
    let watched = |count: f64| (metric(address, "refwatch_watches", &["live"]) == Some(count)).then_some(());
    assert_eq!(watched(1.0), Some(()), "{}", daemon.stderr());
    assert!(get(address, "/").1.contains("Permission denied"));
    mode(&directory, 0o755);
    eventually("the job of the readable directory", || watched(2.0));

    // The same with a file, and with a directory whose files can be listed and not opened.
    for (path, without) in [(&included, 0o600), (&directory, 0o744)] {
        let before = fs::metadata(path).expect("a file").permissions().mode();
        mode(path, without);
        eventually("the error", || get(address, "/").1.contains("Permission denied").then_some(()));
        assert_eq!(watched(2.0), Some(()), "its job stays watched");
        mode(path, before);
        eventually("no error", || (!get(address, "/").1.contains("Permission denied")).then_some(()));
    }
}
