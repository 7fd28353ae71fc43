//! Damage of the database: noticed at the start, set aside whole, and never seen where there is other trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::core::time::Timestamp;
use refwatch::core::transition::{Detail, SourceTransition, Transition};
use refwatch::database::{Database, Filter, JobQuery, OpenError};

use crate::campaigns::{number, say};
use crate::database::{Place, at, full, id, transition};
use crate::process::{Scene, eventually, get, metric};

/// What stands in a directory, by name.
type Files = BTreeMap<String, Vec<u8>>;

impl Place {
    /// A place with these files of a database.
    fn with(files: &Files) -> Self {
        let place = Self::new();
        fs::create_dir(place.path.parent().expect("a directory")).expect("a directory");
        for (name, bytes) in files {
            fs::write(place.path.with_file_name(name), bytes).expect("a file");
        }
        place
    }

    /// What was set aside, one a directory.
    fn set_aside(&self) -> Vec<Files> {
        let entries = fs::read_dir(self.path.parent().expect("a directory")).expect("its entries");
        entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_dir())
            .map(|path| files(&path))
            .collect()
    }

    /// Opens what must be set aside, byte for byte but for the index of the write-ahead log, which SQLite makes anew.
    async fn open_damaged(&self) -> Database {
        let mut before = self.files();
        let database = self.open();
        before.remove("database.db.lock");
        let [mut aside] = <[Files; 1]>::try_from(self.set_aside()).expect("one");
        for files in [&mut before, &mut aside] {
            files.remove("database.db-shm");
        }
        assert!(aside == before, "byte for byte: {:?} of {:?}", aside.keys(), before.keys());
        assert_eq!(self.instruments.database_quarantined.get(), 1);
        database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit to the new one");
        assert_eq!(self.transitions(), [">SUBMITTED"]);
        database
    }
}

fn files(directory: &Path) -> Files {
    let paths = fs::read_dir(directory).expect("its entries").map(|entry| entry.expect("an entry").path());
    let paths = paths.filter(|path| path.is_file());
    paths
        .map(|path| (path.file_name().expect("a name").display().to_string(), fs::read(path).expect("a file")))
        .collect()
}

/// All that can be read: rows as they stand, and what a daemon goes on from, which it finds by index.
async fn read(place: &Place, database: &Database) -> String {
    let jobs = (0..JOBS).map(id).collect();
    let mut all = Vec::new();
    for jobs in [JobQuery::These(jobs), JobQuery::Recent { store: id(0).store_id(), ended_since: Timestamp::MIN }] {
        all.push(format!("{:?}", database.restore(jobs).await.expect("jobs")));
    }
    let by_job = (0..JOBS).map(|job| Filter::of_job(id(job).key.clone()));
    for filter in by_job.chain([Filter::default(), Filter { since: Some(at(5)), ..Filter::default() }]) {
        all.push(format!("{:?}", place.reader().rows::<Transition>(&filter).expect("rows")));
        all.push(format!("{:?}", place.reader().rows::<SourceTransition>(&filter).expect("rows")));
        all.push(format!("{:?}", place.reader().rows::<Detail>(&filter).expect("rows")));
    }
    all.concat()
}

const JOBS: u64 = 40;

/// Of the damaged databases, on how many a daemon is started.
const SERVED: usize = 4;

/// How soon a daemon is ready beside a damaged database.
const SERVES_MAX: Duration = Duration::from_secs(5);

/// The files of a database with a past: as they stand when the daemon was killed, and when it has closed it; and what they say.
async fn databases() -> ([Files; 2], String) {
    let place = Place::new();
    let database = place.open();
    for job in 0..JOBS {
        database.append(&id(job), &full(None, "IN_PROGRESS", 0)).await.expect("a commit");
    }
    for job in (0..JOBS).step_by(3) {
        database.append(&id(job), &transition(Some("IN_PROGRESS"), "FAILED", 1)).await.expect("a commit");
    }
    assert_eq!(database.delete_ended_before(at(2), BTreeSet::from([id(0)])).await.expect("a commit"), 13);
    database.close().await;
    let database = place.open();
    for job in (0..JOBS).step_by(4) {
        database.append(&id(job), &full(Some("IN_PROGRESS"), "COMPLETED", 9)).await.expect("a commit");
    }
    let said = read(&place, &database).await;
    let killed = place.files();
    assert!(killed["database.db-wal"].len() > 10_000, "what was recorded since the start is in the log alone");
    database.close().await;
    assert_eq!(place.instruments.database_quarantined.get(), 0, "a sound one stays, whatever was deleted from it");
    ([killed, place.files()], said)
}

/// One flip of a bit, or one truncation, at a place that the seed says.
fn damage(files: &mut Files, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let parts: Vec<_> =
        ["database.db", "database.db-wal"].into_iter().filter(|name| files.contains_key(*name)).collect();
    let part = random.choice(parts).expect("a part");
    let bytes = files.get_mut(part).expect("its bytes");
    // Every fifth in the header, which is small and says much.
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
async fn fault_076_damage_that_sqlite_sees_is_moved_aside_and_other_damage_stops_nothing() {
    let seeds = match number("DAMAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DAMAGE_SEEDS").unwrap_or(60),
    };
    let (databases, _) = databases().await;
    let (mut moved, mut kept, mut newer) = (Vec::new(), 0, 0);
    for seed in seeds {
        for mut files in databases.clone() {
            let what = damage(&mut files, seed);
            let again = format!("{what}: DAMAGE_SEED={seed} cargo test --test it fault_076_damage");
            let place = Place::with(&files);
            let mut database = match Database::open(&place.path, &place.instruments) {
                Ok(database) => database,
                // A bit of the version: reported, and left alone for a newer refwatch.
                Err(OpenError::NewerSchema { .. }) => {
                    newer += 1;
                    assert!(place.files()["database.db"] == files["database.db"], "left alone: {again}");
                    continue;
                }
                Err(error) => panic!("{error}: {again}"),
            };
            if place.instruments.database_quarantined.get() > 0 {
                let mut aside = place.set_aside().pop().expect("what was moved aside");
                aside.remove("database.db-shm");
                assert!(aside.iter().all(|(name, bytes)| files[name] == *bytes), "byte for byte: {again}");
                let whole = |name| aside.contains_key(name) == files.contains_key(name);
                assert!(whole("database.db") && whole("database.db-wal"), "whole: {again}");
                moved.push(files);
            } else {
                kept += 1;
            }
            // A page that is first read now may turn out damaged. The next start then checks the file.
            let change = full(Some("IN_PROGRESS"), "CANCELLED", 20);
            if database.append(&id(1), &change).await.is_err() {
                database.close().await;
                database = Database::open(&place.path, &place.instruments).expect(&again);
                assert_eq!(place.instruments.database_quarantined.get(), 1, "{again}");
                database.append(&id(1), &change).await.expect(&again);
            }
            database.close().await;
        }
    }
    let served: Vec<_> = moved.iter().step_by(moved.len() / SERVED + 1).map(serves_after).collect();
    let longest = served.iter().max().copied().unwrap_or_default();
    say(format_args!(
        "{} flipped bits and lost ends: {} moved aside whole at the start, {kept} not, {newer} a newer version's; \
        {} daemons started on damaged ones: ready after {} ms at most",
        moved.len() + kept + newer,
        moved.len(),
        served.len(),
        longest.as_millis()
    ));
    assert!(!moved.is_empty() || number("DAMAGE_SEED").is_some(), "no damage at all");
    assert!(number("DAMAGE_SEEDS").is_none() || longest <= SERVES_MAX, "ready only after {longest:?}");
}

/// How long a daemon takes from its start on these files until it is ready.
fn serves_after(files: &Files) -> Duration {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let config = scene.write("refwatch.toml", &config.replace("refwatch.db", "database.db"));
    for (name, bytes) in files {
        fs::write(scene.path(name), bytes).expect("a file");
    }
    let clock = Clock::system();
    let (_daemon, address) = scene.daemon(&config);
    eventually("ready", || (get(address, "/-/ready").0 == 200).then_some(()));
    let took = clock.now().monotonic.elapsed();
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(1.0));
    took
}

#[tokio::test]
async fn fault_076_what_is_no_record_is_set_aside_byte_for_byte() {
    let foreign = Place::with(&Files::new());
    foreign.shell().execute_batch("CREATE TABLE contacts (name TEXT)").expect("another application's");
    let foreign = foreign.files()["database.db"].clone();
    for bytes in [b"short".to_vec(), b"long\n".repeat(5000), foreign] {
        let place = Place::with(&Files::from([("database.db".to_owned(), bytes)]));
        place.open_damaged().await.close().await;
        place.open();
        assert_eq!(place.transitions(), [">SUBMITTED"], "the new one stays");
    }
}

#[tokio::test]
async fn fault_077_a_write_ahead_log_that_is_gone_or_of_another_database_stops_nothing() {
    let ([killed, closed], said) = databases().await;
    let whole = Place::with(&killed);
    assert!(read(&whole, &whole.open()).await == said);
    assert!(whole.set_aside().is_empty(), "a kill leaves no damage");

    let other = Place::new();
    let database = other.open();
    database.append(&id(7), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    let other = other.files()["database.db-wal"].clone();
    let log = &killed["database.db-wal"];
    for log in [None, Some(vec![]), Some(log[..log.len() / 2].to_vec()), Some(other)] {
        let mut files = killed.clone();
        files.remove("database.db-wal");
        files.extend(log.map(|log| ("database.db-wal".to_owned(), log)));
        let place = Place::with(&files);
        let database = place.open();
        database.append(&id(1), &transition(Some("IN_PROGRESS"), "FAILED", 20)).await.expect("a commit");
        database.close().await;
        place.open();
    }
    // A log whose database is gone is moved aside: SQLite would delete it.
    let mut files = killed.clone();
    files.remove("database.db");
    Place::with(&files).open_damaged().await;
    // An older copy of the database is taken as it is.
    files = closed.clone();
    files.insert("database.db".to_owned(), killed["database.db"].clone());
    let older = Place::with(&files);
    older.open().close().await;
    assert_eq!(older.set_aside().len(), 0);
}

#[tokio::test]
async fn rows_that_somebody_deleted_are_not_damage_and_tables_that_somebody_changed_are() {
    let ([_, closed], _) = databases().await;
    for sql in [
        "DELETE FROM transitions WHERE id = (SELECT min(id) FROM transitions)",
        "DELETE FROM item_transitions",
        "DELETE FROM details WHERE id = (SELECT max(id) FROM details)",
        "CREATE VIEW failed AS SELECT * FROM transitions WHERE to_status = 'FAILED'",
    ] {
        let place = Place::with(&closed);
        place.shell().execute_batch(sql).expect(sql);
        let database = place.open();
        database.append(&id(1), &transition(Some("IN_PROGRESS"), "FAILED", 20)).await.expect(sql);
        assert!(place.set_aside().is_empty(), "{sql}");
    }
    for sql in ["ALTER TABLE transitions RENAME COLUMN status_message TO message", "DROP TABLE details"] {
        let place = Place::with(&closed);
        place.shell().execute_batch(sql).expect(sql);
        place.open_damaged().await;
    }
}

#[tokio::test]
async fn a_record_whose_rows_were_all_deleted_is_sound() {
    let place = Place::new();
    for change in [None, Some(transition(None, "FAILED", 0))] {
        let database = place.open();
        if let Some(change) = change {
            database.append(&id(1), &change).await.expect("a commit");
        }
        database.delete_ended_before(at(1), BTreeSet::new()).await.expect("a commit");
        database.close().await;
        place.open().close().await;
        assert!(place.set_aside().is_empty());
    }
}

#[test]
fn fault_076_the_daemon_starts_beside_a_damaged_record() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let (config, database) = (scene.write("refwatch.toml", &config), scene.path("refwatch.db"));
    let transitions = || crate::truth::transitions(&database).len();
    let (daemon, address) = scene.daemon(&config);
    eventually("first sightings", || (transitions() >= 2).then_some(()));
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(0.0));
    drop(daemon);
    let database = scene.path("refwatch.db");
    fs::remove_file(scene.path("refwatch.db-wal")).expect("a log");
    fs::write(&database, b"damaged ".repeat(1024)).expect("damage");

    let (daemon, address) = scene.daemon(&config);
    eventually("ready", || (get(address, "/-/ready").0 == 200).then_some(()));
    eventually("first sightings again", || (transitions() >= 2).then_some(()));
    assert_eq!(metric(address, "refwatch_database_quarantined_total", &[]), Some(1.0));
    let log = daemon.stderr();
    let told = log.lines().find(|line| line.contains("event=\"database_quarantined\"")).expect("a line");
    assert!(told.contains("ERROR"), "{told}");
    let aside = PathBuf::from(crate::process::between(told, "moved_to=", " "));
    assert!(aside.starts_with(scene.path("")), "{told}");
    assert!(fs::read(aside.join("refwatch.db")).expect("the damaged file") == b"damaged ".repeat(1024));
}
