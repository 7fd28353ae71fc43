//! Faults 111 to 114: what must not be shown, and what must not act on whatever shows it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use rustix::process::Signal;

use crate::process::Scene;
use crate::trouble::skipped;

/// `command`, allowed to dump a core of any size.
fn with_cores(scene: &Scene, command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited.args(["--core=unlimited:unlimited", "--"]).arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(scene.path("."));
    limited
}

fn cores(scene: &Scene) -> usize {
    let files = std::fs::read_dir(scene.path(".")).expect("a folder").map(|file| file.expect("an entry").file_name());
    files.filter(|name| name.to_string_lossy().starts_with("core")).count()
}

#[test]
fn fault_114_a_signal_that_dumps_core_dumps_none() {
    let scene = Scene::new();
    let mut other = Command::new("sh");
    other.args(["-c", "kill -ABRT $$"]);
    match with_cores(&scene, &other).status() {
        Ok(status) if status.core_dumped() => {}
        other => return skipped::<()>(&format!("no process dumps core here: {other:?}")).unwrap_or_default(),
    }
    let before = cores(&scene);
    let (_simulator, _, config) = scene.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let config = scene.write("refwatch.toml", &config);
    // A SIGSEGV from outside is passed over by Rust's own handler, which looks for the fault in vain.
    for signal in [Signal::ABORT, Signal::ILL, Signal::QUIT] {
        let run = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        let mut daemon = scene.spawn(with_cores(&scene, &run));
        daemon.address();
        daemon.signal(signal);
        let status = daemon.end();
        assert_eq!((status.signal(), status.core_dumped()), (Some(signal.as_raw()), false), "{status}");
    }
    assert_eq!(cores(&scene), before);
}
