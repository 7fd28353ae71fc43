//! HealthOmics in the process: it answers as a scenario says, and looks at every request for what may not be.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use refwatch::clock::Clock;
use refwatch::config::TargetConfig;
use refwatch::core::job::{JobKey, JobStatus, ReferenceStoreId, Snapshot, Source, SourceKey, SourceStatus};
use refwatch::core::outcome::{FailureReason, Operation, PollFailure};
use refwatch::core::time::Timestamp;
use refwatch::omics::{Asked, Connect, Connecting, HealthOmics, ListPage, ListedJob};
use tokio::sync::Notify;

use crate::scenario::{Job, Listing, Scenario};

/// Jobs on a page of a listing.
const PAGE_JOBS: usize = 100;

/// How late a waiting request may wake, in seconds, without its turn being lost.
const WAKES_LATE: f64 = 0.005;

/// How much more than its quota a daemon may seem to send because clocks count in whole milliseconds.
const ROUNDING: f64 = 0.01;

/// The service, and what was seen of those who use it.
#[derive(Debug)]
pub(crate) struct Service {
    scenario: Scenario,
    jobs: BTreeMap<JobKey, Job>,
    clock: Clock,
    seen: Mutex<Seen>,
    pub violated: Notify,
}

#[derive(Debug)]
struct Seen {
    rng: Rng,
    trace: DefaultHasher,
    violation: Option<String>,
    /// The quota of each operation.
    buckets: [Bucket; 2],
    daemons: Vec<Client>,
    calls: Vec<Call>,
}

/// What was seen of one daemon.
#[derive(Debug)]
struct Client {
    /// The quota of each operation as it is configured.
    buckets: [Bucket; 2],
    jobs: BTreeMap<JobKey, Followed>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub daemon: usize,
    pub operation: Operation,
    /// Which job was asked for.
    pub job: Option<JobKey>,
    pub sent: Duration,
    /// Why it was not answered.
    pub failure: Option<FailureReason>,
}

/// How one job was followed.
#[derive(Debug)]
struct Followed {
    /// Each status that an answer told, without repetition.
    told: Vec<JobStatus>,
    /// Since when it was not asked for; `None` while it is not watched.
    unasked_since: Option<Duration>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Duration,
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
        let client = || Client {
            buckets: [Bucket::full(1.0), Bucket::full(1.0)],
            jobs: scenario.jobs.iter().map(|job| (job.key.clone(), Followed::new())).collect(),
        };
        let full = scenario.quota[0].1.max(1.0);
        let seen = Seen {
            rng: Rng::with_seed(scenario.seed),
            trace: DefaultHasher::new(),
            violation: None,
            buckets: [Bucket::full(full), Bucket::full(full)],
            daemons: (0..scenario.daemons).map(|_| client()).collect(),
            calls: Vec::new(),
        };
        let jobs = scenario.jobs.iter().map(|job| (job.key.clone(), job.clone())).collect();
        Arc::new(Self { scenario: scenario.clone(), jobs, clock, seen: Mutex::new(seen), violated: Notify::new() })
    }

    pub(crate) fn access(self: &Arc<Self>, daemon: usize) -> Access {
        Access { daemon, service: Arc::clone(self), aws_region: "us-west-2".into() }
    }

    /// The time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now().monotonic.elapsed()
    }

    /// What may not be and was, first of all.
    pub(crate) fn violation(&self) -> Option<String> {
        self.seen().violation.clone()
    }

    pub(crate) fn violate(&self, what: &str) {
        let now = self.now();
        self.seen().violation.get_or_insert(format!("at {now:?}: {what}"));
        self.violated.notify_one();
    }

    /// Adds to what makes one run the same as another.
    pub(crate) fn trace(&self, what: impl Hash) {
        let now = self.now();
        (now, what).hash(&mut self.seen().trace);
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.seen().trace.finish()
    }

    /// Every request so far, in the order in which they ended.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.seen().calls.clone()
    }

    /// Each status that a daemon was told of a job, in order.
    pub(crate) fn told(&self, daemon: usize, job: &JobKey) -> Vec<JobStatus> {
        self.seen().daemons[daemon].jobs[job].told.clone()
    }

    /// A daemon begins, again, and is owed a full bucket; these are the jobs that it watches, each with what it recorded of it.
    pub(crate) fn daemon_starts(&self, daemon: usize, recorded: &BTreeMap<JobKey, Vec<JobStatus>>) {
        let seen = &mut *self.seen();
        let client = &mut seen.daemons[daemon];
        client.buckets = [Bucket::full(1.0), Bucket::full(1.0)];
        for bucket in &mut client.buckets {
            bucket.filled_at = self.now();
        }
        for (job, followed) in &mut client.jobs {
            followed.told = recorded.get(job).cloned().unwrap_or_default();
        }
    }

    /// From now on a daemon watches these jobs, of which it is owed those polls that are not at an end.
    pub(crate) fn daemon_watches(&self, daemon: usize, watched: impl Fn(&JobKey) -> bool) {
        let now = self.now();
        for (job, followed) in &mut self.seen().daemons[daemon].jobs {
            let ended = followed.told.last().is_some_and(JobStatus::is_terminal);
            followed.unasked_since = (watched(job) && !ended).then_some(now);
        }
    }

    /// Looks whether a job goes without a poll for too long.
    pub(crate) fn look_for_starvation(&self) {
        let (now, patience) = (self.now(), self.scenario.patience());
        let seen = self.seen();
        let starved = seen.daemons.iter().flat_map(|client| &client.jobs).find_map(|(job, followed)| {
            let waits = now.saturating_sub(followed.unasked_since?);
            (waits > patience).then(|| format!("job {job} has not been asked for in {waits:?}, over {patience:?}"))
        });
        drop(seen);
        if let Some(starved) = starved {
            self.violate(&starved);
        }
    }

    /// After a suspension every wait begins anew.
    pub(crate) fn slept(&self) {
        let now = self.now();
        for client in &mut self.seen().daemons {
            for followed in client.jobs.values_mut() {
                followed.unasked_since = followed.unasked_since.map(|_| now);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }

    /// The way of a request up to its answer: paced, counted, delayed, and perhaps not answered.
    async fn request(&self, daemon: usize, operation: Operation, job: Option<&JobKey>) -> Result<(), PollFailure> {
        let sent = self.now();
        let configured = self.scenario.configured.allowed();
        if !self.seen().daemons[daemon].buckets[operation as usize].take(
            sent,
            configured,
            1.0 + WAKES_LATE * configured,
        ) {
            self.violate(&format!("daemon {daemon} sends {operation:?} faster than {configured} a second"));
        }
        let failure = self.travel(operation, sent).await;
        self.trace((daemon, operation as u8, sent, failure.map(FailureReason::label)));
        self.seen().calls.push(Call { daemon, operation, job: job.cloned(), sent, failure });
        match failure {
            Some(reason) => Err(failed(reason)),
            None => Ok(()),
        }
    }

    /// Returns when the requester learns of the answer, with what became of the request.
    async fn travel(&self, operation: Operation, sent: Duration) -> Option<FailureReason> {
        if let Some(outage) = self.scenario.outages.iter().find(|outage| outage.during.contains(&sent)) {
            let refused = (Duration::from_millis(1), FailureReason::Connect);
            let hangs = (self.scenario.timeout, FailureReason::Timeout);
            let (takes, reason) = if outage.refused { refused } else { hangs };
            self.clock.sleep(takes).await;
            return Some(reason);
        }
        self.clock.sleep(self.half_a_way()).await;
        let throttled = {
            let (now, seen) = (self.now(), &mut *self.seen());
            let quota = self.quota(now);
            !seen.buckets[operation as usize].take(now, quota, quota.max(1.0))
        };
        let failed = self.seen().rng.f64() < self.scenario.failures;
        self.clock.sleep(self.half_a_way()).await;
        match (throttled, failed) {
            (true, _) => Some(FailureReason::Throttled),
            (false, true) => Some(FailureReason::Internal),
            (false, false) => None,
        }
    }

    fn half_a_way(&self) -> Duration {
        let Range { start, end } = self.scenario.latency;
        (start + end.saturating_sub(start).mul_f64(self.seen().rng.f64())) / 2
    }

    fn quota(&self, now: Duration) -> f64 {
        let standing = self.scenario.quota.iter().rev().find(|(since, _)| *since <= now);
        standing.expect("the first stands from the start").1
    }

    fn timestamp(&self, at: Duration) -> Timestamp {
        let now = self.clock.now();
        let began = now.wall - now.monotonic.elapsed();
        began + at
    }

    fn ended_at(&self, job: &Job, now: Duration) -> Option<Timestamp> {
        job.end().filter(|(end, _)| *end <= now).map(|(end, _)| self.timestamp(*end))
    }

    fn page(&self, store: &ReferenceStoreId, after: Option<Timestamp>, token: Option<&str>, lag: Duration) -> ListPage {
        let then = self.now().saturating_sub(lag);
        let created = |job: &Job| self.timestamp(job.life[0].0);
        let first = JobKey { store: store.clone(), job: token.unwrap_or("0000000000").parse().expect("an id") };
        let jobs = self.jobs.range((Bound::Excluded(first), Bound::Unbounded)).map(|(_, job)| job);
        let mut rest = jobs
            .take_while(|job| job.key.store == *store)
            .filter(|job| job.life[0].0 <= then && after.is_none_or(|after| created(job) > after));
        let listed = |job: &Job| ListedJob {
            job: job.key.job.clone(),
            status: job.at(then).clone(),
            created_at: Some(created(job)),
        };
        let jobs: Vec<ListedJob> = rest.by_ref().take(PAGE_JOBS).map(listed).collect();
        let next_token = jobs.last().filter(|_| rest.next().is_some()).map(|last| last.job.to_string());
        ListPage { jobs, next_token }
    }
}

impl Followed {
    fn new() -> Self {
        Self { told: Vec::new(), unasked_since: None }
    }
}

impl Bucket {
    fn full(tokens: f64) -> Self {
        Self { tokens, filled_at: Duration::ZERO }
    }

    fn take(&mut self, now: Duration, rate: f64, holds: f64) -> bool {
        let filled = now.saturating_sub(self.filled_at).as_secs_f64() * rate;
        self.tokens = (self.tokens + filled).min(holds);
        self.filled_at = now;
        let taken = self.tokens >= 1.0 - ROUNDING;
        self.tokens -= f64::from(u8::from(taken));
        taken
    }
}

impl Connect for Access {
    fn connect<'a>(&'a self, _: &'a TargetConfig) -> Connecting<'a> {
        let access = self.service.access(self.daemon);
        Box::pin(async move { Ok(Arc::new(access) as Arc<dyn HealthOmics>) })
    }
}

impl HealthOmics for Access {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> Asked<'a, Snapshot> {
        Box::pin(async move {
            let service = &*self.service;
            let sent = service.now();
            if let Some(followed) = service.seen().daemons[self.daemon].jobs.get_mut(key) {
                followed.unasked_since = Some(sent);
            }
            service.request(self.daemon, Operation::GetReferenceImportJob, Some(key)).await?;
            if !service.scenario.gets {
                return Err(failed(FailureReason::AccessDenied));
            }
            let (job, now) = (&service.jobs[key], service.now());
            let status = job.at(now).clone();
            service.trace((key, &status));
            let seen = &mut *service.seen();
            let followed = seen.daemons[self.daemon].jobs.get_mut(key).expect("only these are watched");
            if followed.told.last() != Some(&status) {
                followed.told.push(status.clone());
            }
            if status.is_terminal() {
                followed.unasked_since = None;
            }
            let source = Source { status: source_status(&status), status_message: None };
            let source_key = SourceKey { name: "GRCh38".to_owned(), source_file: "s3://a/b".to_owned(), nth: 0 };
            Ok(Snapshot {
                status,
                status_message: None,
                created_at: Some(service.timestamp(job.life[0].0)),
                completed_at: service.ended_at(job, now),
                sources: [(source_key, source)].into(),
            })
        })
    }

    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> Asked<'a, ListPage> {
        Box::pin(async move {
            self.service.request(self.daemon, Operation::ListReferenceImportJobs, None).await?;
            match self.service.scenario.listing {
                Listing::Lags(lag) => Ok(self.service.page(store, created_after, token.as_deref(), lag)),
                Listing::Denied => Err(failed(FailureReason::AccessDenied)),
                Listing::Busy(wait) => Err(PollFailure { retry_after: Some(wait), ..failed(FailureReason::Internal) }),
            }
        })
    }
}

fn failed(reason: FailureReason) -> PollFailure {
    PollFailure { reason, message: reason.label().to_owned(), retry_after: None }
}

fn source_status(status: &JobStatus) -> SourceStatus {
    match status {
        JobStatus::Submitted => SourceStatus::NotStarted,
        JobStatus::InProgress | JobStatus::Cancelling | JobStatus::Unknown(_) => SourceStatus::InProgress,
        JobStatus::Completed => SourceStatus::Finished,
        JobStatus::Cancelled | JobStatus::Failed | JobStatus::CompletedWithFailures => SourceStatus::Failed,
    }
}
