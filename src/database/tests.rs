//! The settings that durability stands on, and the way of what is known through the file and back.

use std::time::Duration;

use proptest::prelude::*;
use rusqlite::types::Value;

use super::*;
use crate::core::backoff::BackoffPolicy;
use crate::core::failure::{FailureReason, PollFailure, PollOutcome};
use crate::core::job::{JobKey, JobStatus, Snapshot, Source, SourceKey, SourceStatus};
use crate::core::time::{Monotonic, Now};
use crate::core::tracker::{JobWatch, PollPolicy};
use crate::core::transition::{Detail, DetailKind};

const POLICY: PollPolicy = PollPolicy {
    fixed: false,
    interval: Duration::from_secs(10),
    backoff: BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) },
};

#[test]
fn the_writer_syncs_every_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = connection::Locked::new(&directory.path().join("record.db")).expect("a lock");
    file.make().expect("a file");
    let connection = connection::connect(&file).expect("a record");
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
fn the_rows_of_a_job_are_found_by_index() {
    let mut connection = rusqlite::Connection::open_in_memory().expect("memory");
    schema::migrate(&mut connection, Path::new("")).expect("a schema");
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", memory::LOG)).expect("a plan");
    let steps = plan.query_map(["", "", ""], |row| row.get::<_, String>("detail")).expect("steps");
    let steps: Vec<String> = steps.map(|step| step.expect("a step")).collect();
    assert_eq!(
        steps.iter().filter(|step| step.contains("_of_job (reference_store_id=? AND ")).count(),
        3,
        "{steps:#?}"
    );
}

#[test]
fn every_index_is_read_alone_and_in_its_order() {
    let mut connection = rusqlite::Connection::open_in_memory().expect("memory");
    schema::migrate(&mut connection, Path::new("")).expect("a schema");
    let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'index'";
    assert_eq!(connection.query_one(count, [], |row| row.get::<_, u32>(0)), Ok(4));
    assert_eq!(indexes::INDEXES.len(), 4);
    for (index, table, columns) in indexes::INDEXES {
        let plan = format!("EXPLAIN QUERY PLAN {}", indexes::by_index(index, table, columns));
        let steps = connection.prepare(&plan).and_then(|mut plan| {
            plan.query_map([], |row| row.get::<_, String>("detail"))?.collect::<rusqlite::Result<Vec<_>>>()
        });
        assert_eq!(steps, Ok(vec![format!("SCAN {table} USING COVERING INDEX {index}")]));
    }
}

#[test]
fn an_index_that_lacks_a_row_or_has_it_elsewhere_is_noticed() {
    const OWN: &str = "CREATE INDEX details_of_job ON details (reference_store_id, import_job_id, target)";
    let mut connection = rusqlite::Connection::open_in_memory().expect("memory");
    schema::migrate(&mut connection, Path::new("")).expect("a schema");
    let rows = "INSERT INTO details (target, reference_store_id, import_job_id, kind, observed_at)
        VALUES ('b', '1', '1', '', ''), ('a', '1', '1', '', ''), ('a', '12', '1', '', ''), ('a', '1', '1', '', '')";
    connection.execute_batch(rows).expect("rows");
    assert_eq!(indexes::damage(&connection), Ok(None));
    connection.pragma_update(None, "writable_schema", true).expect("a setting");
    for (version, other) in (100..).zip([OWN.replace(')', " DESC)"), format!("{OWN} WHERE target = 'a'")]) {
        connection.execute_batch(&format!("DROP INDEX details_of_job; {other}")).expect("another index");
        let own = "UPDATE sqlite_schema SET sql = ? WHERE name = 'details_of_job'";
        connection.execute(own, [OWN]).expect("it passes for the own one");
        connection.pragma_update(None, "schema_version", version).expect("the schema, read again");
        let told = "the index details_of_job does not fit the rows of details".to_owned();
        assert_eq!(indexes::damage(&connection), Ok(Some(told)), "{other}");
    }
}

/// A time with digits that milliseconds lose.
fn time(seconds: i64, nanosecond: i32) -> Timestamp {
    Timestamp::new(1_700_000_000 + seconds, nanosecond).expect("in range")
}

fn to_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).expect("in range")
}

/// What the service may say of a job. What can change without a transition or a detail is tied to what cannot: the time
/// of creation is always there, that of completion goes with the status, the message of a source with the source's
/// status.
fn outcome() -> impl Strategy<Value = PollOutcome> {
    let source = (0..3_u32, 0..SourceStatus::KNOWN.len()).prop_map(|(nth, status)| {
        let status = SourceStatus::KNOWN[status].clone();
        let status_message = (status == SourceStatus::Failed).then(|| "it failed".to_owned());
        let key = SourceKey { name: "GRCh38".into(), source_file: "s3://a/b".into(), nth };
        (key, Source { status, status_message: status_message.map(Into::into) })
    });
    let status = prop_oneof![
        5 => (0..JobStatus::KNOWN.len()).prop_map(|status| JobStatus::KNOWN[status].clone()),
        1 => Just(JobStatus::from("PAUSED")),
    ];
    let message = proptest::option::of("[a-c\u{0}\u{e9}]{0,2}");
    let snapshot = (status, message, 0..2_i32, proptest::collection::vec(source, 0..3));
    let snapshot = snapshot.prop_map(|(status, status_message, created, sources)| Snapshot {
        completed_at: status.is_terminal().then(|| time(50, 123_456_789)),
        created_at: Some(time(-60, 987_654_000 + created)),
        sources: sources.into_iter().collect(),
        status,
        status_message,
    });
    let failure = prop_oneof![Just(FailureReason::NotFound), Just(FailureReason::Throttled)];
    let failure = failure.prop_map(|reason| PollFailure { reason, message: String::new(), retry_after: None });
    prop_oneof![4 => snapshot.prop_map(Ok), 1 => failure.prop_map(Err)]
}

/// One watch, and what the record should come to know of its job.
struct Model {
    id: Arc<WatchId>,
    watch: JobWatch,
    last_seen: Option<Timestamp>,
    transitions: [u32; 8],
    last_outcome: Option<(PollOutcome, Now)>,
}

impl Model {
    fn new(target: &str) -> Self {
        let key: JobKey = "1234567890/9876543210".parse().expect("two ids");
        let id = Arc::new(WatchId { target: target.into(), key });
        Self { id, watch: JobWatch::new(POLICY, None, 1), last_seen: None, transitions: [0; 8], last_outcome: None }
    }

    fn poll(&mut self, outcome: PollOutcome, now: Now) -> Change {
        let change = self.watch.handle_outcome(outcome.clone(), now).change;
        let seen = |kind| matches!(kind, DetailKind::StatusMessage | DetailKind::CreationTimeChanged);
        if change.transition.is_some() || !change.sources.is_empty() || change.details.iter().any(|it| seen(it.kind)) {
            self.last_seen = Some(now.wall);
        }
        if let Some(transition) = &change.transition {
            self.transitions[transition.to.index()] += 1;
        }
        self.last_outcome = Some((outcome, now));
        change
    }

    fn expected(&self) -> Option<Remembered> {
        let known = self.watch.known()?;
        let (since, last_seen) = (to_milliseconds(known.since), to_milliseconds(self.last_seen?));
        let vanished_at = known.vanished_at.map(to_milliseconds);
        let known = Known { since, last_seen, vanished_at, ..Known::clone(known) };
        Some(Remembered { known, transitions: self.transitions })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Two targets have a job of the same ids, every change is appended twice, and the wall clock goes wherever it
    /// likes.
    #[test]
    fn what_is_known_survives_the_process(
        script in proptest::collection::vec((0..2_usize, outcome(), 0..100_000_i64, 0..1_000_000_000_i32), 1..16),
    ) {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("record.db");
        let instruments = Instruments::new()?;
        let mut models = ["default", "other"].map(Model::new);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let remembered = runtime.block_on(async {
            let record = Record::open(&path, &instruments).expect("a record");
            for (step, (job, outcome, seconds, nanosecond)) in (0..).zip(script) {
                let monotonic = Monotonic::at(Duration::from_secs(100 * step));
                let change = models[job].poll(outcome, Now { monotonic, wall: time(seconds, nanosecond) });
                for _ in 0..2 {
                    record.append(&models[job].id, &change).await.expect("a commit");
                }
            }
            record.close().await;
            let ids = models.iter().map(|model| model.id.clone()).collect();
            let record = Record::open(&path, &instruments).expect("the same record");
            let remembered = record.remembered(Jobs::These(ids)).await.expect("its jobs");
            for model in &models {
                let (store, ended_since) = (model.id.store_id(), time(50_000, 0));
                let in_sight = record.remembered(Jobs::InSight { store, ended_since }).await.expect("its jobs");
                let lately = |known: &Known| !known.status.is_terminal() || known.since >= ended_since;
                let expected = remembered.get_key_value(&model.id).filter(|(_, job)| lately(&job.known));
                assert_eq!(in_sight.first_key_value(), expected);
            }
            remembered
        });
        for model in &models {
            let remembered = remembered.get(&model.id);
            prop_assert_eq!(remembered.cloned(), model.expected());
            if let Some((outcome, now)) = &model.last_outcome {
                let mut watch = JobWatch::new(POLICY, remembered.map(|remembered| remembered.known.clone().into()), 1);
                let change = watch.handle_outcome(outcome.clone(), *now).change;
                prop_assert_eq!(change, Change::default(), "what was said before is no news after a restart");
            }
        }
    }
}

#[test]
fn the_rows_of_an_older_record_get_their_hashes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("record.db");
    schema::make_older(&path, 1);
    let shell = rusqlite::Connection::open(&path).expect("a connection");
    for id in 1..=3 {
        let insert = "INSERT INTO details (id, target, reference_store_id, import_job_id, kind, observed_at)
            VALUES (?, 'default', '1234567890', '9876543210', 'still_seen', '2023-11-14T22:13:20.000Z')";
        shell.execute(insert, [2 * id]).expect("a row");
    }
    drop(shell);
    let file = connection::Locked::new(&path).expect("a lock");
    file.make().expect("a file");
    let connection = connection::connect(&file).expect("a record");
    assert_eq!(chain::damage(&connection, None), Ok(None));
    let last = chain::last(&connection).expect("a row");
    assert_eq!((last.id, chain::damage(&connection, Some(last))), (6, Ok(None)));
    let hashes: i64 =
        connection.query_one("SELECT count(DISTINCT hash) FROM details", [], |row| row.get(0)).expect("rows");
    assert_eq!(hashes, 3);
    connection.execute("UPDATE details SET value = 'x' WHERE id = 4", []).expect("damage");
    let told = "row 4 of details is not as it was written, or not after row 2".to_owned();
    assert_eq!(chain::damage(&connection, None), Ok(Some(told)));
}

#[test]
fn damage_beside_a_deleted_row_stays_noticed() {
    let mut connection = rusqlite::Connection::open_in_memory().expect("memory");
    schema::migrate(&mut connection, Path::new("")).expect("a schema");
    let job = |job: &str| WatchId {
        target: "default".into(),
        key: format!("1234567890/000000000{job}").parse().expect("two ids"),
    };
    let transaction = connection.transaction().expect("a transaction");
    let mut last = chain::Link::default();
    for (id, kind) in [("1", DetailKind::Vanished), ("2", DetailKind::Returned), ("3", DetailKind::Vanished)] {
        let details = vec![Detail { kind, value: None, observed_at: time(0, 0) }];
        let change = Change { details, ..Change::default() };
        last = rows::append(&transaction, last, &job(id), &change).expect("rows");
    }
    transaction.execute("UPDATE details SET value = 'x' WHERE id = 3", []).expect("damage");
    let mut deleted = transaction.prepare("DELETE FROM details WHERE id = 2 RETURNING id, hash").expect("a deletion");
    let deleted = deleted.query_one([], |row| Ok((row.get(0)?, row.get(1)?))).expect("a row");
    chain::close(&transaction, &[deleted]).expect("a chain");
    let told = "row 3 of details is not as it was written, or not after row 1".to_owned();
    assert_eq!(chain::damage(&transaction, None), Ok(Some(told)));
    transaction.execute("UPDATE details SET value = NULL WHERE id = 3", []).expect("mended");
    assert_eq!(chain::damage(&transaction, None), Ok(None));
}

#[test]
fn a_sealed_record_is_taken_as_it_is_and_any_other_is_checked() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = connection::Locked::new(&directory.path().join("record.db")).expect("a lock");
    let opened = || connection::connect(&file).map(drop).map_err(|error| error.to_string());
    let shell = |sql| rusqlite::Connection::open(&file.path).expect("a connection").execute_batch(sql).expect(sql);
    file.make().expect("a file");
    opened().expect("a new one");
    let mut connection = rusqlite::Connection::open(&file.path).expect("a connection");
    let transaction = connection.transaction().expect("a transaction");
    let detail = Detail { kind: DetailKind::StillSeen, value: None, observed_at: time(0, 0) };
    let change = Change { details: vec![detail.clone(), detail], ..Change::default() };
    let last = rows::append(&transaction, chain::Link::default(), &Model::new("default").id, &change).expect("rows");
    transaction.commit().expect("a commit");
    file.set_mark(last).expect("a mark");
    drop(connection);
    file.seal().expect("a sound record");
    opened().expect("what was sealed");
    shell("UPDATE details SET value = 'x' WHERE id = 1");
    opened().expect_err("changed since");
    file.seal().expect_err("not sound");
    opened().expect_err("not sealed");
    file.set_seal().expect("a seal");
    opened().expect("what was sealed is not looked at again");
    file.set_mark(chain::Link { id: last.id + 1, ..last }).expect("a mark");
    opened().expect_err("sealed before its last row");
}
