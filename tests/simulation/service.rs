//! A simulated HealthOmics inside the process. It responds as the scenario says and checks every request.
//!
//! Checks: no daemon exceeds its configured quota, and no watched job goes unpolled for too long. It records the expectations of
//! each daemon from its responses.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use refwatch::clock::Clock;
use refwatch::config::TargetConfig;
use refwatch::core::failure::{FailureReason, Operation, RequestFailure};
use refwatch::core::job::{Item, ItemKey, Items, JobKey, JobStatus, Snapshot, StoreId};
use refwatch::core::kind::JobKind;
use refwatch::core::time::Timestamp;
use refwatch::healthomics::{
    BuildFuture, CallerIdentity, ListPage, ListedJob, RequestFuture, ServiceFactory, TargetService,
};
use tokio::sync::Notify;

use crate::bucket::{Bucket, Buckets, full_buckets};
use crate::counters::Counters;
use crate::expectations::{Expectation, Watch};
use crate::response::{Response, corrupt_page, corrupt_snapshot, item_status};
use crate::scenario::{Job, Listing, Scenario};

const PAGE_JOBS: usize = 100;

/// Seconds by which a waiting request may wake late and keep its permit.
const WAKE_LATENCY: f64 = 0.005;

#[derive(Debug)]
pub(crate) struct Service {
    scenario: Scenario,
    jobs: BTreeMap<JobKey, Job>,
    clock: Clock,
    state: Mutex<ServiceState>,
    pub violated: Notify,
}

#[derive(Debug)]
struct ServiceState {
    rng: Rng,
    trace: DefaultHasher,
    violation: Option<String>,
    buckets: Buckets,
    daemons: Vec<DaemonState>,
    listings: u64,
    calls: Vec<Call>,
    counters: Counters,
}

#[derive(Debug)]
struct DaemonState {
    /// The configured quota of each operation.
    buckets: Buckets,
    jobs: BTreeMap<JobKey, Expectation>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub daemon: usize,
    pub operation: Operation,
    /// The polled job.
    pub job: Option<JobKey>,
    pub sent: Duration,
    pub failure: Option<FailureReason>,
}

/// The service as one daemon reaches it.
#[derive(Debug)]
pub(crate) struct Access {
    daemon: usize,
    service: Arc<Service>,
    aws_region: Arc<str>,
}

impl Service {
    pub(crate) fn new(scenario: &Scenario, clock: Clock) -> Arc<Self> {
        let daemon_state = || DaemonState {
            buckets: full_buckets(1.0, Duration::ZERO),
            jobs: scenario.jobs.iter().map(|job| (job.key.clone(), Expectation::default())).collect(),
        };
        let full = scenario.quota[0].1.max(1.0);
        let state = ServiceState {
            rng: Rng::with_seed(scenario.seed),
            trace: DefaultHasher::new(),
            violation: None,
            buckets: full_buckets(full, Duration::ZERO),
            daemons: (0..scenario.daemons).map(|_| daemon_state()).collect(),
            listings: 0,
            calls: Vec::new(),
            counters: Counters::default(),
        };
        let jobs = scenario.jobs.iter().map(|job| (job.key.clone(), job.clone())).collect();
        Arc::new(Self { scenario: scenario.clone(), jobs, clock, state: Mutex::new(state), violated: Notify::new() })
    }

    pub(crate) fn access(self: &Arc<Self>, daemon: usize) -> Access {
        Access { daemon, service: Arc::clone(self), aws_region: "us-west-2".into() }
    }

    /// Time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now().monotonic.elapsed()
    }

    /// The first violation.
    pub(crate) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    pub(crate) fn violate(&self, message: &str) {
        let now = self.now();
        self.state().violation.get_or_insert(format!("at {now:?}: {message}"));
        self.violated.notify_one();
    }

    /// Adds to the trace that two runs of a seed must share.
    pub(crate) fn trace(&self, message: impl Hash) {
        let now = self.now();
        (now, message).hash(&mut self.state().trace);
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.state().trace.finish()
    }

    /// All requests in the order in which they ended.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.state().counters
    }

    pub(crate) fn count(&self, message: impl FnOnce(&mut Counters) -> &mut u64) {
        *message(&mut self.state().counters) += 1;
    }

    pub(crate) fn expectation<T>(&self, daemon: usize, job: &JobKey, read: impl FnOnce(&Expectation) -> T) -> T {
        read(&self.state().daemons[daemon].jobs[job])
    }

    /// A daemon starts with a full bucket and the given database content.
    pub(crate) fn daemon_starts(&self, daemon: usize, recorded: &BTreeMap<JobKey, Vec<JobStatus>>) {
        let state = &mut *self.state();
        let daemon_state = &mut state.daemons[daemon];
        daemon_state.buckets = full_buckets(1.0, self.now());
        for (job, expectation) in &mut daemon_state.jobs {
            expectation.daemon_started(recorded.get(job).map_or(&[], Vec::as_slice));
        }
    }

    /// Sets how a daemon watches each job from now on. Polls of live jobs are due from now.
    pub(crate) fn set_watches(&self, daemon: usize, watched: impl Fn(&JobKey, &Expectation) -> Watch) {
        let now = self.now();
        for (job, expectation) in &mut self.state().daemons[daemon].jobs {
            let set_watch = watched(job, expectation);
            expectation.set_watch(set_watch, now);
        }
    }

    /// Checks that no job goes without a poll for too long.
    pub(crate) fn check_starvation(&self) {
        let (now, max_poll_gap) = (self.now(), self.scenario.max_poll_gap());
        let state = self.state();
        let starved =
            state.daemons.iter().flat_map(|daemon_state| &daemon_state.jobs).find_map(|(job, expectation)| {
                let waits = now.saturating_sub(expectation.unpolled_since?);
                (waits > max_poll_gap)
                    .then(|| format!("job {job} has not been polled for {waits:?}, more than {max_poll_gap:?}"))
            });
        drop(state);
        if let Some(starved) = starved {
            self.violate(&starved);
        }
    }

    /// Restarts each poll gap after a suspension.
    pub(crate) fn reset_poll_gaps(&self) {
        let now = self.now();
        for daemon_state in &mut self.state().daemons {
            for expectation in daemon_state.jobs.values_mut() {
                expectation.unpolled_since = expectation.unpolled_since.map(|_| now);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, ServiceState> {
        self.state.lock().expect("no panic")
    }

    /// One request: checked against the quota, delayed, and perhaps failed. Returns whether the response is incorrect.
    async fn request(&self, daemon: usize, operation: Operation, job: Option<&JobKey>) -> Result<bool, RequestFailure> {
        let sent = self.now();
        let configured = self.scenario.configured.configured_rate();
        let holds = 1.0 + WAKE_LATENCY * configured;
        let is_within = |bucket: &mut Bucket| bucket.take(sent, configured, holds);
        if !self.state().daemons[daemon].buckets.get_mut(&operation).is_some_and(is_within) {
            self.violate(&format!(
                "daemon {daemon} exceeds its quota: {operation:?} faster than {configured} a second"
            ));
        }
        let outcome = match self.transmit(operation, sent).await {
            Ok(_) if self.scenario.denied.contains(&operation) => Err(failed(FailureReason::AccessDenied)),
            outcome => outcome,
        };
        let failure = outcome.as_ref().err().map(|failure| failure.reason);
        self.trace((daemon, operation.as_str(), sent, failure.map(FailureReason::label), outcome.as_ref().ok()));
        let state = &mut *self.state();
        state.counters.requests += 1;
        if self.scenario.records_calls {
            state.calls.push(Call { daemon, operation, job: job.cloned(), sent, failure });
        }
        outcome
    }

    /// Returns when the client receives the response or reaches its deadline.
    async fn transmit(&self, operation: Operation, sent: Duration) -> Result<bool, RequestFailure> {
        if let Some(outage) = self.scenario.outages.iter().find(|outage| outage.during.contains(&sent)) {
            self.count(|counters| &mut counters.outages);
            let refused = (Duration::from_millis(1), FailureReason::Connect);
            let hangs = (self.scenario.timeout, FailureReason::Timeout);
            let (takes, reason) = if outage.refused { refused } else { hangs };
            self.clock.sleep(takes).await;
            return Err(failed(reason));
        }
        self.clock.sleep(self.half_latency()).await;
        let (throttled, response, retry_after) = {
            let (now, state) = (self.now(), &mut *self.state());
            let quota = self.quota(now);
            let shared = self.scenario.shared_quota.then_some(Operation::Get(JobKind::ReferenceImport));
            let bucket = state.buckets.get_mut(&shared.unwrap_or(operation)).expect("one of all");
            let throttled = !bucket.take(now, quota, quota.max(1.0));
            let faults = self.scenario.faults;
            (throttled, faults.response(&mut state.rng, now), faults.wait(&mut state.rng))
        };
        if !throttled && response == Response::Hangs {
            self.count(|counters| &mut counters.hangs);
            self.clock.sleep(self.scenario.timeout).await;
            return Err(failed(FailureReason::Timeout));
        }
        self.clock.sleep(self.half_latency()).await;
        let reason = match response {
            _ if throttled => FailureReason::Throttled,
            Response::Failure(reason) => reason,
            Response::Truth | Response::Lie | Response::Hangs => return Ok(response == Response::Lie),
        };
        self.count(
            |counters| {
                if reason == FailureReason::Throttled { &mut counters.throttles } else { &mut counters.failures }
            },
        );
        Err(RequestFailure { retry_after, ..failed(reason) })
    }

    fn half_latency(&self) -> Duration {
        let Range { start, end } = self.scenario.latency;
        (start + end.saturating_sub(start).mul_f64(self.state().rng.f64())) / 2
    }

    fn quota(&self, now: Duration) -> f64 {
        let current = self.scenario.quota.iter().rev().find(|(since, _)| *since <= now);
        current.expect("the first applies from the start").1
    }

    fn timestamp(&self, at: Duration) -> Timestamp {
        let now = self.clock.now();
        let began = now.wall - now.monotonic.elapsed();
        began + at
    }

    fn ended_at(&self, job: &Job, now: Duration) -> Option<Timestamp> {
        job.end().filter(|(end, _)| *end <= now).map(|(end, _)| self.timestamp(*end))
    }

    fn update_expectation(&self, daemon: usize, job: &JobKey, change: impl FnOnce(&mut Expectation)) {
        change(self.state().daemons[daemon].jobs.get_mut(job).expect("a job of the scenario"));
    }

    fn response(&self, key: &JobKey, incorrect: bool) -> Result<Snapshot, RequestFailure> {
        let (job, now) = (&self.jobs[key], self.now());
        if now < job.timeline[0].0 {
            return Err(failed(FailureReason::NotFound));
        }
        let status = job.at(now).clone();
        let source = Item { status: item_status(&status), status_message: None };
        let item_key = ItemKey { name: "GRCh38".into(), source_file: "s3://a/b".into(), nth: 0 };
        let mut snapshot = Snapshot {
            status,
            status_message: None,
            created_at: Some(self.timestamp(job.timeline[0].0)),
            completed_at: self.ended_at(job, now),
            items: Items::from_iter([(item_key, source)]),
            exceeded_limits: Vec::new(),
        };
        if incorrect {
            self.count(|counters| &mut counters.incorrect);
            corrupt_snapshot(&mut snapshot, &mut self.state().rng, job.end().is_some(), self.clock.now().wall);
        }
        self.trace((key, &snapshot.status, snapshot.completed_at.map(Timestamp::as_nanosecond)));
        Ok(snapshot)
    }

    fn page(
        &self,
        (kind, store): (JobKind, &StoreId),
        after: Option<Timestamp>,
        token: Option<&str>,
        lag: Duration,
    ) -> ListPage {
        let then = self.now().saturating_sub(lag);
        let created = |job: &Job| self.timestamp(job.timeline[0].0);
        let first = JobKey { kind, store: store.clone(), job: token.unwrap_or("0000000000").parse().expect("an id") };
        let jobs = self.jobs.range((Bound::Excluded(first), Bound::Unbounded)).map(|(_, job)| job);
        let mut rest = jobs
            .take_while(|job| (job.key.kind, &job.key.store) == (kind, store))
            .filter(|job| job.timeline[0].0 <= then && after.is_none_or(|after| created(job) > after));
        let listed = |job: &Job| ListedJob {
            job: job.key.job.clone(),
            status: job.at(then).clone(),
            created_at: Some(created(job)),
        };
        let jobs: Vec<ListedJob> = rest.by_ref().take(PAGE_JOBS).map(listed).collect();
        let next_token = jobs.last().filter(|_| rest.next().is_some()).map(|last| last.job.to_string());
        ListPage { jobs, next_token, ..ListPage::default() }
    }
}

impl ServiceFactory for Access {
    fn build<'a>(&'a self, _: &'a TargetConfig) -> BuildFuture<'a> {
        let access = self.service.access(self.daemon);
        Box::pin(async move { Ok(Arc::new(access) as Arc<dyn TargetService>) })
    }
}

impl TargetService for Access {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        Box::pin(async { Ok(None) })
    }

    fn get_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        Box::pin(async move {
            let service = &*self.service;
            let sent = service.now();
            service.update_expectation(self.daemon, key, |expectation| expectation.request_sent(sent));
            let response = service.request(self.daemon, Operation::Get(key.kind), Some(key)).await;
            let response = response.and_then(|incorrect| service.response(key, incorrect));
            let now = service.clock.now().wall;
            service.update_expectation(self.daemon, key, |expectation| match &response {
                Ok(snapshot) => expectation.response_received(snapshot, now),
                Err(failure) => expectation.request_failed(failure.reason),
            });
            response
        })
    }

    fn list_jobs<'a>(
        &'a self,
        kind: JobKind,
        store: &'a StoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage> {
        Box::pin(async move {
            let incorrect = self.service.request(self.daemon, Operation::List(kind), None).await?;
            self.service.state().listings += 1;
            let nth = self.service.state().listings;
            match self.service.scenario.listing {
                Listing::Throttles(each) if nth.is_multiple_of(each) => Err(failed(FailureReason::Throttled)),
                Listing::Lags(_) | Listing::Throttles(_) => {
                    let lag = if let Listing::Lags(lag) = self.service.scenario.listing { lag } else { Duration::ZERO };
                    let mut page = self.service.page((kind, store), created_after, token.as_deref(), lag);
                    if incorrect {
                        self.service.count(|counters| &mut counters.incorrect);
                        corrupt_page(&mut page.jobs, &mut self.service.state().rng);
                    }
                    Ok(page)
                }
                Listing::Denied => Err(failed(FailureReason::AccessDenied)),
                Listing::Busy(wait) => {
                    Err(RequestFailure { retry_after: Some(wait), ..failed(FailureReason::Internal) })
                }
            }
        })
    }
}

fn failed(reason: FailureReason) -> RequestFailure {
    RequestFailure { reason, message: reason.label().to_owned(), retry_after: None }
}
