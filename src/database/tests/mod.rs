//! Settings, indexes, migrations, detection of an unclean stop, unreadable rows, and a property test of restored states.

mod deliveries;

use std::time::Duration;

use proptest::prelude::*;
use rusqlite::types::Value;

use super::*;
use crate::core::backoff::BackoffPolicy;
use crate::core::failure::{FailureReason, PollResult, RequestFailure};
use crate::core::job::{Item, ItemKey, ItemStatus, JobKey, JobStatus, Snapshot};
use crate::core::time::{Monotonic, Now};
use crate::core::tracker::{JobTracker, PollPolicy};
use crate::core::transition::{DetailKind, Transition};

const POLICY: PollPolicy = PollPolicy {
    is_interval_set: false,
    interval: Duration::from_secs(10),
    backoff: BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) },
};

#[test]
fn the_writer_uses_wal_full_sync_and_an_untrusted_schema() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut file = file::DatabaseFile::acquire(&directory.path().join("database.db")).expect("a lock");
    let connection = file.connect().expect("a database");
    for (setting, value) in [
        ("journal_mode", Value::from("wal".to_owned())),
        ("synchronous", Value::from(2)),
        ("trusted_schema", Value::from(0)),
    ] {
        let found: Value = connection.pragma_query_value(None, setting, |row| row.get(0)).expect(setting);
        assert_eq!(found, value, "{setting}");
    }
}

#[test]
fn the_rows_of_a_job_are_found_by_an_index() {
    let mut connection = rusqlite::Connection::open_in_memory().expect("memory");
    schema::migrate(&mut connection, Path::new("")).expect("a schema");
    for table in ["transitions", "item_transitions", "details", "deliveries"] {
        let plan = format!("EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE {}", changes::OF_JOB);
        let step: String = connection.query_one(&plan, [""; 4], |row| row.get("detail")).expect("a step");
        assert!(step.contains("_of_job (store_id=? AND "), "{step}");
    }
}

/// A time with nanoseconds.
fn time(seconds: i64, nanosecond: i32) -> Timestamp {
    Timestamp::new(1_700_000_000 + seconds, nanosecond).expect("in range")
}

fn to_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).expect("in range")
}

/// An outcome of a poll. Avoids changes that are not saved: a change of only the completion time, a change of only the message of an item,
/// and a creation time that was missing before.
fn outcome() -> impl Strategy<Value = PollResult> {
    let item = (0..3_u32, 0..ItemStatus::DOCUMENTED.len()).prop_map(|(nth, status)| {
        let status = ItemStatus::DOCUMENTED[status].clone();
        let status_message = (status == ItemStatus::Failed).then(|| "it failed".to_owned());
        let key = ItemKey { name: "GRCh38".into(), source_file: "s3://a/b".into(), nth };
        (key, Item { status, status_message: status_message.map(Into::into) })
    });
    let status = prop_oneof![
        5 => (0..JobStatus::DOCUMENTED.len()).prop_map(|status| JobStatus::DOCUMENTED[status].clone()),
        1 => Just(JobStatus::from("PAUSED")),
    ];
    let message = proptest::option::of("[a-c\u{0}\u{e9}]{0,2}");
    let snapshot = (status, message, 0..2_i32, proptest::collection::vec(item, 0..3));
    let snapshot = snapshot.prop_map(|(status, status_message, created, items)| Snapshot {
        completed_at: status.is_terminal().then(|| time(50, 123_456_789)),
        created_at: Some(time(-60, 987_654_000 + created)),
        items: items.into_iter().collect(),
        exceeded_limits: Vec::new(),
        status,
        status_message,
    });
    let failure = prop_oneof![Just(FailureReason::NotFound), Just(FailureReason::Throttled)];
    let failure = failure.prop_map(|reason| RequestFailure { reason, message: String::new(), retry_after: None });
    prop_oneof![4 => snapshot.prop_map(Ok), 1 => failure.prop_map(Err)]
}

/// The tracker of one job, and its last poll and time.
struct Model {
    id: Arc<TargetJob>,
    tracker: JobTracker,
    last_seen: Option<Timestamp>,
    last_outcome: Option<(PollResult, Now)>,
}

impl Model {
    fn new(target: &str) -> Self {
        let key: JobKey = "1234567890/9876543210".parse().expect("two ids");
        let id = Arc::new(TargetJob { target: target.into(), key });
        Self { id, tracker: JobTracker::new(POLICY, None, 1), last_seen: None, last_outcome: None }
    }

    fn poll(&mut self, outcome: PollResult, now: Now) -> Change {
        let change = self.tracker.handle(outcome.clone(), now).change;
        let seen = |kind| !matches!(kind, DetailKind::Vanished | DetailKind::Returned);
        if change.transition.is_some() || !change.items.is_empty() || change.details.iter().any(|it| seen(it.kind)) {
            self.last_seen = Some(now.wall);
        }
        self.last_outcome = Some((outcome, now));
        change
    }

    fn expected(&self) -> Option<JobState> {
        let state = self.tracker.state()?;
        let (since, last_seen) = (to_milliseconds(state.since), to_milliseconds(self.last_seen?));
        let vanished_at = state.vanished_at.map(to_milliseconds);
        Some(JobState { since, last_seen, vanished_at, ..JobState::clone(state) })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Two targets have a job with the same ids, every change is appended twice, and the wall clock jumps.
    #[test]
    fn the_state_of_jobs_survives_a_restart(
        script in proptest::collection::vec((0..2_usize, outcome(), 0..100_000_i64, 0..1_000_000_000_i32), 1..16),
    ) {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("database.db");
        let instruments = Instruments::new()?;
        let mut models = ["default", "other"].map(Model::new);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let restored = runtime.block_on(async {
            let database = Database::open(&path, &instruments).expect("a database");
            for (step, (job, outcome, seconds, nanosecond)) in (0..).zip(script) {
                let monotonic = Monotonic::at(Duration::from_secs(100 * step));
                let change = models[job].poll(outcome, Now { monotonic, wall: time(seconds, nanosecond) });
                for _ in 0..2 {
                    database.append(&models[job].id, &change).await.expect("a commit");
                }
            }
            database.close().await;
            let ids = models.iter().map(|model| model.id.clone()).collect();
            let database = Database::open(&path, &instruments).expect("the same database");
            let restored = database.load_states(JobQuery::These(ids)).await.expect("its jobs");
            for model in &models {
                let (target_store, ended_since) = (model.id.target_store(), time(50_000, 0));
                let found = database.load_states(JobQuery::Retained { target_store, ended_since }).await.expect("its jobs");
                let is_selected = |state: &JobState| !state.status.is_terminal() || state.since >= ended_since;
                let expected = restored.get_key_value(&model.id).filter(|(_, state)| is_selected(state));
                assert_eq!(found.first_key_value(), expected);
            }
            restored
        });
        for model in &models {
            let restored = restored.get(&model.id);
            prop_assert_eq!(restored.cloned(), model.expected());
            if let Some((outcome, now)) = &model.last_outcome {
                let mut tracker = JobTracker::new(POLICY, restored.cloned().map(Arc::new), 1);
                let change = tracker.handle(outcome.clone(), *now).change;
                prop_assert_eq!(change, Change::default(), "a repeated outcome changes nothing after a restart");
            }
        }
    }
}

#[test]
fn the_rows_of_an_older_database_are_kept_by_the_migration() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("database.db");
    for version in 1..schema::VERSION {
        schema::create_version(&path, version);
        let insert = "
            INSERT INTO transitions (id, target, reference_store_id, import_job_id, to_status, observed_at)
            VALUES (1, 'default', '1234567890', '9876543210', 'IN_PROGRESS', '2023-11-14T22:13:20.000Z');
            INSERT INTO source_transitions
                (id, target, reference_store_id, import_job_id, name, source_file, nth, to_status, observed_at)
            VALUES (2, 'default', '1234567890', '9876543210', 'GRCh38', 's3://a/b', 0, 'FINISHED', '2023-11-14T22:13:20.000Z');
            INSERT INTO details (id, target, reference_store_id, import_job_id, kind, observed_at)
            VALUES (3, 'default', '1234567890', '9876543210', 'vanished', '2023-11-14T22:13:21.000Z');";
        // The names of version 3. In the third table, `kind` became `detail`.
        let renamed = insert
            .replace("source_transitions", "item_transitions")
            .replace("import_job_id, kind", "import_job_id, detail");
        let renamed = renamed.replace("reference_store_id, import_job_id", "kind, store_id, job_id");
        let renamed = renamed.replace("'default'", "'default', 'reference_import'");
        let insert = if version < 3 { insert } else { &renamed };
        rusqlite::Connection::open(&path).expect("a connection").execute_batch(insert).expect("a row");
        let older = DatabaseReader::new(&path).rows::<Transition>(&Filter::default()).expect_err("an older schema");
        assert!(matches!(older, ReadError::Open(FileError::OlderSchema { .. })), "{older}");
        drop(file::DatabaseFile::acquire(&path).and_then(|mut file| file.connect()).expect("a database"));
        let json =
            serde_json::to_string(&DatabaseReader::new(&path).rows::<Transition>(&Filter::default()).expect("rows"));
        let start =
            r#"[{"id":1,"target":"default","kind":"reference_import","store_id":"1234567890","job_id":"9876543210""#;
        assert!(json.as_ref().is_ok_and(|json| json.starts_with(start)), "{json:?}");
        let connection = rusqlite::Connection::open(&path).expect("a connection");
        let id = Model::new("default").id;
        let state = &queries::load_states(&connection, JobQuery::These(vec![Arc::clone(&id)])).expect("the job")[&id];
        assert_eq!(state.items.values().next().map(|item| &item.status), Some(&ItemStatus::Finished));
        assert!(state.vanished_at.is_some());
        std::fs::remove_file(&path).expect("a file");
    }
}

#[test]
fn an_unclean_stop_is_recognised_by_the_process_id() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("database.db");
    let instruments = Instruments::new().expect("instruments");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let lock_file = || std::fs::read_to_string(directory.path().join("database.db.lock")).expect("a lock file");
    runtime.block_on(Database::open(&path, &instruments).expect("a database").close());
    assert_eq!(lock_file(), "", "closed");
    drop(file::DatabaseFile::acquire(&path).and_then(|mut file| file.connect()).expect("a database"));
    assert_eq!(lock_file().trim_end(), std::process::id().to_string(), "not closed by the writer");
    // SQLite's check reads every page. Without the check, opening reads only the schema.
    let length = std::fs::metadata(&path).expect("a file").len();
    let file = std::fs::File::options().write(true).open(&path).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xFF; 512], length - 4096).expect("damage");
    runtime.block_on(Database::open(&path, &instruments).expect("a new database").close());
    assert_eq!(instruments.database_quarantined.get(), 1);
}

#[test]
fn a_row_that_cannot_be_read_is_skipped() {
    let mut connection = rusqlite::Connection::open_in_memory().expect("memory");
    schema::migrate(&mut connection, Path::new("")).expect("a schema");
    for (id, observed_at) in [(1, "2023-11-14T22:13:20.000Z"), (2, "damaged"), (3, "2023-11-14T22:13:21.000Z")] {
        let insert = "INSERT INTO transitions (id, target, kind, store_id, job_id, to_status, observed_at)
            VALUES (?, 'default', 'reference_import', '1234567890', '9876543210', 'IN_PROGRESS', ?)";
        connection.execute(insert, rusqlite::params![id, observed_at]).expect("a row");
    }
    let id = Model::new("default").id;
    let states = queries::load_states(&connection, JobQuery::These(vec![Arc::clone(&id)])).expect("the job");
    assert_eq!(states[&id].last_seen.to_string(), "2023-11-14T22:13:21Z");
}
