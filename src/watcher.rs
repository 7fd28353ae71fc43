//! The task of one job: wait, pace, ask, decide; then record, and only then publish.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::board::{Announced, FailedPoll, RECENT_FAILURES_MAX, StatusBoard, WatchState, WatchView};
use crate::clock::Clock;
use crate::core::change::{Anomaly, Change, Detail, DetailKind, Transition};
use crate::core::job::{JobKey, WatchId};
use crate::core::outcome::{FailureReason, PollFailure};
use crate::core::time::{Monotonic, Now, Timestamp};
use crate::core::watch::{JobWatch, Known, Next, PollPolicy};
use crate::hints::{JobHints, Told};
use crate::instruments::Instruments;
use crate::omics::{Target, Urgency};
use crate::record::{CommitError, Record};

/// How long after a failed commit it is tried again. Polling of the job pauses meanwhile, so that nothing is seen that could
/// not be kept.
const COMMIT_RETRY: Duration = Duration::from_secs(2);

/// Asks for one job when it is due: steps 1 to 5 of the way of an answer. It neither records nor shows anything.
#[derive(Debug)]
pub struct Poller {
    clock: Clock,
    target: Arc<Target>,
    key: JobKey,
    watch: JobWatch,
    next: Next,
    hints: JobHints,
    /// When the last poll succeeded; `None` before the first one.
    fresh_at: Option<Monotonic>,
    failing: Option<Failing>,
}

/// The last poll failed.
#[derive(Clone, Copy, Debug)]
struct Failing {
    sent: Monotonic,
    /// Whether it waits for the target, and not for itself alone.
    with_the_target: bool,
}

/// What a poller came back with.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly always it is a poll")]
pub enum Step {
    /// A poll was made.
    Polled(Polled),
    /// The next poll is due at another time.
    Rescheduled,
    /// There is no poll to come.
    Over,
}

/// One poll, done.
#[derive(Debug)]
pub struct Polled {
    /// When its outcome was taken in.
    pub now: Now,
    /// Why it failed, if it did.
    pub failure: Option<PollFailure>,
    /// What it adds to the record.
    pub change: Change,
}

impl Poller {
    /// A poller that starts from what is known of the job. `seed` sets its jitter.
    #[must_use]
    pub fn new(
        clock: Clock,
        target: Arc<Target>,
        key: JobKey,
        policy: PollPolicy,
        known: Option<Known>,
        hints: JobHints,
        seed: u64,
    ) -> Self {
        let watch = JobWatch::new(policy, known, seed);
        let next = watch.first(clock.now());
        Self { clock, target, key, watch, next, hints, fresh_at: None, failing: None }
    }

    /// The latest that is known of the job.
    #[must_use]
    pub fn known(&self) -> Option<&Known> {
        self.watch.known()
    }

    /// What comes next.
    #[must_use]
    pub fn next(&self) -> &Next {
        &self.next
    }

    /// When the next poll is due; `None` where there is none to come. While its store is swept, a job without a hint is polled
    /// only now and then.
    #[must_use]
    pub fn due(&self) -> Option<Monotonic> {
        let Next::PollAt(due) = self.next else { return None };
        let stretches = self.failing.is_none() && !self.watch.policy().fixed;
        let safety = self.hints.safety_interval().zip(self.fresh_at).filter(|_| stretches);
        Some(safety.map_or(due, |(interval, fresh_at)| due.max(fresh_at + interval)))
    }

    /// Returns after the next poll, or when that has another time. A caller that stops waiting loses nothing: between the
    /// answer's arrival and the return there is no wait.
    pub async fn poll(&mut self) -> Step {
        let Some(due) = self.due() else { return Step::Over };
        if !self.wait_for_turn(due).await {
            return Step::Rescheduled;
        }
        let sent = self.clock.now().monotonic;
        let outcome = self.target.poll(&self.key).await;
        let now = self.clock.now();
        let failure = outcome.as_ref().err().cloned();
        self.failing = failure.as_ref().map(|failure| {
            // What the service asked for is kept to.
            let with_the_target = failure.reason.may_be_an_outage() && failure.retry_after.is_none();
            Failing { sent, with_the_target }
        });
        if failure.is_none() {
            self.fresh_at = Some(now.monotonic);
        }
        let decision = self.watch.handle_outcome(outcome, now);
        self.next = decision.next;
        Step::Polled(Polled { now, failure, change: decision.record })
    }

    /// Steps 1 and 2: returns when it is this job's turn, or with `false` when it comes at another time. A hint makes it urgent,
    /// unless the job is backing off; a backoff ends early where the target's outage does.
    async fn wait_for_turn(&mut self, due: Monotonic) -> bool {
        let urgency = if self.watch.policy().fixed { Urgency::Timed } else { Urgency::Routine };
        if let Some(Failing { sent, with_the_target }) = self.failing {
            tokio::select! {
                biased;
                () = self.target.recovered_after(sent), if with_the_target => {}
                () = self.clock.sleep_until(due) => {}
            }
            self.target.poll_turn(urgency).await;
            return true;
        }
        let routine = async {
            self.clock.sleep_until(due).await;
            self.target.poll_turn(urgency).await;
        };
        tokio::select! {
            biased;
            told = self.hints.told() => match told {
                Told::LooksChanged => self.target.poll_turn(Urgency::Urgent).await,
                Told::SafetyInterval => return false,
            },
            () = routine => {}
        }
        true
    }
}

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

impl Workplace {
    /// Tells how the record stands, once for each change of that: every watch with something to record meets the same trouble.
    pub fn tell_record(&self, trouble: Option<&CommitError>) {
        let error = trouble.map(ToString::to_string);
        if !self.board.record_stands(error.clone()) {
            return;
        }
        if let Some(error) = error {
            warn!(event = "record_failed", %error, "what is seen waits until it can be written");
        } else {
            info!(event = "record_recovered", "the record can be written again");
        }
    }
}

/// The record can no longer take anything: the process has to end, and its supervisor to start it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that writes the record has ended")]
pub struct RecordGone;

/// Watches one job to its end, or until `stop`.
#[derive(Debug)]
pub struct Watcher {
    workplace: Workplace,
    poller: Poller,
    view: WatchView,
    forget_after: Option<Duration>,
}

impl Watcher {
    /// A watcher that asks through `poller`; its watch is on the board from now on. `transitions` counts those that the record
    /// holds already; `forget_after` says how long after the job's end there is still something to watch, if that is limited.
    #[must_use]
    pub fn new(
        workplace: Workplace,
        poller: Poller,
        id: WatchId,
        name: Arc<str>,
        transitions: [u64; 8],
        forget_after: Option<Duration>,
    ) -> Self {
        let view = WatchView::new(id, name, Arc::clone(poller.target.aws_region()), transitions);
        let mut watcher = Self { workplace, poller, view, forget_after };
        watcher.publish(watcher.workplace.clock.now());
        watcher
    }

    /// Runs to the job's end and on until it is to be forgotten, or until `stop`; a commit that is under way ends first.
    ///
    /// # Errors
    /// The record is gone.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RecordGone> {
        loop {
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave().await,
                done = self.poller.poll() => done,
            };
            let polled = match done {
                Step::Polled(polled) => polled,
                Step::Rescheduled => {
                    self.publish(self.workplace.clock.now());
                    continue;
                }
                Step::Over => {
                    stop.run_until_cancelled(self.stay_in_sight()).await;
                    return Ok(());
                }
            };
            if !self.record(&polled.change, &stop).await? {
                return Ok(());
            }
            self.tell(polled);
            if self.forgotten_in() == Some(Duration::ZERO) {
                return Ok(());
            }
        }
    }

    /// Returns when a job that has ended has been in sight for long enough.
    async fn stay_in_sight(&self) {
        match self.forgotten_in() {
            Some(wait) => self.workplace.clock.sleep(wait).await,
            // Parked: that has to be seen until the configuration changes.
            None if self.forget_after.is_some() => std::future::pending().await,
            None => {}
        }
    }

    /// How long the job stays in sight yet, where that is known.
    fn forgotten_in(&self) -> Option<Duration> {
        self.view.known.as_ref()?.forgotten_in(self.forget_after?, self.workplace.clock.now().wall)
    }

    /// Notes when the status was last seen, so that its next change, which somebody else may see, is not said to have come sooner.
    /// It is tried once: without it that change lies between wider bounds, and is no less true.
    async fn leave(&self) -> Result<(), RecordGone> {
        let seen = self.view.last_successful_poll.and(self.view.known.as_ref());
        let Some(known) = seen.filter(|known| !known.status.is_terminal() && !known.vanished) else { return Ok(()) };
        let detail = Detail { kind: DetailKind::StillSeen, value: None, observed_at: known.last_seen };
        let change = Change { details: vec![detail], ..Change::default() };
        match self.workplace.record.append(&self.view.id, &change).await {
            Err(CommitError::WriterGone) => Err(RecordGone),
            stands => {
                self.workplace.tell_record(stands.as_ref().err());
                Ok(())
            }
        }
    }

    /// Commits, again and again until it holds. `false`: told to stop before it did, so nothing may be shown of it.
    async fn record(&self, change: &Change, stop: &CancellationToken) -> Result<bool, RecordGone> {
        if change.is_empty() {
            return Ok(true);
        }
        loop {
            let committed = self.workplace.record.append(&self.view.id, change).await;
            if let Err(CommitError::WriterGone) = committed {
                return Err(RecordGone);
            }
            self.workplace.tell_record(committed.as_ref().err());
            if committed.is_ok() {
                return Ok(true);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(false),
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
                self.view.up = Some(true);
                self.view.last_successful_poll = Some(now.wall);
            }
            Some(failure) => self.note_failure(failure, now.wall),
        }
        if let Some(transition) = &polled.change.transition {
            self.view.transitions[transition.to.index()] += 1;
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
        self.view.up = Some(false);
        if self.view.recent_failures.len() == RECENT_FAILURES_MAX {
            self.view.recent_failures.pop_front();
        }
        self.view.recent_failures.push_back(FailedPoll { at, reason, message: failure.message });
    }

    fn publish(&mut self, now: Now) {
        self.view.known = self.poller.known().cloned();
        self.view.next_poll = self.poller.due().and_then(|due| wall(due, now));
        self.view.state = match self.poller.next() {
            Next::PollAt(_) => WatchState::Live,
            Next::Finished(_) => WatchState::Finished,
            Next::Parked(reason) => WatchState::Parked(reason.clone()),
        };
        self.workplace.board.publish(self.view.clone());
    }

    fn tell_transition(&self, transition: Transition) {
        let WatchId { target, key } = &self.view.id;
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
            "{}: {}{to}", self.view.name, from.as_ref().map(|from| format!("{from} → ")).unwrap_or_default(),
        );
        // At a first sighting the job may have ended long before anyone watched it.
        if let (Some(_), true, Some(completed_at)) = (from, to.is_terminal(), completed_at)
            && let Ok(delay) = Duration::try_from(self.workplace.clock.now().wall.duration_since(*completed_at))
        {
            self.workplace.instruments.detection_delay.observe(delay.as_secs_f64());
        }
        let announced = Announced { name: Arc::clone(&self.view.name), id: self.view.id.clone(), transition };
        self.workplace.board.announce(announced);
    }
}

/// A time on the monotonic clock as the wall clock will show it, if nobody sets that one meanwhile.
fn wall(at: Monotonic, now: Now) -> Option<Timestamp> {
    now.wall.checked_add(at.since(now.monotonic)).ok()
}
