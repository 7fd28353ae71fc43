//! Faults 133, 135, 136, 137 and 141: what other programs and administrators do to the files of the database.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::process::{Process, Workspace, eventually, get, metric};
use crate::transition_rows::{assert_matches_simulator, ended, transitions};

/// A workspace, a simulator with some jobs, and its configuration.
struct Setup {
    workspace: Workspace,
    simulator: SocketAddr,
    config: String,
    _simulator: Process,
}

impl Setup {
    fn new(jobs: &str, mean_seconds: &str) -> Self {
        let workspace = Workspace::new();
        let (process, simulator, config) =
            workspace.simulate(&["--jobs", jobs, "--mean-seconds", mean_seconds, "--quota", "50"]);
        Self { workspace, simulator, config, _simulator: process }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.workspace.path(name)
    }

    /// Writes the configuration with this database.
    fn with_database(&self, database: &Path) -> PathBuf {
        let config = self.config.replace("refwatch.db", database.to_str().expect("text"));
        self.workspace.write("refwatch.toml", &config)
    }

    /// Runs a command that is expected to end. Returns its status and standard error.
    fn run(&self, config: &Path, command: &str) -> (i32, String) {
        let (status, _, error) = self.workspace.run(&["--config", config.to_str().expect("text"), command]);
        (status, error)
    }

    /// Every file in the workspace with its content. `None`: not a regular file.
    fn files(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let entries = fs::read_dir(self.path("")).expect("entries").map(|entry| entry.expect("an entry").path());
        let entries = entries.filter(|path| !path.to_string_lossy().contains("stderr-"));
        entries.map(|path| (path.clone(), path.is_file().then(|| fs::read(path).expect("a file")))).collect()
    }
}

/// The events of this name in a daemon's log.
fn events(daemon: &Process, name: &str) -> usize {
    daemon.stderr().matches(&format!("event=\"{name}\"")).count()
}

#[test]
fn fault_135_a_second_daemon_is_refused_whatever_name_it_has_for_the_database() {
    let setup = Setup::new("2", "600");
    let (link, file, hard_link) = (setup.path("link.db"), setup.path("file.db"), setup.path("hard_link.db"));
    symlink("file.db", &link).expect("a link to a file that does not exist yet");
    let (_daemon, address) = setup.workspace.daemon(&setup.with_database(&link));
    eventually("first observations", || (transitions(&file).len() == 2).then_some(()));
    fs::hard_link(&file, &hard_link).expect("a hard link");
    let refused = |path: &Path| {
        let (status, error) = setup.run(&setup.with_database(path), "run");
        assert!(status == 1 && error.contains("the database is in use by"), "{status} {error}");
    };
    for path in [&file, &link, &hard_link] {
        refused(path);
    }
    fs::remove_file(setup.path("file.db.lock")).expect("the lock file");
    refused(&file);
    assert_eq!((get(address, "/-/ready").0, transitions(&file).len()), (200, 2));
}

#[test]
fn fault_135_a_lock_file_of_another_program_is_left_alone() {
    let setup = Setup::new("1", "600");
    let (database, lock) = (setup.path("refwatch.db"), setup.path("refwatch.db.lock"));
    let config = setup.with_database(&database);
    let other = setup.workspace.write("other", "");
    for make in [&|| symlink(&other, &lock).expect("a link"), &|| fs::write(&lock, "[[package]]").expect("a file")]
        as [&dyn Fn(); 2]
    {
        make();
        let before = setup.files();
        for command in ["check", "run"] {
            let (status, error) = setup.run(&config, command);
            assert!(status == 78 && error.contains(lock.to_str().expect("text")), "{status} {error}");
        }
        assert_eq!(setup.files(), before);
        fs::remove_file(&lock).expect("a file");
    }
}

#[test]
fn fault_135_the_files_have_one_mode_whatever_the_umask() {
    for umask in ["000", "077"] {
        let setup = Setup::new("1", "600");
        let config = setup.with_database(&setup.path("refwatch.db"));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask} && exec \"$@\""), "sh"]);
        let refwatch = setup.workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.arg(refwatch.get_program()).args(refwatch.get_args()).env("HOME", setup.path(""));
        let _daemon = setup.workspace.spawn(command);
        let mode = |suffix: &str| Some(fs::metadata(setup.path(suffix)).ok()?.permissions().mode() & 0o777);
        for name in ["refwatch.db-wal", "refwatch.db-shm", "refwatch.db", "refwatch.db.lock"] {
            assert_eq!(eventually(name, || mode(name)), 0o640, "{name}, umask {umask}");
        }
    }
}

#[test]
fn fault_137_a_file_that_refwatch_did_not_make_is_refused_and_unchanged() {
    let setup = Setup::new("1", "600");
    let path = |name: &str| setup.path(name);
    fs::write(path("app.log"), "2026-01-31 started\n".repeat(1000)).expect("a log");
    fs::write(path("jobs.json"), "{}").expect("a JSON file");
    fs::write(path("only-wal-wal"), "a list of walls").expect("a file beside the path");
    fs::create_dir(path("directory")).expect("a directory");
    assert!(Command::new("mkfifo").arg(path("fifo")).status().expect("mkfifo").success());
    let _socket = UnixListener::bind(path("socket")).expect("a socket");
    let contacts = rusqlite::Connection::open(path("contacts.db")).expect("another program's database");
    contacts.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE contacts (name TEXT)").expect("a table");
    contacts.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    symlink("jobs.json", path("link")).expect("a link");
    for name in
        ["refwatch.toml", "app.log", "jobs.json", "link", "only-wal", "directory", "fifo", "socket", "contacts.db"]
    {
        let config = setup.with_database(&path(name));
        let before = setup.files();
        for command in ["check", "run"] {
            let (status, error) = setup.run(&config, command);
            assert!(status == 78 && error.contains("refwatch did not make it"), "{command} {name}: {status} {error}");
        }
        assert!(setup.files() == before, "{name}: {:?} {:?}", setup.files().keys(), before.keys());
    }
    let (status, error) = setup.run(&setup.with_database(Path::new("/dev/null")), "check");
    assert!(status == 78 && error.contains("a device"), "{status} {error}");
}

#[test]
fn fault_137_only_a_socket_is_replaced_by_the_control_socket() {
    let setup = Setup::new("1", "600");
    let config = setup.with_database(&setup.path("refwatch.db"));
    let socket = setup.workspace.write("refwatch.db.sock", "notes");
    let (mut daemon, _) = setup.workspace.daemon(&config);
    assert_eq!(events(&daemon, "control_socket_failed"), 1, "{}", daemon.stderr());
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
    assert_eq!(fs::read_to_string(socket).expect("the file"), "notes");
}

#[test]
fn fault_141_a_missing_directory_of_the_database_is_reported_and_not_created() {
    let setup = Setup::new("1", "600");
    symlink("no/target.db", setup.path("link")).expect("a link");
    for (database, directory) in [("no/such/folder/refwatch.db", "no/such/folder"), ("link", "no")] {
        let config = setup.with_database(&setup.path(database));
        for command in ["check", "run"] {
            let (status, error) = setup.run(&config, command);
            let owner = rustix::process::geteuid().as_raw();
            let advice = format!("install -d -m 750 -o {owner} {}", setup.path(directory).display());
            assert!(status == 78 && error.contains(&advice), "{command}: {status} {error}");
        }
        assert!(!setup.path("no").exists());
    }
}

#[test]
fn fault_141_the_default_directory_of_the_user_is_created() {
    let setup = Setup::new("1", "600");
    let config = setup.workspace.write("refwatch.toml", &setup.config.replace("path = \"refwatch.db\"\n", ""));
    let start = |command: &str| {
        let mut command = setup.workspace.refwatch(&["--config", config.to_str().expect("text"), command]);
        command.env("XDG_STATE_HOME", setup.path("state"));
        setup.workspace.spawn(command)
    };
    assert!(start("check").end().success());
    let _daemon = start("run");
    let database = setup.path("state/refwatch/refwatch.db");
    eventually("the first observation", || (transitions(&database).len() == 1).then_some(()));
    assert_eq!(fs::metadata(setup.path("state/refwatch")).expect("a directory").permissions().mode() & 0o027, 0);
}

#[test]
fn fault_136_no_transition_is_lost_if_files_of_the_database_are_deleted_or_replaced() {
    let setup = Setup::new("12", "8");
    let database = setup.path("refwatch.db");
    let config = setup.with_database(&database);
    let (mut daemon, address) = setup.workspace.daemon(&config);
    eventually("first observations", || (transitions(&database).len() >= 12).then_some(()));
    let (wal, shm) = (setup.path("refwatch.db-wal"), setup.path("refwatch.db-shm"));
    let delete = |path: &Path| fs::remove_file(path).expect("a file");
    let cases: [(&str, &dyn Fn()); 5] = [
        ("no WAL", &|| delete(&wal)),
        ("no index of the WAL", &|| delete(&shm)),
        ("another file", &|| fs::rename(setup.workspace.write("other", "other\n"), &wal).expect("a file")),
        ("no database", &|| delete(&database)),
        ("no file", &|| [&database, &wal, &shm].into_iter().for_each(|path| delete(path))),
    ];
    for (number, (name, change)) in cases.into_iter().enumerate() {
        change();
        eventually(name, || (events(&daemon, "database_reopened") == number + 1).then_some(()));
        eventually("ready", || (get(address, "/-/ready").0 == 200).then_some(()));
        let logged = events(&daemon, "transition");
        assert!(transitions(&database).len() >= logged, "{name}: {logged}\n{}", daemon.stderr());
    }
    delete(&wal);
    daemon.signal(Signal::KILL);
    daemon.end();
    // The last deletion may have lost commits, as the kill came at once: the next daemon observes their statuses again.
    let kept = transitions(&database);
    let (mut daemon, _) = setup.workspace.daemon(&config);
    eventually("every end", || (ended(&transitions(&database)) == 12).then_some(()));
    assert_eq!(transitions(&database)[..kept.len()], kept);
    delete(&wal);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
    assert_matches_simulator(transitions(&database), setup.simulator);
    assert_eq!(events(&daemon, "database_quarantined"), 0);
}

#[test]
fn fault_136_a_replaced_database_is_used_only_after_a_restart() {
    let setup = Setup::new("2", "600");
    let (database, other) = (setup.path("refwatch.db"), Setup::new("3", "600"));
    let (mut daemon, _) = other.workspace.daemon(&other.with_database(&other.path("refwatch.db")));
    eventually("three jobs", || (transitions(&other.path("refwatch.db")).len() == 3).then_some(()));
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());

    let config = setup.with_database(&database);
    let (mut daemon, address) = setup.workspace.daemon(&config);
    eventually("first observations", || (transitions(&database).len() == 2).then_some(()));
    let replacement = setup.path("replacement");
    fs::copy(other.path("refwatch.db"), &replacement).expect("a copy");
    fs::rename(&replacement, &database).expect("a replaced database");
    let (_, reason) = eventually("not ready", || Some(get(address, "/-/ready")).filter(|(status, _)| *status == 503));
    assert!(reason.contains("replaced by another file"), "{reason}");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
    let (_daemon, _) = setup.workspace.daemon(&config);
    eventually("five jobs", || (transitions(&database).len() == 5).then_some(()));
}

#[test]
fn fault_133_a_reader_that_stays_open_is_reported_once() {
    const MIB: f64 = 1024.0 * 1024.0;
    let setup = Setup::new("1", "600");
    let database = setup.path("refwatch.db");
    let (daemon, address) = setup.workspace.daemon(&setup.with_database(&database));
    eventually("the first observation", || (transitions(&database).len() == 1).then_some(()));
    let wal_bytes = || metric(address, "refwatch_database_wal_bytes", &[]).expect("a gauge");
    eventually("sizes", || {
        let size = metric(address, "refwatch_database_size_bytes", &[]).expect("a gauge");
        (size > 0.0 && wal_bytes() > 0.0 && wal_bytes() < MIB).then_some(())
    });
    let reader = rusqlite::Connection::open(&database).expect("a reader");
    reader.execute_batch("BEGIN; SELECT count(*) FROM transitions").expect("a read transaction");
    let writer = rusqlite::Connection::open(&database).expect("another writer");
    writer.execute_batch("CREATE TABLE notes (text)").expect("a table");
    for _ in 0..70 {
        writer.execute_batch("INSERT INTO notes VALUES (zeroblob(1048576))").expect("a row");
    }
    eventually("a warning", || (events(&daemon, "checkpoint_stalled") == 1).then_some(()));
    assert!(wal_bytes() > 64.0 * MIB, "{}", wal_bytes());
    drop(reader);
    eventually("a checkpoint", || {
        let (busy, _, _): (i64, i64, i64) = writer
            .query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .expect("a checkpoint");
        (busy == 0).then_some(())
    });
    eventually("a small log", || (wal_bytes() < MIB).then_some(()));
    assert_eq!(events(&daemon, "checkpoint_stalled"), 1);
}
