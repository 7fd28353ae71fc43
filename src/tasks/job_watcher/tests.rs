//! A poller whose service knows one completed job, and the log of failed polls.

use super::*;
use crate::config::{Quota, TargetConfig};
use crate::core::backoff::BackoffPolicy;
use crate::core::job::{Items, JobKey, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::core::tracker::PollPolicy;
use crate::healthomics::{BuildFuture, CallerIdentity, ListPage, RequestFuture, ServiceFactory, Target, TargetService};
use crate::tasks::registry::StoreRegistry;

#[derive(Clone, Debug)]
struct CompletedJob(Arc<str>);

impl ServiceFactory for CompletedJob {
    fn build<'a>(&'a self, _: &'a TargetConfig) -> BuildFuture<'a> {
        Box::pin(async { Ok(Arc::new(self.clone()) as Arc<dyn TargetService>) })
    }
}

impl TargetService for CompletedJob {
    fn aws_region(&self) -> &Arc<str> {
        &self.0
    }

    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        Box::pin(async { Ok(None) })
    }

    fn get_job<'a>(&'a self, _: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        let snapshot = Snapshot {
            status: JobStatus::Completed,
            status_message: None,
            created_at: None,
            completed_at: None,
            items: Items::new(),
            exceeded: vec![],
        };
        Box::pin(async { Ok(snapshot) })
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

#[tokio::test(start_paused = true)]
async fn a_hint_of_a_finished_job_causes_a_poll_at_once_whatever_the_routine_interval() {
    let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
    let quota = Quota { requests_per_second: 1e6, ..Quota::default() };
    let config = TargetConfig { quota, ..TargetConfig::new(TargetConfig::DEFAULT) };
    let instruments = Instruments::new().expect("metrics");
    let service = CompletedJob("us-west-2".into());
    let target = Target::new(&config, &service, clock, &instruments).await.expect("a target");
    let key: JobKey = "1234567890/9876543210".parse().expect("a job");
    let id = Arc::new(WatchId { target: TargetConfig::DEFAULT.into(), key: key.clone() });
    let registry = StoreRegistry::default();
    let second = Duration::from_secs(1);
    let policy = PollPolicy { interval: second, fixed: false, backoff: BackoffPolicy { initial: second, max: second } };
    let mut poller = Poller::new(Arc::new(target), id, policy, None, registry.add(&key.job), 1);
    poller.poll().await.expect("the end of the job");
    registry.set_routine_interval(Some(Duration::from_hours(1)));
    let hinted = clock.now().monotonic;
    registry.hint(&key.job);
    poller.wait_for_hint_if_finished().await;
    while poller.poll().await.is_none() {}
    assert!(clock.now().monotonic.since(hinted) < Duration::from_mins(1), "{:?}", clock.now());
}

#[test]
fn a_reason_is_logged_once_even_if_reasons_alternate() {
    let mut log = FailureLog::default();
    let reasons = [FailureReason::Connect, FailureReason::Timeout].repeat(4);
    let logged: Vec<bool> = reasons.into_iter().map(|reason| log.should_log(reason, false)).collect();
    assert_eq!(logged, [false, false, true, true, false, false, false, false]);
}
