//! Faults 85, 90, 91 and 94: many reload signals, stops at a bad time, and a second daemon.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use super::{Tracer, polls, with_short_backoff};
use crate::process::{Process, Workspace, eventually, get};

/// The unit's stop timeout. The daemon uses half of it.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Sends SIGTERM, waits with `end`, and checks the time and the exit status.
#[expect(clippy::disallowed_methods, reason = "the test measures the time of a stop")]
fn stops_in_time(daemon: &mut Process, end: impl FnOnce(&mut Process)) {
    let begun = std::time::Instant::now();
    daemon.signal(Signal::TERM);
    end(daemon);
    assert!(begun.elapsed() < STOP_MAX, "{:?}: {}", begun.elapsed(), daemon.stderr());
    assert!(daemon.end().success(), "{}", daemon.stderr());
}

fn wait_for_end(daemon: &mut Process) {
    daemon.end();
}

#[test]
fn fault_090_a_thousand_reload_signals_in_one_second_cause_at_most_two_reloads() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (mut daemon, _) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let clock = refwatch::clock::Clock::system();
    for _ in 0..1_000 {
        daemon.signal(Signal::HUP);
        // Spread over time, so that most signals are delivered one by one.
        std::thread::park_timeout(Duration::from_micros(500));
    }
    // A busy machine needs more than one second. Reloads begin at least one second apart.
    let more = usize::try_from(clock.now().monotonic.elapsed().as_secs()).expect("a few seconds");
    let reloads = || daemon.stderr().matches("event=\"reloaded\"").count();
    eventually("a reload", || (reloads() >= 1).then_some(()));
    // A pending reload starts within one second.
    std::thread::park_timeout(Duration::from_secs(2));
    assert!(reloads() <= 2 + more, "{}", daemon.stderr());
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
}

#[test]
fn fault_091_a_stop_cancels_hanging_polls() {
    let workspace = Workspace::new();
    let (simulator, address, config) = workspace.simulate(&["--jobs", "8", "--mean-seconds", "600"]);
    let (mut daemon, _) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    eventually("polls", || (polls(address) >= 8).then_some(()));
    simulator.signal(Signal::STOP);
    let waiting = || {
        let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid())).expect("sockets");
        let port = format!(":{:04X} 01 ", address.port());
        // The kernel accepted a request; the stopped simulator does not read it.
        sockets.lines().any(|line| line.contains(&port)).then_some(())
    };
    eventually("a poll that hangs", waiting);
    stops_in_time(&mut daemon, wait_for_end);
    assert!(daemon.stderr().contains("event=\"stopping\""));
}

#[test]
fn fault_091_a_stop_does_not_wait_for_a_reload_or_a_commit_on_a_stuck_disk() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "8", "--mean-seconds", "600"]);
    let jobs: Vec<&str> = config.split("[[job]]").collect();
    // A sink also waits for the writer.
    let sink = "[[notify]]\nname = \"a\"\nurl = \"http://127.0.0.1:9\"\n";
    let list = |count: usize| workspace.write("refwatch.toml", &(jobs[..=count].join("[[job]]") + sink));
    let path = list(6);
    let systemd = UnixDatagram::bind(workspace.path("notify")).expect("a socket");
    let mut command = workspace.refwatch(&["--config", path.to_str().expect("text"), "run"]);
    command.env("NOTIFY_SOCKET", workspace.path("notify"));
    let mut daemon = workspace.spawn(command);
    let database = workspace.path("refwatch.db");
    eventually("first observations", || (crate::transition_rows::transitions(&database).len() == 6).then_some(()));
    let stuck = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=100000000"];
    let Some(tracer) = Tracer::on(&daemon, &stuck) else { return };
    // The first transition of the new job blocks the disk.
    list(7);
    daemon.signal(Signal::HUP);
    eventually("the new list", || daemon.stderr().contains("event=\"reloaded\"").then_some(()));
    eventually("a blocked writer", || writer_is_traced(&daemon));
    // The next reload reads the database and gets no result.
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
        eventually("the last log line", || daemon.stderr().contains("event=\"database_not_closed\"").then_some(()));
        // strace keeps a process in a delayed call even after its end.
        drop(tracer);
    });
    assert_eq!(daemon.stderr().matches("event=\"reloaded\"").count(), 1, "the second reload was pending");
}

/// Whether the database's writer thread is delayed by the tracer.
fn writer_is_traced(daemon: &Process) -> Option<()> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let mut statuses = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses.any(|status| status.contains("Name:\tdatabase\n") && status.contains("State:\tt")).then_some(())
}

#[test]
fn fault_091_a_stop_waits_for_the_commit_in_progress() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "8", "--mean-seconds", "6"]);
    let path = workspace.write("refwatch.toml", &with_short_backoff(&config));
    let database = workspace.path("refwatch.db");
    let mut before = Vec::new();
    // Each stop falls between changes of eight jobs, on a slow disk.
    for rows_before_stop in [2, 5, 8] {
        let (mut daemon, _) = workspace.daemon(&path);
        let slow = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=300000"];
        let Some(_tracer) = Tracer::on(&daemon, &slow) else { return };
        eventually("changes", || {
            (crate::transition_rows::transitions(&database).len() >= rows_before_stop).then_some(())
        });
        stops_in_time(&mut daemon, wait_for_end);
        let logged = daemon.stderr().matches("event=\"transition\"").count();
        let rows = crate::transition_rows::transitions(&database);
        assert!(rows.len() - before.len() >= logged, "each logged transition is stored: {}", daemon.stderr());
        assert_eq!(rows[..before.len()], before);
        before = rows;
    }
    let (_daemon, _) = workspace.daemon(&path);
    eventually("every end", || {
        (crate::transition_rows::ended(&crate::transition_rows::transitions(&database)) == 8).then_some(())
    });
    crate::transition_rows::assert_matches_simulator(crate::transition_rows::transitions(&database), simulator);
}

#[test]
fn fault_085_094_a_second_daemon_or_a_port_in_use_is_reported_and_changes_nothing() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let path = workspace.write("refwatch.toml", &config);
    let (daemon, address) = workspace.daemon(&path);
    let database = workspace.path("refwatch.db");
    eventually("first observations", || (crate::transition_rows::transitions(&database).len() == 2).then_some(()));
    let files =
        || ["refwatch.db", "refwatch.db-wal", "refwatch.db.lock"].map(|name| std::fs::read(workspace.path(name)).ok());
    let before = files();
    let (status, _, error) = workspace.run(&["--config", path.to_str().expect("text"), "run"]);
    assert_eq!(status, 1, "{error}");
    assert!(error.contains(&format!("the database is in use by process {}", daemon.pid())), "{error}");
    assert!(files() == before, "the database is unchanged");
    let other = config.replace("refwatch.db", "other.db").replace("127.0.0.1:0", &address.to_string());
    let other = workspace.write("other.toml", &other);
    let (status, _, error) = workspace.run(&["--config", other.to_str().expect("text"), "run"]);
    assert_eq!(status, 1, "{error}");
    assert!(error.contains(&format!("cannot listen on {address} (http.listen): Address already in use")), "{error}");
    assert!(!workspace.path("other.db").exists());
    assert!(TcpStream::connect(address).is_ok() && get(address, "/-/ready").0 == 200);
}
