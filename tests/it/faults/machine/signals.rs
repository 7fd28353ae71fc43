//! Signals in bulk and at a bad time, and a daemon where another is.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use super::{Tracer, impatient, polls};
use crate::process::{Process, Scene, eventually, get};

/// What the unit gives a stop; the daemon takes half of it.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Stops, and is seen to by `end` in time.
#[expect(clippy::disallowed_methods, reason = "the time that a stop takes is what is promised")]
fn stops_in_time(daemon: &mut Process, end: impl FnOnce(&mut Process)) {
    let begun = std::time::Instant::now();
    daemon.signal(Signal::TERM);
    end(daemon);
    assert!(begun.elapsed() < STOP_MAX, "{:?}: {}", begun.elapsed(), daemon.stderr());
    assert!(daemon.end().success(), "{}", daemon.stderr());
}

fn ended(daemon: &mut Process) {
    daemon.end();
}

#[test]
fn fault_090_a_thousand_reloads_asked_for_in_a_second_are_two_at_most() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (mut daemon, _) = scene.daemon(&scene.write("refwatch.toml", &config));
    for _ in 0..1_000 {
        daemon.signal(Signal::HUP);
        // Time for most of them to be taken one by one.
        std::thread::park_timeout(Duration::from_micros(500));
    }
    let reloads = || daemon.stderr().matches("event=\"reloaded\"").count();
    eventually("a reload", || (reloads() >= 1).then_some(()));
    // Whatever is still asked for comes a second later.
    std::thread::park_timeout(Duration::from_secs(2));
    assert!(reloads() <= 2, "{}", daemon.stderr());
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
}

#[test]
fn fault_091_a_stop_drops_polls_that_hang() {
    let scene = Scene::new();
    let (simulator, address, config) = scene.simulate(&["--jobs", "8", "--mean-seconds", "600"]);
    let (mut daemon, _) = scene.daemon(&scene.write("refwatch.toml", &config));
    eventually("polls", || (polls(address) >= 8).then_some(()));
    simulator.signal(Signal::STOP);
    let waiting = || {
        let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid())).expect("sockets");
        let port = format!(":{:04X} 01 ", address.port());
        // The kernel has taken a request that nobody reads.
        sockets.lines().any(|line| line.contains(&port)).then_some(())
    };
    eventually("a poll that hangs", waiting);
    stops_in_time(&mut daemon, ended);
    assert!(daemon.stderr().contains("event=\"stopping\""));
}

#[test]
fn fault_091_a_stop_waits_for_no_reload_and_no_commit_that_the_record_keeps_waiting() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "8", "--mean-seconds", "600"]);
    let jobs: Vec<&str> = config.split("[[job]]").collect();
    let list = |count: usize| scene.write("refwatch.toml", &jobs[..=count].join("[[job]]"));
    let path = list(6);
    let systemd = UnixDatagram::bind(scene.path("notify")).expect("a socket");
    let mut command = scene.refwatch(&["--config", path.to_str().expect("text"), "run"]);
    command.env("NOTIFY_SOCKET", scene.path("notify"));
    let mut daemon = scene.spawn(command);
    let database = scene.path("refwatch.db");
    eventually("first sightings", || (crate::truth::transitions(&database).len() == 6).then_some(()));
    let stuck = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=100000000"];
    let Some(tracer) = Tracer::on(&daemon, &stuck) else { return };
    // The new job's first sighting is what the disk does not take.
    list(7);
    daemon.signal(Signal::HUP);
    eventually("the new list", || daemon.stderr().contains("event=\"reloaded\"").then_some(()));
    eventually("the database to stand", || stands_in_ptrace(&daemon));
    // The next one asks the database what it knows of a job, and gets no answer.
    list(8);
    systemd.set_nonblocking(true).expect("a socket");
    let mut buffer = [0; 4096];
    while systemd.recv(&mut buffer).is_ok() {}
    daemon.signal(Signal::HUP);
    eventually("the reload to begin", || {
        let length = systemd.recv(&mut buffer).ok()?;
        String::from_utf8_lossy(&buffer[..length]).contains("RELOADING=1").then_some(())
    });
    stops_in_time(&mut daemon, |daemon| {
        eventually("its last words", || daemon.stderr().contains("event=\"record_not_closed\"").then_some(()));
        // strace holds on to what it delays, an ended process too.
        drop(tracer);
    });
    assert_eq!(daemon.stderr().matches("event=\"reloaded\"").count(), 1, "the second one was waiting");
}

/// Whether the thread that writes the database stands in a call that the tracer delays.
fn stands_in_ptrace(daemon: &Process) -> Option<()> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let mut statuses = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses.any(|status| status.contains("Name:\trecord\n") && status.contains("State:\tt")).then_some(())
}

#[test]
fn fault_091_a_commit_under_way_ends_before_the_process_does() {
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "8", "--mean-seconds", "6"]);
    let path = scene.write("refwatch.toml", &impatient(&config));
    let database = scene.path("refwatch.db");
    let mut before = Vec::new();
    // Each stop falls among changes of eight jobs, on a disk that takes its time.
    for seen in [2, 5, 8] {
        let (mut daemon, _) = scene.daemon(&path);
        let slow = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=300000"];
        let Some(_tracer) = Tracer::on(&daemon, &slow) else { return };
        eventually("changes", || (crate::truth::transitions(&database).len() >= seen).then_some(()));
        stops_in_time(&mut daemon, ended);
        let told = daemon.stderr().matches("event=\"transition\"").count();
        let rows = crate::truth::transitions(&database);
        assert!(rows.len() - before.len() >= told, "what was told is there: {}", daemon.stderr());
        assert_eq!(rows[..before.len()], before);
        before = rows;
    }
    let (_daemon, _) = scene.daemon(&path);
    eventually("every end", || (crate::truth::ended(&crate::truth::transitions(&database)) == 8).then_some(()));
    crate::truth::assert_true(crate::truth::transitions(&database), simulator);
}

#[test]
fn fault_085_094_a_second_daemon_and_a_port_in_use_are_named_and_nothing_is_touched() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let path = scene.write("refwatch.toml", &config);
    let (daemon, address) = scene.daemon(&path);
    let database = scene.path("refwatch.db");
    eventually("first sightings", || (crate::truth::transitions(&database).len() == 2).then_some(()));
    let files =
        || ["refwatch.db", "refwatch.db-wal", "refwatch.db.lock"].map(|name| std::fs::read(scene.path(name)).ok());
    let before = files();
    let (status, _, said) = scene.run(&["--config", path.to_str().expect("text"), "run"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(&format!("the database is in use by process {}", daemon.pid())), "{said}");
    assert!(files() == before, "the database is as it was");
    let other = config.replace("refwatch.db", "other.db").replace("127.0.0.1:0", &address.to_string());
    let other = scene.write("other.toml", &other);
    let (status, _, said) = scene.run(&["--config", other.to_str().expect("text"), "run"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(&format!("http.listen: {address}: Address already in use")), "{said}");
    assert!(!scene.path("other.db").exists());
    assert!(TcpStream::connect(address).is_ok() && get(address, "/-/ready").0 == 200);
}
