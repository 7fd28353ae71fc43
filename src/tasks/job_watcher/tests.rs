//! A poller and a job watcher whose service knows one job, and the log of failed polls.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::clock::Clock;
use crate::config::{Quota, TargetConfig};
use crate::core::backoff::BackoffPolicy;
use crate::core::job::{Items, JobKey, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::core::tracker::PollPolicy;
use crate::database::{Database, DatabaseReader, Filter};
use crate::healthomics::{BuildFuture, CallerIdentity, ListPage, RequestFuture, ServiceFactory, Target, TargetService};
use crate::instruments::Instruments;
use crate::state::SharedState;
use crate::tasks::registry::StoreRegistry;

const DELAY: Duration = Duration::from_millis(10);
const POLICY: PollPolicy =
    PollPolicy { interval: DELAY, is_interval_set: false, backoff: BackoffPolicy { initial: DELAY, max: DELAY } };

/// Each poll takes the next status. After the last, polls are rejected as malformed.
#[derive(Clone, Debug)]
struct OneJobService {
    aws_region: Arc<str>,
    statuses: Arc<Mutex<VecDeque<JobStatus>>>,
}

impl OneJobService {
    fn new(statuses: impl Into<VecDeque<JobStatus>>) -> Self {
        Self { aws_region: "us-west-2".into(), statuses: Arc::new(Mutex::new(statuses.into())) }
    }
}

impl ServiceFactory for OneJobService {
    fn build<'a>(&'a self, _: &'a TargetConfig) -> BuildFuture<'a> {
        Box::pin(async { Ok(Arc::new(self.clone()) as Arc<dyn TargetService>) })
    }
}

impl TargetService for OneJobService {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        Box::pin(async { Ok(None) })
    }

    fn get_job<'a>(&'a self, _: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        let status = self.statuses.lock().expect("a lock").pop_front();
        let snapshot = |status| Snapshot {
            status,
            status_message: None,
            created_at: None,
            completed_at: None,
            items: Items::new(),
            exceeded_limits: vec![],
        };
        let malformed =
            RequestFailure { reason: FailureReason::Validation, message: "malformed".to_owned(), retry_after: None };
        let response = status.map(snapshot).ok_or(malformed);
        Box::pin(async { response })
    }

    fn list_jobs<'a>(
        &'a self,
        _: JobKind,
        _: &'a StoreId,
        _: Option<Timestamp>,
        _: Option<String>,
    ) -> RequestFuture<'a, ListPage> {
        unreachable!("a poller lists nothing")
    }
}

/// A poller of `id` at `service`, and the registry of its store.
async fn poller(id: &Arc<TargetJob>, service: &OneJobService, clock: Clock) -> (Poller, StoreRegistry) {
    let quota = Quota { requests_per_second: 1e6, ..Quota::default() };
    let config = TargetConfig { quota, ..TargetConfig::new(TargetConfig::DEFAULT) };
    let instruments = Instruments::new().expect("metrics");
    let target = Target::new(&config, service, clock, &instruments).await.expect("a target");
    let registry = StoreRegistry::default();
    let slot = registry.add(&id.key.job);
    (Poller::new(Arc::new(target), Arc::clone(id), POLICY, None, slot, 1), registry)
}

fn id() -> Arc<TargetJob> {
    let key = "1234567890/9876543210".parse().expect("a job");
    Arc::new(TargetJob { target: TargetConfig::DEFAULT.into(), key })
}

#[tokio::test(start_paused = true)]
async fn a_hint_for_a_finished_job_causes_a_poll_at_once_whatever_the_routine_interval() {
    let (clock, id) = (Clock::simulated(Timestamp::UNIX_EPOCH), id());
    let service = OneJobService::new([JobStatus::Completed, JobStatus::Completed]);
    let (mut poller, registry) = poller(&id, &service, clock).await;
    poller.poll().await.expect("the end of the job");
    registry.set_routine_interval(Some(Duration::from_hours(1)));
    let hinted = clock.now().monotonic;
    registry.hint(&id.key.job);
    poller.wait_for_reopening_hint().await;
    // The first `None` is due to the changed routine interval.
    while poller.poll().await.is_none() {}
    assert!(clock.now().monotonic.since(hinted) < Duration::from_mins(1), "{:?}", clock.now());
}

#[tokio::test]
async fn when_a_job_is_parked_the_time_of_its_last_sighting_is_saved() {
    let (directory, clock, id) = (tempfile::tempdir().expect("a directory"), Clock::system(), id());
    let (path, instruments) = (directory.path().join("refwatch.db"), Instruments::new().expect("metrics"));
    let database = Database::open(&path, &instruments).expect("a database");
    let context = Arc::new(TaskContext { clock, database, shared: SharedState::default(), instruments });
    let service = OneJobService::new([JobStatus::InProgress, JobStatus::InProgress]);
    let (poller, _registry) = poller(&id, &service, clock).await;
    let settings = JobSettings { name: "a".into(), labels: Arc::default(), policy: POLICY, remove_after: None };
    let (_stop, mut stopped) = oneshot::channel();
    JobWatcher::new(context, poller, id, settings).run(&mut stopped).await.expect("a database writer");
    let reader = DatabaseReader::new(&path);
    let [first] = &reader.rows::<Transition>(&Filter::default()).expect("rows")[..] else { panic!("one transition") };
    let [last] = &reader.rows::<Detail>(&Filter::default()).expect("rows")[..] else { panic!("one detail") };
    assert_eq!(last.value.kind, DetailKind::StillSeen);
    assert!(last.value.observed_at > first.value.observed_at, "{last:?} {first:?}");
}

#[test]
fn a_reason_is_logged_once_even_if_reasons_alternate() {
    let mut log = FailureLog::default();
    let reasons = [FailureReason::Connect, FailureReason::Timeout].repeat(4);
    let logged: Vec<bool> = reasons.into_iter().map(|reason| log.should_log(reason, false)).collect();
    assert_eq!(logged, [false, false, true, true, false, false, false, false]);
}
