//! The task of one store. It lists the store's jobs repeatedly and hints jobs whose listed status differs from the known status.
//! If the store's jobs are discovered, it hands new jobs to the supervisor.
//!
//! One request lists up to 100 jobs, so with `use_list` listings replace most polls of a store with several polled jobs. The
//! lister never saves a status: the task of a hinted job polls it. While listing is denied or keeps failing, the jobs are polled
//! one by one. The rules for hints, new jobs, the start of a listing and failures are in `core::listing`.

mod outcomes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::core::failure::{FailureReason, RequestFailure};
use crate::core::job::{JobId, TargetStore};
use crate::core::limits::{Limit, PAGES_AT_ONCE_MAX};
use crate::core::listing::{DiscoveryWindow, ListingFailure, StatusDifferences, after_failure, safety_interval};
use crate::core::time::{Monotonic, Timestamp};
use crate::core::tracker::JobState;
use crate::healthomics::{ListPage, ListedJob, Target};
use crate::tasks::job_watcher::TaskContext;
use crate::tasks::registry::StoreRegistry;

/// With fewer listable jobs, polls cost no more requests than a listing.
const MIN_JOBS_FOR_LISTING: usize = 2;

/// The shortest interval of successful listings, start to start. Listings of one page then use a fifth of AWS's default quota.
const LISTING_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The pause after any other failed listing or hand-over.
const BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(5), max: Duration::from_mins(5) };

/// Listings start this much before the oldest wanted creation time. AWS does not document whether `createdAfter` is inclusive.
const CREATED_SLACK: Duration = Duration::from_secs(1);

/// The most ended jobs that are handed to the supervisor at a time.
const ENDED_BATCH_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListingPolicy {
    /// Whether listings replace polls while at least [`MIN_JOBS_FOR_LISTING`] jobs are listable.
    pub(crate) replaces_polls: bool,
    pub(crate) discovery: Option<DiscoveryPolicy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiscoveryPolicy {
    /// The store's `watch` label.
    pub(crate) name: Arc<str>,
    /// Jobs that were older than this when the lister started are ignored.
    pub(crate) created_within: Duration,
    /// The shortest time between the starts of two listings while listings do not replace polls.
    pub(crate) interval: Duration,
}

/// Jobs that were not watched when they were listed. The supervisor starts to watch them.
#[derive(Debug)]
pub struct DiscoveredBatch {
    pub store: TargetStore,
    pub jobs: Vec<JobId>,
    /// Receives `Ok` once all unexpired jobs are watched, or the reason why none was added. Closed if the lister was stopped.
    pub ack: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug)]
pub(crate) struct Lister {
    context: Arc<TaskContext>,
    discovered_sender: mpsc::Sender<DiscoveredBatch>,
    target: Arc<Target>,
    store: TargetStore,
    registry: Arc<StoreRegistry>,
    policy: ListingPolicy,
    differences: StatusDifferences,
    /// `None` without discovery.
    window: Option<DiscoveryWindow>,
    backoff: Backoff,
    jitter: fastrand::Rng,
    failures: u32,
    /// The reason of the failure that was logged last. `None` after a successful listing.
    logged_failure: Option<FailureReason>,
    /// Whether the pause ends early when a circuit breaker closes.
    retry_on_recovery: bool,
    /// Why the last successful listing could not hand over all new jobs.
    not_watched_because: Option<String>,
    /// The place at which the next listing continues the last one.
    continuation: Option<Continuation>,
    /// The exceeded limits that were logged.
    logged_limits: BTreeSet<Limit>,
    /// Whether an unreadable job was logged.
    skipped_logged: bool,
}

/// A listing with more pages than [`PAGES_AT_ONCE_MAX`]. It continues with its next page and not at its newest job, because AWS does
/// not document the order of a listing: so every page is read once before the listing starts again.
#[derive(Debug)]
struct Continuation {
    created_after: Option<Timestamp>,
    token: String,
    pages: usize,
    newest: Option<Timestamp>,
}

/// With their last known states, `None` before the first successful poll.
type ListableJobs = BTreeMap<JobId, Option<Arc<JobState>>>;

impl Lister {
    /// Also publishes the view of a store with discovery. `seed` sets the jitter of the backoff.
    pub(crate) fn new(
        context: Arc<TaskContext>,
        discovered_sender: mpsc::Sender<DiscoveredBatch>,
        target: Arc<Target>,
        store: TargetStore,
        registry: Arc<StoreRegistry>,
        policy: ListingPolicy,
        seed: u64,
    ) -> Self {
        let window = policy.discovery.as_ref().map(|DiscoveryPolicy { name, created_within, .. }| {
            context.shared.update_store(&store, |view| (view.name, view.missed) = (Arc::clone(name), None));
            DiscoveryWindow::new(context.clock.now().wall.checked_sub(*created_within).unwrap_or(Timestamp::MIN))
        });
        Self {
            context,
            discovered_sender,
            target,
            store,
            registry,
            policy,
            differences: StatusDifferences::default(),
            window,
            backoff: Backoff::new(BACKOFF),
            jitter: fastrand::Rng::with_seed(seed),
            failures: 0,
            logged_failure: None,
            retry_on_recovery: false,
            not_watched_because: None,
            continuation: None,
            logged_limits: BTreeSet::new(),
            skipped_logged: false,
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
                () = self.target.wait_for_breaker_close(self.store.kind, &self.store.store, began), if self.retry_on_recovery => {}
                () = clock.sleep(pause) => {}
            }
        }
    }

    /// Lists the store if its jobs are discovered or listings replace polls now. Returns the pause until the next call.
    async fn list_once(&mut self, began: Monotonic) -> Duration {
        let now = self.context.clock.now().wall;
        let listable = self.registry.listable(now);
        let replaces_now = self.policy.replaces_polls && listable.len() >= MIN_JOBS_FOR_LISTING;
        let mut interval = LISTING_INTERVAL_MIN;
        if !replaces_now {
            self.registry.set_safety_interval(None);
            let Some(discovery) = &self.policy.discovery else {
                self.continuation = None;
                return interval;
            };
            interval = interval.max(discovery.interval);
        }
        match self.list(&listable).await {
            Ok(not_watched_because) => {
                if replaces_now {
                    let safety_interval = safety_interval(listable.len(), self.target.configured_rate(self.store.kind));
                    self.registry.set_safety_interval(Some(safety_interval));
                }
                if self.on_success(not_watched_because) {
                    self.backoff.reset();
                    return interval.saturating_sub(self.context.clock.now().monotonic.since(began));
                }
                self.backoff.next_delay(self.jitter.f64())
            }
            Err(failure) => self.on_failure(&failure),
        }
    }

    /// Lists up to [`PAGES_AT_ONCE_MAX`] pages. Without discovery it stops once all listable jobs were listed. Returns the reason why
    /// new jobs are not watched, if there is one.
    async fn list(&mut self, listable: &ListableJobs) -> Result<Option<String>, RequestFailure> {
        let continues = self.continuation.take();
        let is_first_part = continues.is_none();
        let Continuation { created_after, token, mut pages, mut newest } = continues.unwrap_or_else(|| Continuation {
            created_after: self.created_after(listable),
            token: String::new(),
            pages: 0,
            newest: None,
        });
        // Ended jobs are hinted too, because they may be reopened. Without discovery no ended job has a task to hint.
        let ended = if self.policy.discovery.is_some() { self.registry.ended() } else { BTreeMap::new() };
        let mut unlisted: BTreeMap<_, _> = listable.iter().collect();
        self.differences.retain(|job| listable.contains_key(job) || ended.contains_key(job));
        let (mut not_watched_because, mut new_ended) = (None, Vec::new());
        let (mut token, mut seen_tokens) = (Some(token).filter(|token| !token.is_empty()), BTreeSet::new());
        for _ in 0..PAGES_AT_ONCE_MAX {
            let ListPage { jobs, next_token, skipped, is_cut } = self.list_page(created_after, token).await?;
            pages += 1;
            self.on_unreadable(&skipped);
            if is_cut {
                self.on_limit(Limit::PageJobs);
            }
            let mut new_not_ended = Vec::new();
            for listed in jobs {
                newest = newest.max(listed.created_at);
                if let Some(known) = unlisted.remove(&listed.job) {
                    self.compare_listed(&listed, known.as_deref());
                } else if let Some(status) = ended.get(&listed.job) {
                    if self.differences.record_ended(&listed.job, status, &listed.status) {
                        self.registry.hint(&listed.job);
                    }
                } else if self.is_new(&listed) && self.has_room(new_ended.len() + new_not_ended.len()) {
                    let new = if listed.status.is_terminal() { &mut new_ended } else { &mut new_not_ended };
                    new.push(listed);
                }
            }
            not_watched_because = self.hand_over(&new_not_ended).await.err().or(not_watched_because);
            // A repeated token would list the same pages again.
            token = next_token.filter(|token| seen_tokens.insert(token.clone()));
            if unlisted.is_empty() && self.policy.discovery.is_none() {
                token = None;
            }
            if token.is_none() {
                break;
            }
        }
        // A part of a listing does not show that a job is not listed.
        for (job, known) in unlisted.into_iter().filter(|_| is_first_part && token.is_none()) {
            // `None`, not listed, differs from every known status.
            if self.differences.record_live(job, known.as_ref().map(|known| &known.status), None) {
                self.registry.hint(job);
            }
        }
        // Ended jobs come last, because there may be thousands of them: jobs that have not ended are polled first.
        for batch in new_ended.chunks(ENDED_BATCH_MAX) {
            not_watched_because = self.hand_over(batch).await.err().or(not_watched_because);
        }
        match token {
            Some(token) if pages < Limit::ListingPages.max() => {
                self.continuation = Some(Continuation { created_after, token, pages, newest });
            }
            Some(_) | None => self.on_listed(created_after, newest, token.is_some(), not_watched_because.is_none()),
        }
        Ok(not_watched_because)
    }

    /// Requests one page. Repeats a throttled request: the target has lowered its request rate.
    async fn list_page(&mut self, after: Option<Timestamp>, token: Option<String>) -> Result<ListPage, RequestFailure> {
        loop {
            match self.target.list(self.store.kind, &self.store.store, after, token.clone()).await {
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

    /// The lower bound of the creation time. `None`: no bound.
    fn created_after(&self, listable: &ListableJobs) -> Option<Timestamp> {
        let created = listable.values().map(|known| known.as_ref()?.created_at);
        let from = if let Some(window) = &self.window {
            // Jobs of unknown age do not remove the bound: the whole store would be listed. Their first poll, usually due now, tells their
            // age.
            window.list_from(created.flatten().min())
        } else {
            // The listing stops once all listable jobs were listed, so it needs no bound while the age of a job is unknown.
            created.collect::<Option<Vec<_>>>()?.into_iter().min()?
        };
        from.checked_sub(CREATED_SLACK).ok()
    }

    fn compare_listed(&mut self, listed: &ListedJob, known: Option<&JobState>) {
        // A new job that has not ended is hinted at hand-over. Until its first poll, only a changed listed status hints it again.
        let at_hand_over = || self.window.as_ref()?.status_at_hand_over(&listed.job).cloned();
        let status = known.map(|known| known.status.clone()).or_else(at_hand_over);
        if self.differences.record_live(&listed.job, status.as_ref(), Some(&listed.status)) {
            self.registry.hint(&listed.job);
        }
    }

    fn is_new(&self, ListedJob { job, created_at, status }: &ListedJob) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_new(job, *created_at, status))
            && !self.registry.is_watched(job)
    }

    /// Hands new jobs to the supervisor. The error is the reason why they are not watched.
    async fn hand_over(&mut self, jobs: &[ListedJob]) -> Result<(), String> {
        let Some(window) = self.window.as_mut().filter(|_| !jobs.is_empty()) else { return Ok(()) };
        let (ack, handled) = oneshot::channel();
        let ids = jobs.iter().map(|listed| listed.job.clone()).collect();
        // A closed channel, here and below, means that the supervisor has stopped or is about to. This task then stops soon.
        drop(self.discovered_sender.send(DiscoveredBatch { store: self.store.clone(), jobs: ids, ack }).await);
        handled.await.unwrap_or_else(|_| Err("refwatch stops".to_owned()))?;
        for ListedJob { job, created_at, status } in jobs {
            window.record_handed_over(job.clone(), *created_at, status.clone());
            if !status.is_terminal() {
                // The first poll of a new job gets priority.
                self.registry.hint(job);
            }
        }
        Ok(())
    }

    /// Records the end of a listing: the last page, or the limit of pages. Then the next listing begins at the newest job of this one.
    fn on_listed(&mut self, after: Option<Timestamp>, newest: Option<Timestamp>, has_more: bool, handed_over: bool) {
        let now = self.context.clock.now().wall;
        let Some(window) = &mut self.window else { return };
        if handed_over {
            window.record_listing(after.unwrap_or(Timestamp::MIN), newest, now);
        }
        self.context.shared.update_store(&self.store, |view| view.listed_at = Some(now));
        if has_more {
            self.on_limit(Limit::ListingPages);
        }
    }

    /// Whether another job may be discovered, after `more` that are not handed over yet.
    fn has_room(&mut self, more: usize) -> bool {
        let handed_over = self.window.as_ref().map_or(0, DiscoveryWindow::handed_over);
        let has_room = self.registry.len().max(handed_over) + more < Limit::DiscoveredJobs.max();
        if !has_room {
            self.on_limit(Limit::DiscoveredJobs);
        }
        has_room
    }
}
