//! Faults 96 to 98 and 127: watchdog pings to systemd. They depend on progress of the main loop and the database only.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;

use super::{Tracer, polls, with_short_backoff};
use crate::process::{Process, Workspace, eventually, get, metric, metric_sum, pause};

/// Checks without a ping that count as silence: more than twice the watchdog's timeout in these tests.
const CHECKS_OF_SILENCE: u32 = 44;

/// A daemon with a watchdog timeout of one second, and the socket that receives its pings.
pub(super) struct Watched {
    pub(super) workspace: Workspace,
    simulator: Process,
    /// The address of the simulator.
    service: SocketAddr,
    pub(super) daemon: Process,
    systemd: UnixDatagram,
}

impl Watched {
    fn start(mean_seconds: &str) -> Self {
        Self::start_with(&["--mean-seconds", mean_seconds], |_, config| config)
    }

    /// Starts the daemon with the configuration that `configure` returns.
    pub(super) fn start_with(simulation: &[&str], configure: impl FnOnce(&Workspace, String) -> String) -> Self {
        let workspace = Workspace::new();
        let (simulator, service, config) = workspace.simulate(&[&["--jobs", "8"], simulation].concat());
        let config = configure(&workspace, with_short_backoff(&config));
        let config = workspace.write("refwatch.toml", &config);
        let systemd = UnixDatagram::bind(workspace.path("notify")).expect("a socket");
        systemd.set_nonblocking(true).expect("a socket");
        let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("NOTIFY_SOCKET", workspace.path("notify")).env("WATCHDOG_USEC", "1000000");
        let daemon = workspace.spawn(command);
        let watched = Self { workspace, simulator, service, daemon, systemd };
        watched.expect_pings(1);
        watched
    }

    /// Counts the pings that have arrived.
    fn pings(&self) -> usize {
        let (mut buffer, mut pings) = ([0; 4096], 0);
        while let Ok(length) = self.systemd.recv(&mut buffer) {
            pings += usize::from(String::from_utf8_lossy(&buffer[..length]).contains("WATCHDOG=1"));
        }
        pings
    }

    /// Waits for this many further pings.
    pub(super) fn expect_pings(&self, wanted: usize) {
        self.pings();
        let mut received = 0;
        eventually("pings", || {
            received += self.pings();
            (received >= wanted).then_some(())
        });
    }

    fn expect_silence(&self) {
        let mut quiet = 0;
        eventually("silence", || {
            quiet = if self.pings() > 0 { 0 } else { quiet + 1 };
            (quiet >= CHECKS_OF_SILENCE).then_some(())
        });
    }
}

#[test]
fn a_configuration_on_a_hanging_disk_blocks_nothing_else() {
    let watched = Watched::start("600");
    let config = watched.workspace.path("refwatch.toml");
    let arguments = ["-P", config.to_str().expect("text"), "-e", "trace=openat"];
    let stuck = ["-e", "inject=openat:delay_enter=100000000"];
    let Some(_tracer) = Tracer::on(&watched.daemon, &[arguments.as_slice(), &stuck].concat()) else { return };
    watched.daemon.signal(Signal::HUP);
    watched.expect_pings(10);
    assert_eq!(get(watched.daemon.address(), "/-/healthy").0, 200);
}

#[test]
fn fault_096_watchdog_pings_stop_while_the_main_loop_is_stuck() {
    let watched = Watched::start("600");
    // The main loop and all tasks run on one thread.
    let stuck = ["-e", "trace=epoll_wait,epoll_pwait", "-e", "inject=epoll_wait,epoll_pwait:delay_enter=100000000"];
    let Some(tracer) = Tracer::on(&watched.daemon, &stuck) else { return };
    watched.expect_silence();
    drop(tracer);
    watched.expect_pings(2);
}

#[test]
fn fault_096_watchdog_pings_stop_while_a_commit_is_stuck() {
    let watched = Watched::start("3");
    let stuck = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=100000000"];
    let Some(tracer) = Tracer::on(&watched.daemon, &stuck) else { return };
    watched.expect_silence();
    assert_eq!(get(watched.daemon.address(), "/-/healthy").0, 200, "only the database is stuck");
    drop(tracer);
    watched.expect_pings(2);
}

#[test]
fn fault_127_clients_that_send_wrong_passwords_and_hang_up_occupy_one_thread() {
    let hash = bcrypt::hash("open sesame", 10).expect("a hash");
    // Each new connection to this host name needs a look-up on a thread.
    let watched = Watched::start_with(&["--mean-seconds", "600", "--fault", "reset=0.2"], |_, config| {
        let with_users = format!("[http]\nusers = {{ prometheus = \"{hash}\" }}\n");
        config.replace("[http]\n", &with_users).replace("http://127.0.0.1", "http://localhost")
    });
    let address = watched.daemon.address();
    eventually("polls", || (polls(watched.service) > 0).then_some(()));
    let threads = || watched.daemon.status("Threads");
    let before = threads();
    let mut most = before;
    for nth in 0..40 {
        let credentials = BASE64_STANDARD.encode(format!("prometheus:guess {nth}"));
        let mut stream = TcpStream::connect(address).expect("a listener");
        write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {credentials}\r\n\r\n")
            .expect("a reader");
        // The check begins, and takes longer than this.
        pause();
        drop(stream);
        most = most.max(threads());
    }
    assert!(most <= before + 4, "{before} threads, then {most}");
    let polled = polls(watched.service);
    watched.expect_pings(4);
    eventually("polls", || (polls(watched.service) >= polled + 8).then_some(()));
}

#[test]
fn fault_097_watchdog_pings_continue_while_aws_is_down() {
    let watched = Watched::start("600");
    let address = watched.daemon.address();
    let failed = || {
        let failures = metric_sum(address, "refwatch_api_request_failures_total", "target=");
        (failures > 0.0).then_some(())
    };
    // First the service does not respond, then connections are refused.
    watched.simulator.signal(Signal::STOP);
    eventually("failed polls", failed);
    watched.expect_pings(6);
    watched.daemon.signal(Signal::HUP);
    watched.expect_pings(4);
    watched.simulator.signal(Signal::KILL);
    watched.expect_pings(6);
    assert_eq!(metric(address, "refwatch_config_last_reload_successful", &[]), Some(1.0));
}

#[test]
fn fault_098_the_daemon_runs_without_systemd_or_with_an_unreachable_socket() {
    for socket in [None, Some("/nonexistent/notify")] {
        let workspace = Workspace::new();
        let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
        let config = workspace.write("refwatch.toml", &config);
        let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("WATCHDOG_USEC", "200000").envs(socket.map(|socket| ("NOTIFY_SOCKET", socket)));
        let mut daemon = workspace.spawn(command);
        let address = daemon.address();
        eventually("first observations", || {
            (crate::transition_rows::transitions(&workspace.path("refwatch.db")).len() == 2).then_some(())
        });
        daemon.signal(Signal::HUP);
        eventually("a reload", || daemon.stderr().contains("event=\"reloaded\"").then_some(()));
        assert_eq!(get(address, "/-/ready").0, 200);
        daemon.signal(Signal::TERM);
        assert!(daemon.end().success());
        let log = daemon.stderr();
        assert_eq!(log.contains("cannot notify systemd"), socket.is_some(), "{log}");
        assert!(!log.contains("ERROR"), "{log}");
    }
}
