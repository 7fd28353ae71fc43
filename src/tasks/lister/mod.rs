//! The task of one store. It lists the store's jobs repeatedly and hints jobs whose listed status differs from the known status.
//! If the store's jobs are discovered, it hands new jobs to the supervisor.
//!
//! One request lists up to 100 jobs. So if a store has several polled jobs, its listings replace most polls (setting `use_list`). The
//! lister never saves a status: the task of a hinted job polls it. While listing is denied or keeps failing, the jobs are polled
//! one by one. The rules for hints, new jobs, the earliest creation time of a listing and failures are in `core::listing`.

mod outcomes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::core::failure::{FailureReason, RequestFailure};
use crate::core::job::{JobId, TargetStore};
use crate::core::limits::{Limit, PART_PAGES_MAX};
use crate::core::listing::{AfterFailure, DiscoveryWindow, StatusDifferences, after_failure, routine_interval};
use crate::core::time::{Monotonic, Timestamp};
use crate::core::tracker::JobState;
use crate::healthomics::{ListPage, ListedJob, Target};
use crate::tasks::context::TaskContext;
use crate::tasks::registry::StoreRegistry;

/// With fewer listable jobs, polls cost no more requests than a listing.
const MIN_JOBS_FOR_LISTING: usize = 2;

/// The shortest time between the starts of two listings, or of two parts of one. Listings of one page then use a fifth of AWS's
/// default quota of 5 requests per second.
const LISTING_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The pause after a failed listing or hand-over. For some failures `on_failure` uses `RECHECK_INTERVAL` instead, or a longer
/// `Retry-After`.
const BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(5), max: Duration::from_mins(5) };

/// The lower bound of a listing is this much before the oldest wanted creation time. AWS does not document whether `createdAfter` is
/// inclusive.
const CREATED_SLACK: Duration = Duration::from_secs(1);

/// The maximum number of jobs in one hand-over of new jobs that are listed as ended. Other new jobs are handed over after each page.
const ENDED_BATCH_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListingPolicy {
    /// Whether listings replace polls while at least [`MIN_JOBS_FOR_LISTING`] jobs are listable.
    pub(crate) replaces_polls: bool,
    pub(crate) discovery: Option<DiscoveryPolicy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiscoveryPolicy {
    /// The name of the `[[store]]` entry, which logs call `watch`.
    pub(crate) name: Arc<str>,
    /// Jobs that were older than this when the lister started are ignored.
    pub(crate) created_within: Duration,
    /// The shortest time between the starts of listings, or of their parts, while listings do not replace polls. At least
    /// [`LISTING_INTERVAL_MIN`] is used.
    pub(crate) interval: Duration,
}

/// Jobs that were not watched when they were listed. The supervisor starts to watch them.
#[derive(Debug)]
pub struct DiscoveredBatch {
    pub store: TargetStore,
    pub jobs: Vec<JobId>,
    /// `Ok`: all jobs that are not overdue are watched. `Err`: why none of them is watched. Closed if the lister was stopped.
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
    /// The differences between listed and known statuses that gave hints. If listings and polls keep returning different statuses, a
    /// listable job gets a hint at the 1st, 2nd, 4th, 8th … listing, a finished job only at the 1st.
    differences: StatusDifferences,
    /// Decides which jobs are new, by their creation times and the earlier hand-overs. A job that was handed over as ended is never handed
    /// over again, not even after it has expired. Other jobs may be handed over again once they are no longer watched. `None` without
    /// discovery.
    window: Option<DiscoveryWindow>,
    backoff: Backoff,
    jitter: fastrand::Rng,
    /// Failed requests since the last listed page.
    failed_requests: u32,
    /// The reasons of the failures that were logged since the last success.
    logged_failures: BTreeSet<FailureReason>,
    /// Whether the pause ends early when the breaker of the target, or of polls in this store, closes.
    retry_on_recovery: bool,
    /// Why some or all new jobs of the last listed part are not watched. Kept so that only the first of several failed hand-overs is
    /// logged.
    hand_over_error: Option<String>,
    /// The listing that the next part continues.
    to_continue: Option<Listing>,
    logged_limits: BTreeSet<Limit>,
    /// Whether an unreadable listed job was logged.
    unreadable_logged: bool,
}

/// A listing of all pages, in parts of at most [`PART_PAGES_MAX`]. A part continues with `next_token`, not with a later `created_after`:
/// AWS does not document the order of a listing.
#[derive(Debug, Default)]
struct Listing {
    /// The lower bound of the creation time. `None`: no bound.
    created_after: Option<Timestamp>,
    /// `None` before the first page, and once the listing is complete.
    next_token: Option<String>,
    pages: usize,
    /// The latest creation time on these pages.
    newest: Option<Timestamp>,
    /// The listable jobs and the new jobs on these pages. At the end, listable jobs that are not in this set may get a hint. A job can
    /// be on two pages if jobs are created during the listing. Its second occurrence is skipped.
    listed_jobs: BTreeSet<JobId>,
}

/// The listable jobs with their last known states, which are `None` before the first successful poll.
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
            context.shared.update_store(&store, |view| (view.name, view.limit_message) = (Arc::clone(name), None));
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
            failed_requests: 0,
            logged_failures: BTreeSet::new(),
            retry_on_recovery: false,
            hand_over_error: None,
            to_continue: None,
            logged_limits: BTreeSet::new(),
            unreadable_logged: false,
        }
    }

    /// Runs until `stop` is signalled. The supervisor then removes the routine interval.
    pub(crate) async fn run(mut self, stop: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            _ = stop => {}
            () = self.list_repeatedly() => {}
        }
    }

    /// Never returns.
    async fn list_repeatedly(&mut self) {
        let clock = self.context.clock;
        loop {
            let began = clock.now().monotonic;
            let pause = self.list_if_needed(began).await;
            tokio::select! {
                biased;
                () = self.target.wait_for_breaker_close(self.store.kind, &self.store.store, began), if self.retry_on_recovery => {}
                () = clock.sleep(pause) => {}
            }
        }
    }

    /// Lists a part if jobs are discovered or listings replace polls now. Returns the pause until the next call.
    async fn list_if_needed(&mut self, began: Monotonic) -> Duration {
        let now = self.context.clock.now().wall;
        let listable = self.registry.listable(now);
        let replaces_now = self.policy.replaces_polls && listable.len() >= MIN_JOBS_FOR_LISTING;
        let mut interval = LISTING_INTERVAL_MIN;
        if !replaces_now {
            self.registry.set_routine_interval(None);
            let Some(discovery) = &self.policy.discovery else {
                self.to_continue = None;
                return interval;
            };
            interval = interval.max(discovery.interval);
        }
        match self.list_part(&listable).await {
            Ok(hand_over_error) => {
                if replaces_now {
                    let routine = routine_interval(listable.len(), self.target.configured_rate(self.store.kind));
                    self.registry.set_routine_interval(Some(routine));
                }
                let all_watched = hand_over_error.is_none();
                self.on_part_listed(hand_over_error);
                if all_watched {
                    self.backoff.reset();
                    return interval.saturating_sub(self.context.clock.now().monotonic.since(began));
                }
                // The next listing begins again, so that it contains the jobs that are not watched.
                self.to_continue = None;
                self.backoff.next_delay(self.jitter.f64())
            }
            Err(failure) => self.on_failure(&failure),
        }
    }

    /// Lists up to [`PART_PAGES_MAX`] pages. Without discovery the listing ends once all listable jobs were listed. Returns the reason if
    /// new jobs are not watched.
    async fn list_part(&mut self, listable: &ListableJobs) -> Result<Option<String>, RequestFailure> {
        let to_continue = self.to_continue.take();
        let new_listing = || Listing { created_after: self.created_after(listable), ..Listing::default() };
        let mut listing = to_continue.unwrap_or_else(new_listing);
        let discovers = self.policy.discovery.is_some();
        // The tasks of finished discovered jobs wait for a hint that AWS may have reopened the job. Without discovery every job has its own
        // entry, so the tasks of finished jobs have exited.
        let finished = if discovers { self.registry.finished() } else { BTreeMap::new() };
        self.differences.retain(|job| listable.contains_key(job) || finished.contains_key(job));
        let mut hand_over_error = None;
        let mut new_ended = Vec::new();
        let mut seen_tokens = BTreeSet::new();
        for _ in 0..PART_PAGES_MAX {
            let page = self.list_page(&listing).await?;
            listing.pages += 1;
            let newest_on_page = page.jobs.iter().filter_map(|listed| listed.created_at).max();
            listing.newest = listing.newest.max(newest_on_page);
            let mut new_not_ended = Vec::new();
            for listed in page.jobs {
                if listing.listed_jobs.contains(&listed.job) {
                    continue;
                }
                if let Some(known) = listable.get(&listed.job) {
                    listing.listed_jobs.insert(listed.job.clone());
                    self.compare_listed(&listed, known.as_deref());
                } else if let Some(status) = finished.get(&listed.job) {
                    if self.differences.should_hint_finished(&listed.job, status, &listed.status) {
                        self.registry.hint(&listed.job);
                    }
                } else if self.is_new(&listed) && self.allows_another_job(new_ended.len() + new_not_ended.len()) {
                    listing.listed_jobs.insert(listed.job.clone());
                    let new = if listed.status.is_terminal() { &mut new_ended } else { &mut new_not_ended };
                    new.push(listed);
                }
            }
            hand_over_error = self.hand_over(&new_not_ended).await.err().or(hand_over_error);
            let is_done = !discovers && listable.keys().all(|job| listing.listed_jobs.contains(job));
            // A token repeated within this part would list the same pages again, so it ends the listing.
            listing.next_token = page.next_token.filter(|token| !is_done && seen_tokens.insert(token.clone()));
            if listing.next_token.is_none() {
                break;
            }
        }
        // Only the end of a listing shows that a job is not listed.
        if listing.next_token.is_none() {
            self.hint_unlisted(listable, &listing.listed_jobs);
        }
        // New jobs that have already ended come last, because there may be thousands of them: the others are polled first.
        for batch in new_ended.chunks(ENDED_BATCH_MAX) {
            hand_over_error = self.hand_over(batch).await.err().or(hand_over_error);
        }
        if listing.next_token.is_some() && listing.pages < Limit::ListingPages.max() {
            self.to_continue = Some(listing);
        } else {
            // No earlier part had a failed hand-over: `list_if_needed` does not continue a listing after that. So the result of this part
            // is that of the whole listing.
            self.on_listing_end(&listing, hand_over_error.is_none());
        }
        Ok(hand_over_error)
    }

    /// Requests one page. Repeats the request while `after_failure` says so. No backoff is needed: after throttling, the target sends
    /// requests at a lower rate.
    async fn list_page(&mut self, listing: &Listing) -> Result<ListPage, RequestFailure> {
        let Listing { created_after, next_token, .. } = listing;
        loop {
            match self.target.list(self.store.kind, &self.store.store, *created_after, next_token.clone()).await {
                Ok(page) => {
                    self.failed_requests = 0;
                    self.on_unreadable(&page.skip_reasons);
                    if page.exceeds_job_limit {
                        self.on_limit(Limit::PageJobs);
                    }
                    return Ok(page);
                }
                Err(failure) => {
                    self.failed_requests += 1;
                    if after_failure(&failure, self.failed_requests) != AfterFailure::RepeatRequest {
                        return Err(failure);
                    }
                    self.context.clock.sleep(failure.retry_after.unwrap_or_default()).await;
                }
            }
        }
    }

    fn created_after(&self, listable: &ListableJobs) -> Option<Timestamp> {
        let created = listable.values().map(|known| known.as_ref()?.created_at);
        let from = if let Some(window) = &self.window {
            // Jobs of unknown creation time are left out: without a bound the whole store would be listed. Their first polls return the
            // times.
            window.list_from(created.flatten().min())
        } else {
            // While a creation time is unknown, there is no bound: the listing stops anyway once all listable jobs were listed.
            created.collect::<Option<Vec<_>>>()?.into_iter().min()?
        };
        from.checked_sub(CREATED_SLACK).ok()
    }

    fn compare_listed(&mut self, listed: &ListedJob, known: Option<&JobState>) {
        // A new job has no known status until its first poll. Its status at the hand-over is used instead, so an unchanged status gives no
        // hint. A hint is not needed: `hand_over` has hinted the jobs that had not ended, and the first poll of an ended job is not urgent.
        let at_hand_over = || self.window.as_ref()?.status_at_hand_over(&listed.job).cloned();
        let status = known.map(|known| known.status.clone()).or_else(at_hand_over);
        if self.differences.should_hint(&listed.job, status.as_ref(), Some(&listed.status)) {
            self.registry.hint(&listed.job);
        }
    }

    fn hint_unlisted(&mut self, listable: &ListableJobs, listed_jobs: &BTreeSet<JobId>) {
        for (job, known) in listable.iter().filter(|(job, _)| !listed_jobs.contains(*job)) {
            // `None`, the status of a job that is not listed, differs from every known status.
            if self.differences.should_hint(job, known.as_ref().map(|known| &known.status), None) {
                self.registry.hint(job);
            }
        }
    }

    fn is_new(&self, ListedJob { job, created_at, status }: &ListedJob) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_new(job, *created_at, status))
            && !self.registry.is_watched(job)
    }

    /// Hands new jobs to the supervisor. The error is the reason why they are not watched.
    async fn hand_over(&mut self, jobs: &[ListedJob]) -> Result<(), String> {
        let Some(window) = self.window.as_mut().filter(|_| !jobs.is_empty()) else { return Ok(()) };
        let (ack, receiver) = oneshot::channel();
        let ids = jobs.iter().map(|listed| listed.job.clone()).collect();
        // A closed channel, here and below, means that the supervisor stops. It then stops this task.
        drop(self.discovered_sender.send(DiscoveredBatch { store: self.store.clone(), jobs: ids, ack }).await);
        receiver.await.unwrap_or_else(|_| Err("refwatch stops".to_owned()))?;
        for ListedJob { job, created_at, status } in jobs {
            window.record_handed_over(job.clone(), *created_at, status.clone());
            if !status.is_terminal() {
                // The first poll of a new job gets priority.
                self.registry.hint(job);
            }
        }
        Ok(())
    }

    /// Ends a listing, at its last page or the limit of pages. If no hand-over failed, the next listing may have a later
    /// `created_after`. This is so even if a limit excluded jobs, which may then never be discovered. The log shows each exceeded limit.
    fn on_listing_end(&mut self, listing: &Listing, all_watched: bool) {
        let now = self.context.clock.now().wall;
        if listing.next_token.is_some() {
            self.on_limit(Limit::ListingPages);
        }
        let Some(window) = &mut self.window else { return };
        if all_watched {
            window.record_listing(listing.created_after.unwrap_or(Timestamp::MIN), listing.newest, now);
        }
        self.context.shared.update_store(&self.store, |view| view.listed_at = Some(now));
    }

    /// Whether the limit of discovered jobs allows another one, besides `pending` jobs that are not handed over yet. If not, counts and
    /// logs the limit.
    fn allows_another_job(&mut self, pending: usize) -> bool {
        // The window also has jobs that were handed over and have expired.
        let handed_over = self.window.as_ref().map_or(0, DiscoveryWindow::handed_over_count);
        if self.registry.len().max(handed_over) + pending < Limit::DiscoveredJobs.max() {
            return true;
        }
        self.on_limit(Limit::DiscoveredJobs);
        false
    }
}

#[cfg(test)]
mod tests;
