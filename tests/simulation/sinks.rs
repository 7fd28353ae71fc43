//! The sinks of a simulated daemon: real tasks of `notify` and simulated receivers with faults.
//!
//! Checks: a notification is sent only after its commit, an id always has the same body, and the first deliveries of a job's events are
//! in order. At the end every selected event was acknowledged or counted as failed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::BoxFuture;
use refwatch::clock::Clock;
use refwatch::config::{SinkConfig, SinkFormat, SinkUrl};
use refwatch::core::event::{EventFilter, EventType};
use refwatch::core::secret::Secret;
use refwatch::core::time::Timestamp;
use refwatch::database::ReplayFilter;
use refwatch::notify::{Notification, SinkContext, SinkResponse, Sinks, Transport};
use refwatch::simulator::{FaultRate, SimulatedSink, SinkFault, SinkOptions, SinkReply};
use refwatch::tasks::context::TaskContext;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::scenario::Scenario;
use crate::service::Service;

/// The faults of a drawn receiver, with the highest rate of each.
const FAULTS: [(SinkFault, f64); 8] = [
    (SinkFault::Hang, 0.1),
    (SinkFault::Internal, 0.3),
    (SinkFault::Throttling, 0.2),
    (SinkFault::Gone, 0.02),
    (SinkFault::Redirect, 0.2),
    (SinkFault::Reset, 0.2),
    (SinkFault::Slow, 0.1),
    (SinkFault::Down, 0.1),
];

/// The retries of an event end after 3.2 days. A pause of an hour may follow.
const DRAINED_AFTER: Duration = Duration::from_hours(5 * 24);

/// Between two looks at the queues. Longer than the steps of a sink without faults.
const DRAIN_INTERVAL: Duration = Duration::from_mins(10);

/// The sinks of one daemon, over all its restarts.
#[derive(Debug)]
pub(crate) struct SinkHost {
    world: Arc<World>,
    seed: u64,
    /// Changes at each reload, and with it the configuration.
    generation: u64,
    /// The configured sinks, and when and after which row they were created.
    created: BTreeMap<Arc<str>, (i64, Timestamp)>,
}

/// The data that the transports share.
#[derive(Debug)]
struct World {
    clock: Clock,
    service: Arc<Service>,
    path: PathBuf,
    seed: u64,
    sink_fault: Option<SinkFault>,
    receivers: Mutex<BTreeMap<Arc<str>, Receiver>>,
}

#[derive(Debug)]
struct Receiver {
    sink: SimulatedSink,
    /// The row after which the sink was created. Only a replay sends earlier events, whatever their order.
    first: i64,
    /// Each receiver has its own trace, because the order in which sinks wake is random.
    trace: DefaultHasher,
    latency: Rng,
    /// The rows of acknowledged events.
    acknowledged: BTreeSet<i64>,
    /// The last row of each job that was acknowledged for the first time.
    last_of_job: BTreeMap<String, i64>,
    bodies: BTreeMap<String, Vec<u8>>,
}

impl SinkHost {
    pub(crate) fn new(path: &Path, clock: Clock, service: Arc<Service>, scenario: &Scenario) -> Self {
        let Scenario { seed, sink_fault, .. } = *scenario;
        let world = World { clock, service, path: path.to_owned(), seed, sink_fault, receivers: Mutex::default() };
        Self { world: Arc::new(world), seed, generation: 0, created: BTreeMap::new() }
    }

    pub(crate) fn start(&self, context: &TaskContext) -> Sinks {
        let TaskContext { clock, database, shared, instruments } = context.clone();
        let transport = Arc::new(SimulatedTransport(Arc::clone(&self.world)));
        Sinks::new(SinkContext { clock, database, transport, shared, instruments, external_url: None }, self.seed)
    }

    pub(crate) fn reload(&mut self) {
        self.generation += 1;
    }

    pub(crate) async fn apply(&mut self, sinks: &mut Sinks) {
        let configs = self.configs();
        if let Err(error) = sinks.apply(&configs).await {
            return self.world.service.violate(&error.to_string());
        }
        let wanted: BTreeSet<Arc<str>> = configs.iter().map(|config| Arc::clone(&config.name)).collect();
        self.created.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if !self.created.contains_key(&name) {
                // No task has run since `apply`, so the cursor is where the sink began.
                let created = self.world.created(&name);
                let receiver = self.world.receiver(&name, created.0);
                self.world.receivers.lock().expect("a lock").insert(Arc::clone(&name), receiver);
                self.created.insert(name, created);
            }
        }
    }

    /// One sink is always configured, one changes at each reload, one is in every second configuration.
    fn configs(&self) -> Vec<SinkConfig> {
        let config = |name: &str, types: BTreeSet<EventType>, version: u64| SinkConfig {
            name: name.into(),
            url: SinkUrl::Text(Secret::new("https://hooks.lab.example/")),
            secret_file: None,
            bearer_token_file: None,
            headers: [("X-Version".to_owned(), Secret::new(&version.to_string()))].into(),
            events: EventFilter { types, watches: Vec::new() },
            format: SinkFormat::CloudEvents,
            timeout: Duration::from_secs(15),
        };
        let ends = || EventType::DEFAULT.into_iter().collect();
        let mut configs =
            vec![config("steady", EventType::documented().collect(), 0), config("changing", ends(), self.generation)];
        if (self.seed + self.generation).is_multiple_of(2) {
            configs.push(config("optional", ends(), 0));
        }
        configs
    }

    /// Ends all faults, waits until nothing waits, and sends every event again. Checks that nothing is missing.
    pub(crate) async fn drain(&self, sinks: &mut Sinks, context: &TaskContext) {
        for receiver in self.world.receivers.lock().expect("a lock").values_mut() {
            receiver.sink.set_faults(Vec::new());
        }
        // Disabled sinks are enabled by a changed configuration.
        let mut enabled = self.configs();
        for config in &mut enabled {
            config.headers.insert("X-Enabled".to_owned(), Secret::new("yes"));
        }
        if let Err(error) = sinks.apply(&enabled).await {
            return self.world.service.violate(&error.to_string());
        }
        self.wait_until_empty(context).await;
        for config in &enabled {
            let all = ReplayFilter { since: Some(Timestamp::MIN), ..ReplayFilter::default() };
            if let Err(error) = sinks.commands().replay(&config.name, all).await {
                self.world.service.violate(&error);
            }
        }
        self.wait_until_empty(context).await;
        for receiver in self.world.receivers.lock().expect("a lock").values() {
            self.world.service.trace(receiver.trace.finish());
        }
        for config in &enabled {
            self.check_nothing_is_missing(config);
        }
    }

    async fn wait_until_empty(&self, context: &TaskContext) {
        let deadline = self.world.clock.now().monotonic + DRAINED_AFTER;
        loop {
            self.world.clock.sleep(DRAIN_INTERVAL).await;
            let waiting: u32 = context.shared.sinks().iter().map(|sink| sink.waiting).sum();
            if waiting == 0 || self.world.service.violation().is_some() {
                return;
            }
            if self.world.clock.now().monotonic > deadline {
                return self.world.service.violate(&format!("{waiting} events wait for ever"));
            }
        }
    }

    fn check_nothing_is_missing(&self, config: &SinkConfig) {
        let (first, created_at) = self.created[&config.name];
        let receivers = self.world.receivers.lock().expect("a lock");
        let acknowledged = &receivers[&config.name].acknowledged;
        let failed: BTreeSet<i64> = self.world.rows(
            "SELECT transition_id, '', '', '' FROM failed_deliveries WHERE sink = ?1",
            &config.name,
            |(row, ..)| Some(row),
        );
        let selected = |(row, from, to, completed_at): (i64, String, String, String)| {
            let event = EventType::from(&*to);
            let is_end = matches!(&event, EventType::Status(status) if status.is_terminal());
            let ended_before = completed_at.parse::<Timestamp>().is_ok_and(|completed_at| completed_at < created_at);
            (row > first && config.events.types.contains(&event) && !(from.is_empty() && is_end && ended_before))
                .then_some(row)
        };
        let expected: BTreeSet<i64> = self.world.rows(
            "SELECT id, coalesce(from_status, ''), to_status, coalesce(completed_at, '') FROM transitions
             UNION ALL SELECT id, 'x', 'vanished', '' FROM details WHERE detail = 'vanished' AND ?1 = ?1",
            &config.name,
            selected,
        );
        for _ in &expected {
            self.world.service.count(|counters| &mut counters.events);
        }
        for _ in &failed {
            self.world.service.count(|counters| &mut counters.failed_events);
        }
        let missing: Vec<_> =
            expected.iter().filter(|row| !acknowledged.contains(row) && !failed.contains(row)).collect();
        if !missing.is_empty() {
            self.world.service.violate(&format!("the sink {} has not received the events {missing:?}", config.name));
        }
    }
}

impl World {
    fn connection(&self) -> Connection {
        Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database")
    }

    fn created(&self, name: &str) -> (i64, Timestamp) {
        let sql = "SELECT cursor, created_at FROM sinks WHERE name = ?";
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
        let (cursor, created_at) = self.connection().query_one(sql, [name], columns).expect("a sink");
        (cursor, created_at.parse().expect("a time"))
    }

    fn rows(
        &self,
        sql: &str,
        sink: &str,
        select: impl Fn((i64, String, String, String)) -> Option<i64>,
    ) -> BTreeSet<i64> {
        let connection = self.connection();
        let mut query = connection.prepare(sql).expect("a query");
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let rows = query.query_map([sink], columns).expect("rows");
        rows.filter_map(|row| select(row.expect("a row"))).collect()
    }

    fn is_committed(&self, row: i64) -> bool {
        let sql =
            "SELECT (SELECT count(*) FROM transitions WHERE id = ?1) + (SELECT count(*) FROM details WHERE id = ?1)";
        self.connection().query_one(sql, [row], |row| row.get::<_, i64>(0)).expect("a count") == 1
    }

    fn receiver(&self, name: &str, first: i64) -> Receiver {
        let seed = self.seed ^ name.bytes().map(u64::from).sum::<u64>();
        let mut rng = Rng::with_seed(seed);
        // Half of the faults do not occur.
        let drawn = FAULTS.into_iter().filter(|_| rng.bool()).collect::<Vec<_>>();
        let drawn = drawn.into_iter().map(|(fault, rate)| FaultRate { fault, rate: rate * rng.f64() }).collect();
        let faults = self.sink_fault.map_or(drawn, |fault| vec![FaultRate { fault, rate: 1.0 }]);
        Receiver {
            sink: SimulatedSink::new(SinkOptions { secrets: Vec::new(), faults, seed }),
            first,
            trace: DefaultHasher::new(),
            latency: rng,
            acknowledged: BTreeSet::new(),
            last_of_job: BTreeMap::new(),
            bodies: BTreeMap::new(),
        }
    }

    fn receive(&self, sink: &Arc<str>, notification: &Notification) -> SinkReply {
        let event: Value = serde_json::from_slice(&notification.body).expect("JSON");
        let row = event["data"]["id"].as_i64().expect("a row");
        let job = format!("{}{}", event["source"], event["subject"]);
        if !self.is_committed(row) {
            self.service.violate(&format!("sent before the commit: {event}"));
        }
        let mut receivers = self.receivers.lock().expect("a lock");
        let receiver = receivers.get_mut(sink).expect("a receiver");
        let body = receiver.bodies.entry(notification.id.clone()).or_insert_with(|| notification.body.clone());
        if *body != notification.body || event["id"] != *notification.id {
            self.service.violate(&format!("the body of {} has changed: {event}", notification.id));
        }
        let headers = [("webhook-id", &notification.id)];
        let headers =
            headers.into_iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        let reply = receiver.sink.receive(headers.collect(), notification.body.clone().into(), self.clock.now());
        (row, self.clock.now().monotonic.elapsed(), format!("{reply:?}")).hash(&mut receiver.trace);
        let is_success = reply.status().is_some_and(|status| status.is_success());
        if is_success && receiver.acknowledged.insert(row) && row > receiver.first {
            let last = receiver.last_of_job.entry(job).or_default();
            if *last > row {
                self.service.violate(&format!("{sink}: out of order: {row} after {last}: {event}"));
            }
            *last = (*last).max(row);
        }
        reply
    }
}

#[derive(Debug)]
struct SimulatedTransport(Arc<World>);

impl Transport for SimulatedTransport {
    fn send(&self, sink: &SinkConfig, notification: Notification) -> BoxFuture<'static, Result<SinkResponse, String>> {
        let (world, sink) = (Arc::clone(&self.0), Arc::clone(&sink.name));
        Box::pin(async move {
            let (before, after) = {
                let mut receivers = world.receivers.lock().expect("a lock");
                let latency = &mut receivers.get_mut(&sink).expect("a receiver").latency;
                (Duration::from_millis(latency.u64(0..200)), Duration::from_millis(latency.u64(0..200)))
            };
            world.clock.sleep(before).await;
            let reply = world.receive(&sink, &notification);
            // A kill may come between the acknowledgement and its arrival.
            world.clock.sleep(after).await;
            if reply == SinkReply::Fault(SinkFault::Hang) {
                return std::future::pending().await;
            }
            let status = reply.status().ok_or("the connection was reset")?.as_u16();
            let retry_after = (status == 429).then_some(Duration::from_secs(2));
            Ok(SinkResponse { status, retry_after })
        })
    }
}
