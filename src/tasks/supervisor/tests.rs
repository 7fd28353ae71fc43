//! Watchers that panic, and jobs that are discovered.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::clock::Clock;
use crate::config::watch_list::{StoreEntry, WatchList};
use crate::config::{PollConfig, TargetConfig};
use crate::core::job::JobStatus;
use crate::core::time::Timestamp;
use crate::core::transition::{Change, Transition};
use crate::database::Database;
use crate::healthomics::AwsFactory;
use crate::instruments::Instruments;
use crate::state::{SharedState, WatchState};

/// A supervisor of one job whose endpoint does not listen, and the directory of its database.
async fn supervisor() -> (Supervisor, Arc<WatchId>, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("refwatch.db");
    let instruments = Instruments::new().expect("metrics");
    let database = Database::open(&path, &instruments).expect("a database");
    let clock = Clock::system();
    let context = TaskContext { clock, database, board: SharedState::default(), instruments };
    let job = "1234567890/9876543210".parse().expect("a job");
    let target = TargetConfig {
        region: Some("us-west-2".to_owned()),
        endpoint_url: Some("http://127.0.0.1:1".to_owned()),
        simulated: true,
        ..TargetConfig::new(TargetConfig::DEFAULT)
    };
    let config = Config {
        targets: [(Arc::clone(&target.name), target)].into(),
        watch_list: WatchList::of_jobs([job], PollConfig::default().policy()),
        ..Config::new(path)
    };
    let id = config.watch_list.jobs.keys().next().expect("a watch").clone();
    let mut supervisor = Supervisor::new(context, Arc::new(AwsFactory::new(clock)), 1);
    supervisor.apply(&config).await.expect("a configuration in force");
    (supervisor, id, folder)
}

/// The first observation of a job, at the Unix epoch.
fn sighting(status: JobStatus) -> Change {
    let transition = Transition {
        from: None,
        to: status,
        observed_at: Timestamp::UNIX_EPOCH,
        not_before: None,
        status_message: None,
        created_at: None,
        completed_at: None,
        anomaly: None,
    };
    Change { transition: Some(transition), ..Change::default() }
}

#[tokio::test]
async fn a_watcher_that_panicked_restarts_from_the_database_and_not_from_the_published_state() {
    let (mut supervisor, id, _folder) = supervisor().await;
    let TaskContext { database, board, instruments, .. } = TaskContext::clone(&supervisor.context);
    // The panic came between the commit and its publication.
    database.append(&id, &sighting(JobStatus::InProgress)).await.expect("a commit");
    assert_eq!(board.watch(&id).expect("a watch").known, None);

    let panicked = TaskEnd::Panicked { key: TaskKey::Watch(id.clone()), restarts: 1 };
    supervisor.handle_end(panicked).await.expect("the daemon goes on");
    let view = board.watch(&id).expect("a watch");
    assert_eq!(view.known.as_ref().map(|known| &known.status), Some(&JobStatus::InProgress));
    assert_eq!(instruments.task_restarts.get(), 1);
    assert!(supervisor.tasks.runs(&TaskKey::Watch(id)));
}

#[tokio::test]
async fn a_watch_that_failed_permanently_is_parked_and_stays_visible() {
    let (mut supervisor, id, _folder) = supervisor().await;
    let given_up = TaskEnd::FailedPermanently(TaskKey::Watch(id.clone()));
    supervisor.handle_end(given_up).await.expect("the daemon goes on");
    let view = supervisor.context.board.watch(&id).expect("a watch");
    assert!(matches!(&view.state, WatchState::Parked(reason) if reason.contains("internal error")), "{:?}", view.state);
}

#[tokio::test]
async fn discovered_jobs_are_watched_unless_they_are_watched_or_their_retention_has_expired() {
    let (mut supervisor, own, _folder) = supervisor().await;
    let (store, mut config) = (own.store_id(), supervisor.config.clone());
    let entry = StoreEntry::new("all".into(), PollConfig::default().policy());
    config.watch_list.stores.insert(store.clone(), entry);
    supervisor.apply(&config).await.expect("a configuration in force");
    let TaskContext { database, board, .. } = TaskContext::clone(&supervisor.context);
    let [ended, goes_on, new] =
        ["1000000001", "1000000002", "1000000003"].map(|job| store.watch(job.parse().expect("a job")));
    database.append(&ended, &sighting(JobStatus::Completed)).await.expect("a commit");
    database.append(&goes_on, &sighting(JobStatus::InProgress)).await.expect("a commit");

    let found = |ack| {
        let jobs = [&own, &ended, &goes_on, &new].map(|id| id.key.job.clone()).into();
        Event::Discovered(DiscoveredJobs { store: store.clone(), jobs, ack })
    };
    let (ack, answer) = oneshot::channel();
    drop(answer);
    supervisor.handle_event(found(ack)).await.expect("the daemon goes on");
    assert_eq!(board.watches().len(), 1, "what a sweeper found that was stopped is of no concern any more");

    let (ack, answer) = oneshot::channel();
    supervisor.handle_event(found(ack)).await.expect("the daemon goes on");
    answer.await.expect("an answer").expect("they are watched");
    let watches = board.watches();
    let watches: Vec<(&str, &Arc<WatchId>)> = watches.iter().map(|watch| (&*watch.name, &watch.id)).collect();
    assert_eq!(watches, [("all", &goes_on), ("all", &new), ("1234567890/9876543210", &own)]);
    let known = board.watch(&goes_on).expect("a watch").known.clone().expect("its state in the database");
    assert_eq!(known.status, JobStatus::InProgress);
}

#[tokio::test]
async fn a_store_is_not_added_while_the_database_cannot_be_read_and_running_watches_continue() {
    let (mut supervisor, own, folder) = supervisor().await;
    let mut config = supervisor.config.clone();
    config.watch_list.jobs = Arc::default();
    config.watch_list.stores.insert(own.store_id(), StoreEntry::new("all".into(), PollConfig::default().policy()));
    std::fs::rename(folder.path().join("refwatch.db"), folder.path().join("elsewhere.db")).expect("a database");
    let refused = supervisor.apply(&config).await;
    assert!(matches!(refused, Err(ApplyError::Database(_))), "{refused:?}");
    assert!(supervisor.tasks.runs(&TaskKey::Watch(own)));
}
