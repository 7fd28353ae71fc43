//! The SQLite database on a real disk: durability, locking, schema versions, retention, queries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser as _;
use refwatch::cli::{CommandLine, Exit};
use refwatch::core::job::{Item, ItemKey, ItemStatus, JobStatus, TargetJob};
use refwatch::core::time::Timestamp;
use refwatch::core::transition::{Change, Detail, DetailKind, ItemTransition, Transition};
use refwatch::database::{Database, DatabaseReader, FileError, Filter, ReadError, Row, RowLimit, WriterError};
use refwatch::instruments::Instruments;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::process::open_when_unlocked;

/// A database in a directory of its own, with its instruments.
pub(crate) struct TestDatabase {
    pub(crate) directory: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) instruments: Instruments,
}

impl TestDatabase {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state #1?%/database.db");
        fs::create_dir(path.parent().expect("a directory")).expect("a directory");
        Self { directory, path, instruments: Instruments::new().expect("names") }
    }

    pub(crate) fn open(&self) -> Database {
        open_when_unlocked(&self.path, &self.instruments).expect("a database")
    }

    pub(crate) fn open_error(&self) -> FileError {
        open_when_unlocked(&self.path, &self.instruments).expect_err("a rejection")
    }

    pub(crate) fn reader(&self) -> DatabaseReader {
        DatabaseReader::new(&self.path)
    }

    /// `from>to` of each transition.
    pub(crate) fn transitions(&self) -> Vec<String> {
        let rows = self.reader().rows::<Transition>(&Filter::default()).expect("rows");
        let from = |row: &Row<Transition>| row.value.from.as_ref().map(ToString::to_string).unwrap_or_default();
        rows.iter().map(|row| format!("{}>{}", from(row), row.value.to)).collect()
    }

    /// The files in the database's directory with their content; not those in quarantine.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path.parent().expect("a directory")).expect("entries");
        let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
        paths
            .map(|path| (path.file_name().expect("a name").display().to_string(), fs::read(path).expect("a file")))
            .collect()
    }

    /// A connection as another program opens it.
    pub(crate) fn shell(&self) -> Connection {
        Connection::open(&self.path).expect("a connection")
    }

    pub(crate) fn count(&self, table: &str) -> i64 {
        self.shell().query_one(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a number")
    }
}

pub(crate) fn id(job: u64) -> Arc<TargetJob> {
    Arc::new(TargetJob { target: "default".into(), key: format!("1234567890/{job:010}").parse().expect("two ids") })
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + seconds, 123_456_789).expect("in range")
}

pub(crate) fn transition(from: Option<&str>, to: &str, seconds: i64) -> Change {
    let transition = Transition {
        from: from.map(JobStatus::from),
        to: JobStatus::from(to),
        observed_at: at(seconds),
        not_before: from.map(|_| at(seconds - 10)),
        status_message: None,
        created_at: Some(at(-60)),
        completed_at: None,
        anomaly: None,
        watch: None,
    };
    Change { transition: Some(transition), ..Change::default() }
}

/// A change with sources and details.
pub(crate) fn full_change(from: Option<&str>, to: &str, seconds: i64) -> Change {
    let source = |nth| ItemTransition {
        key: ItemKey { name: "GRCh38".into(), source_file: "s3://bucket/GRCh38.fa".into(), nth },
        from: None,
        to: Some(Item { status: ItemStatus::Failed, status_message: Some("not a FASTA file".into()) }),
        observed_at: at(seconds),
    };
    let detail = |kind, value: Option<&str>| Detail { kind, value: value.map(str::to_owned), observed_at: at(seconds) };
    Change {
        items: vec![source(0), source(1)],
        details: vec![detail(DetailKind::Returned, None), detail(DetailKind::StatusMessage, Some("slow"))],
        ..transition(from, to, seconds)
    }
}

#[tokio::test]
async fn an_acknowledged_change_is_stored_in_the_documented_columns() {
    let db = TestDatabase::new();
    let database = db.open();
    database.append(&id(1), &transition(None, "SUBMITTED", 0)).await.expect("a commit");
    database.append(&id(1), &full_change(Some("SUBMITTED"), "FAILED", 10)).await.expect("a commit");
    let columns = "id, target, kind, store_id, job_id, from_status, to_status, observed_at, not_before,
        status_message, created_at, completed_at, anomaly";
    let row = db.shell().query_one(
        &format!("SELECT concat_ws(' ', {columns}) FROM transitions ORDER BY id DESC LIMIT 1"),
        [],
        |row| row.get::<_, String>(0),
    );
    assert_eq!(
        row.as_deref(),
        Ok(
            "2 default reference_import 1234567890 0000000001 SUBMITTED FAILED 2023-11-14T22:13:30.123Z 2023-11-14T22:13:20.123Z \
            2023-11-14T22:12:20.123456789Z"
        )
    );
    let job = Filter::of_job(id(1).key.clone());
    let items = db.reader().rows::<ItemTransition>(&job).expect("rows");
    let items: Vec<_> = items
        .iter()
        .filter_map(|row| Some((row.id, row.value.key.nth, row.value.to.as_ref()?)))
        .map(|(id, nth, to)| (id, nth, to.status.as_str(), to.status_message.as_deref()))
        .collect();
    assert_eq!(items, [(3, 0, "FAILED", Some("not a FASTA file")), (4, 1, "FAILED", Some("not a FASTA file"))]);
    let details = db.reader().rows::<Detail>(&job).expect("rows");
    let details: Vec<_> =
        details.iter().map(|row| (row.id, row.value.kind.as_str(), row.value.value.as_deref())).collect();
    assert_eq!(details, [(5, "returned", None), (6, "status_message", Some("slow"))]);
    assert_eq!(fs::metadata(&db.path).expect("metadata").permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn fault_094_a_second_writer_is_rejected_with_the_process_id_of_the_first() {
    let db = TestDatabase::new();
    let database = db.open();
    let before = db.files();
    let open_error = Database::open(&db.path, &db.instruments).expect_err("a rejection");
    assert!(matches!(open_error, FileError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{open_error}");
    let expected = format!("{}: the database is in use by process {}", db.path.display(), std::process::id());
    assert_eq!(open_error.to_string(), expected);
    let link = db.directory.path().join("link.db");
    std::os::unix::fs::symlink(&db.path, &link).expect("a link");
    assert!(matches!(Database::open(&link, &db.instruments), Err(FileError::InUse { .. })), "opened by another path");
    assert_eq!(db.files(), before);
    let clone = database.clone();
    database.close().await;
    db.open();
    let late = clone.append(&id(1), &transition(None, "SUBMITTED", 0)).await;
    assert!(matches!(late, Err(WriterError::Stopped)), "{late:?}");
}

#[tokio::test]
async fn fault_078_a_newer_schema_is_rejected_and_the_file_is_unchanged() {
    let db = TestDatabase::new();
    db.open().close().await;
    db.shell().pragma_update(None, "user_version", 99).expect("a later schema");
    let database = |db: &TestDatabase| db.files()["database.db"].clone();
    let before = database(&db);
    let open_error = db.open_error();
    assert!(matches!(open_error, FileError::NewerSchema { found: 99, known: 7, .. }), "{open_error}");
    assert!(database(&db) == before);
    let open_error = db.reader().rows::<Transition>(&Filter::default()).expect_err("a rejection");
    assert!(matches!(open_error, ReadError::Open(FileError::NewerSchema { .. })), "{open_error}");

    // The newer program was killed: the new schema is only in the write-ahead log.
    let killed = TestDatabase::new();
    killed.open().close().await;
    let shell = killed.shell();
    shell.pragma_update(None, "user_version", 99).expect("a later schema");
    let copy = TestDatabase::new();
    for (name, bytes) in killed.files().into_iter().filter(|(name, _)| !name.ends_with("-shm")) {
        fs::write(copy.path.with_file_name(name), bytes).expect("a copy");
    }
    let before = copy.files();
    assert!(!before["database.db-wal"].is_empty() && before["database.db"][60..64] != [0, 0, 0, 99]);
    let open_error = copy.open_error();
    assert!(matches!(open_error, FileError::NewerSchema { found: 99, .. }), "{open_error}");
    for name in ["database.db", "database.db-wal"] {
        assert!(copy.files()[name] == before[name], "{name} is unchanged");
    }
}

#[tokio::test]
async fn changes_in_a_burst_share_a_commit_and_are_all_acknowledged() {
    let db = TestDatabase::new();
    let database = db.open();
    let mut shell = db.shell();
    let block = shell.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("a lock");
    let mut burst = JoinSet::new();
    for job in 0..50 {
        let database = database.clone();
        burst.spawn(async move { database.append(&id(job), &transition(None, "SUBMITTED", 0)).await });
    }
    // After one yield all 50 changes are queued, and the writer waits for the lock with the first.
    tokio::task::yield_now().await;
    drop(block);
    for acknowledged in burst.join_all().await {
        acknowledged.expect("a commit");
    }
    assert_eq!(db.count("transitions"), 50);
    let commits = db.instruments.database_commits.get();
    assert!(commits <= 2, "{commits} commits");
}

#[tokio::test]
async fn a_failed_commit_fails_all_its_changes_and_a_retry_duplicates_nothing() {
    let db = TestDatabase::new();
    let database = db.open();
    let sabotage = "CREATE TRIGGER sabotage BEFORE INSERT ON details BEGIN SELECT RAISE(ABORT, 'no space'); END";
    db.shell().execute_batch(sabotage).expect("a trigger");
    let (first, second) = (full_change(None, "SUBMITTED", 0), transition(None, "SUBMITTED", 0));
    let error = database.append(&id(1), &first).await.expect_err("to fail");
    assert_eq!(error.to_string(), "no space");
    assert_eq!((db.count("transitions"), db.instruments.database_failures.get()), (0, 1), "all or nothing");
    db.shell().execute_batch("DROP TRIGGER sabotage").expect("a dropped trigger");
    // A commit can fail after the rows were written. The retry must find them.
    let only_items = Change { items: full_change(None, "", 5).items, ..Change::default() };
    let only_details = Change { details: full_change(None, "", 6).details, ..Change::default() };
    for change in [&first, &only_items, &only_details] {
        for _ in 0..2 {
            database.append(&id(1), change).await.expect("a commit");
            database.append(&id(2), &second).await.expect("a commit");
        }
    }
    let counts = ["transitions", "item_transitions", "details"].map(|table| db.count(table));
    assert_eq!(counts, [2, 4, 4]);
}

#[tokio::test]
async fn fault_120_the_wal_shrinks_after_a_reader_that_stayed_open() {
    const LIMIT: u64 = 4 << 20;
    let db = TestDatabase::new();
    let database = db.open();
    let wal = || fs::metadata(db.path.with_extension("db-wal")).expect("a WAL").len();
    let append = async |seconds: i64| {
        let mut change = transition(Some("SUBMITTED"), "IN_PROGRESS", seconds);
        change.transition.as_mut().expect("a transition").status_message = Some("x".repeat(1 << 20));
        database.append(&id(1), &change).await.expect("a commit");
    };
    append(0).await;
    let reader = Connection::open(&db.path).expect("a reader");
    reader.execute_batch("BEGIN; SELECT count(*) FROM transitions").expect("a read transaction");
    for seconds in 1..10 {
        append(seconds).await;
    }
    assert!(wal() > 2 * LIMIT, "{}", wal());
    drop(reader);
    for seconds in 10..12 {
        append(seconds).await;
    }
    assert!(wal() <= LIMIT, "{}", wal());
}

#[tokio::test]
async fn transitions_with_equal_times_are_all_stored() {
    let db = TestDatabase::new();
    let database = db.open();
    let changes =
        [(None, "FAILED"), (Some("FAILED"), "SUBMITTED"), (Some("SUBMITTED"), "FAILED"), (Some("FAILED"), "SUBMITTED")];
    for (from, to) in changes {
        database.append(&id(1), &transition(from, to, 0)).await.expect("a commit");
    }
    assert_eq!(db.transitions(), [">FAILED", "FAILED>SUBMITTED", "SUBMITTED>FAILED", "FAILED>SUBMITTED"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_consistent_data_during_writes_and_leave_no_files() {
    const LAST: i64 = 200;
    let db = TestDatabase::new();
    let database = db.open();
    let mut writing = JoinSet::new();
    let writer = database.clone();
    writing.spawn(async move {
        for number in 1..=LAST {
            writer.append(&id(1), &transition(None, &format!("S{number}"), number)).await.expect("a commit");
        }
    });
    let reader = db.reader();
    let mut seen = 0;
    while seen < LAST {
        let rows = reader.rows::<Transition>(&Filter::default()).expect("rows");
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let now = i64::try_from(ids.len()).expect("few");
        assert!(now >= seen && ids == (1..=now).collect::<Vec<_>>(), "{seen} rows, then {ids:?}");
        seen = now;
    }
    writing.join_all().await;
    database.close().await;
    let before = db.files();
    assert_eq!(before.keys().collect::<Vec<_>>(), ["database.db", "database.db.lock"]);
    let numbers = |filter: Filter| {
        let rows = reader.rows::<Transition>(&filter).expect("rows");
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let key = id(1).key.clone();
    let numbers_with = |limit| numbers(Filter { limit: Some(limit), ..Filter::default() });
    assert_eq!(numbers_with(RowLimit::Latest(2)), [199, 200], "the latest rows in order");
    assert_eq!(numbers_with(RowLimit::Oldest(2)), [1, 2]);
    assert_eq!(numbers(Filter { after: Some(198), ..Filter::default() }), [199, 200]);
    assert_eq!(numbers(Filter { since: Some(at(198)), ..Filter::of_job(key.clone()) }), [198, 199, 200]);
    assert_eq!(
        numbers(Filter { store_id: Some(key.store), limit: Some(RowLimit::Latest(1)), ..Filter::default() }),
        [200]
    );
    assert_eq!(numbers(Filter::of_job(id(2).key.clone())), [0; 0]);
    assert_eq!(db.files(), before);
}

#[tokio::test]
async fn only_jobs_that_ended_before_the_limit_are_deleted() {
    let db = TestDatabase::new();
    let database = db.open();
    let many = 4..=204;
    let mut jobs = JoinSet::new();
    for job in many.clone() {
        let database = database.clone();
        jobs.spawn(async move { database.append(&id(job), &full_change(None, "COMPLETED", 10)).await });
    }
    for done in jobs.join_all().await {
        done.expect("a commit");
    }
    for (job, from, to, seconds) in [
        (1, None, "IN_PROGRESS", 0),
        (3, None, "IN_PROGRESS", 10),
        (3, Some("IN_PROGRESS"), "CANCELLED", 100),
        (2, None, "FAILED", 0),
        (2, Some("FAILED"), "IN_PROGRESS", 10),
    ] {
        database.append(&id(job), &full_change(from, to, seconds)).await.expect("a commit");
    }
    assert_eq!(database.delete_ended_before(at(100), BTreeSet::new()).await.expect("a commit"), many.count());
    assert_eq!(
        db.transitions(),
        [">IN_PROGRESS", ">IN_PROGRESS", "IN_PROGRESS>CANCELLED", ">FAILED", "FAILED>IN_PROGRESS"],
        "live, reopened and recently ended jobs"
    );
    assert_eq!((db.count("item_transitions"), db.count("details")), (10, 10));
    assert_eq!(
        database.delete_ended_before(at(101), BTreeSet::from([id(3)])).await.expect("a commit"),
        0,
        "watched jobs are kept"
    );
    assert_eq!(database.delete_ended_before(at(101), BTreeSet::new()).await.expect("a commit"), 1);
}

#[tokio::test]
async fn fault_143_the_id_of_a_deleted_row_is_not_used_again() {
    let db = TestDatabase::new();
    let ids = || db.reader().rows::<Transition>(&Filter::default()).expect("rows").iter().map(|row| row.id).collect();
    for round in 1..=3 {
        let database = db.open();
        database.append(&id(round), &full_change(None, "COMPLETED", 0)).await.expect("a commit");
        let before: Vec<i64> = ids();
        database.delete_ended_before(at(1), BTreeSet::new()).await.expect("a commit");
        assert_eq!(ids(), before[before.len() - 1..], "only the job with the last row is kept");
        database.append(&id(round + 10), &transition(None, "COMPLETED", 0)).await.expect("a commit");
        let (last, after): (i64, Vec<i64>) = (before[before.len() - 1], ids());
        assert!(after[after.len() - 1] > last, "{before:?} {after:?}");
        database.close().await;
    }
}

#[tokio::test]
async fn history_requires_a_database_and_creates_none() {
    let db = TestDatabase::new();
    let history = async |path: &Path| {
        let line = ["refwatch", "history", "1234567890/0000000001", "--json", "--since", "1d", "--database"];
        let line = line.map(Into::into).into_iter().chain([path.as_os_str().to_owned()]);
        Box::pin(CommandLine::try_parse_from(line).expect("a command line").run()).await
    };
    let failure = history(&db.path).await.expect_err("no database");
    let expected = format!("error: {}: there is no database", db.path.display());
    assert_eq!((failure.exit, failure.message), (Exit::Failed, expected));
    assert!(db.files().is_empty());
    db.open().close().await;
    assert_eq!(history(&db.path).await.expect("an empty result"), Exit::Done);
}
