//! A store whose listing takes several parts.

use super::*;
use crate::clock::Clock;
use crate::config::{Quota, TargetConfig};
use crate::core::job::{JobKey, JobStatus, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::core::tracker::NextAction;
use crate::database::Database;
use crate::healthomics::{BuildFuture, CallerIdentity, RequestFuture, ServiceFactory, TargetService};
use crate::instruments::Instruments;
use crate::state::SharedState;

/// Lists one job on the first page of the first part and one on the first page of the second. All other pages are empty.
#[derive(Clone, Debug)]
struct LongStore {
    aws_region: Arc<str>,
    last_page: usize,
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
        let next_token = (page < self.last_page).then(|| (page + 1).to_string());
        Box::pin(async { Ok(ListPage { jobs, next_token, ..ListPage::default() }) })
    }
}

/// A lister, and everything that its test uses.
struct Fixture {
    lister: Lister,
    clock: Clock,
    registry: Arc<StoreRegistry>,
    discovered: mpsc::Receiver<DiscoveredBatch>,
    /// The listed jobs.
    jobs: [JobId; 2],
    _directory: tempfile::TempDir,
}

async fn fixture(last_page: usize, discovery: Option<DiscoveryPolicy>) -> Fixture {
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
    let last = in_progress("1000000002", now);
    let jobs = [first.job.clone(), last.job.clone()];
    let service = LongStore { aws_region: "us-west-2".into(), last_page, first, last };
    let quota = Quota { requests_per_second: 1e6, ..Quota::default() };
    let config = TargetConfig { quota, ..TargetConfig::new(TargetConfig::DEFAULT) };
    let target = Target::new(&config, &service, clock, &instruments).await.expect("a target");
    let context = TaskContext { clock, database, shared: SharedState::default(), instruments };
    let store = TargetStore {
        target: TargetConfig::DEFAULT.into(),
        store: "1234567890".parse().expect("a store"),
        kind: JobKind::ReferenceImport,
    };
    let policy = ListingPolicy { replaces_polls: true, discovery };
    let (sender, discovered) = mpsc::channel(1);
    let registry = Arc::new(StoreRegistry::default());
    let lister = Lister::new(Arc::new(context), sender, Arc::new(target), store, Arc::clone(&registry), policy, 1);
    Fixture { lister, clock, registry, discovered, jobs, _directory: directory }
}

#[tokio::test]
async fn without_discovery_a_listing_ends_once_its_parts_have_listed_all_listable_jobs() {
    let Fixture { mut lister, clock, registry, jobs, .. } = fixture(2 * PART_PAGES_MAX, None).await;
    for job in &jobs {
        registry.add(job).report(NextAction::PollAt(clock.now().monotonic), None);
    }
    lister.list_if_needed(clock.now().monotonic).await;
    assert!(lister.to_continue.is_some(), "the second job is in the second part");
    lister.list_if_needed(clock.now().monotonic).await;
    assert!(lister.to_continue.is_none(), "{:?}", lister.to_continue);
}

#[tokio::test]
async fn a_job_of_the_first_part_whose_hand_over_fails_twice_is_watched_later() {
    let discovery = DiscoveryPolicy {
        name: "all".into(),
        created_within: Duration::from_hours(24),
        interval: Duration::from_secs(1),
    };
    let Fixture { mut lister, clock, registry, mut discovered, jobs: [first, _], _directory } =
        fixture(PART_PAGES_MAX, Some(discovery)).await;
    let supervisor = async {
        let mut failures = 2;
        while let Some(DiscoveredBatch { jobs, ack, .. }) = discovered.recv().await {
            let result = if jobs.contains(&first) && failures > 0 {
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
