//! Faults 76 and 77: damaged databases. Damage is detected at the start and moved to quarantine unchanged. Other errors are not
//! taken for damage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::core::time::Timestamp;
use refwatch::core::transition::{Detail, ItemTransition, Transition};
use refwatch::database::{Database, FileError, Filter, JobQuery};

use crate::campaigns::{env_number, print_summary};
use crate::database::{TestDatabase, at, full_change, id, transition};
use crate::process::{Workspace, eventually, get, metric, open_when_unlocked};

/// File contents by name.
type Files = BTreeMap<String, Vec<u8>>;

impl TestDatabase {
    /// A database with these files.
    fn with(files: &Files) -> Self {
        let db = Self::new();
        for (name, bytes) in files {
            fs::write(db.path.with_file_name(name), bytes).expect("a file");
        }
        db
    }

    /// The contents of each quarantine directory.
    fn quarantined(&self) -> Vec<Files> {
        let entries = fs::read_dir(self.path.parent().expect("a directory")).expect("entries");
        entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_dir())
            .map(|path| files(&path))
            .collect()
    }

    /// Opens a damaged database and checks that it was moved to quarantine unchanged. SQLite may rebuild the `-shm` file.
    async fn open_damaged(&self) -> Database {
        let mut before = self.files();
        let database = self.open();
        before.remove("database.db.lock");
        let [mut quarantine] = <[Files; 1]>::try_from(self.quarantined()).expect("one");
        for files in [&mut before, &mut quarantine] {
            files.remove("database.db-shm");
        }
        assert!(quarantine == before, "byte for byte: {:?} of {:?}", quarantine.keys(), before.keys());
        assert_eq!(self.instruments.database_quarantined.get(), 1);
        database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit to the new one");
        assert_eq!(self.transitions(), [">SUBMITTED"]);
        database
    }
}

fn files(directory: &Path) -> Files {
    let paths = fs::read_dir(directory).expect("entries").map(|entry| entry.expect("an entry").path());
    let paths = paths.filter(|path| path.is_file());
    paths
        .map(|path| (path.file_name().expect("a name").display().to_string(), fs::read(path).expect("a file")))
        .collect()
}

/// Everything that can be read: rows, and the state that a daemon restores, which uses the indexes.
async fn read_all(db: &TestDatabase, database: &Database) -> String {
    let (jobs, target_store) = ((0..JOBS).map(id).collect(), id(0).target_store());
    let mut all = Vec::new();
    for jobs in [JobQuery::These(jobs), JobQuery::Retained { target_store, ended_since: Timestamp::MIN }] {
        all.push(format!("{:?}", database.load_states(jobs).await.expect("jobs")));
    }
    let by_job = (0..JOBS).map(|job| Filter::of_job(id(job).key.clone()));
    for filter in by_job.chain([Filter::default(), Filter { since: Some(at(5)), ..Filter::default() }]) {
        all.push(format!("{:?}", db.reader().rows::<Transition>(&filter).expect("rows")));
        all.push(format!("{:?}", db.reader().rows::<ItemTransition>(&filter).expect("rows")));
        all.push(format!("{:?}", db.reader().rows::<Detail>(&filter).expect("rows")));
    }
    all.concat()
}

const JOBS: u64 = 40;

/// The number of damaged databases on which a daemon is started.
const DAEMON_STARTS: usize = 4;

/// The longest time until a daemon with a damaged database is ready.
const READY_MAX: Duration = Duration::from_secs(5);

/// The files of a database with some history after a kill and after a clean close, and its content.
async fn damaged_inputs() -> ([Files; 2], String) {
    let db = TestDatabase::new();
    let database = db.open();
    for job in 0..JOBS {
        database.append(&id(job), &full_change(None, "IN_PROGRESS", 0)).await.expect("a commit");
    }
    for job in (0..JOBS).step_by(3) {
        database.append(&id(job), &transition(Some("IN_PROGRESS"), "FAILED", 1)).await.expect("a commit");
    }
    // Without the watched job and the job with the last row.
    assert_eq!(database.delete_ended_before(at(2), BTreeSet::from([id(0)])).await.expect("a commit"), 12);
    database.close().await;
    let database = db.open();
    for job in (0..JOBS).step_by(4) {
        database.append(&id(job), &full_change(Some("IN_PROGRESS"), "COMPLETED", 9)).await.expect("a commit");
    }
    let content = read_all(&db, &database).await;
    let killed = db.files();
    assert!(killed["database.db-wal"].len() > 10_000, "recent rows are only in the write-ahead log");
    database.close().await;
    assert_eq!(db.instruments.database_quarantined.get(), 0, "an intact database is kept");
    ([killed, db.files()], content)
}

/// Flips one bit or truncates one file, at a position drawn from the seed.
fn damage(files: &mut Files, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let parts: Vec<_> =
        ["database.db", "database.db-wal"].into_iter().filter(|name| files.contains_key(*name)).collect();
    let part = random.choice(parts).expect("a part");
    let bytes = files.get_mut(part).expect("its bytes");
    // One in five in the header, which is small and important.
    let among = if random.u8(..5) == 0 { bytes.len().min(100) } else { bytes.len() };
    let at = random.usize(..among);
    if random.u8(..5) == 0 {
        bytes.truncate(at);
        return format!("{part} ends at {at}");
    }
    let bit = random.u8(..8);
    bytes[at] ^= 1 << bit;
    format!("bit {bit} of byte {at} of {part}")
}

#[tokio::test]
async fn fault_076_damage_detected_by_sqlite_is_quarantined_and_other_damage_does_not_stop_the_daemon() {
    let seeds = match env_number("DAMAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..env_number("DAMAGE_SEEDS").unwrap_or(60),
    };
    let (damaged_inputs, _) = damaged_inputs().await;
    let (mut moved, mut kept, mut newer) = (Vec::new(), 0, 0);
    for seed in seeds {
        for mut files in damaged_inputs.clone() {
            let description = damage(&mut files, seed);
            let context = format!("{description}: DAMAGE_SEED={seed} cargo test --test it fault_076_damage");
            let db = TestDatabase::with(&files);
            let mut database = match Database::open(&db.path, &db.instruments) {
                Ok(database) => database,
                // The version has changed: the file is reported and left for a newer refwatch.
                Err(FileError::NewerSchema { .. }) => {
                    newer += 1;
                    assert!(db.files()["database.db"] == files["database.db"], "unchanged: {context}");
                    continue;
                }
                Err(error) => panic!("{error}: {context}"),
            };
            if db.instruments.database_quarantined.get() > 0 {
                let mut quarantine = db.quarantined().pop().expect("a quarantine directory");
                quarantine.remove("database.db-shm");
                assert!(quarantine.iter().all(|(name, bytes)| files[name] == *bytes), "byte for byte: {context}");
                let intact = |name| quarantine.contains_key(name) == files.contains_key(name);
                assert!(intact("database.db") && intact("database.db-wal"), "complete: {context}");
                moved.push(files);
            } else {
                kept += 1;
            }
            // Damage may also be detected when a page is first read. The next start then checks the file.
            let change = full_change(Some("IN_PROGRESS"), "CANCELLED", 20);
            if database.append(&id(1), &change).await.is_err() {
                database.close().await;
                database = open_when_unlocked(&db.path, &db.instruments).expect(&context);
                assert_eq!(db.instruments.database_quarantined.get(), 1, "{context}");
                database.append(&id(1), &change).await.expect(&context);
            }
            database.close().await;
        }
    }
    let start_times: Vec<_> = moved.iter().step_by(moved.len() / DAEMON_STARTS + 1).map(time_to_ready).collect();
    let longest = start_times.iter().max().copied().unwrap_or_default();
    print_summary(format_args!(
        "{} flipped bits and lost ends: {} moved aside whole at the start, {kept} not, {newer} a newer version's; \
        {} daemons started on damaged ones: ready after {} ms at most",
        moved.len() + kept + newer,
        moved.len(),
        start_times.len(),
        longest.as_millis()
    ));
    assert!(!moved.is_empty() || env_number("DAMAGE_SEED").is_some(), "no damage was detected");
    assert!(env_number("DAMAGE_SEEDS").is_none() || longest <= READY_MAX, "ready only after {longest:?}");
}

/// The time from the start of a daemon on these files until it is ready.
fn time_to_ready(files: &Files) -> Duration {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let config = workspace.write("refwatch.toml", &config.replace("refwatch.db", "database.db"));
    for (name, bytes) in files {
        fs::write(workspace.path(name), bytes).expect("a file");
    }
    let clock = Clock::system();
    let (_daemon, address) = workspace.daemon(&config);
    eventually("ready", || (get(address, "/-/ready").0 == 200).then_some(()));
    let took = clock.now().monotonic.elapsed();
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(1.0));
    took
}

#[tokio::test]
async fn fault_076_a_file_without_a_readable_header_is_quarantined_if_it_has_a_lock_file() {
    for bytes in [b"short".to_vec(), b"long\n".repeat(5000)] {
        let lock = ("database.db.lock".to_owned(), Vec::new());
        let db = TestDatabase::with(&Files::from([("database.db".to_owned(), bytes), lock]));
        db.open_damaged().await.close().await;
        db.open();
        assert_eq!(db.transitions(), [">SUBMITTED"], "the new database is kept");
    }
}

#[tokio::test]
async fn fault_076_a_damaged_database_without_its_lock_file_is_quarantined() {
    let ([_, mut closed], _) = damaged_inputs().await;
    closed.remove("database.db.lock");
    closed.get_mut("database.db").expect("the database")[4096..].fill(0xFF);
    // The check of an unclean stop reads all pages; only the lock file or a write-ahead log reports that stop.
    closed.insert("database.db-wal".to_owned(), Vec::new());
    TestDatabase::with(&closed).open_damaged().await;
}

#[tokio::test]
async fn fault_077_a_missing_or_foreign_write_ahead_log_does_not_stop_the_daemon() {
    let ([killed, closed], content) = damaged_inputs().await;
    let intact = TestDatabase::with(&killed);
    assert!(read_all(&intact, &intact.open()).await == content);
    assert!(intact.quarantined().is_empty(), "a kill is not damage");

    let other = TestDatabase::new();
    let database = other.open();
    database.append(&id(7), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    let other = other.files()["database.db-wal"].clone();
    let log = &killed["database.db-wal"];
    for log in [None, Some(vec![]), Some(log[..log.len() / 2].to_vec()), Some(other)] {
        let mut files = killed.clone();
        files.remove("database.db-wal");
        files.extend(log.map(|log| ("database.db-wal".to_owned(), log)));
        let db = TestDatabase::with(&files);
        let database = db.open();
        database.append(&id(1), &transition(Some("IN_PROGRESS"), "FAILED", 20)).await.expect("a commit");
        database.close().await;
        db.open();
    }
    // A log without its database is moved to quarantine, as SQLite would delete it.
    let mut files = killed.clone();
    files.remove("database.db");
    TestDatabase::with(&files).open_damaged().await;
    // An older copy of the database is accepted.
    files = closed.clone();
    files.insert("database.db".to_owned(), killed["database.db"].clone());
    let older = TestDatabase::with(&files);
    older.open().close().await;
    assert_eq!(older.quarantined().len(), 0);
}

#[tokio::test]
async fn deleted_rows_are_not_damage_and_changed_tables_are() {
    let ([_, closed], _) = damaged_inputs().await;
    for sql in [
        "DELETE FROM transitions WHERE id = (SELECT min(id) FROM transitions)",
        "DELETE FROM item_transitions",
        "DELETE FROM details WHERE id = (SELECT max(id) FROM details)",
        "CREATE VIEW failed AS SELECT * FROM transitions WHERE to_status = 'FAILED'",
    ] {
        let db = TestDatabase::with(&closed);
        db.shell().execute_batch(sql).expect(sql);
        let database = db.open();
        database.append(&id(1), &transition(Some("IN_PROGRESS"), "FAILED", 20)).await.expect(sql);
        assert!(db.quarantined().is_empty(), "{sql}");
    }
    for sql in ["ALTER TABLE transitions RENAME COLUMN status_message TO message", "DROP TABLE details"] {
        let db = TestDatabase::with(&closed);
        db.shell().execute_batch(sql).expect(sql);
        db.open_damaged().await;
    }
}

#[tokio::test]
async fn an_empty_database_is_not_damaged() {
    let db = TestDatabase::new();
    for change in [None, Some(transition(None, "FAILED", 0))] {
        let database = db.open();
        if let Some(change) = change {
            database.append(&id(1), &change).await.expect("a commit");
        }
        database.delete_ended_before(at(1), BTreeSet::new()).await.expect("a commit");
        database.close().await;
        db.open().close().await;
        assert!(db.quarantined().is_empty());
    }
}

#[test]
fn fault_076_the_daemon_starts_with_a_damaged_database() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (config, database) = (workspace.write("refwatch.toml", &config), workspace.path("refwatch.db"));
    let transitions = || crate::transition_rows::transitions(&database).len();
    let (daemon, address) = workspace.daemon(&config);
    eventually("first observations", || (transitions() >= 2).then_some(()));
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(0.0));
    drop(daemon);
    let database = workspace.path("refwatch.db");
    fs::remove_file(workspace.path("refwatch.db-wal")).expect("a log");
    fs::write(&database, b"damaged ".repeat(1024)).expect("damage");

    let (daemon, address) = workspace.daemon(&config);
    eventually("ready", || (get(address, "/-/ready").0 == 200).then_some(()));
    eventually("first observations again", || (transitions() >= 2).then_some(()));
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(1.0));
    let log = daemon.log_with("event=\"database_quarantined\"");
    let line = log.lines().find(|line| line.contains("event=\"database_quarantined\"")).expect("a line");
    assert!(line.contains("ERROR"), "{line}");
    let quarantine = PathBuf::from(crate::process::between(line, "moved_to=", " "));
    assert!(quarantine.starts_with(workspace.path("")), "{line}");
    assert!(fs::read(quarantine.join("refwatch.db")).expect("the damaged file") == b"damaged ".repeat(1024));
}
