//! The task of one sink. It takes events from the sink's queue in the database, sends them, and saves the outcomes.
//!
//! It decides by `core::delivery`. Nothing waits for it: a sink that does not respond delays no poll, no commit and no other sink.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Uri;
use tokio::sync::Notify;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;
use tracing::{info, warn};

use super::payload::{cloud_event, event_id, job_page, slack_message};
use super::transport::{Notification, SinkResponse, Transport};
use crate::clock::Clock;
use crate::config::{SinkConfig, SinkFormat};
use crate::core::backoff::Backoff;
use crate::core::delivery::{AttemptResult, PAUSE, Verdict, retry_delay, verdict};
use crate::core::time::{Monotonic, Now, Timestamp};
use crate::database::{Database, DeliveryOutcome, DeliveryStep, DueEvent, Event, EventFilter, SinkQueue, WriterError};
use crate::instruments::Instruments;
use crate::state::{PausedSink, SharedState, SinkStatus};

/// The highest number of requests to one sink at a time.
const IN_FLIGHT_MAX: usize = 8;

/// The pause between a failed access to the database and the next attempt.
const DATABASE_RETRY: Duration = Duration::from_secs(2);

/// How long requests in flight may take after a stop. Without their outcomes, the events are sent again after the next start.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The resources that all sinks share.
#[derive(Clone, Debug)]
pub struct SinkContext {
    pub clock: Clock,
    pub database: Database,
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
    filter: EventFilter,
    transport: Arc<dyn Transport>,
    /// Wakes the task after a replay.
    replayed: Arc<Notify>,
    jitter: fastrand::Rng,
    /// By the row of the event.
    requests: JoinMap<i64, Attempt>,
    /// Outcomes to save.
    outcomes: Vec<(i64, DeliveryOutcome)>,
    pause: Option<Pause>,
    backoff: Backoff,
    /// Whether a rejection was logged since the last delivery.
    rejection_logged: bool,
    status: SinkStatus,
}

/// A request that has ended.
#[derive(Debug)]
struct Attempt {
    /// Failed attempts before it.
    attempts: u32,
    observed_at: Timestamp,
    sent: Monotonic,
    response: Result<SinkResponse, String>,
}

impl Attempt {
    fn without_response(now: Now, error: &str) -> Self {
        Self { attempts: 0, observed_at: now.wall, sent: now.monotonic, response: Err(error.to_owned()) }
    }
}

/// The sink fails. One request at a time is sent, from `until` on.
#[derive(Clone, Copy, Debug)]
struct Pause {
    since: Monotonic,
    until: Monotonic,
}

/// Selects the events of `on` and `watches`.
pub(super) fn event_filter(config: &Arc<SinkConfig>) -> EventFilter {
    let config = Arc::clone(config);
    EventFilter::new(move |event_type, watch| {
        config.on.contains(event_type) && config.selects_watch(watch.unwrap_or_default())
    })
}

impl SinkTask {
    pub(super) fn new(
        context: Arc<SinkContext>,
        config: Arc<SinkConfig>,
        transport: Arc<dyn Transport>,
        replayed: Arc<Notify>,
        disabled_at: Option<Timestamp>,
        seed: u64,
    ) -> Self {
        let status = SinkStatus { disabled_at, ..SinkStatus::new(Arc::clone(&config.name), config.shown_url()) };
        Self {
            filter: event_filter(&config),
            context,
            config,
            transport,
            replayed,
            jitter: fastrand::Rng::with_seed(seed),
            requests: JoinMap::new(),
            outcomes: Vec::new(),
            pause: None,
            backoff: Backoff::new(PAUSE),
            rejection_logged: false,
            status,
        }
    }

    /// Runs until `stop`, or until the writer of the database has stopped. Requests in flight then have [`STOP_GRACE`] to end.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        let clock = self.context.clock;
        let mut commits = self.context.database.commits();
        while !stop.is_cancelled() {
            // Marked before the step reads, so that a commit during the step causes another one.
            commits.mark_unchanged();
            let wake_at = match self.step().await {
                Ok(queue) => self.handle_queue(queue),
                Err(WriterError::Stopped) => return,
                Err(WriterError::Sqlite(_) | WriterError::Reopen(_)) => Some(clock.now().monotonic + DATABASE_RETRY),
            };
            let wake = async {
                match wake_at {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(ended) = self.requests.join_next(), if !self.requests.is_empty() => self.handle_ended(ended).await,
                () = self.replayed.notified() => {}
                Ok(()) = commits.changed() => {}
                () = wake => {}
            }
        }
        let drain = async {
            while let Some(ended) = self.requests.join_next().await {
                self.handle_attempt(ended).await;
            }
        };
        // Requests that have not ended are cancelled.
        tokio::select! {
            biased;
            () = drain => {}
            () = clock.sleep(STOP_GRACE) => {}
        }
        // An error means that the events are sent again after the next start.
        drop(self.step().await);
    }

    async fn step(&mut self) -> Result<SinkQueue, WriterError> {
        let outcomes = mem::take(&mut self.outcomes);
        let step = DeliveryStep {
            sink: Arc::clone(&self.config.name),
            filter: self.filter.clone(),
            now: self.context.clock.now().wall,
            outcomes: outcomes.clone(),
            in_flight: self.requests.keys().copied().collect(),
            limit: self.free_requests(),
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
            _ if self.status.disabled_at.is_some() => 0,
            Some(Pause { until, .. }) => {
                usize::from(self.requests.is_empty() && self.context.clock.now().monotonic >= until)
            }
            None => IN_FLIGHT_MAX - self.requests.len(),
        }
    }

    /// Sends the due events and publishes the status. Returns when the next step is due, if nothing else happens before.
    fn handle_queue(&mut self, queue: SinkQueue) -> Option<Monotonic> {
        let now = self.context.clock.now();
        let SinkQueue { due, has_more, next_due, waiting, failed, oldest } = queue;
        (self.status.waiting, self.status.failed, self.status.oldest) = (waiting, failed, oldest);
        self.publish();
        for event in due {
            self.send(event);
        }
        if has_more {
            return Some(now.monotonic);
        }
        let next_due =
            next_due.map(|due| now.monotonic + Duration::try_from(due.duration_since(now.wall)).unwrap_or_default());
        // An event that is due waits for the end of the pause. The end of a request is an event of its own.
        let pause_ends = self.pause.map(|pause| pause.until).filter(|until| *until > now.monotonic && waiting > 0);
        pause_ends.or(next_due)
    }

    fn send(&mut self, DueEvent { event, attempts }: DueEvent) {
        let now = self.context.clock.now();
        let (transport, clock) = (Arc::clone(&self.transport), self.context.clock);
        let timeout = self.config.timeout;
        let notification = notification(&event, &self.config, self.context.external_url.as_ref(), now);
        let Event { row, observed_at, .. } = event;
        self.requests.spawn(row, async move {
            let response = tokio::select! {
                biased;
                response = transport.send(notification) => response,
                () = clock.sleep(timeout) => Err(format!("no response within {}", humantime::format_duration(timeout))),
            };
            Attempt { attempts, observed_at, sent: now.monotonic, response }
        });
    }

    /// Handles this request and all others that have ended, so that one step saves their outcomes.
    async fn handle_ended(&mut self, ended: (i64, Result<Attempt, JoinError>)) {
        self.handle_attempt(ended).await;
        while let Some(Some(ended)) = self.requests.join_next().now_or_never() {
            self.handle_attempt(ended).await;
        }
    }

    async fn handle_attempt(&mut self, (row, attempt): (i64, Result<Attempt, JoinError>)) {
        let now = self.context.clock.now();
        let sink = &self.config.name;
        let instruments = self.context.instruments.clone();
        // A panic of the request has no response, either.
        let panicked = || Attempt::without_response(now, "internal error: the request failed");
        let Attempt { attempts, observed_at, sent, response } = attempt.unwrap_or_else(|_| panicked());
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                instruments.count_attempt(sink, AttemptResult::NoResponse);
                return self.begin_pause(&error, None, sent);
            }
        };
        instruments.count_attempt(sink, AttemptResult::Response(verdict(response.status)));
        let reason = format!("HTTP status {}", response.status);
        match verdict(response.status) {
            Verdict::Delivered => {
                self.end_pause();
                let delay = Duration::try_from(now.wall.duration_since(observed_at)).unwrap_or_default();
                instruments.count_delivery(&self.config.name, delay);
                self.status.last_delivered_at = Some(now.wall);
                self.rejection_logged = false;
                self.outcomes.push((row, DeliveryOutcome::Delivered));
            }
            Verdict::Pause => self.begin_pause(&reason, response.retry_after, sent),
            Verdict::Disable => self.disable(now.wall).await,
            Verdict::Retry => {
                self.end_pause();
                self.retry(row, attempts + 1, reason, now);
            }
        }
    }

    fn retry(&mut self, row: i64, attempts: u32, reason: String, Now { wall, .. }: Now) {
        let sink = &*self.config.name;
        self.status.last_error = Some(reason.clone());
        let next = retry_delay(attempts).and_then(|delay| wall.checked_add(delay).ok());
        let outcome = if let Some(next_attempt_at) = next {
            if attempts == 1 && !mem::replace(&mut self.rejection_logged, true) {
                warn!(
                    event = "delivery_rejected",
                    sink, reason, "a sink rejects notifications; each is sent again over three days"
                );
            }
            DeliveryOutcome::Retry { reason, next_attempt_at }
        } else {
            self.context.instruments.count_failed_delivery(sink);
            warn!(
                event = "delivery_failed",
                sink,
                reason,
                attempts,
                "a notification has failed: after the sink works again, run `refwatch notify replay --failed`"
            );
            DeliveryOutcome::Failed { reason }
        };
        self.outcomes.push((row, outcome));
    }

    /// Pauses the sink. Requests that were sent before the pause began do not prolong it.
    fn begin_pause(&mut self, reason: &str, retry_after: Option<Duration>, sent: Monotonic) {
        let now = self.context.clock.now();
        self.status.last_error = Some(reason.to_owned());
        if self.pause.is_some_and(|pause| sent < pause.since) {
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
        let delay = self.backoff.next_delay(self.jitter.f64()).max(retry_after.unwrap_or_default());
        self.pause = Some(Pause { since: now.monotonic, until: now.monotonic + delay });
        let since = self.status.paused.as_ref().map_or(now.wall, |paused| paused.since);
        let next_attempt_at = now.wall.checked_add(delay).unwrap_or(Timestamp::MAX);
        self.status.paused = Some(PausedSink { since, next_attempt_at });
    }

    fn end_pause(&mut self) {
        if self.pause.take().is_some() {
            info!(event = "sink_recovered", sink = &*self.config.name, "a sink accepts notifications again");
            self.backoff.reset();
            self.status.paused = None;
        }
    }

    async fn disable(&mut self, now: Timestamp) {
        let sink = Arc::clone(&self.config.name);
        if self.status.disabled_at.replace(now).is_none() {
            warn!(
                event = "sink_disabled",
                sink = &*sink,
                url = self.status.url,
                "a sink responded with 410 Gone: it is disabled until its [[notify]] entry changes"
            );
        }
        self.status.last_error = Some("HTTP status 410".to_owned());
        // After an error the sink is disabled for this process only. The next start sends one more request.
        drop(self.context.database.disable_sink(sink, now).await);
    }

    fn publish(&self) {
        self.context.shared.publish_sink(self.status.clone());
    }
}

fn notification(event: &Event, config: &SinkConfig, external_url: Option<&Uri>, now: Now) -> Notification {
    let page = external_url.map(|url| job_page(url, event));
    let (content_type, body) = match config.format {
        SinkFormat::CloudEvents => (CLOUD_EVENTS, cloud_event(event, page.as_deref())),
        SinkFormat::Slack => (JSON, slack_message(event, page.as_deref())),
    };
    Notification { id: event_id(event), timestamp: now.wall.as_second(), content_type, body }
}

pub(super) const CLOUD_EVENTS: &str = "application/cloudevents+json";
pub(super) const JSON: &str = "application/json";
