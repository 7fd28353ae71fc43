//! What systemd's watchdog hears: of progress of the main loop, the runtime and the database, and of nothing else.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use super::{Tracer, impatient};
use crate::process::{Process, Scene, eventually, get, metric, metric_sum};

/// Looks without a ping that are silence: over twice what the watchdog of these tests waits.
const QUIET_LOOKS: u32 = 44;

/// A daemon that has a second to tell of progress, and who hears it.
struct Watched {
    scene: Scene,
    simulator: Process,
    daemon: Process,
    systemd: UnixDatagram,
}

impl Watched {
    fn start(mean_seconds: &str) -> Self {
        let scene = Scene::new();
        let (simulator, _, config) = scene.simulate(&["--jobs", "8", "--mean-seconds", mean_seconds]);
        let config = scene.write("refwatch.toml", &impatient(&config));
        let systemd = UnixDatagram::bind(scene.path("notify")).expect("a socket");
        systemd.set_nonblocking(true).expect("a socket");
        let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("NOTIFY_SOCKET", scene.path("notify")).env("WATCHDOG_USEC", "1000000");
        let daemon = scene.spawn(command);
        let watched = Self { scene, simulator, daemon, systemd };
        watched.hear(1);
        watched
    }

    /// The pings that have come.
    fn pings(&self) -> usize {
        let (mut buffer, mut pings) = ([0; 4096], 0);
        while let Ok(length) = self.systemd.recv(&mut buffer) {
            pings += usize::from(String::from_utf8_lossy(&buffer[..length]).contains("WATCHDOG=1"));
        }
        pings
    }

    /// Waits for so many more.
    fn hear(&self, wanted: usize) {
        self.pings();
        let mut heard = 0;
        eventually("pings", || {
            heard += self.pings();
            (heard >= wanted).then_some(())
        });
    }

    fn hear_nothing(&self) {
        let mut quiet = 0;
        eventually("silence", || {
            quiet = if self.pings() > 0 { 0 } else { quiet + 1 };
            (quiet >= QUIET_LOOKS).then_some(())
        });
    }
}

#[test]
fn fault_096_the_pings_stop_while_the_main_loop_is_stuck() {
    let watched = Watched::start("600");
    // The main loop runs on the first thread, and there it tells systemd how it is; the ping itself comes from another.
    let stuck = ["-e", "trace=connect", "-e", "inject=connect:delay_enter=100000000"];
    let Some(tracer) = Tracer::on_first_thread(&watched.daemon, &stuck) else { return };
    watched.hear_nothing();
    // It is the main loop alone that stands.
    assert_eq!(get(watched.daemon.address(), "/-/healthy").0, 200);
    drop(tracer);
    watched.hear(2);
}

#[test]
fn a_configuration_on_a_disk_that_hangs_keeps_nothing_else_waiting() {
    let watched = Watched::start("600");
    let config = watched.scene.path("refwatch.toml");
    let arguments = ["-P", config.to_str().expect("text"), "-e", "trace=openat"];
    let stuck = ["-e", "inject=openat:delay_enter=100000000"];
    let Some(_tracer) = Tracer::on(&watched.daemon, &[arguments.as_slice(), &stuck].concat()) else { return };
    watched.daemon.signal(Signal::HUP);
    watched.hear(10);
    assert_eq!(get(watched.daemon.address(), "/-/healthy").0, 200);
}

#[test]
fn fault_096_the_pings_stop_while_every_thread_of_the_runtime_is_stuck() {
    let watched = Watched::start("600");
    let stuck = ["-e", "trace=epoll_wait,epoll_pwait", "-e", "inject=epoll_wait,epoll_pwait:delay_enter=100000000"];
    let Some(tracer) = Tracer::on(&watched.daemon, &stuck) else { return };
    watched.hear_nothing();
    drop(tracer);
    watched.hear(2);
}

#[test]
fn fault_096_the_pings_stop_while_a_commit_is_stuck() {
    let watched = Watched::start("3");
    let stuck = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=100000000"];
    let Some(tracer) = Tracer::on(&watched.daemon, &stuck) else { return };
    watched.hear_nothing();
    assert_eq!(get(watched.daemon.address(), "/-/healthy").0, 200, "only the database stands");
    drop(tracer);
    watched.hear(2);
}

#[test]
fn fault_097_the_pings_go_on_while_aws_is_down() {
    let watched = Watched::start("600");
    let address = watched.daemon.address();
    let failed = || {
        let failures = metric_sum(address, "refwatch_api_request_failures_total", "target=");
        (failures > 0.0).then_some(())
    };
    // First it answers nothing, then there is nobody to connect to.
    watched.simulator.signal(Signal::STOP);
    eventually("failed polls", failed);
    watched.hear(6);
    watched.daemon.signal(Signal::HUP);
    watched.hear(4);
    watched.simulator.signal(Signal::KILL);
    watched.hear(6);
    assert_eq!(metric(address, "refwatch_config_last_reload_successful", &[]), Some(1.0));
}

#[test]
fn fault_098_nothing_happens_without_systemd_or_when_it_does_not_listen() {
    for socket in [None, Some("/nonexistent/notify")] {
        let scene = Scene::new();
        let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
        let config = scene.write("refwatch.toml", &config);
        let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("WATCHDOG_USEC", "200000").envs(socket.map(|socket| ("NOTIFY_SOCKET", socket)));
        let mut daemon = scene.spawn(command);
        let address = daemon.address();
        eventually("first sightings", || {
            (crate::truth::transitions(&scene.path("refwatch.db")).len() == 2).then_some(())
        });
        daemon.signal(Signal::HUP);
        eventually("a reload", || daemon.stderr().contains("event=\"reloaded\"").then_some(()));
        assert_eq!(get(address, "/-/ready").0, 200);
        daemon.signal(Signal::TERM);
        assert!(daemon.end().success());
        let log = daemon.stderr();
        assert_eq!(log.contains("systemd does not listen"), socket.is_some(), "{log}");
        assert!(!log.contains("ERROR"), "{log}");
    }
}
