//! Job watchers that panic, discovered jobs, and a database that cannot be read.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::clock::Clock;
use crate::config::watch_list::{StoreSettings, WatchList};
use crate::config::{PollConfig, TargetConfig};
use crate::core::failure::Operation;
use crate::core::job::JobStatus;
use crate::core::time::Timestamp;
use crate::core::transition::{Change, Transition};
use crate::database::Database;
use crate::healthomics::AwsFactory;
use crate::instruments::Instruments;
use crate::state::SharedState;

/// A supervisor of one job whose endpoint does not listen, and the directory of its database.
async fn supervisor() -> (Supervisor, Arc<TargetJob>, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("refwatch.db");
    let instruments = Instruments::new().expect("metrics");
    let database = Database::open(&path, &instruments).expect("a database");
    let clock = Clock::system();
    let context = TaskContext { clock, database, shared: SharedState::default(), instruments };
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
    supervisor.apply(&config).await.expect("an applied configuration");
    (supervisor, id, directory)
}

/// The first observation of a job, at the Unix epoch.
fn first_observation(status: JobStatus) -> Change {
    let transition = Transition {
        from: None,
        to: status,
        observed_at: Timestamp::UNIX_EPOCH,
        not_before: None,
        status_message: None,
        created_at: None,
        completed_at: None,
        anomaly: None,
        watch: None,
    };
    Change { transition: Some(transition), ..Change::default() }
}

#[tokio::test]
async fn a_watcher_that_panicked_restarts_from_the_database_and_not_from_the_published_state() {
    let (mut supervisor, id, _directory) = supervisor().await;
    let TaskContext { database, shared, instruments, .. } = TaskContext::clone(&supervisor.context);
    // As if the task panicked between the commit and the publication.
    database.append(&id, &first_observation(JobStatus::InProgress)).await.expect("a commit");
    assert_eq!(shared.watch(&id).expect("a watch").known, None);

    let panicked = TaskExit::Panicked { key: TaskKey::JobWatcher(id.clone()), restart_number: 1 };
    supervisor.handle_exit(panicked).await.expect("the daemon continues");
    let view = shared.watch(&id).expect("a watch");
    assert_eq!(view.known.as_ref().map(|known| &known.status), Some(&JobStatus::InProgress));
    assert_eq!(instruments.task_restarts.get(), 1);
    assert!(supervisor.tasks.runs(&TaskKey::JobWatcher(id)));
}

#[tokio::test]
async fn discovered_jobs_are_watched_unless_they_are_watched_already_or_have_expired() {
    let (mut supervisor, own, _directory) = supervisor().await;
    let (store, mut config) = (own.target_store(), supervisor.config.clone());
    let entry = StoreSettings::new("all".into(), PollConfig::default().policy());
    config.watch_list.stores.insert(store.clone(), entry);
    supervisor.apply(&config).await.expect("an applied configuration");
    let TaskContext { database, shared, .. } = TaskContext::clone(&supervisor.context);
    let [ended, in_progress, new] =
        ["1000000001", "1000000002", "1000000003"].map(|job| store.target_job(job.parse().expect("a job")));
    database.append(&ended, &first_observation(JobStatus::Completed)).await.expect("a commit");
    database.append(&in_progress, &first_observation(JobStatus::InProgress)).await.expect("a commit");

    let event = |ack| {
        let jobs = [&own, &ended, &in_progress, &new].map(|id| id.key.job.clone()).into();
        SupervisorEvent::Discovered(DiscoveredBatch { store: store.clone(), jobs, ack })
    };
    let (ack, handled) = oneshot::channel();
    drop(handled);
    supervisor.handle_event(event(ack)).await.expect("the daemon continues");
    assert_eq!(shared.watches().len(), 1, "the jobs of a stopped lister are not watched");

    let (ack, handled) = oneshot::channel();
    supervisor.handle_event(event(ack)).await.expect("the daemon continues");
    handled.await.expect("an acknowledgement").expect("watched jobs");
    let watches = shared.watches();
    let watches: Vec<(&str, &Arc<TargetJob>)> = watches.iter().map(|watch| (&*watch.name, &watch.id)).collect();
    assert_eq!(watches, [("all", &in_progress), ("all", &new), ("1234567890/9876543210", &own)]);
    let known = shared.watch(&in_progress).expect("a watch").known.clone().expect("its state in the database");
    assert_eq!(known.status, JobStatus::InProgress);
}

#[tokio::test]
async fn a_target_without_jobs_and_stores_loses_its_metrics_at_a_reload() {
    let (mut supervisor, id, _directory) = supervisor().await;
    let TaskContext { clock, instruments, .. } = TaskContext::clone(&supervisor.context);
    // As a first request does.
    drop(instruments.operation(&id.target, Operation::Get(id.key.kind)));
    let mut config = supervisor.config.clone();
    config.watch_list.jobs = Arc::default();
    supervisor.apply(&config).await.expect("an applied configuration");
    assert!(instruments.rates(clock.now().monotonic).is_empty());
}

#[tokio::test]
async fn a_store_is_not_added_while_the_database_cannot_be_read_and_running_tasks_continue() {
    let (mut supervisor, own, directory) = supervisor().await;
    let mut config = supervisor.config.clone();
    config.watch_list.jobs = Arc::default();
    config
        .watch_list
        .stores
        .insert(own.target_store(), StoreSettings::new("all".into(), PollConfig::default().policy()));
    std::fs::rename(directory.path().join("refwatch.db"), directory.path().join("elsewhere.db")).expect("a database");
    let result = supervisor.apply(&config).await;
    assert!(matches!(result, Err(SupervisorError::Unreadable(_))), "{result:?}");
    assert!(supervisor.tasks.runs(&TaskKey::JobWatcher(own)));
}
