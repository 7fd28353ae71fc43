//! Disks that are full, failing or read-only, and a database that somebody holds: real ones, each mounted for its test. No trouble is
//! ever taken for damage, and nothing that was acknowledged is lost to it.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use refwatch::database::{CommitError, Database, OpenError};
use tempfile::TempDir;

use crate::database::{Place, id, transition};
use crate::process::{Scene, eventually, get, json, metric};

/// A file system that goes when this is dropped.
pub(crate) struct Mounted {
    pub(crate) folder: TempDir,
}

impl Mounted {
    /// `None` where this user may not mount.
    pub(crate) fn new(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let done = Command::new("mount").args(arguments).arg(folder.path()).output().expect("mount");
        if !done.status.success() {
            return skipped(&format!("mount {arguments:?}: {}", String::from_utf8_lossy(&done.stderr)));
        }
        Some(Self { folder })
    }

    pub(crate) fn in_memory() -> Option<Self> {
        Self::new(&["-t", "tmpfs", "-o", "size=8m", "none"])
    }

    fn place(&self) -> Place {
        let mut place = Place::new();
        place.path = self.folder.path().join("database.db");
        place
    }

    pub(crate) fn remount(&self, option: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.folder.path()).status();
        assert!(done.expect("mount").success(), "remount,{option}");
    }

    /// Takes the last byte that is free. To delete the file gives them back.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.folder.path().join("filler");
        let mut file = fs::File::create(&path).expect("a file");
        for size in [65536, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "{:?} stays mounted", self.folder);
    }
}

#[expect(clippy::print_stdout, reason = "whoever runs the tests should know what was not tested")]
pub(crate) fn skipped<T>(why: &str) -> Option<T> {
    println!("skipped: {why}");
    None
}

/// Adds transitions of one job, each in a commit, until one fails: how many were acknowledged by then, and the error.
async fn append_until_failure(database: &Database, from: u64) -> (u64, CommitError) {
    for number in from..from + 10_000 {
        let mut change = transition(None, &format!("S{number}"), 0);
        change.transition.as_mut().expect("a transition").status_message = Some("x".repeat(4000));
        if let Err(error) = database.append(&id(1), &change).await {
            return (number, error);
        }
    }
    panic!("no trouble");
}

/// Whether the acknowledged are there, in order, and perhaps the one whose fate was unknown.
fn assert_kept(place: &Place, acknowledged: u64) {
    let expected: Vec<String> = (0..=acknowledged).map(|number| format!(">S{number}")).collect();
    let found = place.transitions();
    let known = usize::try_from(acknowledged).expect("few");
    assert!(found == expected || found == expected[..known], "{} rows, {acknowledged} acknowledged", found.len());
}

fn assert_no_damage(place: &Place) {
    assert_eq!(place.instruments.database_quarantined.get(), 0);
    let folder = fs::read_dir(place.path.parent().expect("a folder")).expect("its entries");
    let names: Vec<_> = folder.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("damaged")), "{names:?}");
}

#[tokio::test]
async fn fault_071_a_full_disk_is_no_damage_and_its_record_goes_on_when_there_is_space() {
    let Some(disk) = Mounted::in_memory() else { return };
    let place = disk.place();
    let database = place.open();
    let filler = disk.fill();
    let (kept, error) = append_until_failure(&database, 0).await;
    assert!(matches!(error, CommitError::Sqlite(_)), "{error}");
    assert_eq!(append_until_failure(&database, kept).await.0, kept, "still no space");
    assert_no_damage(&place);
    database.close().await;
    fs::remove_file(filler).expect("space");
    let database = place.open();
    let filler = disk.fill();
    let before = place.transitions().len() as u64;
    let (kept, _) = append_until_failure(&database, before).await;
    fs::remove_file(filler).expect("space");
    database.append(&id(2), &transition(None, "SUBMITTED", 0)).await.expect("a commit, without a restart");
    database.close().await;
    place.open();
    assert_no_damage(&place);
    assert!(place.transitions().len() as u64 > kept);
}

#[tokio::test]
async fn fault_072_a_start_on_a_full_disk_after_a_kill_is_no_damage() {
    let Some(disk) = Mounted::in_memory() else { return };
    let place = disk.place();
    let killed = Place::new();
    let database = killed.open();
    database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    for (name, bytes) in killed.files().into_iter().filter(|(name, _)| !name.ends_with("-shm")) {
        fs::write(place.path.with_file_name(name), bytes).expect("a copy");
    }
    let filler = disk.fill();
    let refusal = place.refusal();
    assert!(matches!(refusal, OpenError::Sqlite { .. }), "{refusal}");
    assert_no_damage(&place);
    fs::remove_file(filler).expect("space");
    place.open();
    assert_no_damage(&place);
    assert_eq!(place.transitions(), [">SUBMITTED"]);
}

/// A file system in a file with holes, and the one that this file is on.
fn failing() -> Option<(Mounted, Mounted)> {
    let backing = Mounted::in_memory()?;
    let image = backing.folder.path().join("image");
    fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a file with holes");
    let made = Command::new("mkfs.ext2").arg("-q").arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        return skipped("mkfs.ext2 is not there, or fails");
    }
    let disk = Mounted::new(&["-o", "loop", image.to_str().expect("text")])?;
    Some((backing, disk))
}

#[tokio::test]
async fn fault_073_a_disk_that_fails_is_no_damage() {
    let Some((backing, disk)) = failing() else { return };
    let place = disk.place();
    let database = place.open();
    database.append(&id(1), &transition(None, "S0", 0)).await.expect("a commit");
    // The file system has space, and the disk under it has none: what is written is accepted, and fails at the sync.
    let filler = backing.fill();
    let (kept, error) = append_until_failure(&database, 1).await;
    assert!(error.to_string().contains("disk I/O error"), "{error}");
    assert_no_damage(&place);
    fs::remove_file(filler).expect("space");
    database.close().await;
    let database = place.open();
    assert_no_damage(&place);
    assert_kept(&place, kept);
    database.append(&id(2), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
}

#[tokio::test]
async fn fault_074_a_read_only_disk_is_no_damage() {
    let Some(disk) = Mounted::in_memory() else { return };
    let place = disk.place();
    let database = place.open();
    database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    database.close().await;
    disk.remount("ro");
    let refusal = place.refusal();
    assert!(matches!(refusal, OpenError::System { .. }), "{refusal}");
    disk.remount("rw");
    place.open();
    assert_no_damage(&place);
    assert_eq!(place.transitions(), [">SUBMITTED"]);
}

#[tokio::test]
async fn fault_075_a_record_that_somebody_holds_is_no_damage() {
    let place = Place::new();
    let database = place.open();
    database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    database.close().await;
    let shell = place.shell();
    shell.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE t (a)").expect("a lock");
    let refusal = place.refusal();
    assert!(matches!(refusal, OpenError::Sqlite { .. }), "{refusal}");
    drop(shell);
    place.open();
    assert_no_damage(&place);
    assert_eq!(place.transitions(), [">SUBMITTED"]);
}

/// How often the simulator's configuration has a job polled at most.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The longest that a daemon takes to go on once it can.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "how soon it goes on is what is promised")]
fn recovers_in_time(address: SocketAddr, end: impl FnOnce()) {
    let begun = std::time::Instant::now();
    end();
    eventually("the daemon to be ready again", || (get(address, "/-/ready").0 == 200).then_some(()));
    assert!(begun.elapsed() < RECOVERY_MAX, "{:?}", begun.elapsed());
}

#[test]
fn fault_073_the_daemon_outlives_a_disk_that_fails() {
    let Some((backing, disk)) = failing() else { return };
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "8", "--mean-seconds", "6"]);
    let database = disk.folder.path().join("refwatch.db");
    let config = config.replace("refwatch.db", database.to_str().expect("text"));
    let (daemon, address) = scene.daemon(&scene.write("refwatch.toml", &config));
    eventually("first sightings", || (crate::truth::transitions(&database).len() >= 8).then_some(()));
    let filler = backing.fill();
    eventually("a failure", || (get(address, "/-/ready").0 == 503).then_some(()));
    assert!(get(address, "/-/ready").1.contains("disk I/O error"), "{}", daemon.stderr());
    recovers_in_time(address, || fs::remove_file(filler).expect("space"));
    eventually("all ends", || (crate::truth::ended(&crate::truth::transitions(&database)) == 8).then_some(()));
    crate::truth::assert_true(crate::truth::transitions(&database), simulator);
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(0.0));
}

#[test]
fn fault_071_the_daemon_outlives_a_full_disk() {
    let Some(disk) = Mounted::in_memory() else { return };
    let scene = Scene::new();
    let (_simulator, simulator, config) = scene.simulate(&["--jobs", "20", "--mean-seconds", "4", "--quota", "50"]);
    let database = disk.folder.path().join("refwatch.db");
    let config = config.replace("refwatch.db", database.to_str().expect("text"));
    let filler = disk.fill();
    drop(
        fs::File::options()
            .write(true)
            .open(&filler)
            .and_then(|file| file.set_len(file.metadata()?.len() - (300 << 10))),
    );
    let (daemon, address) = scene.daemon(&scene.write("refwatch.toml", &config));
    eventually("the disk to be full", || (get(address, "/-/ready").0 == 503).then_some(()));
    // Each job that has something to database waits with it, and by and by that is each.
    let mut before = None;
    eventually("polling to pause", || {
        std::thread::park_timeout(2 * POLL_INTERVAL);
        let calls = json(simulator, "/-/calls")["GetReferenceImportJob"].clone();
        (before.replace(calls.clone()) == Some(calls)).then_some(())
    });
    assert_eq!((get(address, "/").0, get(address, "/-/healthy").0), (200, 200));
    recovers_in_time(address, || fs::remove_file(filler).expect("space"));
    eventually("all ends", || (crate::truth::ended(&crate::truth::transitions(&database)) == 20).then_some(()));
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(0.0));
    assert!(!daemon.stderr().contains("database_quarantined"), "{}", daemon.stderr());
}
