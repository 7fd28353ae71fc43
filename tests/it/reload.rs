//! Edits of a running daemon's configuration: taken up without being asked, however they are made; asked for; and, where they are
//! mistakes, shown wherever one looks.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::process::{Scene, eventually, get, json, metric};

const JOB: &str = "[[job]]\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n";

/// A configuration that watches nothing.
const NOTHING: &str = "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n[target.default]\nregion = \"us-west-2\"\n\
                       endpoint_url = \"http://127.0.0.1:9\"\n";

/// Waits until so many jobs are watched.
#[track_caller]
fn watched(address: SocketAddr, count: usize) {
    eventually(&format!("{count} watches"), || {
        (json(address, "/api/v1/jobs").as_array()?.len() == count).then_some(())
    });
}

fn job(nth: u32) -> String {
    JOB.replace("9876543210", &format!("{nth:010}"))
}

#[test]
fn edits_are_in_force_without_being_asked_for_however_they_are_made() {
    let scene = Scene::new();
    let file = scene.write("refwatch.toml", NOTHING);
    let (daemon, address) = scene.daemon(&file);
    watched(address, 0);
    // Written in place; replaced; in a folder that was not there; one more; one changed; one gone; the folder gone.
    fs::write(&file, format!("{NOTHING}{}", job(1))).expect("a file");
    watched(address, 1);
    scene.write("new", &format!("{NOTHING}{}{}", job(1), job(2)));
    fs::rename(scene.path("new"), &file).expect("a file");
    watched(address, 2);
    fs::create_dir(scene.path("conf.d")).expect("a folder");
    scene.write("conf.d/a.toml", &job(3));
    watched(address, 3);
    scene.write("conf.d/b.toml", &format!("{}{}", job(4), job(5)));
    watched(address, 5);
    scene.write("conf.d/b.toml", &job(4));
    watched(address, 4);
    fs::remove_file(scene.path("conf.d/a.toml")).expect("a file");
    watched(address, 3);
    fs::remove_dir_all(scene.path("conf.d")).expect("a folder");
    watched(address, 2);
    fs::create_dir(scene.path("conf.d")).expect("a folder");
    scene.write("conf.d/a.toml", &job(3));
    watched(address, 3);
    let reloads = || daemon.stderr().matches("event=\"reloaded\"").count();
    let before = reloads();
    scene.write("conf.d/a.toml", &format!("# A remark.\n{}", job(3)));
    scene.write("conf.d/c.toml", &job(6));
    watched(address, 4);
    assert!(reloads() <= before + 1, "a remark changes nothing that is in force: {}", daemon.stderr());
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0));
}

#[test]
fn a_swap_of_links_is_an_edit_as_kubernetes_makes_it() {
    let scene = Scene::new();
    let version = |name: &str, text: &str| {
        fs::create_dir(scene.path(name)).expect("a folder");
        scene.write(&format!("{name}/refwatch.toml"), text);
    };
    version("..one", NOTHING);
    symlink("..one", scene.path("..data")).expect("a link");
    symlink("..data/refwatch.toml", scene.path("refwatch.toml")).expect("a link");
    let (_daemon, address) = scene.daemon(&scene.path("refwatch.toml"));
    watched(address, 0);
    version("..two", &format!("{NOTHING}{JOB}"));
    symlink("..two", scene.path("..data_tmp")).expect("a link");
    fs::rename(scene.path("..data_tmp"), scene.path("..data")).expect("a link");
    fs::remove_dir_all(scene.path("..one")).expect("a folder");
    watched(address, 1);
}

#[test]
fn an_edit_that_nothing_tells_of_is_seen_at_the_next_look() {
    let scene = Scene::new();
    // Not beside the file, which moves.
    let nothing = NOTHING.replace("refwatch.db", scene.path("refwatch.db").to_str().expect("text"));
    for (version, text) in [("one", nothing.clone()), ("two", format!("{nothing}{JOB}"))] {
        fs::create_dir_all(scene.path(&format!("{version}/etc"))).expect("a folder");
        scene.write(&format!("{version}/etc/refwatch.toml"), &text);
    }
    let link = |to: &str| {
        symlink(to, scene.path("new")).expect("a link");
        fs::rename(scene.path("new"), scene.path("current")).expect("a link");
    };
    link("one");
    let (_daemon, address) = scene.daemon(&scene.path("current/etc/refwatch.toml"));
    watched(address, 0);
    // Above every directory that is watched.
    link("two");
    watched(address, 1);
}

#[test]
fn a_broken_edit_changes_nothing_is_seen_wherever_one_looks_and_mending_it_clears_it() {
    let scene = Scene::new();
    let notify = UnixDatagram::bind(scene.path("notify")).expect("a socket");
    let good = format!("{NOTHING}{JOB}");
    let file = scene.write("refwatch.toml", &good);
    let mut command = scene.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    command.env("NOTIFY_SOCKET", scene.path("notify"));
    let daemon = scene.spawn(command);
    let address = daemon.address();
    let address_text = address.to_string();
    let status = || scene.run(&["status", "--address", &address_text]).1;
    let mut told = [0; 4096];
    let mut told_systemd = |what: &str| loop {
        let length = notify.recv(&mut told).expect("a message");
        let text = String::from_utf8_lossy(&told[..length]);
        if text.lines().any(|line| line.starts_with("STATUS=") && line.contains(what)) {
            return;
        }
    };
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    assert!(reload() == Some(1.0) && !status().contains("Configuration:"), "{}", status());

    fs::write(&file, good.replace("[[job]]", "[[jop]]")).expect("a file");
    eventually("the metric", || (reload() == Some(0.0)).then_some(()));
    watched(address, 1);
    assert!(get(address, "/").1.contains("unknown key `jop`"), "the page");
    assert!(status().starts_with("Configuration: ") && status().contains("unknown key `jop`"), "{}", status());
    assert!(daemon.stderr().contains("unknown key `jop`"), "the log");
    told_systemd("unknown key `jop`");

    fs::write(&file, &good).expect("a file");
    eventually("the metric", || (reload() == Some(1.0)).then_some(()));
    assert!(!get(address, "/").1.contains("jop") && !status().contains("jop"), "{}", status());
    told_systemd("STATUS=1 jobs:");
    watched(address, 1);
}

#[test]
fn refwatch_reload_waits_for_what_is_in_force_or_fails_with_the_diagnostics() {
    let scene = Scene::new();
    let file = scene.write("refwatch.toml", NOTHING);
    let path = file.to_str().expect("text");
    let reload = || scene.run(&["--config", path, "reload"]);
    let (status, _, said) = reload();
    assert!(status == 1 && said.contains("refwatch.db.sock") && said.contains("is it running"), "{said}");

    let (mut daemon, address) = scene.daemon(&file);
    let socket = fs::metadata(scene.path("refwatch.db.sock")).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    fs::write(&file, format!("{NOTHING}{JOB}")).expect("a file");
    let (status, said, _) = reload();
    assert_eq!((status, said.as_str()), (0, "in force: 1 job"));
    assert_eq!(json(address, "/api/v1/jobs").as_array().map(Vec::len), Some(1), "it waited for that");
    fs::write(&file, format!("{NOTHING}{JOB}[log]\nformat = \"json\"\n")).expect("a file");
    let (_, said, _) = reload();
    assert_eq!(said, "in force: 1 job; changes in [log] take effect at the next start");

    fs::create_dir(scene.path("conf.d")).expect("a folder");
    scene.write("conf.d/a.toml", "[[jop]]\n");
    let (status, _, said) = reload();
    assert!(status == 78 && said.contains("conf.d/a.toml:1:3") && said.contains("the rest is in force"), "{said}");
    fs::write(&file, "[[jop]]\n").expect("a file");
    let (status, _, said) = reload();
    assert!(status == 78 && said.contains("refwatch.toml:1:3"), "{said}");

    fs::write(&file, NOTHING).expect("a file");
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.end().success());
    assert!(!scene.path("refwatch.db.sock").exists());
}

#[test]
fn refwatch_add_writes_an_entry_of_its_own_that_the_daemon_takes_up() {
    let scene = Scene::new();
    let file = scene.write("refwatch.toml", NOTHING);
    let path = file.to_str().expect("text");
    let (_daemon, address) = scene.daemon(&file);
    let add = |arguments: &[&str]| scene.run(&[&["--config", path, "add"], arguments].concat());
    let (status, said, error) = add(&["1234567890/9876543210", "--name", "a \"quoted\" name"]);
    let written = scene.path("conf.d/1234567890-9876543210.toml");
    assert_eq!((status, said.as_str()), (0, written.to_str().expect("text")), "{error}");
    watched(address, 1);
    assert_eq!(json(address, "/api/v1/jobs")[0]["watch"], "a \"quoted\" name");
    assert_eq!(fs::metadata(&written).expect("a file").permissions().mode() & 0o777, 0o644);
    let names = |folder: &Path| fs::read_dir(folder).expect("a folder").count();

    let (status, _, said) = add(&["1234567890/9876543210"]);
    assert!(status == 64 && said.matches("1234567890-9876543210.toml").count() == 2, "both places: {said}");
    let (status, _, said) = add(&["1234567890/1111111111", "--target", "../../etc"]);
    assert!(status == 64 && said.contains("there is no [target.../../etc]; there are: default"), "{said}");
    let (status, _, said) = add(&["1234567890/1111111111", "--name", "a \"quoted\" name"]);
    assert!(status == 64 && said.contains("quoted"), "a name of another: {said}");
    let (status, _, said) = add(&["1234567890"]);
    assert!(status == 64 && said.contains("STORE/JOB"), "{said}");
    assert_eq!(names(&scene.path("conf.d")), 1, "nothing is left behind");

    fs::write(&file, format!("include = []\n{NOTHING}")).expect("a file");
    let (status, _, said) = add(&["1234567890/1111111111"]);
    assert!(status == 78 && said.contains("include"), "{said}");
}
