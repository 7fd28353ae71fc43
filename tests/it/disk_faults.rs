//! Faults 71 to 75: disks that are full, failing or read-only, and a locked database.
//!
//! The file systems are real and mounted for each test. No such error may be taken for damage, and no acknowledged commit may be
//! lost.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use refwatch::database::{Database, FileError, WriterError};
use tempfile::TempDir;

use crate::database::{TestDatabase, id, transition};
use crate::process::{Workspace, eventually, get, json, metric};

/// A mounted file system. Dropping it unmounts.
pub(crate) struct Mounted {
    pub(crate) directory: TempDir,
}

impl Mounted {
    /// `None` if this user may not mount.
    pub(crate) fn new(arguments: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let done = Command::new("mount").args(arguments).arg(directory.path()).output().expect("mount");
        if !done.status.success() {
            return skipped(&format!("mount {arguments:?}: {}", String::from_utf8_lossy(&done.stderr)));
        }
        Some(Self { directory })
    }

    pub(crate) fn in_memory() -> Option<Self> {
        Self::new(&["-t", "tmpfs", "-o", "size=8m", "none"])
    }

    fn db(&self) -> TestDatabase {
        let mut db = TestDatabase::new();
        db.path = self.directory.path().join("database.db");
        db
    }

    pub(crate) fn remount(&self, option: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.directory.path()).status();
        assert!(done.expect("mount").success(), "remount,{option}");
    }

    /// Fills the file system. Deleting the returned file frees the space.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.directory.path().join("filler");
        let mut file = fs::File::create(&path).expect("a file");
        // While other file systems are used, tmpfs may report a full disk before it is full.
        for size in [65536, 4096, 1].repeat(10) {
            while file.write_all(&vec![1; size]).is_ok() {}
            std::thread::yield_now();
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "{:?} stays mounted", self.directory);
    }
}

#[expect(clippy::print_stdout, reason = "shows which tests were skipped")]
pub(crate) fn skipped<T>(reason: &str) -> Option<T> {
    println!("skipped: {reason}");
    None
}

/// Commits transitions of one job until one fails. Returns the number of acknowledged commits, and the error.
async fn append_until_failure(database: &Database, from: u64) -> (u64, WriterError) {
    for number in from..from + 10_000 {
        let mut change = transition(None, &format!("S{number}"), 0);
        change.transition.as_mut().expect("a transition").status_message = Some("x".repeat(4000));
        if let Err(error) = database.append(&id(1), &change).await {
            return (number, error);
        }
    }
    panic!("no error");
}

/// Checks that the acknowledged transitions are stored in order, and at most one more.
fn assert_kept(db: &TestDatabase, acknowledged: u64) {
    let expected: Vec<String> = (0..=acknowledged).map(|number| format!(">S{number}")).collect();
    let rows = db.transitions();
    let expected_at_least = usize::try_from(acknowledged).expect("few");
    assert!(
        rows == expected || rows == expected[..expected_at_least],
        "{} rows, {acknowledged} acknowledged",
        rows.len()
    );
}

fn assert_no_damage(db: &TestDatabase) {
    assert_eq!(db.instruments.database_quarantined.get(), 0);
    let directory = fs::read_dir(db.path.parent().expect("a directory")).expect("entries");
    let names: Vec<_> = directory.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("damaged")), "{names:?}");
}

#[tokio::test]
async fn fault_071_a_full_disk_is_not_damage_and_writes_resume_when_there_is_space() {
    let Some(disk) = Mounted::in_memory() else { return };
    let db = disk.db();
    let database = db.open();
    let filler = disk.fill();
    let (kept, error) = append_until_failure(&database, 0).await;
    assert!(matches!(error, WriterError::Sqlite(_)), "{error}");
    assert_eq!(append_until_failure(&database, kept).await.0, kept, "still no space");
    assert_no_damage(&db);
    database.close().await;
    fs::remove_file(filler).expect("space");
    let database = db.open();
    let filler = disk.fill();
    let before = db.transitions().len() as u64;
    let (kept, _) = append_until_failure(&database, before).await;
    fs::remove_file(filler).expect("space");
    database.append(&id(2), &transition(None, "SUBMITTED", 0)).await.expect("a commit, without a restart");
    database.close().await;
    db.open();
    assert_no_damage(&db);
    assert!(db.transitions().len() as u64 > kept);
}

#[tokio::test]
async fn fault_072_a_start_on_a_full_disk_after_a_kill_is_not_damage() {
    let Some(disk) = Mounted::in_memory() else { return };
    let db = disk.db();
    let killed = TestDatabase::new();
    let database = killed.open();
    database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    for (name, bytes) in killed.files().into_iter().filter(|(name, _)| !name.ends_with("-shm")) {
        fs::write(db.path.with_file_name(name), bytes).expect("a copy");
    }
    let filler = disk.fill();
    let open_error = db.open_error();
    assert!(matches!(open_error, FileError::Sqlite { .. }), "{open_error}");
    assert_no_damage(&db);
    fs::remove_file(filler).expect("space");
    db.open();
    assert_no_damage(&db);
    assert_eq!(db.transitions(), [">SUBMITTED"]);
}

/// A file system in a sparse file, and the file system that contains the file.
fn failing() -> Option<(Mounted, Mounted)> {
    let backing = Mounted::in_memory()?;
    let image = backing.directory.path().join("image");
    fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a sparse file");
    let made = Command::new("mkfs.ext2").arg("-q").arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        return skipped("mkfs.ext2 is missing or fails");
    }
    let disk = Mounted::new(&["-o", "loop", image.to_str().expect("text")])?;
    Some((backing, disk))
}

#[tokio::test]
async fn fault_073_a_failing_disk_is_not_damage() {
    let Some((backing, disk)) = failing() else { return };
    let db = disk.db();
    let database = db.open();
    database.append(&id(1), &transition(None, "S0", 0)).await.expect("a commit");
    // The inner file system has space, the outer has none: writes succeed and the sync fails.
    let filler = backing.fill();
    let (kept, error) = append_until_failure(&database, 1).await;
    assert!(error.to_string().contains("disk I/O error"), "{error}");
    assert_no_damage(&db);
    fs::remove_file(filler).expect("space");
    database.close().await;
    let database = db.open();
    assert_no_damage(&db);
    assert_kept(&db, kept);
    database.append(&id(2), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
}

#[tokio::test]
async fn fault_074_a_read_only_disk_is_not_damage() {
    let Some(disk) = Mounted::in_memory() else { return };
    let db = disk.db();
    let database = db.open();
    database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    database.close().await;
    disk.remount("ro");
    let open_error = db.open_error();
    assert!(matches!(open_error, FileError::System { .. }), "{open_error}");
    disk.remount("rw");
    db.open();
    assert_no_damage(&db);
    assert_eq!(db.transitions(), [">SUBMITTED"]);
}

#[tokio::test]
async fn fault_075_a_locked_database_is_not_damage() {
    let db = TestDatabase::new();
    let database = db.open();
    database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    database.close().await;
    let shell = db.shell();
    shell.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE t (a)").expect("a lock");
    let open_error = db.open_error();
    assert!(matches!(open_error, FileError::Sqlite { .. }), "{open_error}");
    drop(shell);
    db.open();
    assert_no_damage(&db);
    assert_eq!(db.transitions(), [">SUBMITTED"]);
}

/// The simulator's `min_interval`.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time until the daemon is ready again.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "the test measures the time to recover")]
fn recovers_in_time(address: SocketAddr, end: impl FnOnce()) {
    let begun = std::time::Instant::now();
    end();
    eventually("the daemon to be ready again", || (get(address, "/-/ready").0 == 200).then_some(()));
    assert!(begun.elapsed() < RECOVERY_MAX, "{:?}", begun.elapsed());
}

#[test]
fn fault_073_the_daemon_survives_a_failing_disk() {
    let Some((backing, disk)) = failing() else { return };
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "8", "--mean-seconds", "6"]);
    let database = disk.directory.path().join("refwatch.db");
    let config = config.replace("refwatch.db", database.to_str().expect("text"));
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    eventually("first observations", || (crate::transition_rows::transitions(&database).len() >= 8).then_some(()));
    let filler = backing.fill();
    eventually("a failure", || (get(address, "/-/ready").0 == 503).then_some(()));
    assert!(get(address, "/-/ready").1.contains("disk I/O error"), "{}", daemon.stderr());
    recovers_in_time(address, || fs::remove_file(filler).expect("space"));
    eventually("all ends", || {
        (crate::transition_rows::ended(&crate::transition_rows::transitions(&database)) == 8).then_some(())
    });
    crate::transition_rows::assert_matches_simulator(crate::transition_rows::transitions(&database), simulator);
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(0.0));
}

#[test]
fn fault_071_the_daemon_survives_a_full_disk() {
    let Some(disk) = Mounted::in_memory() else { return };
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "20", "--mean-seconds", "4", "--quota", "50"]);
    let database = disk.directory.path().join("refwatch.db");
    let config = config.replace("refwatch.db", database.to_str().expect("text"));
    let filler = disk.fill();
    drop(
        fs::File::options()
            .write(true)
            .open(&filler)
            .and_then(|file| file.set_len(file.metadata()?.len() - (300 << 10))),
    );
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    eventually("the disk to be full", || (get(address, "/-/ready").0 == 503).then_some(()));
    // Each job with an uncommitted transition pauses; in the end all do.
    let mut before = None;
    eventually("polling to pause", || {
        std::thread::park_timeout(2 * POLL_INTERVAL);
        let calls = json(simulator, "/-/calls")["GetReferenceImportJob"].clone();
        (before.replace(calls.clone()) == Some(calls)).then_some(())
    });
    assert_eq!((get(address, "/").0, get(address, "/-/healthy").0), (200, 200));
    recovers_in_time(address, || fs::remove_file(filler).expect("space"));
    eventually("all ends", || {
        (crate::transition_rows::ended(&crate::transition_rows::transitions(&database)) == 20).then_some(())
    });
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(0.0));
    assert!(!daemon.stderr().contains("database_quarantined"), "{}", daemon.stderr());
}
