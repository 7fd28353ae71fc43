//! Fault 147: signals, closed pipes, closed terminals and kills of the commands other than `run`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::service::{JOB, STORE, Service};
use super::terminals::Terminal;
use crate::disk_faults::skipped;
use crate::process::{Process, Workspace, between, eventually, expect_closed, with_prefix};

const SIMULATE: [&str; 5] = ["simulate", "--listen", "127.0.0.1:0", "--mean-seconds", "600"];
const DEMO: [&str; 3] = ["demo", "--listen", "127.0.0.1:0"];

/// `refwatch` with the default action of each signal. The shell that runs the tests may ignore some: in the background, under nohup.
fn with_default_signals(workspace: &Workspace, arguments: &[&str]) -> Command {
    with_prefix(&["env", "--default-signal"], &workspace.refwatch(arguments))
}

/// Starts a command as process 1 of a PID namespace. `None` if this user may not create one.
fn start_as_pid_1(workspace: &Workspace, arguments: &[&str]) -> Option<(Process, Pid)> {
    let command = with_default_signals(workspace, arguments);
    let mut unshare =
        workspace.spawn(with_prefix(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], &command));
    let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
    let is_refwatch =
        |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "refwatch\n");
    let child = eventually("a child, or an error of unshare", || {
        let children = fs::read_to_string(&children).unwrap_or_default();
        let child = children.split_whitespace().find(|pid| is_refwatch(pid)).and_then(|pid| pid.parse().ok());
        (child.is_some() || unshare.has_ended()).then_some(child)
    });
    if let Some(child) = child.and_then(Pid::from_raw) {
        return Some((unshare, child));
    }
    let error = unshare.stderr();
    assert!(error.starts_with("unshare: "), "{error}");
    skipped(&error)
}

/// The kernel sends process 1 only signals that have a handler.
fn has_handler(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("a running process");
    let caught = between(&status, "SigCgt:\t", "\n");
    u64::from_str_radix(caught, 16).expect("a mask") >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn fault_147_as_process_1_a_command_ends_at_a_signal_with_128_and_its_number() {
    let silent = Service::silent();
    let endpoint = format!("http://{}", silent.address);
    let (job, address) = (format!("{STORE}/{JOB}"), silent.address.to_string());
    let wait = ["wait", "--region", "us-west-2", "--endpoint-url", &endpoint, &job];
    let status = ["status", "--follow", "--address", &address];
    let workspace = Workspace::new();
    let config = super::service::config(&[("default", silent.address, "")], &[("default", STORE, JOB)]);
    let config = workspace.write("refwatch.toml", &config.replace("timeout = \"1s\"", "timeout = \"5m\""));
    let check = ["--config", config.to_str().expect("text"), "check", "--online"];
    for arguments in [&wait[..], &status, &check] {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
            let requests = silent.requests().len();
            let Some((mut process, pid)) = start_as_pid_1(&workspace, arguments) else { return };
            silent.wait_for(requests + 1);
            // The request may be a late one of the process before.
            eventually("a handler of the signal", || has_handler(pid, signal).then_some(()));
            kill_process(pid, signal).expect("a running process");
            assert_eq!(process.end().code(), Some(128 + signal.as_raw()), "{arguments:?}: {}", process.stderr());
        }
    }
}

#[test]
fn fault_147_as_process_1_demo_and_simulate_stop_at_a_signal() {
    let workspace = Workspace::new();
    for arguments in [&SIMULATE[..], &DEMO] {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let Some((mut process, pid)) = start_as_pid_1(&workspace, arguments) else { return };
            process.line();
            kill_process(pid, signal).expect("a running process");
            assert_eq!(process.end().code(), Some(0), "{arguments:?}: {}", process.stderr());
        }
    }
}

#[test]
fn fault_147_outside_of_a_container_a_signal_ends_a_command_as_usual() {
    use std::os::unix::process::ExitStatusExt as _;
    let (workspace, silent) = (Workspace::new(), Service::silent());
    let endpoint = format!("http://{}", silent.address);
    let job = format!("{STORE}/{JOB}");
    let arguments = ["wait", "--region", "us-west-2", "--endpoint-url", &endpoint, &job];
    let mut wait = workspace.spawn(with_default_signals(&workspace, &arguments));
    silent.wait_for(1);
    wait.signal(Signal::INT);
    assert_eq!(wait.end().signal(), Some(Signal::INT.as_raw()), "a shell script that runs it ends, too");
}

/// Runs a command whose standard output is read by `head -n 1`.
fn piped_to_head(command: &Command) -> Command {
    with_prefix(&["sh", "-c", "\"$@\" | head -n 1", "sh"], command)
}

#[test]
fn fault_147_a_command_that_prints_repeatedly_ends_when_its_reader_has_gone() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let address = address.to_string();
    let status = ["status", "--follow", "--address", &address];
    let json = ["status", "--follow", "--json", "--address", &address];
    for arguments in [&status[..], &json, &DEMO] {
        let mut pipe = workspace.spawn(piped_to_head(&workspace.refwatch(arguments)));
        assert!(pipe.end().success(), "{arguments:?}");
        assert_eq!((pipe.rest().len(), pipe.stderr().as_str()), (1, ""), "{arguments:?}");
    }
    let mut help = workspace.spawn(with_prefix(
        &["bash", "-c", "\"$@\" | true; exit ${PIPESTATUS[0]}", "bash"],
        &workspace.refwatch(&["--help"]),
    ));
    assert_eq!(help.end().code(), Some(0), "{}", help.stderr());
}

#[test]
fn fault_147_demo_and_simulate_end_with_their_terminal() {
    let workspace = Workspace::new();
    for (arguments, start) in [(&SIMULATE[..], " at http://"), (&DEMO, "status page  http://")] {
        let terminal = Terminal::default().start(&workspace, &with_default_signals(&workspace, arguments));
        let address = address_after(&terminal, start);
        assert!(TcpStream::connect(address).is_ok());
        // This closes the terminal.
        drop(terminal);
        expect_closed(address);
    }
    eventually("no files", || demo_directories(&workspace).is_empty().then_some(()));
}

#[test]
fn fault_147_under_nohup_a_closed_terminal_does_not_end_simulate() {
    let workspace = Workspace::new();
    let mut simulator = workspace.spawn(with_prefix(&["nohup"], &workspace.refwatch(&SIMULATE)));
    let address = address_after(&simulator, " at http://");
    simulator.signal(Signal::HUP);
    assert!(TcpStream::connect(address).is_ok());
    simulator.signal(Signal::TERM);
    assert!(simulator.end().success(), "{}", simulator.stderr());
}

#[test]
fn fault_147_a_demo_removes_the_directories_of_killed_demos_and_no_others() {
    let workspace = Workspace::new();
    let running = workspace.start(&DEMO);
    running.line();
    let of_running = demo_directories(&workspace);
    let mut killed = workspace.start(&DEMO);
    killed.line();
    killed.signal(Signal::KILL);
    killed.end();
    let own = workspace.path("refwatch-demo-notes");
    fs::create_dir(&own).expect("a directory");
    fs::write(own.join("refwatch.toml"), "").expect("a file");
    let elsewhere = workspace.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    fs::write(elsewhere.join("refwatch.toml"), "").expect("a file");
    std::os::unix::fs::symlink(&elsewhere, workspace.path("refwatch-demo-link")).expect("a link");
    assert_eq!(demo_directories(&workspace).len(), 4);

    let mut next = workspace.start(&DEMO);
    next.line();
    next.signal(Signal::INT);
    assert!(next.end().success(), "{}", next.stderr());
    let mut kept = vec!["refwatch-demo-link".to_owned(), "refwatch-demo-notes".to_owned()];
    kept.extend(of_running);
    kept.sort();
    assert_eq!(demo_directories(&workspace), kept);
    assert!(own.join("refwatch.toml").exists() && elsewhere.join("refwatch.toml").exists());
    drop(running);
}

fn demo_directories(workspace: &Workspace) -> Vec<String> {
    let entries = fs::read_dir(workspace.path("")).expect("a directory").map(|entry| entry.expect("an entry"));
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("refwatch-demo-")).collect();
    names.sort();
    names
}

/// The address in the first line that has `start`.
fn address_after(process: &Process, start: &str) -> SocketAddr {
    loop {
        let line = process.line();
        if line.contains(start) {
            return between(&line, start, "/").split(',').next().expect("a first part").parse().expect("an address");
        }
    }
}
