//! The task of one store: list its jobs again and again, hint those that look changed, and tell of those that nobody watches yet,
//! where every job of the store is to be watched.
//!
//! A page of a listing tells the status of up to 100 jobs for one request, so where several jobs of a store are watched it
//! replaces most polls. It writes nothing: a hinted job's own task polls it, and the supervisor starts the watch of one that is
//! new. Where listing is denied or fails, the jobs are polled one by one as before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::core::failure::{FailureReason, PollFailure, RetryClass, Scope};
use crate::core::job::{ImportJobId, JobStatus, StoreId};
use crate::core::listing::{Search, Sweep, is_swept, safety_interval};
use crate::core::time::{Monotonic, Timestamp};
use crate::core::tracker::RETRY_AFTER_MAX;
use crate::healthomics::{ListPage, ListedJob, Target};
use crate::state::{StatusBoard, StoreView, WatchState};
use crate::tasks::hints::StoreHints;

/// Live watches in a store from which on one listing is cheaper than their polls.
const WORTH_A_SWEEP: usize = 2;

/// The least time between the beginnings of two sweeps, and between two looks at whether one is worth it. A fifth of the
/// default quota, where one page is enough.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How often a listing that is denied is tried again: a policy may have been mended.
const DENIED_RECHECK: Duration = Duration::from_mins(15);

/// From a failed listing to the next one.
const BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(5), max: Duration::from_mins(5) };

/// Pages of one sweep: 10,000 jobs, and an end to a listing that has none.
const PAGES_MAX: u32 = 100;

/// Times of creation are compared with some slack: whether the filter takes in its own time is not documented.
const CREATED_SLACK: Duration = Duration::from_secs(1);

/// Jobs told at once: a page of them.
const TOLD_AT_ONCE: usize = 100;

/// What the sweeps of a store are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepPolicy {
    /// Whether they take the place of polls where several jobs are live.
    pub replace_polls: bool,
    /// How jobs are looked for that nobody watches yet, if they are.
    pub find: Option<FindPolicy>,
}

/// How jobs are looked for that nobody watches yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindPolicy {
    /// The store's `watch` label.
    pub name: Arc<str>,
    /// Jobs count that were created at most so long before the search began.
    pub since: Duration,
    /// From one listing to the next where it does not take the place of polls.
    pub interval: Duration,
}

/// Jobs of a store that nobody watches yet.
#[derive(Debug)]
pub struct Found {
    /// The store.
    pub store: StoreId,
    /// The jobs.
    pub jobs: Vec<ImportJobId>,
    /// To be told once they are seen to, or why not: then they are told again at another sweep. Closed, they were found for a
    /// configuration that is no longer in force.
    pub seen_to: oneshot::Sender<Result<(), String>>,
}

/// Sweeps one store, until told to stop.
#[derive(Debug)]
pub struct Sweeper {
    clock: Clock,
    board: StatusBoard,
    target: Arc<Target>,
    store: StoreId,
    hints: Arc<StoreHints>,
    policy: SweepPolicy,
    sweep: Sweep,
    finder: Option<Finder>,
    backoff: Backoff,
    jitter: fastrand::Rng,
    failing: Option<FailureReason>,
    /// Whether the last listing failed with the whole target, and the service asked for no wait of its own.
    with_the_target: bool,
}

/// What goes with [`FindPolicy`].
#[derive(Debug)]
struct Finder {
    search: Search,
    view: StoreView,
}

/// The live watches of the store: the status that is known of each, and when it was created.
type Live = BTreeMap<ImportJobId, Option<(JobStatus, Option<Timestamp>)>>;

impl Sweeper {
    /// A sweeper that looks at the watches on `board` and tells `hints`. `seed` sets its jitter.
    #[must_use]
    pub fn new(
        clock: Clock,
        board: StatusBoard,
        target: Arc<Target>,
        store: StoreId,
        hints: Arc<StoreHints>,
        policy: SweepPolicy,
        seed: u64,
    ) -> Self {
        let finder = policy.find.as_ref().map(|FindPolicy { name, since, .. }| {
            let (id, name, before) = (store.clone(), Arc::clone(name), board.store(&store));
            let (listed_at, trouble) = before.map(|view| (view.listed_at, view.trouble.clone())).unwrap_or_default();
            let view = StoreView { id, name, listed_at, trouble, missed: None };
            board.publish_store(view.clone());
            let from = clock.now().wall.checked_sub(*since).unwrap_or(Timestamp::MIN);
            Finder { search: Search::new(from), view }
        });
        let (sweep, backoff) = (Sweep::default(), Backoff::new(BACKOFF));
        let jitter = fastrand::Rng::with_seed(seed);
        Self {
            clock,
            board,
            target,
            store,
            hints,
            policy,
            sweep,
            finder,
            backoff,
            jitter,
            failing: None,
            with_the_target: false,
        }
    }

    /// Runs until `stop`; then the store is not swept any more. What it finds goes to `found`.
    pub async fn run(mut self, found: mpsc::Sender<Found>, stop: oneshot::Receiver<()>) {
        let hints = Arc::clone(&self.hints);
        let sweeps = async {
            loop {
                let began = self.clock.now().monotonic;
                let pause = self.pass(began, &found).await;
                tokio::select! {
                    biased;
                    () = self.target.recovered_after(&self.store.store, began), if self.with_the_target => {}
                    () = self.clock.sleep(pause) => {}
                }
            }
        };
        tokio::select! {
            biased;
            _ = stop => {}
            () = sweeps => {}
        }
        hints.set_safety_interval(None);
    }

    /// Sweeps once, where that is worth it. Returns how long to wait then.
    async fn pass(&mut self, began: Monotonic, found: &mpsc::Sender<Found>) -> Duration {
        let live = self.live();
        let replaces_polls = self.policy.replace_polls && live.len() >= WORTH_A_SWEEP;
        if !replaces_polls {
            self.hints.set_safety_interval(None);
        }
        let interval = match &self.policy.find {
            Some(find) if !replaces_polls => find.interval.max(SWEEP_INTERVAL_MIN),
            None if !replaces_polls => return SWEEP_INTERVAL_MIN,
            Some(_) | None => SWEEP_INTERVAL_MIN,
        };
        match self.list(&live, found).await {
            Ok(unseen) => {
                self.note_success(unseen.clone());
                if replaces_polls {
                    let interval = safety_interval(live.len(), self.target.polls_per_second());
                    self.hints.set_safety_interval(Some(interval));
                }
                if unseen.is_some() {
                    return self.backoff.next_delay(self.jitter.f64());
                }
                self.backoff.reset();
                interval.saturating_sub(self.clock.now().monotonic.since(began))
            }
            Err(failure) => self.note(&failure),
        }
    }

    fn live(&self) -> Live {
        let (watches, now) = (self.board.watches_of(&self.store), self.clock.now().wall);
        let live = watches.iter().filter(|watch| matches!(watch.state, WatchState::Live));
        let known = live.filter(|watch| is_swept(watch.known.as_deref(), now)).map(|watch| {
            let known = watch.known.as_ref().map(|known| (known.status.clone(), known.created_at));
            (watch.id.key.job.clone(), known)
        });
        known.collect()
    }

    /// The jobs of the store that have ended and are still in sight, and how.
    fn over(&self) -> BTreeMap<ImportJobId, JobStatus> {
        // Only what is found stays in sight with somebody to hear a hint.
        let watches = if self.finder.is_some() { self.board.watches_of(&self.store) } else { Vec::new() };
        let over = watches.iter().filter(|watch| matches!(watch.state, WatchState::Finished));
        over.filter_map(|watch| Some((watch.id.key.job.clone(), watch.known.as_ref()?.status.clone()))).collect()
    }

    /// Lists page by page until there are no more, or, where nothing new is looked for, until every live job was listed. Returns why
    /// new jobs were not seen to, if they were not.
    async fn list(&mut self, live: &Live, found: &mpsc::Sender<Found>) -> Result<Option<String>, PollFailure> {
        let (created_after, over) = (self.created_after(live), self.over());
        let mut unlisted: BTreeMap<_, _> = live.iter().collect();
        self.sweep.retain(|job| live.contains_key(job) || over.contains_key(job));
        let (mut newest, mut unseen, mut ended) = (None, None, Vec::new());
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let ListPage { jobs, next_token } = self.target.list(&self.store.store, created_after, token).await?;
            let mut going_on = Vec::new();
            for listed in jobs {
                newest = newest.max(listed.created_at);
                if let Some(known) = unlisted.remove(&listed.job) {
                    self.look_at_listed(&listed, known.as_ref());
                } else if let Some(known) = over.get(&listed.job) {
                    if self.sweep.looks_reopened(&listed.job, known, &listed.status) {
                        self.hints.hint(&listed.job);
                    }
                } else if self.is_new(&listed) {
                    if listed.status.is_terminal() { &mut ended } else { &mut going_on }.push(listed);
                }
            }
            unseen = self.tell(found, &going_on).await.err().or(unseen);
            token = next_token;
            if token.is_none() || (unlisted.is_empty() && self.finder.is_none()) {
                break;
            }
        }
        for (job, known) in unlisted {
            self.look(job, known.as_ref().map(|(status, _)| status), None);
        }
        // After all that goes on, which is so polled first: at the beginning there may be much that has ended.
        for some in ended.chunks(TOLD_AT_ONCE) {
            unseen = self.tell(found, some).await.err().or(unseen);
        }
        if let Some(finder) = &mut self.finder {
            let now = self.clock.now().wall;
            finder.view.listed_at = Some(now);
            if token.is_some() {
                finder.note_cut_short();
            }
            if unseen.is_none() {
                finder.search.listed(created_after.unwrap_or(Timestamp::MIN), newest, now);
            }
        }
        Ok(unseen)
    }

    /// Since when the jobs to list were created, where that is known: it saves the pages of older ones.
    fn created_after(&self, live: &Live) -> Option<Timestamp> {
        let created = live.values().map(|known| known.as_ref()?.1);
        let from = if let Some(finder) = &self.finder {
            // The first poll of a job of which nothing is known is on its way.
            finder.search.list_from(created.flatten().min())
        } else {
            created.collect::<Option<BTreeSet<_>>>()?.first().copied()?
        };
        from.checked_sub(CREATED_SLACK).ok()
    }

    fn look_at_listed(&mut self, listed: &ListedJob, known: Option<&(JobStatus, Option<Timestamp>)>) {
        let search = self.finder.as_ref().map(|finder| &finder.search);
        // A job that had ended when it was found is in no hurry: its first poll has its turn.
        let when_told = || search?.status_when_told(&listed.job);
        let known = known.map(|(status, _)| status).or_else(when_told).cloned();
        self.look(&listed.job, known.as_ref(), Some(&listed.status));
    }

    fn look(&mut self, job: &ImportJobId, known: Option<&JobStatus>, listed: Option<&JobStatus>) {
        if self.sweep.looks_changed(job, known, listed) {
            self.hints.hint(job);
        }
    }

    /// Whether a listed job that is not live has to be told.
    fn is_new(&self, listed: &ListedJob) -> bool {
        let new = self
            .finder
            .as_ref()
            .is_some_and(|finder| finder.search.is_new(&listed.job, listed.created_at, &listed.status));
        new && self.board.watch(&self.store.watch(listed.job.clone())).is_none()
    }

    /// Tells of new jobs.
    ///
    /// # Errors
    /// Why they were not seen to.
    async fn tell(&mut self, found: &mpsc::Sender<Found>, jobs: &[ListedJob]) -> Result<(), String> {
        let Some(finder) = self.finder.as_mut().filter(|_| !jobs.is_empty()) else { return Ok(()) };
        let (seen_to, answer) = oneshot::channel();
        let ids = jobs.iter().map(|listed| listed.job.clone()).collect();
        // An error, here and in the answer: nobody is there to see to anything, and this task is about to be stopped.
        drop(found.send(Found { store: self.store.clone(), jobs: ids, seen_to }).await);
        answer.await.unwrap_or_else(|_| Err("refwatch stops".to_owned()))?;
        for ListedJob { job, created_at, status } in jobs {
            finder.search.told(job.clone(), *created_at, status.clone());
            if !status.is_terminal() {
                // Before what ended long ago.
                self.hints.hint(job);
            }
        }
        Ok(())
    }

    /// Takes note that listing works, and why what it shows is not seen to, if it is not.
    fn note_success(&mut self, unseen: Option<String>) {
        self.with_the_target = false;
        let StoreId { target, store } = &self.store;
        if self.failing.take().is_some() {
            info!(event = "sweep_recovered", %target, reference_store_id = %store, "listing works again");
        }
        let Some(finder) = &mut self.finder else { return };
        if let Some(reason) = unseen.as_ref().filter(|_| finder.view.trouble.is_none()) {
            warn!(event = "find_failed", %target, reference_store_id = %store, watch = &*finder.view.name,
                "new jobs of this store cannot be watched until this is mended: {reason}");
        }
        finder.view.trouble = unseen;
        self.board.publish_store(finder.view.clone());
    }

    /// Hands the jobs back to their own polls, says once what follows, and says when to try again.
    fn note(&mut self, failure: &PollFailure) -> Duration {
        self.hints.set_safety_interval(None);
        let not_found = failure.reason == FailureReason::NotFound;
        let advice =
            if not_found { " (check reference_store_id, and the region and account of the target)" } else { "" };
        let message = format!("{}{advice}", failure.message);
        if self.failing != Some(failure.reason) {
            self.failing = Some(failure.reason);
            let follows = if self.finder.is_some() {
                "none of its jobs can be found until it can be listed, and those that were are polled one by one"
            } else {
                "its jobs are polled one by one"
            };
            warn!(event = "sweep_failed", target = %self.store.target, reference_store_id = %self.store.store,
                watch = self.finder.as_ref().map(|finder| &*finder.view.name),
                reason = failure.reason.label(), "this store cannot be listed: {follows}: {message}");
        }
        if let Some(finder) = &mut self.finder {
            finder.view.trouble = Some(format!("it cannot be listed: {message}"));
            self.board.publish_store(finder.view.clone());
        }
        self.with_the_target = failure.reason.class().scope == Scope::Target && failure.retry_after.is_none();
        let recheck =
            failure.reason == FailureReason::AccessDenied || failure.reason.class().retry != RetryClass::Backoff;
        // Where nothing else finds a job, listing is not given up for so long.
        let rare = recheck && self.finder.is_none();
        let delay = if rare { DENIED_RECHECK } else { self.backoff.next_delay(self.jitter.f64()) };
        delay.max(failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }
}

impl Finder {
    /// Says once that a listing had more pages than are read.
    fn note_cut_short(&mut self) {
        if self.view.missed.is_none() {
            let StoreId { target, store } = &self.view.id;
            let missed = format!(
                "it was listed up to page {PAGES_MAX}: of the jobs behind that none is found; a shorter `since` makes it fewer"
            );
            warn!(event = "listing_cut_short", %target, reference_store_id = %store, watch = &*self.view.name, "{missed}");
            self.view.missed = Some(missed);
        }
    }
}
