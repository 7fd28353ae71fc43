//! A database that is in trouble when the daemon starts: it serves, says why it is not ready, and goes on once the trouble is over.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, Scene, eventually, get, metric};
use crate::trouble::Mounted;

/// A daemon whose database is on a disk of its own, and which systemd would hear.
struct Host {
    disk: Mounted,
    scene: Scene,
    _simulator: Process,
    config: PathBuf,
    address: SocketAddr,
    systemd: UnixDatagram,
}

impl Host {
    /// `None` where this user may not mount.
    fn new() -> Option<Self> {
        let (disk, scene) = (Mounted::in_memory()?, Scene::new());
        let (simulator, _, config) = scene.simulate(&["--jobs", "3", "--mean-seconds", "600"]);
        // Where it listens cannot be read off a log that has not come so far.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let database = disk.folder.path().join("refwatch.db");
        let config = config.replace("127.0.0.1:0", &address.to_string());
        let config = scene.write("refwatch.toml", &config.replace("refwatch.db", database.to_str().expect("text")));
        let systemd = UnixDatagram::bind(scene.path("notify")).expect("a socket");
        systemd.set_read_timeout(Some(Duration::from_mins(2))).expect("a timeout");
        Some(Self { disk, scene, _simulator: simulator, config, address, systemd })
    }

    fn database(&self) -> PathBuf {
        self.disk.folder.path().join("refwatch.db")
    }

    fn start(&self) -> Process {
        let mut command = self.scene.refwatch(&["--config", self.config.to_str().expect("text"), "run"]);
        command.env("NOTIFY_SOCKET", self.scene.path("notify"));
        self.scene.spawn(command)
    }

    /// Starts once and is killed, so that there is a database and a write-ahead log.
    fn leave_a_record(&self) {
        let daemon = self.start();
        eventually("first sightings", || (crate::truth::transitions(&self.database()).len() == 3).then_some(()));
        drop(daemon);
    }

    /// Starts in this trouble: it must be told everywhere, and nothing else be done. Then goes on without.
    fn start_in(&self, trouble: &str, end: impl FnOnce()) {
        while self.heard(Duration::from_millis(1)).is_some() {}
        let daemon = self.start();
        let told = eventually("a word to systemd", || {
            self.heard(Duration::from_mins(2)).filter(|word| word.contains("EXTEND_TIMEOUT_USEC="))
        });
        assert!(told.contains("STATUS=not ready: ") && told.contains(trouble), "{told}");
        let (status, body) = get(self.address, "/-/ready");
        assert!(status == 503 && body.contains(trouble), "{status} {body}");
        assert!(get(self.address, "/").1.contains("The database cannot be written"));
        assert!(metric(self.address, "refwatch_database_failures_total", &[]) > Some(0.0));
        assert_eq!(get(self.address, "/-/healthy").0, 200);
        end();
        eventually("ready", || (get(self.address, "/-/ready").0 == 200).then_some(()));
        eventually("READY", || self.heard(Duration::from_mins(2)).filter(|word| word.contains("READY=1")));
        let log = daemon.stderr();
        assert_eq!(log.matches("event=\"record_failed\"").count(), 1, "once: {log}");
        assert!(log.contains("event=\"record_recovered\"") && !log.contains("set_aside"), "{log}");
        assert_eq!(crate::truth::transitions(&self.database()).len(), 3, "as before");
    }

    fn heard(&self, patience: Duration) -> Option<String> {
        self.systemd.set_read_timeout(Some(patience)).expect("a timeout");
        let mut buffer = [0; 4096];
        let length = self.systemd.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

#[test]
fn fault_072_a_disk_that_is_full_at_the_start_is_waited_for() {
    let Some(host) = Host::new() else { return };
    host.leave_a_record();
    fs::remove_file(host.database().with_extension("db-shm")).expect("an index, which the start needs space for");
    let filler = host.disk.fill();
    host.start_in("disk I/O error", || fs::remove_file(&filler).expect("space"));
}

#[test]
fn fault_072_a_first_start_on_a_full_disk_is_waited_for() {
    let Some(host) = Host::new() else { return };
    let filler = host.disk.fill();
    let mut daemon = host.start();
    let told = host.heard(Duration::from_mins(2)).expect("a word");
    assert!(told.contains("No space left on device"), "{told}");
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success(), "{}", daemon.stderr());
    let daemon = host.start();
    eventually("not ready", || daemon.stderr().contains("database_failed").then_some(()));
    fs::remove_file(filler).expect("space");
    eventually("first sightings", || (crate::truth::transitions(&host.database()).len() == 3).then_some(()));
}

#[test]
fn fault_074_a_read_only_file_system_at_the_start_is_waited_for() {
    let Some(host) = Host::new() else { return };
    host.leave_a_record();
    host.disk.remount("ro");
    host.start_in("Read-only file system", || host.disk.remount("rw"));
}

#[test]
fn fault_075_a_record_that_is_locked_at_the_start_is_waited_for() {
    let Some(host) = Host::new() else { return };
    host.leave_a_record();
    let shell = rusqlite::Connection::open(host.database()).expect("a connection");
    shell.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE").expect("a lock");
    host.start_in("database is locked", || drop(shell));
}
