//! The task of one job: wait, pace, ask, decide; then record, and only then publish.

mod poller;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::failure::{FailureReason, PollFailure};
use crate::core::job::WatchId;
use crate::core::time::{Monotonic, Now, Timestamp};
use crate::core::tracker::Next;
use crate::core::transition::{Anomaly, Change, Detail, DetailKind, Transition};
use crate::database::{CommitError, Record};
use crate::instruments::Instruments;
use crate::state::{Announced, FailedPoll, RECENT_FAILURES_MAX, StatusBoard, WatchState, WatchView};
pub use poller::{Polled, Poller};

/// How long after a failed commit it is tried again. Polling of the job pauses meanwhile, so that nothing is seen that could
/// not be kept.
const COMMIT_RETRY: Duration = Duration::from_secs(2);

/// How long a job that was found and never seen is asked for at least: a policy that is not everywhere yet loses no job.
const UNSEEN_MIN: Duration = Duration::from_hours(1);

/// What every watcher works with.
#[derive(Clone, Debug)]
pub struct Workplace {
    /// The clocks.
    pub clock: Clock,
    /// The durable log.
    pub record: Record,
    /// Where the latest state is published.
    pub board: StatusBoard,
    /// What is counted.
    pub instruments: Instruments,
}

/// The record can no longer take anything: the process has to end, and its supervisor to start it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that writes the record has ended")]
pub struct RecordGone;

/// Watches one job to its end, or until `stop`.
#[derive(Debug)]
pub struct Watcher {
    workplace: Arc<Workplace>,
    poller: Poller,
    /// What the board has, too.
    view: Arc<WatchView>,
    started: Monotonic,
    forget_after: Option<Duration>,
}

impl Watcher {
    /// A watcher that asks through `poller`; its watch is on the board from now on. `transitions` counts those that the record
    /// holds already; `forget_after` says how long after the job's end there is still something to watch, if that is limited.
    #[must_use]
    pub fn new(
        workplace: Arc<Workplace>,
        poller: Poller,
        id: Arc<WatchId>,
        name: Arc<str>,
        transitions: [u32; 8],
        forget_after: Option<Duration>,
    ) -> Self {
        let view = WatchView::new(id, name, Arc::clone(poller.aws_region()), transitions);
        let now = workplace.clock.now();
        let mut watcher = Self { workplace, poller, view: Arc::new(view), started: now.monotonic, forget_after };
        watcher.publish(now);
        watcher
    }

    /// Runs to the job's end and on until it is to be forgotten, or until `stop`; a commit that is under way ends first. What lasts
    /// for a moment is boxed: a hundred thousand tasks sleep, and each is as large as the largest of its steps.
    ///
    /// # Errors
    /// The record is gone.
    pub async fn run(mut self: Box<Self>, mut stop: oneshot::Receiver<()>) -> Result<(), RecordGone> {
        loop {
            if self.poller.due().is_none() {
                let left = self.left_in_sight();
                tokio::select! {
                    biased;
                    _ = &mut stop => return Ok(()),
                    () = self.workplace.clock.sleep(left) => return Ok(()),
                    () = self.poller.asked_again() => {}
                }
            }
            let polled = tokio::select! {
                biased;
                _ = &mut stop => break,
                polled = self.poller.poll() => polled,
            };
            let Some(polled) = polled else {
                self.publish(self.workplace.clock.now());
                continue;
            };
            if !polled.change.is_empty() && !Box::pin(self.record(&polled.change, &mut stop)).await? {
                return Ok(());
            }
            let lets_go = polled.lets_go(self.poller.known());
            self.tell(*polled);
            if lets_go && self.forgotten_in() == Some(Duration::ZERO) {
                return Ok(());
            }
        }
        Box::pin(self.leave()).await
    }

    /// How long a job that is not polled any more has to be in sight yet.
    fn left_in_sight(&self) -> Duration {
        // Parked: that has to be seen until the configuration changes.
        let seen = self.forget_after.map(|_| self.forgotten_in().unwrap_or(Duration::MAX));
        seen.unwrap_or_default()
    }

    /// How long the job stays in sight yet, where that is known. One that was never seen does not stay for ever.
    fn forgotten_in(&self) -> Option<Duration> {
        let (after, now) = (self.forget_after?, self.workplace.clock.now());
        match &self.view.known {
            Some(known) => known.forgotten_in(after, now.wall),
            None => Some(after.max(UNSEEN_MIN).saturating_sub(now.monotonic.since(self.started))),
        }
    }

    /// Notes when the status was last seen, so that its next change, which somebody else may see, is not said to have come sooner.
    /// It is tried once: without it that change lies between wider bounds, and is no less true.
    async fn leave(&self) -> Result<(), RecordGone> {
        let seen = self.view.last_successful_poll.and(self.view.known.as_ref());
        let Some(known) = seen.filter(|known| !known.status.is_terminal() && known.vanished_at.is_none()) else {
            return Ok(());
        };
        let detail = Detail { kind: DetailKind::StillSeen, value: None, observed_at: known.last_seen };
        let change = Change { details: vec![detail], ..Change::default() };
        match self.workplace.record.append(&self.view.id, &change).await {
            Err(CommitError::WriterGone) => Err(RecordGone),
            Ok(()) | Err(CommitError::Sqlite(_) | CommitError::Reopen(_)) => Ok(()),
        }
    }

    /// Commits, again and again until it holds. `false`: told to stop before it did, so nothing may be shown of it.
    async fn record(&self, change: &Change, stop: &mut oneshot::Receiver<()>) -> Result<bool, RecordGone> {
        loop {
            let committed = self.workplace.record.append(&self.view.id, change).await;
            if let Err(CommitError::WriterGone) = committed {
                return Err(RecordGone);
            }
            if committed.is_ok() {
                return Ok(true);
            }
            tokio::select! {
                biased;
                _ = &mut *stop => return Ok(false),
                () = self.workplace.clock.sleep(COMMIT_RETRY) => {}
            }
        }
    }

    /// Shows what is in the record by now: board, metrics, log.
    fn tell(&mut self, polled: Polled) {
        let now = polled.now;
        match polled.failure {
            None => {
                if self.view.up == Some(false) {
                    info!(event = "poll_recovered", watch = &*self.view.name, target = %self.view.id.target,
                        reference_store_id = %self.view.id.key.store, import_job_id = %self.view.id.key.job,
                        "polls succeed again");
                }
                let view = Arc::make_mut(&mut self.view);
                view.up = Some(true);
                view.last_successful_poll = Some(now.wall);
            }
            Some(failure) => self.note_failure(failure, now.wall),
        }
        if let Some(transition) = &polled.change.transition {
            Arc::make_mut(&mut self.view).transitions[transition.to.index()] += 1;
        }
        // The board first: whoever hears of the transition finds it there.
        self.publish(now);
        if let Some(transition) = polled.change.transition {
            self.tell_transition(transition);
        }
    }

    fn note_failure(&mut self, failure: PollFailure, at: Timestamp) {
        let reason: FailureReason = failure.reason;
        // One line when trouble begins or changes its kind; the counters tell the rest.
        if self.view.up != Some(false) || self.view.recent_failures.back().is_none_or(|last| last.reason != reason) {
            warn!(event = "poll_failed", watch = &*self.view.name, target = %self.view.id.target,
                reference_store_id = %self.view.id.key.store, import_job_id = %self.view.id.key.job,
                reason = reason.label(), "{}", failure.message);
        }
        let view = Arc::make_mut(&mut self.view);
        view.up = Some(false);
        if view.recent_failures.len() == RECENT_FAILURES_MAX {
            view.recent_failures.pop_front();
        }
        view.recent_failures.push_back(FailedPoll { at, reason, message: failure.message });
    }

    fn publish(&mut self, now: Now) {
        let view = Arc::make_mut(&mut self.view);
        view.known = self.poller.shared_known();
        view.next_poll = self.poller.due().and_then(|due| wall(due, now));
        view.state = match self.poller.next() {
            Next::PollAt(_) => WatchState::Live,
            Next::Finished(_) => WatchState::Finished,
            Next::Parked(reason) => WatchState::Parked(reason.clone()),
        };
        self.workplace.board.publish(Arc::clone(&self.view));
    }

    /// The watch as people tell it from others: those found in a store share its name.
    fn title(&self) -> String {
        let WatchView { name, id, .. } = &*self.view;
        if self.forget_after.is_some() { format!("{name}/{}", id.key.job) } else { name.to_string() }
    }

    fn tell_transition(&self, transition: Transition) {
        let WatchId { target, key } = &*self.view.id;
        let Transition { from, to, observed_at, not_before, status_message, created_at, completed_at, anomaly } =
            &transition;
        info!(
            event = "transition",
            watch = &*self.view.name,
            target = %target,
            reference_store_id = %key.store,
            import_job_id = %key.job,
            from_status = from.as_ref().map(tracing::field::display),
            to_status = %to,
            observed_at = format_args!("{observed_at:.3}"),
            not_before = not_before.map(|time| tracing::field::display(format!("{time:.3}"))),
            status_message = status_message.as_deref(),
            created_at = created_at.map(tracing::field::display),
            completed_at = completed_at.map(tracing::field::display),
            anomaly = anomaly.map(Anomaly::as_str),
            "{}: {}{to}", self.title(), from.as_ref().map(|from| format!("{from} → ")).unwrap_or_default(),
        );
        // At a first sighting the job may have ended long before anyone watched it.
        if let (Some(_), true, Some(completed_at)) = (from, to.is_terminal(), completed_at)
            && let Ok(delay) = Duration::try_from(self.workplace.clock.now().wall.duration_since(*completed_at))
        {
            self.workplace.instruments.detection_delay.observe(delay.as_secs_f64());
        }
        let announced = Announced { name: Arc::clone(&self.view.name), id: Arc::clone(&self.view.id), transition };
        self.workplace.board.announce(announced);
    }
}

/// A time on the monotonic clock as the wall clock will show it, if nobody sets that one meanwhile.
fn wall(at: Monotonic, now: Now) -> Option<Timestamp> {
    now.wall.checked_add(at.since(now.monotonic)).ok()
}
