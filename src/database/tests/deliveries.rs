//! The queue of a sink: the cursor, order within a job, retries, replays, and the events that a new sink does not receive.

use std::time::Duration;

use super::super::*;
use crate::core::event::{EventFilter, EventType};
use crate::core::job::{Item, ItemKey, ItemStatus, JobStatus};
use crate::core::transition::{Detail, DetailKind, ItemTransition, Transition, WatchInfo};

const NOW: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).expect("a time")
}

fn target_job(job: u32) -> TargetJob {
    TargetJob { target: "default".into(), key: format!("1234567890/{job:010}").parse().expect("a job") }
}

/// A database with the sink `hook`, which wants every event of the watch `GRCh38`.
struct Queue {
    database: Database,
    directory: tempfile::TempDir,
}

impl Queue {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let instruments = Instruments::new().expect("metrics");
        let database = Database::open(&directory.path().join("database.db"), &instruments).expect("a database");
        let queue = Self { database, directory };
        queue.synchronize(&[("hook", "1")]).await;
        queue
    }

    async fn synchronize(&self, sinks: &[(&str, &str)]) {
        let sinks = sinks.iter().map(|(name, hash)| ((*name).into(), (*hash).to_owned())).collect();
        self.database.synchronize_sinks(sinks, at(0)).await.expect("a commit");
    }

    async fn transition(&self, job: u32, from: Option<&str>, to: &str, seconds: i64) {
        self.append(job, "GRCh38", from, to, at(seconds), None).await;
    }

    async fn append(
        &self,
        job: u32,
        watch: &str,
        from: Option<&str>,
        to: &str,
        observed_at: Timestamp,
        completed_at: Option<Timestamp>,
    ) {
        let transition = Transition {
            from: from.map(JobStatus::from),
            to: to.into(),
            observed_at,
            not_before: None,
            status_message: None,
            created_at: None,
            completed_at,
            anomaly: None,
            watch: Some(Arc::new(WatchInfo { name: watch.into(), ..WatchInfo::default() })),
        };
        let change = Change { transition: Some(transition), ..Change::default() };
        self.database.append(&target_job(job), &change).await.expect("a commit");
    }

    async fn step(&self, seconds: i64, outcomes: &[(i64, DeliveryOutcome)], in_flight: &[i64]) -> StepResult {
        let step = DeliveryStep {
            sink: "hook".into(),
            config_hash: "1".to_owned(),
            filter: filter(),
            now: at(seconds),
            outcomes: outcomes.to_vec(),
            in_flight: in_flight.iter().copied().collect(),
            limit: 8,
            rotation: 0,
        };
        self.database.step_deliveries(step).await.expect("a step")
    }

    async fn replay(&self, replay: ReplayFilter) -> usize {
        self.database.replay_deliveries("hook".into(), filter(), replay).await.expect("a commit")
    }
}

fn filter() -> EventFilter {
    let types = EventType::documented().collect();
    EventFilter { types, watches: vec!["GRCh38".to_owned()] }
}

fn due_ids(queue: &StepResult) -> Vec<i64> {
    queue.due.iter().map(|due| due.event.id).collect()
}

fn retry(seconds: i64) -> DeliveryOutcome {
    DeliveryOutcome::Rejected { reason: "HTTP status 400".to_owned(), next_attempt_at: Some(at(seconds)) }
}

fn failed() -> DeliveryOutcome {
    DeliveryOutcome::Rejected { reason: "HTTP status 400".to_owned(), next_attempt_at: None }
}

#[tokio::test]
async fn the_events_of_a_job_are_due_one_after_another_and_jobs_do_not_wait_for_each_other() {
    let queue = Queue::new().await;
    for (job, from, to) in [(1, None, "SUBMITTED"), (1, Some("SUBMITTED"), "FAILED"), (2, None, "SUBMITTED")] {
        queue.transition(job, from, to, 0).await;
    }
    let first = queue.step(0, &[], &[]).await;
    assert_eq!((due_ids(&first), first.waiting, first.oldest_observed_at), (vec![1, 3], 3, Some(at(0))));
    // Both are being sent.
    assert_eq!(due_ids(&queue.step(0, &[], &[1, 3]).await), Vec::<i64>::new());
    // The first is to be sent again later. The second event of its job waits for it.
    let second = queue.step(1, &[(1, retry(6)), (3, DeliveryOutcome::Delivered)], &[]).await;
    assert_eq!((due_ids(&second), second.waiting, second.next_due), (vec![], 2, Some(at(6))));
    assert_eq!(due_ids(&queue.step(6, &[], &[]).await), [1]);
    // After the first has failed, the second goes on.
    let third = queue.step(7, &[(1, failed())], &[]).await;
    assert_eq!((due_ids(&third), third.waiting, third.failed), (vec![2], 1, 1));
    let last = queue.step(8, &[(2, DeliveryOutcome::Delivered)], &[]).await;
    assert_eq!((due_ids(&last), last.waiting, last.failed, last.oldest_observed_at), (vec![], 0, 1, None));
}

#[tokio::test]
async fn an_event_has_its_occurrence_and_the_items_of_its_time() {
    let queue = Queue::new().await;
    let item = |status, seconds| ItemTransition {
        key: ItemKey { name: "chr1".into(), source_file: "s3://a/b".into(), nth: 0 },
        from: None,
        to: Some(Item { status, status_message: None }),
        observed_at: at(seconds),
    };
    for (from, to, status, seconds) in [
        (None, "FAILED", ItemStatus::Failed, 0),
        (Some("FAILED"), "IN_PROGRESS", ItemStatus::InProgress, 1),
        (Some("IN_PROGRESS"), "FAILED", ItemStatus::Finished, 2),
    ] {
        let transition = Transition {
            from: from.map(JobStatus::from),
            to: to.into(),
            observed_at: at(seconds),
            not_before: None,
            status_message: None,
            created_at: None,
            completed_at: None,
            anomaly: None,
            watch: Some(Arc::new(WatchInfo { name: "GRCh38".into(), ..WatchInfo::default() })),
        };
        let change = Change { transition: Some(transition), items: vec![item(status, seconds)], details: vec![] };
        queue.database.append(&target_job(1), &change).await.expect("a commit");
    }
    let details = vec![Detail { kind: DetailKind::Vanished, value: None, observed_at: at(3) }];
    queue.database.append(&target_job(1), &Change { details, ..Change::default() }).await.expect("a commit");
    let mut seen = Vec::new();
    let mut outcomes = vec![];
    while let Some(due) = queue.step(3, &outcomes, &[]).await.due.pop() {
        let event = due.event;
        let status = event.items.values().next().map(|item| item.status.label());
        outcomes = vec![(event.id, DeliveryOutcome::Delivered)];
        seen.push((event.event_type, event.occurrence, status));
    }
    let status = |status: &str| EventType::Status(status.into());
    let expected = [
        (status("FAILED"), 1, Some("FAILED")),
        (status("IN_PROGRESS"), 1, Some("IN_PROGRESS")),
        (status("FAILED"), 2, Some("FINISHED")),
        (EventType::Vanished, 1, Some("FINISHED")),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_new_sink_starts_at_the_present_and_ignores_jobs_that_ended_before() {
    let queue = Queue::new().await;
    queue.synchronize(&[]).await;
    queue.transition(1, None, "FAILED", 0).await;
    queue.synchronize(&[("hook", "1")]).await;
    queue.append(2, "GRCh38", None, "FAILED", at(9), Some(at(-1))).await;
    queue.append(3, "GRCh38", None, "FAILED", at(9), Some(at(1))).await;
    queue.append(4, "GRCh38", Some("IN_PROGRESS"), "FAILED", at(9), Some(at(-1))).await;
    queue.append(5, "other", None, "FAILED", at(9), None).await;
    assert_eq!(due_ids(&queue.step(9, &[], &[]).await), [3, 4]);
}

#[tokio::test]
async fn a_star_of_a_wildcard_matches_any_text_and_other_characters_match_themselves() {
    let table = [
        ("GRCh38", "GRCh38", true),
        ("GRCh38", "grch38", false),
        ("*", "", true),
        ("shared *", "shared references", true),
        ("shared *", "shared", false),
        ("a*b*c", "a-b-c", true),
        ("a*b*c", "acb", false),
        ("[ab]?", "[ab]?", true),
        ("[ab]?", "ax", false),
    ];
    for (pattern, watch, expected) in table {
        let queue = Queue::new().await;
        queue.append(1, watch, None, "FAILED", at(0), None).await;
        let filter = EventFilter { watches: vec![pattern.to_owned()], ..filter() };
        let replay = ReplayFilter { jobs: vec![target_job(1).key], ..ReplayFilter::default() };
        queue.step(0, &[], &[]).await;
        let queued = queue.database.replay_deliveries("hook".into(), filter, replay).await.expect("a commit");
        assert_eq!(queued, usize::from(expected), "{pattern} {watch}");
    }
}

#[tokio::test]
async fn a_replay_sends_delivered_or_failed_events_again() {
    let queue = Queue::new().await;
    queue.transition(1, None, "FAILED", 0).await;
    queue.transition(2, None, "FAILED", 10).await;
    queue.step(0, &[], &[]).await;
    queue.step(0, &[(1, DeliveryOutcome::Delivered), (2, failed())], &[]).await;
    assert_eq!(queue.replay(ReplayFilter { failed: true, ..ReplayFilter::default() }).await, 1);
    assert_eq!(due_ids(&queue.step(0, &[], &[]).await), [2]);
    let since = ReplayFilter { since: Some(at(10)), ..ReplayFilter::default() };
    assert_eq!(queue.replay(since).await, 1);
    let jobs = vec![target_job(1).key];
    assert_eq!(queue.replay(ReplayFilter { jobs, ..ReplayFilter::default() }).await, 1);
    let all = queue.step(0, &[], &[]).await;
    assert_eq!((due_ids(&all), all.failed), (vec![1, 2], 0));
}

#[tokio::test]
async fn a_disabled_sink_has_no_due_events_until_its_configuration_changes() {
    let queue = Queue::new().await;
    queue.transition(1, None, "FAILED", 0).await;
    queue.synchronize(&[("hook", "0")]).await;
    let changed = queue.step(5, &[(1, DeliveryOutcome::Gone)], &[]).await;
    assert_eq!(
        (due_ids(&changed), changed.disabled_at),
        (vec![1], None),
        "the response was to an earlier configuration"
    );
    queue.synchronize(&[("hook", "1")]).await;
    for seconds in [5, 6] {
        let disabled = queue.step(seconds, &[(1, DeliveryOutcome::Gone)], &[]).await;
        assert_eq!(disabled.disabled_at, Some(at(5)));
    }
    queue.synchronize(&[("hook", "1")]).await;
    let disabled = queue.step(6, &[], &[]).await;
    assert_eq!((due_ids(&disabled), disabled.waiting, disabled.disabled_at), (vec![], 1, Some(at(5))));
    queue.synchronize(&[("hook", "2")]).await;
    let enabled = queue.step(7, &[], &[]).await;
    assert_eq!((due_ids(&enabled), enabled.disabled_at), (vec![1], None));
}

#[tokio::test]
async fn a_new_event_is_due_at_once_also_after_the_clock_was_set_back() {
    let queue = Queue::new().await;
    queue.transition(1, None, "FAILED", 86_400).await;
    assert!(due_ids(&queue.step(86_400, &[], &[1]).await).is_empty());
    assert_eq!(due_ids(&queue.step(0, &[], &[]).await), [1]);
}

#[tokio::test]
async fn a_rejected_event_is_due_at_once_after_the_clock_was_set_back() {
    let queue = Queue::new().await;
    queue.transition(1, None, "FAILED", 0).await;
    queue.step(86_400, &[], &[]).await;
    assert!(due_ids(&queue.step(86_400, &[(1, retry(86_405))], &[]).await).is_empty());
    assert!(due_ids(&queue.step(86_399, &[], &[]).await).is_empty());
    assert_eq!(due_ids(&queue.step(86_300, &[], &[]).await), [1]);
}

#[test]
fn no_query_of_a_step_reads_all_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("database.db");
    drop(Database::open(&file, &Instruments::new().expect("metrics")).expect("a database"));
    let connection = rusqlite::Connection::open(file).expect("a database");
    for sql in [events::SELECT_EVENT, deliveries::SELECT_COUNTS, deliveries::DELIVERIES_OF_JOB] {
        let mut query = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a query");
        let parameters = query.parameter_count();
        let rows =
            query.query_map(rusqlite::params_from_iter(vec![1; parameters]), |row| row.get::<_, String>("detail"));
        let plan: Vec<String> = rows.expect("a plan").collect::<Result<_, _>>().expect("texts");
        let scans = plan.iter().filter(|step| step.starts_with("SCAN transitions") || step.starts_with("SCAN details"));
        assert_eq!(scans.count(), 0, "{sql}: {plan:?}");
    }
}

#[tokio::test]
async fn the_rotation_selects_the_first_due_event() {
    let queue = Queue::new().await;
    for job in 1..=3 {
        queue.transition(job, None, "FAILED", 0).await;
    }
    for (rotation, expected) in [(0, 1), (1, 2), (2, 3), (3, 1), (4, 2)] {
        let step = DeliveryStep {
            sink: "hook".into(),
            config_hash: "1".to_owned(),
            filter: filter(),
            now: at(0),
            outcomes: vec![],
            in_flight: BTreeSet::new(),
            limit: 1,
            rotation,
        };
        let due = queue.database.step_deliveries(step).await.expect("a step");
        assert_eq!(due_ids(&due), [expected], "{rotation}");
    }
}

#[tokio::test]
async fn after_an_event_whose_row_is_deleted_or_damaged_the_next_event_of_its_job_is_due() {
    for damage in [
        "DELETE FROM transitions WHERE id = 1",
        "UPDATE transitions SET observed_at = CAST(x'ff' AS TEXT) WHERE id = 1",
    ] {
        let queue = Queue::new().await;
        queue.transition(1, None, "SUBMITTED", 0).await;
        queue.transition(1, Some("SUBMITTED"), "FAILED", 0).await;
        assert_eq!(due_ids(&queue.step(0, &[], &[]).await), [1]);
        let file = queue.directory.path().join("database.db");
        let other_program = rusqlite::Connection::open(file).expect("a database");
        other_program.execute(damage, []).expect("a commit");
        let first = queue.step(0, &[], &[]).await;
        assert_eq!((due_ids(&first), first.unreadable, first.next_due), (vec![], 1, Some(at(0))), "{damage}");
        let second = queue.step(0, &[], &[]).await;
        assert_eq!((due_ids(&second), second.unreadable, second.failed), (vec![2], 0, 1), "{damage}");
    }
}

#[tokio::test]
async fn the_rows_of_a_job_outlive_their_retention_while_its_vanishing_is_not_queued() {
    let queue = Queue::new().await;
    queue.transition(1, None, "FAILED", 0).await;
    queue.step(0, &[], &[]).await;
    queue.step(0, &[(1, DeliveryOutcome::Delivered)], &[]).await;
    let vanished = Detail { kind: DetailKind::Vanished, value: None, observed_at: at(0) };
    let change = Change { details: vec![vanished], ..Change::default() };
    queue.database.append(&target_job(1), &change).await.expect("a commit");
    // The last row is always kept.
    queue.transition(2, None, "SUBMITTED", 0).await;
    assert_eq!(queue.database.delete_ended_before(at(1), BTreeSet::new()).await.expect("a commit"), 0);
    assert_eq!(due_ids(&queue.step(0, &[], &[]).await), [2, 3]);
}

#[tokio::test]
async fn the_rows_of_a_job_outlive_their_retention_by_30_days_while_a_sink_waits() {
    let queue = Queue::new().await;
    queue.transition(1, None, "FAILED", 0).await;
    // The last row is always kept.
    queue.transition(2, None, "SUBMITTED", 0).await;
    let delete = async |cutoff| queue.database.delete_ended_before(cutoff, BTreeSet::new()).await.expect("a commit");
    assert_eq!(delete(at(1)).await, 0, "after the cursor");
    queue.step(0, &[], &[]).await;
    assert_eq!(delete(at(1)).await, 0, "waits for delivery");
    assert_eq!(delete(at(1) + Duration::from_hours(30 * 24)).await, 1);
    let left = queue.step(0, &[], &[]).await;
    assert_eq!((due_ids(&left), left.failed), (vec![2], 0));
    queue.transition(3, None, "FAILED", 0).await;
    queue.transition(4, None, "SUBMITTED", 0).await;
    queue.step(0, &[], &[]).await;
    queue.step(0, &[(3, DeliveryOutcome::Delivered), (4, DeliveryOutcome::Delivered)], &[]).await;
    assert_eq!(delete(at(1)).await, 1, "delivered");
}
