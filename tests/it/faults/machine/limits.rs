//! What this machine can run out of: descriptors, memory.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{impatient, polls};
use crate::process::{Process, Scene, eventually, get};
use crate::trouble::skipped;
use crate::truth::{assert_true, ended, transitions};

/// Sets how many descriptors a process may have. What it has beyond that stays open.
fn limit_descriptors(process: &Process, limit: usize) {
    let done =
        Command::new("prlimit").arg(format!("--pid={}", process.pid())).arg(format!("--nofile={limit}:")).status();
    assert!(done.expect("prlimit").success());
}

#[test]
fn fault_081_without_descriptors_accepts_back_off_and_polling_goes_on() {
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "4", "--mean-seconds", "600"]);
    let (daemon, address) = scene.daemon(&scene.write("refwatch.toml", &impatient(&config)));
    eventually("polls", || (polls(simulator) >= 8).then_some(()));
    let refused = || daemon.stderr().matches("a connection could not be accepted").count();
    limit_descriptors(&daemon, 3);
    let waiting = TcpStream::connect(address).expect("the kernel takes it");
    eventually("a refusal", || (refused() > 0).then_some(()));
    let (polled, before) = (polls(simulator), refused());
    eventually("polls", || (polls(simulator) >= polled + 8).then_some(()));
    // Eight polls take two seconds or more of the four jobs' turns; spinning would refuse thousands of times.
    assert!(refused() - before < 20, "{} refusals", refused() - before);
    limit_descriptors(&daemon, 1024);
    assert_eq!(get(address, "/-/ready").0, 200);
    drop(waiting);
}

#[test]
fn fault_081_connections_leave_descriptors_for_polls() {
    let scene = Scene::new();
    let faults = ["--fault", "reset=0.4"];
    let (_simulator, simulator, config) =
        scene.simulate(&[["--jobs", "4", "--mean-seconds", "600"].as_slice(), &faults].concat());
    let config = scene.write("refwatch.toml", &impatient(&config));
    let mut command = Command::new("prlimit");
    let daemon = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.arg("--nofile=56:56").arg(daemon.get_program()).args(daemon.get_args()).env_clear();
    command.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = scene.spawn(command);
    let address = daemon.address();
    // More than the daemon may have, each of which says nothing; new ones take the place of those that it closes.
    let mut idle: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(address).expect("the kernel takes it")).collect();
    let before = polls(simulator);
    eventually("polls, on new connections where theirs were reset", || {
        idle.extend(TcpStream::connect(address));
        (polls(simulator) >= before + 30).then_some(())
    });
    drop(idle);
    let log = eventually("an answer", || (get(address, "/-/healthy").0 == 200).then(|| daemon.stderr()));
    assert!(!log.contains("Too many open files"), "{log}");
}

/// A group of processes that share a limit of memory. Dropping it ends those that are still in it.
struct Memory {
    group: PathBuf,
    eater: Option<Child>,
}

impl Memory {
    /// `None` where this user may make no group, in neither of the kernel's two versions of them.
    fn new() -> Option<Self> {
        let name = format!("refwatch-test-{}", std::process::id());
        for (root, limit) in [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")] {
            let group = Path::new(root).join(&name);
            let there = Path::new(root).join("cgroup.procs").exists();
            if there && fs::create_dir(&group).is_ok() {
                let memory = Self { group, eater: None };
                let file = memory.group.join(limit);
                if file.exists() && fs::write(file, (192 << 20).to_string()).is_ok() {
                    return Some(memory);
                }
            }
        }
        skipped("no group of processes with a limit of memory can be made")
    }

    fn take_in(&self, pid: u32) {
        fs::write(self.group.join("cgroup.procs"), pid.to_string()).expect("a group");
    }

    /// Takes all that is left. The kernel has been told to end the other one for it.
    fn eat(&mut self, victim: u32) {
        fs::write(format!("/proc/{victim}/oom_score_adj"), "1000").expect("a process");
        let script = format!(
            "echo $$ > {}/cgroup.procs; echo -1000 > /proc/$$/oom_score_adj; exec tail /dev/zero",
            self.group.display()
        );
        let eater = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.eater = Some(eater.expect("a shell"));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(mut eater) = self.eater.take() {
            // An error says that it has ended.
            drop(eater.kill());
            drop(eater.wait());
        }
        if !std::thread::panicking() {
            eventually("an empty group", || fs::remove_dir(&self.group).ok());
        }
    }
}

#[test]
fn fault_082_a_daemon_that_the_kernel_ends_for_its_memory_goes_on_as_after_a_kill() {
    let Some(mut memory) = Memory::new() else { return };
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "12", "--mean-seconds", "8"]);
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let (mut killed, _) = scene.daemon(&config);
    memory.take_in(killed.pid());
    eventually("changes", || (transitions(&database).len() >= 14).then_some(()));
    memory.eat(killed.pid());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.end()), Some(9), "{}", killed.stderr());
    drop(memory);
    let before = transitions(&database);
    let told = killed.stderr().matches("event=\"transition\"").count();
    assert!(before.len() >= told, "what was told is there");
    let (_daemon, _) = scene.daemon(&config);
    eventually("every end", || (ended(&transitions(&database)) == 12).then_some(()));
    let after = transitions(&database);
    assert_eq!(after[..before.len()], before);
    assert_true(after, simulator);
}
