//! The task of one sink. It takes events from the sink's queue in the database, sends them, and saves the outcomes.
//!
//! It decides by `core::delivery`. Nothing waits for it: a sink that does not respond delays no poll, no commit and no other sink.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use http::Uri;
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;
use tracing::{info, warn};

use super::payload::notification;
use super::transport::{Notification, SinkResponse, Transport};
use crate::clock::Clock;
use crate::config::SinkConfig;
use crate::core::backoff::Backoff;
use crate::core::delivery::{AttemptResult, PAUSE, SINK_RETRY_AFTER_MAX, retry_delay};
use crate::core::time::{Monotonic, Now, Timestamp};
use crate::database::{
    Database, DeliveryOutcome, DeliveryStep, DueEvent, StepResult, UNREADABLE_ROW_REASON, WriterError,
};
use crate::instruments::Instruments;
use crate::state::{SharedState, SinkState, SinkStatus};

/// The highest number of requests to one sink at a time.
const IN_FLIGHT_MAX: usize = 8;

/// The longest pause between a failed access to the database and the next attempt.
const DATABASE_RETRY: Duration = Duration::from_secs(2);

/// How long requests in flight may take after a stop. Without their outcomes, the events are sent again after the next start.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The resources that all sinks share.
#[derive(Clone, Debug)]
pub struct SinkContext {
    pub clock: Clock,
    pub database: Database,
    pub transport: Arc<dyn Transport>,
    /// The published status. Sinks never read it.
    pub shared: SharedState,
    pub instruments: Instruments,
    /// `http.external_url`, for links.
    pub external_url: Option<Uri>,
}

#[derive(Debug)]
pub(super) struct SinkTask {
    context: Arc<SinkContext>,
    config: Arc<SinkConfig>,
    jitter: fastrand::Rng,
    /// By the id of the event.
    requests: JoinMap<i64, Attempt>,
    /// Outcomes to save.
    outcomes: Vec<(i64, DeliveryOutcome)>,
    pause: Option<Pause>,
    backoff: Backoff,
    status: SinkStatus,
    /// The reason of a rejection that was logged, until no event waits.
    logged_rejection: Option<String>,
}

/// A request that has ended.
#[derive(Debug)]
struct Attempt {
    /// How often the sink had rejected the event before.
    rejections: u32,
    observed_at: Timestamp,
    sent_at: Monotonic,
    response: Result<SinkResponse, String>,
}

/// The sink fails. One request at a time is sent.
#[derive(Clone, Copy, Debug)]
struct Pause {
    began_at: Timestamp,
    /// The end of the last failed request. The outcome of a request that was sent earlier does not change the pause.
    last_failure: Monotonic,
    /// When the next request may be sent.
    until: Now,
    /// The failed requests of this pause. Each is followed by the event of another job, so that one bad event stops no other.
    failures: usize,
}

impl SinkTask {
    pub(super) fn new(context: Arc<SinkContext>, config: Arc<SinkConfig>, seed: u64) -> Self {
        Self {
            status: SinkStatus { name: config.name.to_string(), url: config.shown_url(), ..SinkStatus::default() },
            context,
            config,
            jitter: fastrand::Rng::with_seed(seed),
            requests: JoinMap::new(),
            outcomes: Vec::new(),
            pause: None,
            backoff: Backoff::new(PAUSE),
            logged_rejection: None,
        }
    }

    /// Runs until `stop`. Requests in flight then have [`STOP_GRACE`] to end. Returns at once if the writer of the database has stopped.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        let clock = self.context.clock;
        let mut sink_wakeups = self.context.database.sink_wakeups();
        while !stop.is_cancelled() {
            // Marked before the step reads, so that a commit during the step causes another one.
            sink_wakeups.mark_unchanged();
            let free_requests = self.free_requests();
            let wake_at = match self.step(free_requests).await {
                Ok(queue) => self.handle_queue(queue, free_requests),
                Err(WriterError::Stopped) => return,
                Err(WriterError::Sqlite(_) | WriterError::Reopen(_)) => Some(clock.now().monotonic + DATABASE_RETRY),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some((event_id, attempt)) = self.requests.join_next() => self.handle_attempt(event_id, attempt),
                Ok(()) = sink_wakeups.changed() => {}
                Some(()) = OptionFuture::from(wake_at.map(|at| clock.sleep_until(at))) => {}
            }
            // One step saves the outcomes of all requests that have ended.
            while let Some(Some((event_id, attempt))) = self.requests.join_next().now_or_never() {
                self.handle_attempt(event_id, attempt);
            }
        }
        let drain = async {
            while let Some((event_id, attempt)) = self.requests.join_next().await {
                self.handle_attempt(event_id, attempt);
            }
        };
        // Requests that have not ended are cancelled when this task ends.
        drop(timeout(STOP_GRACE, drain).await);
        // An error means that the events are sent again after the next start.
        drop(self.step(0).await);
    }

    async fn step(&mut self, limit: usize) -> Result<StepResult, WriterError> {
        let outcomes = mem::take(&mut self.outcomes);
        let step = DeliveryStep {
            sink: Arc::clone(&self.config.name),
            config_hash: self.config.hash(),
            filter: self.config.events.clone(),
            now: self.context.clock.now().wall,
            outcomes: outcomes.clone(),
            in_flight: self.requests.keys().copied().collect(),
            limit,
            rotation: self.pause.map_or(0, |pause| pause.failures),
        };
        let queue = self.context.database.step_deliveries(step).await;
        if queue.is_err() {
            self.outcomes = outcomes;
        }
        queue
    }

    /// How many requests may be sent now.
    fn free_requests(&self) -> usize {
        match self.pause {
            Some(Pause { until, .. }) => {
                usize::from(self.requests.is_empty() && self.context.clock.now().monotonic >= until.monotonic)
            }
            None => IN_FLIGHT_MAX - self.requests.len(),
        }
    }

    /// Sends the due events and publishes the status. Returns when the next step is due, if no commit and no end of a request causes
    /// one before.
    fn handle_queue(&mut self, queue: StepResult, free_requests: usize) -> Option<Monotonic> {
        let now = self.context.clock.now();
        let StepResult { due, unreadable, next_due, waiting, failed, oldest_observed_at, disabled_at } = queue;
        if disabled_at.is_some() && self.status.state != SinkState::Disabled {
            warn!(
                event = "sink_disabled",
                sink = &*self.config.name,
                url = self.status.url,
                "a sink has responded with 410 Gone: it is disabled until its [[notify]] entry changes"
            );
        }
        for _ in 0..unreadable {
            self.count_failed_delivery(UNREADABLE_ROW_REASON, "it cannot be sent again");
        }
        self.status.state = match self.pause {
            _ if disabled_at.is_some() => SinkState::Disabled,
            Some(_) => SinkState::Paused,
            None => SinkState::Up,
        };
        let pause = self.pause.filter(|_| self.status.state == SinkState::Paused);
        self.status.paused_since = pause.map(|pause| pause.began_at);
        self.status.next_attempt_at = pause.map(|pause| pause.until.wall);
        self.status.disabled_at = disabled_at;
        (self.status.waiting, self.status.failed, self.status.oldest_waiting_at) =
            (waiting, failed, oldest_observed_at);
        if waiting == 0 {
            self.logged_rejection = None;
            if failed == 0 && self.status.state == SinkState::Up {
                self.status.last_error = None;
            }
        }
        self.context.shared.publish_sink(self.status.clone());
        for event in due {
            self.send(event);
        }
        // The step did not ask for due events, because the pause had not ended.
        let has_paused = free_requests == 0 && self.requests.is_empty() && waiting > 0;
        if let Some(pause) = pause.filter(|_| has_paused) {
            return Some(pause.until.monotonic);
        }
        next_due.map(|due| now.monotonic + Duration::try_from(due.duration_since(now.wall)).unwrap_or_default())
    }

    fn send(&mut self, DueEvent { event, rejections }: DueEvent) {
        let now = self.context.clock.now();
        let notification = notification(&event, self.config.format, self.context.external_url.as_ref(), now.wall);
        let (context, config) = (Arc::clone(&self.context), Arc::clone(&self.config));
        self.requests.spawn(event.id, async move {
            let response = send(&context, &config, notification).await;
            Attempt { rejections, observed_at: event.observed_at, sent_at: now.monotonic, response }
        });
    }

    fn handle_attempt(&mut self, event_id: i64, attempt: Result<Attempt, JoinError>) {
        let now = self.context.clock.now();
        let Ok(Attempt { rejections, observed_at, sent_at, response }) = attempt else {
            return self.pause("internal error: the request failed".to_owned(), None, now.monotonic);
        };
        let (result, reason, retry_after) = match response {
            Ok(SinkResponse { status, retry_after }) => {
                (AttemptResult::of_status(status), format!("HTTP status {status}"), retry_after)
            }
            Err(error) => (AttemptResult::NoResponse, error, None),
        };
        let instruments = &self.context.instruments;
        instruments.count_attempt(&self.config.name, result);
        match result {
            AttemptResult::Delivered => {
                let delay = Duration::try_from(now.wall.duration_since(observed_at)).unwrap_or_default();
                instruments.count_delivery(&self.config.name, delay);
                self.end_pause(sent_at);
                self.status.last_delivered_at = Some(now.wall);
                self.outcomes.push((event_id, DeliveryOutcome::Delivered));
            }
            AttemptResult::Unavailable | AttemptResult::NoResponse => self.pause(reason, retry_after, sent_at),
            AttemptResult::Gone => {
                self.status.last_error = Some(reason);
                self.outcomes.push((event_id, DeliveryOutcome::Gone));
            }
            AttemptResult::Rejected => {
                self.end_pause(sent_at);
                self.retry(event_id, rejections + 1, reason, now.wall);
            }
        }
    }

    fn retry(&mut self, event_id: i64, rejections: u32, reason: String, now: Timestamp) {
        let next_attempt_at = retry_delay(rejections).and_then(|delay| now.checked_add(delay).ok());
        if next_attempt_at.is_none() {
            self.count_failed_delivery(
                &reason,
                "after the sink works again, run `refwatch notify replay SINK --failed`",
            );
        } else if self.logged_rejection.as_ref() != Some(&reason) {
            self.logged_rejection = Some(reason.clone());
            let sink = &*self.config.name;
            warn!(
                event = "delivery_rejected",
                sink, reason, "a sink rejects notifications; each is sent again over three days"
            );
        }
        self.status.last_error = Some(reason.clone());
        self.outcomes.push((event_id, DeliveryOutcome::Rejected { reason, next_attempt_at }));
    }

    fn count_failed_delivery(&self, reason: &str, advice: &str) {
        let sink = &*self.config.name;
        self.context.instruments.count_failed_delivery(sink);
        warn!(event = "delivery_failed", sink, reason, "a notification has failed: {advice}");
    }

    /// Begins or prolongs a pause.
    fn pause(&mut self, reason: String, retry_after: Option<Duration>, sent_at: Monotonic) {
        let now = self.context.clock.now();
        if self.pause.is_some_and(|pause| sent_at < pause.last_failure) {
            return;
        }
        if self.pause.is_none() {
            warn!(
                event = "sink_paused",
                sink = &*self.config.name,
                url = self.status.url,
                reason,
                "a sink does not accept notifications; they wait in the database"
            );
        }
        let retry_after = retry_after.unwrap_or_default().min(SINK_RETRY_AFTER_MAX);
        let delay = self.backoff.next_delay(self.jitter.f64()).max(retry_after);
        let wall = now.wall.checked_add(delay).unwrap_or(Timestamp::MAX);
        self.pause = Some(Pause {
            began_at: self.pause.map_or(now.wall, |pause| pause.began_at),
            last_failure: now.monotonic,
            until: Now { monotonic: now.monotonic + delay, wall },
            failures: self.pause.map_or(0, |pause| pause.failures) + 1,
        });
        self.status.last_error = Some(reason);
    }

    /// Ends the pause, unless the request was sent before the last failure.
    fn end_pause(&mut self, sent_at: Monotonic) {
        if self.pause.take_if(|pause| sent_at >= pause.last_failure).is_some() {
            info!(event = "sink_recovered", sink = &*self.config.name, "a sink responds again");
            self.backoff.reset();
        }
    }
}

/// Sends one request with the sink's timeout. The error says why there is no response.
pub(super) async fn send(
    context: &SinkContext,
    config: &SinkConfig,
    notification: Notification,
) -> Result<SinkResponse, String> {
    let response = timeout(config.timeout, context.transport.send(config, notification)).await;
    response.unwrap_or_else(|_| Err(format!("no response within {}", humantime::format_duration(config.timeout))))
}
