//! Changes of a running daemon's configuration: detected edits, `refwatch reload` and `refwatch add`, and how errors are shown.

use std::fs;
use std::io::{Write as _, read_to_string};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use crate::process::{Workspace, eventually, get, json, metric};

const JOB: &str = "[[job]]\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n";

/// A configuration without watches.
const NO_WATCHES: &str = "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n[target.default]\nregion = \"us-west-2\"\n\
                       endpoint_url = \"http://127.0.0.1:9\"\n";

/// Waits until this many jobs are watched.
#[track_caller]
fn expect_watches(address: SocketAddr, count: usize) {
    eventually(&format!("{count} watches"), || {
        (json(address, "/api/v1/jobs").as_array()?.len() == count).then_some(())
    });
}

fn job(nth: u32) -> String {
    JOB.replace("9876543210", &format!("{nth:010}"))
}

#[test]
fn edits_of_all_kinds_are_applied_without_a_reload_request() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", NO_WATCHES);
    let (daemon, address) = workspace.daemon(&file);
    expect_watches(address, 0);
    // Writes in place; replaces; adds a directory and files in it; changes and deletes a file; deletes and recreates the directory.
    fs::write(&file, format!("{NO_WATCHES}{}", job(1))).expect("a file");
    expect_watches(address, 1);
    workspace.write("new", &format!("{NO_WATCHES}{}{}", job(1), job(2)));
    fs::rename(workspace.path("new"), &file).expect("a file");
    expect_watches(address, 2);
    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/a.toml", &job(3));
    expect_watches(address, 3);
    workspace.write("conf.d/b.toml", &format!("{}{}", job(4), job(5)));
    expect_watches(address, 5);
    workspace.write("conf.d/b.toml", &job(4));
    expect_watches(address, 4);
    fs::remove_file(workspace.path("conf.d/a.toml")).expect("a file");
    expect_watches(address, 3);
    fs::remove_dir_all(workspace.path("conf.d")).expect("a directory");
    expect_watches(address, 2);
    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/a.toml", &job(3));
    expect_watches(address, 3);
    let reloads = || daemon.stderr().matches("event=\"reloaded\"").count();
    let before = reloads();
    workspace.write("conf.d/a.toml", &format!("# A remark.\n{}", job(3)));
    workspace.write("conf.d/c.toml", &job(6));
    expect_watches(address, 4);
    assert!(reloads() <= before + 1, "a comment causes no reload: {}", daemon.stderr());
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0));
}

#[test]
fn a_swap_of_symbolic_links_as_in_kubernetes_is_applied() {
    let workspace = Workspace::new();
    let version = |name: &str, text: &str| {
        fs::create_dir(workspace.path(name)).expect("a directory");
        workspace.write(&format!("{name}/refwatch.toml"), text);
    };
    version("..one", NO_WATCHES);
    symlink("..one", workspace.path("..data")).expect("a link");
    symlink("..data/refwatch.toml", workspace.path("refwatch.toml")).expect("a link");
    let (_daemon, address) = workspace.daemon(&workspace.path("refwatch.toml"));
    expect_watches(address, 0);
    version("..two", &format!("{NO_WATCHES}{JOB}"));
    symlink("..two", workspace.path("..data_tmp")).expect("a link");
    fs::rename(workspace.path("..data_tmp"), workspace.path("..data")).expect("a link");
    fs::remove_dir_all(workspace.path("..one")).expect("a directory");
    expect_watches(address, 1);
}

#[test]
fn an_edit_without_a_file_event_is_applied_at_the_next_check() {
    let workspace = Workspace::new();
    // Not next to the file, which moves.
    let text_without_watches = NO_WATCHES.replace("refwatch.db", workspace.path("refwatch.db").to_str().expect("text"));
    for (version, text) in [("one", text_without_watches.clone()), ("two", format!("{text_without_watches}{JOB}"))] {
        fs::create_dir_all(workspace.path(&format!("{version}/etc"))).expect("a directory");
        workspace.write(&format!("{version}/etc/refwatch.toml"), &text);
    }
    let link = |to: &str| {
        symlink(to, workspace.path("new")).expect("a link");
        fs::rename(workspace.path("new"), workspace.path("current")).expect("a link");
    };
    link("one");
    let (_daemon, address) = workspace.daemon(&workspace.path("current/etc/refwatch.toml"));
    expect_watches(address, 0);
    // The link is above every directory that has a file watch.
    link("two");
    expect_watches(address, 1);
}

#[test]
fn an_invalid_edit_changes_nothing_and_is_shown_until_it_is_corrected() {
    let workspace = Workspace::new();
    let notify = UnixDatagram::bind(workspace.path("notify")).expect("a socket");
    let good = format!("{NO_WATCHES}{JOB}");
    let file = workspace.write("refwatch.toml", &good);
    let mut command = workspace.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    command.env("NOTIFY_SOCKET", workspace.path("notify"));
    let daemon = workspace.spawn(command);
    let address = daemon.address();
    let address_text = address.to_string();
    let status = || workspace.run(&["status", "--address", &address_text]).1;
    let mut buffer = [0; 4096];
    let mut expect_status = |expected: &str| loop {
        let length = notify.recv(&mut buffer).expect("a message");
        let text = String::from_utf8_lossy(&buffer[..length]);
        if text.lines().any(|line| line.starts_with("STATUS=") && line.contains(expected)) {
            return;
        }
    };
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    assert!(reload() == Some(1.0) && !status().contains("Configuration:"), "{}", status());

    fs::write(&file, good.replace("[[job]]", "[[jop]]")).expect("a file");
    eventually("the metric", || (reload() == Some(0.0)).then_some(()));
    expect_watches(address, 1);
    assert!(get(address, "/").1.contains("unknown key `jop`"), "the page");
    assert!(status().starts_with("Configuration: ") && status().contains("unknown key `jop`"), "{}", status());
    assert!(daemon.stderr().contains("unknown key `jop`"), "the log");
    expect_status("unknown key `jop`");

    fs::write(&file, &good).expect("a file");
    eventually("the metric", || (reload() == Some(1.0)).then_some(()));
    assert!(!get(address, "/").1.contains("jop") && !status().contains("jop"), "{}", status());
    expect_status("STATUS=1 jobs:");
    expect_watches(address, 1);
}

#[test]
fn refwatch_reload_waits_for_the_applied_configuration_or_fails_with_diagnostics() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", NO_WATCHES);
    let path = file.to_str().expect("text");
    let reload = || workspace.run(&["--config", path, "reload"]);
    let (status, _, error) = reload();
    assert!(
        status == 1 && error.contains("refwatch.db.sock") && error.contains("systemctl status refwatch"),
        "{error}"
    );

    let (mut daemon, address) = workspace.daemon(&file);
    let socket = fs::metadata(workspace.path("refwatch.db.sock")).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    fs::write(&file, format!("{NO_WATCHES}{JOB}")).expect("a file");
    let (status, output, _) = reload();
    assert_eq!((status, output.as_str()), (0, "applied: 1 job"));
    assert_eq!(json(address, "/api/v1/jobs").as_array().map(Vec::len), Some(1), "the reload waits until it is applied");
    fs::write(&file, format!("{NO_WATCHES}{JOB}[log]\nformat = \"json\"\n")).expect("a file");
    let (_, output, _) = reload();
    assert_eq!(output, "applied: 1 job; changes in [log] take effect at the next start");

    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/a.toml", "[[jop]]\n");
    let (status, _, error) = reload();
    assert!(status == 78 && error.contains("conf.d/a.toml:1:3") && error.contains("the rest is applied"), "{error}");
    fs::write(&file, "[[jop]]\n").expect("a file");
    let (status, _, error) = reload();
    assert!(status == 78 && error.contains("refwatch.toml:1:3"), "{error}");

    fs::write(&file, NO_WATCHES).expect("a file");
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.end().success());
    assert!(!workspace.path("refwatch.db.sock").exists());
}

#[test]
fn the_control_socket_sanitizes_an_unknown_parameter() {
    let workspace = Workspace::new();
    let (_daemon, _) = workspace.daemon(&workspace.write("refwatch.toml", NO_WATCHES));
    let mut socket = UnixStream::connect(workspace.path("refwatch.db.sock")).expect("a connection");
    let request = "POST /-/notify/test?sink=a&%1B=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("a request");
    let response = read_to_string(socket).expect("a response");
    assert!(response.starts_with("HTTP/1.1 400") && response.contains("unknown field `\\u001b`"), "{response:?}");
}

#[test]
fn refwatch_add_writes_a_file_that_the_daemon_applies() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", NO_WATCHES);
    let path = file.to_str().expect("text");
    let (_daemon, address) = workspace.daemon(&file);
    let add = |arguments: &[&str]| workspace.run(&[&["--config", path, "add"], arguments].concat());
    let (status, output, error) = add(&["1234567890/9876543210", "--name", "a \"quoted\" name"]);
    let written = workspace.path("conf.d/1234567890-9876543210.toml");
    let expected = format!("added 1234567890/9876543210 in {}\nnow watched: 1 job on 1 target", written.display());
    assert_eq!((status, output.as_str()), (0, &*expected), "{error}");
    expect_watches(address, 1);
    assert_eq!(json(address, "/api/v1/jobs")[0]["watch"], "a \"quoted\" name");
    assert_eq!(fs::metadata(&written).expect("a file").permissions().mode() & 0o777, 0o644);
    let names = |directory: &Path| fs::read_dir(directory).expect("a directory").count();

    let (status, _, error) = add(&["1234567890/9876543210"]);
    let place = format!("1234567890/9876543210 is already watched: {}:4", written.display());
    assert!(status == 64 && error.contains(&place), "{error}");
    let (status, _, error) = add(&["1234567890/1111111111", "--target", "../../etc"]);
    assert!(status == 64 && error.contains("there is no [target.../../etc]; use one of: default"), "{error}");
    let (status, _, error) = add(&["1234567890/1111111111", "--name", "a \"quoted\" name"]);
    assert!(status == 64 && error.contains("quoted"), "a duplicate name: {error}");
    let (status, _, error) = add(&["1234567890"]);
    assert!(status == 64 && error.contains("STORE/JOB"), "{error}");
    assert_eq!(names(&workspace.path("conf.d")), 1, "nothing is left behind");

    let (status, output, error) = workspace.run(&["--config", path, "remove", "1234567890/9876543210"]);
    let expected =
        format!("removed 1234567890/9876543210 from {}\nnow watched: 0 jobs on 0 targets", written.display());
    assert_eq!((status, output.as_str()), (0, &*expected), "{error}");
    expect_watches(address, 0);
    assert!(!written.exists(), "an empty file is deleted");

    fs::write(&file, format!("include = []\n{NO_WATCHES}")).expect("a file");
    let (status, _, error) = add(&["1234567890/1111111111"]);
    assert!(status == 78 && error.contains("include"), "{error}");
}

#[test]
fn refwatch_remove_edits_only_included_files_and_keeps_comments_and_modes() {
    const ENTRY: &str = "[[job]]\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n";
    let workspace = Workspace::new();
    let main = workspace.write("refwatch.toml", NO_WATCHES);
    let remove = |job: &str| workspace.run(&["--config", main.to_str().expect("text"), "remove", job]);
    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    let other = ENTRY.replace("9876543210", "1111111111");
    let file = workspace.write("conf.d/jobs.toml", &format!("# of Ada\n{ENTRY}\n# of Bob\n{other}"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("our file");
    let (status, output, error) = remove("1234567890/9876543210");
    assert!(status == 0 && output.ends_with("now watched: 1 job on 1 target"), "{output}{error}");
    assert_eq!(fs::read_to_string(&file).expect("a file"), format!("# of Ada\n# of Bob\n{other}"));
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640);
    let (status, _, error) = remove("1234567890/9876543210");
    assert!(status == 64 && error.contains("is not in the watch list of"), "{error}");

    // In the main file and in a layout that cannot be edited, nothing changes.
    let inline = "job = [{ reference_store_id = \"1234567890\", id = \"2222222222\" }]\n";
    let inline = workspace.write("conf.d/inline.toml", inline);
    let text = format!("{NO_WATCHES}\n{ENTRY}");
    fs::write(&main, &text).expect("a file");
    let line = text.lines().position(|line| line.starts_with("id")).expect("an id") + 1;
    for (job, place) in [
        ("1234567890/9876543210", format!("{}:{line}: ", main.display())),
        ("1234567890/2222222222", format!("{}:1: ", inline.display())),
    ] {
        let (status, output, error) = remove(job);
        assert!(status == 64 && output.is_empty() && error.contains(&place), "{error}");
        assert!(error.contains("remove the entry there with an editor"), "{error}");
    }
    assert_eq!(fs::read_to_string(&main).expect("a file"), text);

    // In another directory, through a symbolic link: the link is removed.
    fs::create_dir(workspace.path("jobs.d")).expect("a directory");
    let target = workspace.write("shared", &ENTRY.replace("9876543210", "3333333333"));
    std::os::unix::fs::symlink(&target, workspace.path("jobs.d/a.toml")).expect("a link");
    fs::write(&main, format!("include = [\"jobs.d/*.toml\"]\n{NO_WATCHES}")).expect("a file");
    let (status, output, error) = remove("1234567890/3333333333");
    assert!(status == 0 && output.ends_with("now watched: 0 jobs on 0 targets"), "{output}{error}");
    assert!(target.exists() && !workspace.path("jobs.d/a.toml").is_symlink());
}

#[test]
fn the_log_level_changes_without_a_restart() {
    let workspace = Workspace::new();
    let with_level =
        |level: &str| workspace.write("refwatch.toml", &format!("{NO_WATCHES}[log]\nlevel = \"{level}\"\n"));
    let (daemon, address) = workspace.daemon(&with_level("info"));
    with_level("debug");
    eventually("the reload", || daemon.stderr().contains("event=\"reloaded\"").then_some(()));
    assert!(!daemon.stderr().contains("event=\"restart_needed\""), "{}", daemon.stderr());
    // The connection breaks off within a request.
    let broken = || TcpStream::connect(address).and_then(|mut stream| stream.write_all(b"GET")).expect("a listener");
    eventually("an event of level debug", || {
        broken();
        daemon.stderr().contains(" DEBUG ").then_some(())
    });
}

#[test]
fn a_main_file_of_comments_is_accepted_if_the_daemon_was_started_with_it() {
    let workspace = Workspace::new();
    let state = workspace.path("state");
    fs::create_dir_all(workspace.path("conf.d")).expect("a directory");
    fs::create_dir_all(&state).expect("a directory");
    workspace.write("conf.d/a.toml", &job(1));
    let file = workspace.write("refwatch.toml", "# Everything is in conf.d.\n");
    let mut command = workspace.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    command.env("STATE_DIRECTORY", &state).env("AWS_REGION", "us-west-2").env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let daemon = workspace.spawn(command);
    eventually("the start", || daemon.stderr().contains("event=\"started\"").then_some(()));
    workspace.write("conf.d/b.toml", &job(2));
    eventually("the reload", || daemon.stderr().contains("event=\"reloaded\" jobs=2").then_some(()));
}

#[test]
fn remove_says_that_files_with_errors_are_not_searched_and_add_that_their_jobs_stay_watched() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", NO_WATCHES);
    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/a.toml", "[[job]\n");
    let run = |arguments: &[&str]| workspace.run(&[&["--config", file.to_str().expect("text")], arguments].concat());
    let (status, _, error) = run(&["remove", "1234567890/9876543210"]);
    assert!(status == 64 && error.contains("a file with errors may contain it: run refwatch check"), "{error}");
    let (status, shown, error) = run(&["add", "1234567890/9876543210"]);
    assert!(status == 0 && shown.ends_with("now watched: 1 job on 1 target"), "{shown} {error}");
    assert!(
        error.contains("a.toml:1:") && error.contains("until this is corrected, a running daemon ends no watch"),
        "{error}"
    );
}

#[test]
fn jobs_of_the_default_target_are_left_out_while_the_file_that_defines_it_has_an_error() {
    let workspace = Workspace::new();
    let main = "[database]\npath = \"refwatch.db\"\n";
    let file = workspace.write("refwatch.toml", main);
    fs::create_dir(workspace.path("conf.d")).expect("a directory");
    workspace.write("conf.d/a.toml", "[target.default]\nregion = \"us-west-2\"\nregoin = 1\n");
    workspace.write("conf.d/b.toml", &job(1));
    let (status, _, error) = workspace.run(&["--config", file.to_str().expect("text"), "check"]);
    assert!(
        status == 78 && error.contains("b.toml:3:6: there is no target \"default\" (correct the errors in "),
        "{error}"
    );
}
