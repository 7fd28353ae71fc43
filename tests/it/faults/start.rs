//! Faults 72, 74 and 75 at start: the database cannot be opened.
//!
//! The daemon starts, serves, reports why it is not ready and continues once the database can be opened. The disk is a file
//! system mounted for the test; a datagram socket stands in for systemd.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::disk_faults::Mounted;
use crate::process::{Process, Workspace, eventually, get, metric};

struct DaemonOnDisk {
    disk: Mounted,
    workspace: Workspace,
    _simulator: Process,
    config: PathBuf,
    address: SocketAddr,
    systemd: UnixDatagram,
}

/// Short, because `eventually` counts its checks.
const NOTIFICATION_WAIT: Duration = Duration::from_millis(10);

impl DaemonOnDisk {
    /// `None` if this user may not mount.
    fn new() -> Option<Self> {
        let (disk, workspace) = (Mounted::in_memory()?, Workspace::new());
        let (simulator, _, config) = workspace.simulate(&["--jobs", "3", "--mean-seconds", "600"]);
        // The port is chosen here: a daemon without a database logs no address.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let database_path = disk.directory.path().join("refwatch.db");
        let config = config.replace("127.0.0.1:0", &address.to_string());
        let config =
            workspace.write("refwatch.toml", &config.replace("refwatch.db", database_path.to_str().expect("text")));
        let systemd = UnixDatagram::bind(workspace.path("notify")).expect("a socket");
        systemd.set_read_timeout(Some(Duration::from_mins(2))).expect("a timeout");
        Some(Self { disk, workspace, _simulator: simulator, config, address, systemd })
    }

    fn database_path(&self) -> PathBuf {
        self.disk.directory.path().join("refwatch.db")
    }

    fn start(&self) -> Process {
        let mut command = self.workspace.refwatch(&["--config", self.config.to_str().expect("text"), "run"]);
        command.env("NOTIFY_SOCKET", self.workspace.path("notify"));
        self.workspace.spawn(command)
    }

    /// Creates a database with a write-ahead log: the daemon is started and killed.
    fn create_database(&self) {
        let daemon = self.start();
        eventually("first observations", || {
            (crate::transition_rows::transitions(&self.database_path()).len() == 3).then_some(())
        });
        drop(daemon);
    }

    /// Starts with this error, checks that it is reported everywhere, removes the cause, and waits until the daemon is ready.
    fn starts_despite(&self, error: &str, end: impl FnOnce()) {
        while self.notification(Duration::from_millis(1)).is_some() {}
        let daemon = self.start();
        let message = eventually("a notification to systemd", || {
            self.notification(NOTIFICATION_WAIT).filter(|message| message.contains("EXTEND_TIMEOUT_USEC="))
        });
        assert!(message.contains("STATUS=not ready: ") && message.contains(error), "{message}");
        let (status, body) = get(self.address, "/-/ready");
        assert!(status == 503 && body.contains(error), "{status} {body}");
        assert!(get(self.address, "/").1.contains("The database cannot be written"));
        assert!(metric(self.address, "refwatch_database_failures_total", &[]) > Some(0.0));
        assert_eq!(get(self.address, "/-/healthy").0, 200);
        end();
        eventually("ready", || (get(self.address, "/-/ready").0 == 200).then_some(()));
        eventually("READY", || self.notification(NOTIFICATION_WAIT).filter(|message| message.contains("READY=1")));
        let log = eventually("the recovery in the log", || {
            Some(daemon.stderr()).filter(|log| log.contains("event=\"database_recovered\""))
        });
        assert_eq!(log.matches("event=\"database_failed\"").count(), 1, "one event: {log}");
        assert!(!log.contains("quarantine"), "{log}");
        assert_eq!(crate::transition_rows::transitions(&self.database_path()).len(), 3, "no row added");
    }

    fn notification(&self, timeout: Duration) -> Option<String> {
        self.systemd.set_read_timeout(Some(timeout)).expect("a timeout");
        let mut buffer = [0; 4096];
        let length = self.systemd.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

#[test]
fn fault_072_a_restart_on_a_full_disk_waits_for_space() {
    let Some(setup) = DaemonOnDisk::new() else { return };
    setup.create_database();
    fs::remove_file(setup.database_path().with_extension("db-shm"))
        .expect("the -shm file, for which the start needs space");
    let filler = setup.disk.fill();
    setup.starts_despite("disk I/O error", || fs::remove_file(&filler).expect("space"));
}

#[test]
fn fault_072_a_first_start_on_a_full_disk_waits_for_space() {
    let Some(setup) = DaemonOnDisk::new() else { return };
    let filler = setup.disk.fill();
    let mut daemon = setup.start();
    let message = setup.notification(Duration::from_mins(2)).expect("a notification");
    assert!(message.contains("No space left on device"), "{message}");
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success(), "{}", daemon.stderr());
    let daemon = setup.start();
    eventually("not ready", || daemon.stderr().contains("database_failed").then_some(()));
    fs::remove_file(filler).expect("space");
    eventually("first observations", || {
        (crate::transition_rows::transitions(&setup.database_path()).len() == 3).then_some(())
    });
}

#[test]
fn fault_074_a_start_on_a_read_only_file_system_waits_until_it_is_writable() {
    let Some(setup) = DaemonOnDisk::new() else { return };
    setup.create_database();
    setup.disk.remount("ro");
    setup.starts_despite("Read-only file system", || setup.disk.remount("rw"));
}

#[test]
fn fault_075_a_start_with_a_locked_database_waits_for_the_lock() {
    let Some(setup) = DaemonOnDisk::new() else { return };
    setup.create_database();
    let shell = rusqlite::Connection::open(setup.database_path()).expect("a connection");
    shell.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE").expect("a lock");
    setup.starts_despite("database is locked", || drop(shell));
}
