//! The task of one store. It lists the jobs again and again, hints those that look changed, and hands new jobs to the supervisor
//! if the store's jobs are discovered.
//!
//! One request lists up to 100 jobs, so it replaces most polls of a store with several live jobs. The lister never saves a
//! status: the hinted job's own task polls it. Where listing is denied or fails for long, the jobs are polled one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::core::failure::{FailureReason, PollFailure, RetryClass, Scope};
use crate::core::job::{ImportJobId, JobStatus, StoreId};
use crate::core::listing::{DiscoveryWindow, ListingFailure, StatusDifferences, after_failure, safety_interval};
use crate::core::time::{Monotonic, Timestamp};
use crate::core::tracker::{JobState, RETRY_AFTER_MAX};
use crate::healthomics::{ListPage, ListedJob, Target};
use crate::tasks::hints::StoreRegistry;
use crate::tasks::job_watcher::TaskContext;

/// The live jobs from which on a listing is cheaper than their polls.
const MIN_JOBS_FOR_LISTING: usize = 2;

/// From the start of one listing to the start of the next: a fifth of the default quota if one page is enough.
const LISTING_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// From a denied listing to the next attempt: somebody may have changed the policy.
const DENIED_RECHECK: Duration = Duration::from_mins(15);

/// From a failed listing to the next attempt.
const BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(5), max: Duration::from_mins(5) };

/// Pages of one listing: 10,000 jobs.
const PAGES_MAX: u32 = 100;

/// It is not documented whether `createdAfter` includes the time itself.
const CREATED_SLACK: Duration = Duration::from_secs(1);

/// Ended jobs that are handed to the supervisor at a time.
const DISCOVERY_BATCH: usize = 100;

/// Why a store is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListingPolicy {
    /// Whether listings replace polls if several jobs are live.
    pub(crate) replaces_polls: bool,
    pub(crate) discovery: Option<DiscoveryPolicy>,
}

/// How jobs are discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiscoveryPolicy {
    /// The store's `watch` label.
    pub(crate) name: Arc<str>,
    /// The greatest age of a job when the search begins.
    pub(crate) created_within: Duration,
    /// From one listing to the next if listings do not replace polls.
    pub(crate) interval: Duration,
}

/// Jobs that are not watched yet.
#[derive(Debug)]
pub struct DiscoveredJobs {
    pub store: StoreId,
    pub jobs: Vec<ImportJobId>,
    /// Receives whether the jobs are watched now, or why not. It is closed if their lister has been stopped.
    pub ack: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug)]
pub(crate) struct Lister {
    context: Arc<TaskContext>,
    discovered: mpsc::Sender<DiscoveredJobs>,
    target: Arc<Target>,
    store: StoreId,
    registry: Arc<StoreRegistry>,
    policy: ListingPolicy,
    differences: StatusDifferences,
    search: Option<DiscoveryWindow>,
    backoff: Backoff,
    jitter: fastrand::Rng,
    /// Consecutive failed requests.
    failures: u32,
    /// The logged reason why listing has ended.
    ended_by: Option<FailureReason>,
    /// Whether the pause ends early when the target recovers.
    ends_with_outage: bool,
    /// The logged reason why discovered jobs are not watched.
    unhandled: Option<String>,
    /// Whether it was logged that the store has too many pages.
    cut_short: bool,
}

/// The live jobs of the store.
type Live = BTreeMap<ImportJobId, Option<Arc<JobState>>>;

impl Lister {
    /// `seed` sets the jitter of the backoff.
    pub(crate) fn new(
        context: Arc<TaskContext>,
        discovered: mpsc::Sender<DiscoveredJobs>,
        target: Arc<Target>,
        store: StoreId,
        registry: Arc<StoreRegistry>,
        policy: ListingPolicy,
        seed: u64,
    ) -> Self {
        let search = policy.discovery.as_ref().map(|DiscoveryPolicy { name, created_within, .. }| {
            context.board.update_store(&store, |view| (view.name, view.missed) = (Arc::clone(name), None));
            DiscoveryWindow::new(context.clock.now().wall.checked_sub(*created_within).unwrap_or(Timestamp::MIN))
        });
        Self {
            context,
            discovered,
            target,
            store,
            registry,
            policy,
            differences: StatusDifferences::default(),
            search,
            backoff: Backoff::new(BACKOFF),
            jitter: fastrand::Rng::with_seed(seed),
            failures: 0,
            ended_by: None,
            ends_with_outage: false,
            unhandled: None,
            cut_short: false,
        }
    }

    /// Runs until `stop` is signalled. Then the jobs are polled one by one.
    pub(crate) async fn run(mut self, stop: oneshot::Receiver<()>) {
        let registry = Arc::clone(&self.registry);
        tokio::select! {
            biased;
            _ = stop => {}
            () = self.list_repeatedly() => {}
        }
        registry.set_safety_interval(None);
    }

    async fn list_repeatedly(&mut self) {
        let clock = self.context.clock;
        loop {
            let began = clock.now().monotonic;
            let pause = self.list_once(began).await;
            tokio::select! {
                biased;
                () = self.target.breaker_closed_after(&self.store.store, began), if self.ends_with_outage => {}
                () = clock.sleep(pause) => {}
            }
        }
    }

    /// Lists the store if that is worth it. Returns the pause until the next listing.
    async fn list_once(&mut self, began: Monotonic) -> Duration {
        let now = self.context.clock.now().wall;
        let live = self.registry.live(now);
        let replaces_polls = self.policy.replaces_polls && live.len() >= MIN_JOBS_FOR_LISTING;
        if !replaces_polls {
            self.registry.set_safety_interval(None);
        }
        let interval = match &self.policy.discovery {
            None if !replaces_polls => return LISTING_INTERVAL_MIN,
            Some(discovery) if !replaces_polls => discovery.interval.max(LISTING_INTERVAL_MIN),
            Some(_) | None => LISTING_INTERVAL_MIN,
        };
        let listed = self.list(&live).await;
        match listed {
            Ok(unhandled) => {
                if replaces_polls {
                    let interval = safety_interval(live.len(), self.target.configured_rate());
                    self.registry.set_safety_interval(Some(interval));
                }
                if self.on_success(unhandled) {
                    self.backoff.reset();
                    return interval.saturating_sub(self.context.clock.now().monotonic.since(began));
                }
                self.backoff.next_delay(self.jitter.f64())
            }
            Err(failure) => self.on_failure(&failure),
        }
    }

    /// Lists all pages, or until every live job was listed if jobs are not discovered. Returns why discovered jobs are not
    /// watched, if they are not.
    async fn list(&mut self, live: &Live) -> Result<Option<String>, PollFailure> {
        let created_after = self.created_after(live);
        let finished = if self.search.is_some() { self.registry.finished() } else { BTreeMap::new() };
        let mut unlisted: BTreeMap<_, _> = live.iter().collect();
        self.differences.retain(|job| live.contains_key(job) || finished.contains_key(job));
        let (mut newest, mut unhandled, mut ended) = (None, None, Vec::new());
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let ListPage { jobs, next_token } = self.list_page(created_after, token).await?;
            let mut going_on = Vec::new();
            for listed in jobs {
                newest = newest.max(listed.created_at);
                if let Some(known) = unlisted.remove(&listed.job) {
                    self.compare_live(&listed, known.as_deref());
                } else if let Some(status) = finished.get(&listed.job) {
                    if self.differences.record_ended(&listed.job, status, &listed.status) {
                        self.registry.hint(&listed.job);
                    }
                } else if self.is_new(&listed) {
                    if listed.status.is_terminal() { &mut ended } else { &mut going_on }.push(listed);
                }
            }
            unhandled = self.hand_over(&going_on).await.err().or(unhandled);
            token = next_token;
            if token.is_none() || (unlisted.is_empty() && self.search.is_none()) {
                break;
            }
        }
        for (job, known) in unlisted {
            self.compare(job, known.as_ref().map(|known| &known.status), None);
        }
        // Live jobs are polled first: many jobs may have ended before the search began.
        for some in ended.chunks(DISCOVERY_BATCH) {
            unhandled = self.hand_over(some).await.err().or(unhandled);
        }
        let now = self.context.clock.now().wall;
        if let Some(search) = &mut self.search {
            if unhandled.is_none() {
                search.record_listing(created_after.unwrap_or(Timestamp::MIN), newest, now);
            }
            self.context.board.update_store(&self.store, |view| view.listed_at = Some(now));
            if token.is_some() {
                self.on_cut_short();
            }
        }
        Ok(unhandled)
    }

    /// Requests one page. A throttled request is repeated with the next permit: the pacer has lowered the rate.
    async fn list_page(&mut self, after: Option<Timestamp>, token: Option<String>) -> Result<ListPage, PollFailure> {
        loop {
            match self.target.list(&self.store.store, after, token.clone()).await {
                Ok(page) => {
                    self.failures = 0;
                    return Ok(page);
                }
                Err(failure) => {
                    self.failures += 1;
                    if after_failure(&failure, self.failures) != ListingFailure::RepeatRequest {
                        return Err(failure);
                    }
                    self.context.clock.sleep(failure.retry_after.unwrap_or_default()).await;
                }
            }
        }
    }

    /// The creation time of the oldest job to list, if it is known: older jobs fill pages for nothing.
    fn created_after(&self, live: &Live) -> Option<Timestamp> {
        let created = live.values().map(|known| known.as_ref()?.created_at);
        let from = if let Some(search) = &self.search {
            search.list_from(created.flatten().min())
        } else {
            created.collect::<Option<BTreeSet<_>>>()?.first().copied()?
        };
        from.checked_sub(CREATED_SLACK).ok()
    }

    fn compare_live(&mut self, listed: &ListedJob, known: Option<&JobState>) {
        // A job that had ended when it was discovered is not urgent.
        let when_discovered = || self.search.as_ref()?.status_at_hand_over(&listed.job).cloned();
        let status = known.map(|known| known.status.clone()).or_else(when_discovered);
        self.compare(&listed.job, status.as_ref(), Some(&listed.status));
    }

    fn compare(&mut self, job: &ImportJobId, known: Option<&JobStatus>, listed: Option<&JobStatus>) {
        if self.differences.record_live(job, known, listed) {
            self.registry.hint(job);
        }
    }

    fn is_new(&self, ListedJob { job, created_at, status }: &ListedJob) -> bool {
        self.search.as_ref().is_some_and(|search| search.is_new(job, *created_at, status))
            && !self.registry.is_watched(job)
    }

    /// Hands new jobs to the supervisor.
    ///
    /// # Errors
    /// Why they are not watched.
    async fn hand_over(&mut self, jobs: &[ListedJob]) -> Result<(), String> {
        let Some(search) = self.search.as_mut().filter(|_| !jobs.is_empty()) else { return Ok(()) };
        let (ack, handled) = oneshot::channel();
        let ids = jobs.iter().map(|listed| listed.job.clone()).collect();
        // An error, here and below: the supervisor has gone, and this task is about to be stopped.
        drop(self.discovered.send(DiscoveredJobs { store: self.store.clone(), jobs: ids, ack }).await);
        handled.await.unwrap_or_else(|_| Err("refwatch stops".to_owned()))?;
        for ListedJob { job, created_at, status } in jobs {
            search.record_handed_over(job.clone(), *created_at, status.clone());
            if !status.is_terminal() {
                self.registry.hint(job);
            }
        }
        Ok(())
    }

    /// Reports once that the store has more pages than are read.
    fn on_cut_short(&mut self) {
        if !self.cut_short {
            self.cut_short = true;
            let StoreId { target, store } = &self.store;
            let missed = format!(
                "only the first {PAGES_MAX} pages of its jobs are read, so later jobs are not discovered: set a shorter `created_within`"
            );
            warn!(event = "listing_cut_short", %target, store_id = %store, "{missed}");
            self.context.board.update_store(&self.store, |view| view.missed = Some(missed));
        }
    }

    /// Returns whether all discovered jobs are watched.
    fn on_success(&mut self, unhandled: Option<String>) -> bool {
        self.ends_with_outage = false;
        let StoreId { target, store } = &self.store;
        if self.ended_by.take().is_some() {
            info!(event = "listing_recovered", %target, store_id = %store, "listing works again");
        }
        if let Some(DiscoveryPolicy { name, .. }) = &self.policy.discovery {
            if let (Some(reason), None) = (&unhandled, &self.unhandled) {
                warn!(event = "discovery_failed", %target, store_id = %store, watch = &**name,
                    "new jobs of this store cannot be watched: {reason}");
            }
            self.unhandled.clone_from(&unhandled);
            self.context.board.update_store(&self.store, |view| view.error = unhandled);
        }
        self.unhandled.is_none()
    }

    /// Ends listing if the failure is lasting. Returns the pause until the next attempt.
    fn on_failure(&mut self, failure: &PollFailure) -> Duration {
        let PollFailure { reason, retry_after, .. } = *failure;
        if after_failure(failure, self.failures) == ListingFailure::PollOneByOne {
            self.end_listing(failure);
        }
        self.ends_with_outage = reason.class().scope == Scope::Target && retry_after.is_none();
        let unlikely_to_pass = reason == FailureReason::AccessDenied || reason.class().retry != RetryClass::Backoff;
        // Only a listing discovers jobs, so such a store is tried more often.
        let rare = unlikely_to_pass && self.search.is_none();
        let delay = if rare { DENIED_RECHECK } else { self.backoff.next_delay(self.jitter.f64()) };
        delay.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// Has the jobs polled one by one, and logs the reason once.
    fn end_listing(&mut self, PollFailure { reason, message, .. }: &PollFailure) {
        self.registry.set_safety_interval(None);
        let not_found = *reason == FailureReason::NotFound;
        let advice =
            if not_found { " (check reference_store_id, and the region and account of the target)" } else { "" };
        let discovery = self.policy.discovery.as_ref();
        if self.ended_by.replace(*reason) != Some(*reason) {
            let follows = if discovery.is_some() {
                "its jobs cannot be discovered, and its watched jobs are polled one by one"
            } else {
                "its jobs are polled one by one"
            };
            warn!(event = "listing_failed", target = %self.store.target, store_id = %self.store.store,
                watch = discovery.map(|discovery| &*discovery.name), reason = reason.label(),
                "this store cannot be listed: {follows}: {message}{advice}");
        }
        if discovery.is_some() {
            let error = format!("it cannot be listed: {message}{advice}");
            self.context.board.update_store(&self.store, |view| view.error = Some(error));
        }
    }
}
