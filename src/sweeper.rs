//! The task of one store: list its jobs again and again, and hint those that look changed.
//!
//! A page of a listing tells the status of up to 100 jobs for one request, so where several jobs of a store are watched it
//! replaces most polls. It writes nothing: a hinted job's own task polls it. Where listing is denied or fails, the jobs are
//! polled one by one as before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::board::{StatusBoard, WatchState};
use crate::clock::Clock;
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::core::job::{ImportJobId, JobStatus, ReferenceStoreId};
use crate::core::outcome::{FailureReason, PollFailure, Remedy};
use crate::core::sweep::{Sweep, safety_interval};
use crate::core::time::{Monotonic, Timestamp};
use crate::hints::StoreHints;
use crate::omics::{ListPage, Target};

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

/// Sweeps one store, until told to stop.
#[derive(Debug)]
pub struct Sweeper {
    clock: Clock,
    board: StatusBoard,
    target: Arc<Target>,
    target_name: Arc<str>,
    store: ReferenceStoreId,
    hints: Arc<StoreHints>,
    sweep: Sweep,
    backoff: Backoff,
    jitter: fastrand::Rng,
    failing: Option<FailureReason>,
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
        target_name: Arc<str>,
        store: ReferenceStoreId,
        hints: Arc<StoreHints>,
        seed: u64,
    ) -> Self {
        let (sweep, backoff) = (Sweep::default(), Backoff::new(BACKOFF));
        let jitter = fastrand::Rng::with_seed(seed);
        Self { clock, board, target, target_name, store, hints, sweep, backoff, jitter, failing: None }
    }

    /// Runs until `stop`; then the store is not swept any more.
    pub async fn run(mut self, stop: CancellationToken) {
        let hints = Arc::clone(&self.hints);
        stop.run_until_cancelled(async {
            loop {
                let began = self.clock.now().monotonic;
                let pause = self.pass(began).await;
                let with_the_target = self.failing.is_some_and(FailureReason::may_be_an_outage);
                tokio::select! {
                    biased;
                    () = self.target.recovered_after(began), if with_the_target => {}
                    () = self.clock.sleep(pause) => {}
                }
            }
        })
        .await;
        hints.set_safety_interval(None);
    }

    /// Sweeps once, where that is worth it. Returns how long to wait then.
    async fn pass(&mut self, began: Monotonic) -> Duration {
        let live = self.live();
        if live.len() < WORTH_A_SWEEP {
            self.hints.set_safety_interval(None);
            return SWEEP_INTERVAL_MIN;
        }
        match self.list(&live).await {
            Ok(()) => {
                if self.failing.take().is_some() {
                    info!(event = "sweep_recovered", target = %self.target_name, reference_store_id = %self.store,
                        "listing works again");
                }
                self.backoff.reset();
                let interval = safety_interval(live.len(), self.target.polls_per_second());
                self.hints.set_safety_interval(Some(interval));
                SWEEP_INTERVAL_MIN.saturating_sub(self.clock.now().monotonic.since(began))
            }
            Err(failure) => self.note(&failure),
        }
    }

    fn live(&self) -> Live {
        let watches = self.board.watches();
        let of_store = watches.iter().filter(|watch| {
            watch.id.target == self.target_name
                && watch.id.key.store == self.store
                && matches!(watch.state, WatchState::Live)
        });
        let known = of_store.map(|watch| {
            let known = watch.known.as_ref().map(|known| (known.status.clone(), known.created_at));
            (watch.id.key.job.clone(), known)
        });
        known.collect()
    }

    /// Lists page by page, until every live job was listed or there are no more pages.
    async fn list(&mut self, live: &Live) -> Result<(), PollFailure> {
        let created_after = created_after(live);
        let mut unlisted: BTreeMap<_, _> = live.iter().collect();
        self.sweep.retain(|job| live.contains_key(job));
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let ListPage { jobs, next_token } = self.target.list(&self.store, created_after, token).await?;
            for listed in jobs {
                if let Some(known) = unlisted.remove(&listed.job) {
                    self.look(&listed.job, known.as_ref(), Some(&listed.status));
                }
            }
            if unlisted.is_empty() {
                return Ok(());
            }
            token = next_token;
            if token.is_none() {
                break;
            }
        }
        for (job, known) in unlisted {
            self.look(job, known.as_ref(), None);
        }
        Ok(())
    }

    fn look(&mut self, job: &ImportJobId, known: Option<&(JobStatus, Option<Timestamp>)>, listed: Option<&JobStatus>) {
        if self.sweep.looks_changed(job, known.map(|(status, _)| status), listed) {
            self.hints.hint(job);
        }
    }

    /// Hands the jobs back to their own polls, says so once, and says when to try again.
    fn note(&mut self, failure: &PollFailure) -> Duration {
        self.hints.set_safety_interval(None);
        if self.failing != Some(failure.reason) {
            self.failing = Some(failure.reason);
            warn!(event = "sweep_failed", target = %self.target_name, reference_store_id = %self.store,
                reason = failure.reason.label(), "jobs are polled one by one: {}", failure.message);
        }
        if failure.reason == FailureReason::AccessDenied {
            return DENIED_RECHECK;
        }
        match failure.reason.remedy() {
            Remedy::Backoff => self.backoff.next_delay(self.jitter.f64()),
            Remedy::Recheck | Remedy::Park => DENIED_RECHECK,
        }
    }
}

/// Since when the live jobs were created, where that is known of all of them: it saves the pages of older ones.
fn created_after(live: &Live) -> Option<Timestamp> {
    let mut created = live.values().map(|known| known.as_ref()?.1);
    let first = created.next()??;
    let oldest = created.try_fold(first, |oldest, created| Some(oldest.min(created?)))?;
    oldest.checked_sub(CREATED_SLACK).ok()
}
