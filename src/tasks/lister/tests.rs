//! A store whose listing takes two parts, and a supervisor that cannot watch a job of the first part.

use super::*;
use crate::clock::Clock;
use crate::config::{Quota, TargetConfig};
use crate::core::job::{JobKey, JobStatus, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::database::Database;
use crate::healthomics::{BuildFuture, CallerIdentity, RequestFuture, ServiceFactory, TargetService};
use crate::instruments::Instruments;
use crate::state::SharedState;

/// Lists one job on its first page and one on its last. All other pages are empty.
#[derive(Clone, Debug)]
struct LongStore {
    aws_region: Arc<str>,
    first: ListedJob,
    last: ListedJob,
}

impl ServiceFactory for LongStore {
    fn build<'a>(&'a self, _: &'a TargetConfig) -> BuildFuture<'a> {
        Box::pin(async { Ok(Arc::new(self.clone()) as Arc<dyn TargetService>) })
    }
}

impl TargetService for LongStore {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        Box::pin(async { Ok(None) })
    }

    fn get_job<'a>(&'a self, _: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        unreachable!("a lister polls no job")
    }

    fn list_jobs<'a>(
        &'a self,
        _: JobKind,
        _: &'a StoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage> {
        let page = token.map_or(0, |token| token.parse().expect("a page"));
        let job = match page {
            0 => Some(&self.first),
            PART_PAGES_MAX => Some(&self.last),
            _ => None,
        };
        let jobs = job.filter(|job| job.created_at > created_after).cloned().into_iter().collect();
        let next_token = (page < PART_PAGES_MAX).then(|| (page + 1).to_string());
        Box::pin(async { Ok(ListPage { jobs, next_token, ..ListPage::default() }) })
    }
}

#[tokio::test]
async fn a_job_of_the_first_part_whose_hand_over_fails_twice_is_watched_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let instruments = Instruments::new().expect("metrics");
    let database = Database::open(&directory.path().join("refwatch.db"), &instruments).expect("a database");
    let clock = Clock::system();
    let now = clock.now().wall;
    let in_progress = |job: &str, created_at| ListedJob {
        job: job.parse().expect("a job"),
        status: JobStatus::InProgress,
        created_at: Some(created_at),
    };
    let first = in_progress("1000000001", now - Duration::from_hours(1));
    let service =
        LongStore { aws_region: "us-west-2".into(), first: first.clone(), last: in_progress("1000000002", now) };
    let quota = Quota { requests_per_second: 1e6, ..Quota::default() };
    let config = TargetConfig { quota, ..TargetConfig::new(TargetConfig::DEFAULT) };
    let target = Target::new(&config, &service, clock, &instruments).await.expect("a target");
    let context = TaskContext { clock, database, shared: SharedState::default(), instruments };
    let store = TargetStore {
        target: TargetConfig::DEFAULT.into(),
        store: "1234567890".parse().expect("a store"),
        kind: JobKind::ReferenceImport,
    };
    let discovery = DiscoveryPolicy {
        name: "all".into(),
        created_within: Duration::from_hours(24),
        interval: Duration::from_secs(1),
    };
    let policy = ListingPolicy { replaces_polls: true, discovery: Some(discovery) };
    let (sender, mut discovered) = mpsc::channel(1);
    let registry = Arc::new(StoreRegistry::default());
    let (context, target) = (Arc::new(context), Arc::new(target));
    let mut lister = Lister::new(context, sender, target, store, Arc::clone(&registry), policy, 1);

    let supervisor = async {
        let mut failures = 2;
        while let Some(DiscoveredBatch { jobs, ack, .. }) = discovered.recv().await {
            let result = if jobs.contains(&first.job) && failures > 0 {
                failures -= 1;
                Err("the database cannot be read".to_owned())
            } else {
                for job in &jobs {
                    registry.add(job);
                }
                Ok(())
            };
            ack.send(result).expect("a lister");
        }
    };
    let listings = async {
        for _ in 0..8 {
            lister.list_if_needed(clock.now().monotonic).await;
        }
    };
    tokio::select! {
        biased;
        () = supervisor => {}
        () = listings => {}
    }
    assert_eq!(registry.len(), 2, "{:?}", registry.watched());
}
