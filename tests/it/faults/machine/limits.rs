//! Faults 81, 82 and 130: no file descriptors, no memory and no threads left.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::{Tracer, polls, with_short_backoff};
use crate::disk_faults::skipped;
use crate::process::{Process, Workspace, eventually, get, pause};
use crate::transition_rows::{assert_matches_simulator, ended, transitions};

/// Sets the soft limit of a process. Descriptors above it stay open.
fn limit_descriptors(process: &Process, limit: usize) {
    let done =
        Command::new("prlimit").arg(format!("--pid={}", process.pid())).arg(format!("--nofile={limit}:")).status();
    assert!(done.expect("prlimit").success());
}

#[test]
fn fault_081_without_descriptors_accepts_back_off_and_polling_continues() {
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "4", "--mean-seconds", "600"]);
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &with_short_backoff(&config)));
    eventually("polls", || (polls(simulator) >= 8).then_some(()));
    let failed_accepts = || daemon.stderr().matches("a connection could not be accepted").count();
    limit_descriptors(&daemon, 3);
    let waiting = TcpStream::connect(address).expect("a connection");
    eventually("a failed accept", || (failed_accepts() > 0).then_some(()));
    let (polled, before) = (polls(simulator), failed_accepts());
    eventually("polls", || (polls(simulator) >= polled + 8).then_some(()));
    // A busy loop would fail thousands of times during eight polls.
    assert!(failed_accepts() - before < 20, "{} failed accepts", failed_accepts() - before);
    limit_descriptors(&daemon, 1024);
    assert_eq!(get(address, "/-/ready").0, 200);
    drop(waiting);
}

#[test]
fn fault_081_connections_leave_descriptors_for_polls() {
    let workspace = Workspace::new();
    let faults = ["--fault", "reset=0.4"];
    let (_simulator, simulator, config) =
        workspace.simulate(&[["--jobs", "4", "--mean-seconds", "600"].as_slice(), &faults].concat());
    let config = workspace.write("refwatch.toml", &with_short_backoff(&config));
    let mut command = Command::new("prlimit");
    let daemon = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.arg("--nofile=56:56").arg(daemon.get_program()).args(daemon.get_args()).env_clear();
    command.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = workspace.spawn(command);
    let address = daemon.address();
    // More silent connections than the daemon may hold. New ones replace those that it closes.
    let mut idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    let before = polls(simulator);
    eventually("polls over new connections", || {
        idle.extend(TcpStream::connect(address));
        (polls(simulator) >= before + 30).then_some(())
    });
    drop(idle);
    let log = eventually("a response", || (get(address, "/-/healthy").0 == 200).then(|| daemon.stderr()));
    assert!(!log.contains("Too many open files"), "{log}");
}

/// A control group with a memory limit. Dropping it kills the remaining process and removes the group.
struct Memory {
    group: PathBuf,
    consumer: Option<Child>,
}

impl Memory {
    /// `None` if this user may not create a group; works with cgroup v1 and v2.
    fn new() -> Option<Self> {
        let name = format!("refwatch-test-{}", std::process::id());
        for (root, limit) in [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")] {
            let group = Path::new(root).join(&name);
            let available = Path::new(root).join("cgroup.procs").exists();
            if available && fs::create_dir(&group).is_ok() {
                let memory = Self { group, consumer: None };
                let file = memory.group.join(limit);
                if file.exists() && fs::write(file, (192 << 20).to_string()).is_ok() {
                    return Some(memory);
                }
            }
        }
        skipped("no group of processes with a limit of memory can be made")
    }

    fn add(&self, pid: u32) {
        fs::write(self.group.join("cgroup.procs"), pid.to_string()).expect("a group");
    }

    /// Uses up the memory of the group; the kernel is set to kill `victim`.
    fn exhaust(&mut self, victim: u32) {
        fs::write(format!("/proc/{victim}/oom_score_adj"), "1000").expect("a process");
        let script = format!(
            "echo $$ > {}/cgroup.procs; echo -1000 > /proc/$$/oom_score_adj; exec tail /dev/zero",
            self.group.display()
        );
        let consumer = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.consumer = Some(consumer.expect("a shell"));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(mut consumer) = self.consumer.take() {
            // Fails if it has ended.
            drop(consumer.kill());
            drop(consumer.wait());
        }
        if !std::thread::panicking() {
            eventually("an empty group", || fs::remove_dir(&self.group).ok());
        }
    }
}

#[test]
fn fault_082_after_an_out_of_memory_kill_the_next_daemon_continues() {
    let Some(mut memory) = Memory::new() else { return };
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "12", "--mean-seconds", "8"]);
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let (mut killed, _) = workspace.daemon(&config);
    memory.add(killed.pid());
    eventually("changes", || (transitions(&database).len() >= 14).then_some(()));
    memory.exhaust(killed.pid());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.end()), Some(9), "{}", killed.stderr());
    drop(memory);
    let before = transitions(&database);
    let logged = killed.stderr().matches("event=\"transition\"").count();
    assert!(before.len() >= logged, "each logged transition is stored");
    let (_daemon, _) = workspace.daemon(&config);
    eventually("every end", || (ended(&transitions(&database)) == 12).then_some(()));
    let after = transitions(&database);
    assert_eq!(after[..before.len()], before);
    assert_matches_simulator(after, simulator);
}

/// Checks that take longer than tokio keeps an idle thread by default (10 s).
const CHECKS_OF_IDLENESS: u32 = 240;

/// No new process or thread can be made.
const NO_THREADS: [&str; 4] = ["-e", "trace=clone,clone3", "-e", "inject=clone,clone3:error=EAGAIN"];

#[test]
fn fault_130_without_new_threads_the_daemon_responds_and_reloads() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "4", "--mean-seconds", "600"]);
    // The port is chosen here: a daemon that waits for its database logs no address.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let config = workspace.write("refwatch.toml", &config.replace("127.0.0.1:0", &address.to_string()));
    drop(workspace.daemon(&config));
    let shell = rusqlite::Connection::open(workspace.path("refwatch.db")).expect("a connection");
    shell.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE").expect("a lock");
    let mut daemon = workspace.start(&["--config", config.to_str().expect("text"), "run"]);
    eventually("a listener", || TcpStream::connect(address).ok());
    let Some(tracer) = Tracer::on(&daemon, &NO_THREADS) else { return };
    // The configuration is not checked until the database is open, so all threads become idle.
    for _ in 0..CHECKS_OF_IDLENESS {
        pause();
    }
    for path in ["/", "/metrics", "/config", "/api/v1/jobs", "/api/v1/transitions"] {
        let (status, body) = get(address, path);
        assert!(status == 200 || (status == 503 && path == "/api/v1/transitions"), "{path}: {status} {body}");
    }
    drop(shell);
    eventually("the reason", || get(address, "/-/ready").1.contains("start the writer thread").then_some(()));
    drop(tracer);
    eventually("ready", || (get(address, "/-/ready").0 == 200).then_some(()));
    let Some(_tracer) = Tracer::on(&daemon, &NO_THREADS) else { return };
    daemon.signal(Signal::HUP);
    eventually("a reload", || daemon.stderr().contains("event=\"reloaded\"").then_some(()));
    assert!(!daemon.has_ended());
}

#[test]
fn fault_130_a_start_without_threads_reports_the_limit() {
    let workspace = Workspace::new();
    let config = workspace.write("refwatch.toml", "database.path = \"refwatch.db\"\nhttp.listen = \"127.0.0.1:0\"\n");
    let daemon = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-f"]).args(NO_THREADS).arg(daemon.get_program()).args(daemon.get_args());
    command.env_clear().envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if Command::new("strace").arg("true").output().is_err() {
        let _ = skipped::<()>("no strace");
        return;
    }
    let mut daemon = workspace.spawn(command);
    assert_eq!(daemon.end().code(), Some(1), "{}", daemon.stderr());
    assert!(daemon.stderr().contains("cannot start a thread: Resource temporarily unavailable"), "{}", daemon.stderr());
}
