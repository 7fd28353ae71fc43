//! HealthOmics in the process: it answers as a scenario says, and looks at every request for what may not be.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use refwatch::clock::Clock;
use refwatch::config::TargetConfig;
use refwatch::core::failure::{FailureReason, Operation, PollFailure};
use refwatch::core::job::{JobKey, JobStatus, ReferenceStoreId, Snapshot, Source, SourceKey, SourceStatus, Sources};
use refwatch::core::time::Timestamp;
use refwatch::healthomics::{Connect, ConnectFuture, HealthOmics, ListPage, ListedJob, RequestFuture};
use tokio::sync::Notify;

use crate::bucket::Bucket;
use crate::fate::{Fate, lie, lie_of_page};
use crate::met::Met;
use crate::scenario::{Job, Listing, Scenario};
use crate::told::{Told, Watch};

/// Jobs on a page of a listing.
const PAGE_JOBS: usize = 100;

/// How late a waiting request may wake, in seconds, without its turn being lost.
const WAKES_LATE: f64 = 0.005;

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
    listings: u64,
    calls: Vec<Call>,
    met: Met,
}

/// What was seen of one daemon.
#[derive(Debug)]
struct Client {
    /// The quota of each operation as it is configured.
    buckets: [Bucket; 2],
    jobs: BTreeMap<JobKey, Told>,
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
            jobs: scenario.jobs.iter().map(|job| (job.key.clone(), Told::default())).collect(),
        };
        let full = scenario.quota[0].1.max(1.0);
        let seen = Seen {
            rng: Rng::with_seed(scenario.seed),
            trace: DefaultHasher::new(),
            violation: None,
            buckets: [Bucket::full(full), Bucket::full(full)],
            daemons: (0..scenario.daemons).map(|_| client()).collect(),
            listings: 0,
            calls: Vec::new(),
            met: Met::default(),
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

    /// What the daemons met.
    pub(crate) fn met(&self) -> Met {
        self.seen().met
    }

    /// Counts something that is met.
    pub(crate) fn meet(&self, what: impl FnOnce(&mut Met) -> &mut u64) {
        *what(&mut self.seen().met) += 1;
    }

    /// Looks at what a daemon was told of a job.
    pub(crate) fn told<T>(&self, daemon: usize, job: &JobKey, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.seen().daemons[daemon].jobs[job])
    }

    /// A daemon begins, again, and is owed a full bucket; these are the jobs that it watches, each with what it recorded of it.
    pub(crate) fn daemon_starts(&self, daemon: usize, recorded: &BTreeMap<JobKey, Vec<JobStatus>>) {
        let seen = &mut *self.seen();
        let client = &mut seen.daemons[daemon];
        client.buckets = [Bucket::full(1.0), Bucket::full(1.0)];
        for bucket in &mut client.buckets {
            bucket.filled_at = self.now();
        }
        for (job, told) in &mut client.jobs {
            told.start(recorded.get(job).map_or(&[], Vec::as_slice));
        }
    }

    /// From now on a daemon watches the jobs as is said, and owes polls to those that are not at an end.
    pub(crate) fn daemon_watches(&self, daemon: usize, watched: impl Fn(&JobKey, &Told) -> Watch) {
        let now = self.now();
        for (job, told) in &mut self.seen().daemons[daemon].jobs {
            let watch = watched(job, told);
            told.watch(watch, now);
        }
    }

    /// Looks whether a job goes without a poll for too long.
    pub(crate) fn look_for_starvation(&self) {
        let (now, patience) = (self.now(), self.scenario.patience());
        let seen = self.seen();
        let starved = seen.daemons.iter().flat_map(|client| &client.jobs).find_map(|(job, told)| {
            let waits = now.saturating_sub(told.unasked_since?);
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
            for told in client.jobs.values_mut() {
                told.unasked_since = told.unasked_since.map(|_| now);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }

    /// The way of a request up to its answer: paced, counted, delayed, and perhaps not answered. Returns whether the answer is a lie.
    async fn request(&self, daemon: usize, operation: Operation, job: Option<&JobKey>) -> Result<bool, PollFailure> {
        let sent = self.now();
        let configured = self.scenario.configured.allowed();
        if !self.seen().daemons[daemon].buckets[operation as usize].take(
            sent,
            configured,
            1.0 + WAKES_LATE * configured,
        ) {
            self.violate(&format!("daemon {daemon} sends {operation:?} faster than {configured} a second"));
        }
        let outcome = self.travel(operation, sent).await;
        let failure = outcome.as_ref().err().map(|failure| failure.reason);
        self.trace((daemon, operation as u8, sent, failure.map(FailureReason::label), outcome.as_ref().ok()));
        let seen = &mut *self.seen();
        seen.met.requests += 1;
        if self.scenario.keeps_calls {
            seen.calls.push(Call { daemon, operation, job: job.cloned(), sent, failure });
        }
        outcome
    }

    /// Returns when the requester learns of the answer, with what became of the request.
    async fn travel(&self, operation: Operation, sent: Duration) -> Result<bool, PollFailure> {
        if let Some(outage) = self.scenario.outages.iter().find(|outage| outage.during.contains(&sent)) {
            self.meet(|met| &mut met.outages);
            let refused = (Duration::from_millis(1), FailureReason::Connect);
            let hangs = (self.scenario.timeout, FailureReason::Timeout);
            let (takes, reason) = if outage.refused { refused } else { hangs };
            self.clock.sleep(takes).await;
            return Err(failed(reason));
        }
        self.clock.sleep(self.half_a_way()).await;
        let (throttled, fate, retry_after) = {
            let (now, seen) = (self.now(), &mut *self.seen());
            let quota = self.quota(now);
            let bucket = if self.scenario.shared_quota { 0 } else { operation as usize };
            let throttled = !seen.buckets[bucket].take(now, quota, quota.max(1.0));
            let faults = self.scenario.faults;
            (throttled, faults.fate(&mut seen.rng, now), faults.wait(&mut seen.rng))
        };
        if !throttled && fate == Fate::Hangs {
            self.meet(|met| &mut met.hangs);
            self.clock.sleep(self.scenario.timeout).await;
            return Err(failed(FailureReason::Timeout));
        }
        self.clock.sleep(self.half_a_way()).await;
        let reason = match fate {
            _ if throttled => FailureReason::Throttled,
            Fate::Failure(reason) => reason,
            Fate::Truth | Fate::Lie | Fate::Hangs => return Ok(fate == Fate::Lie),
        };
        self.meet(|met| if reason == FailureReason::Throttled { &mut met.throttles } else { &mut met.failures });
        Err(PollFailure { retry_after, ..failed(reason) })
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

    fn with_told(&self, daemon: usize, job: &JobKey, change: impl FnOnce(&mut Told)) {
        change(self.seen().daemons[daemon].jobs.get_mut(job).expect("only these are watched"));
    }

    /// What it says of a job now.
    fn answer(&self, key: &JobKey, lies: bool) -> Result<Snapshot, PollFailure> {
        if !self.scenario.gets {
            return Err(failed(FailureReason::AccessDenied));
        }
        let (job, now) = (&self.jobs[key], self.now());
        if now < job.life[0].0 {
            return Err(failed(FailureReason::NotFound));
        }
        let status = job.at(now).clone();
        let source = Source { status: source_status(&status), status_message: None };
        let source_key = SourceKey { name: "GRCh38".into(), source_file: "s3://a/b".into(), nth: 0 };
        let mut snapshot = Snapshot {
            status,
            status_message: None,
            created_at: Some(self.timestamp(job.life[0].0)),
            completed_at: self.ended_at(job, now),
            sources: Sources::from_iter([(source_key, source)]),
        };
        if lies {
            self.meet(|met| &mut met.lies);
            lie(&mut snapshot, &mut self.seen().rng, job.end().is_some(), self.clock.now().wall);
        }
        self.trace((key, &snapshot.status, snapshot.completed_at.map(Timestamp::as_nanosecond)));
        Ok(snapshot)
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

impl Connect for Access {
    fn connect<'a>(&'a self, _: &'a TargetConfig) -> ConnectFuture<'a> {
        let access = self.service.access(self.daemon);
        Box::pin(async move { Ok(Arc::new(access) as Arc<dyn HealthOmics>) })
    }
}

impl HealthOmics for Access {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        Box::pin(async move {
            let service = &*self.service;
            let sent = service.now();
            service.with_told(self.daemon, key, |told| told.ask(sent));
            let answer = service.request(self.daemon, Operation::GetReferenceImportJob, Some(key)).await;
            let answer = answer.and_then(|lies| service.answer(key, lies));
            let now = service.clock.now().wall;
            service.with_told(self.daemon, key, |told| match &answer {
                Ok(snapshot) => told.hear(snapshot, now),
                Err(failure) => told.fail(failure.reason),
            });
            answer
        })
    }

    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage> {
        Box::pin(async move {
            let lies = self.service.request(self.daemon, Operation::ListReferenceImportJobs, None).await?;
            self.service.seen().listings += 1;
            let nth = self.service.seen().listings;
            match self.service.scenario.listing {
                Listing::Throttles(each) if nth.is_multiple_of(each) => Err(failed(FailureReason::Throttled)),
                Listing::Lags(_) | Listing::Throttles(_) => {
                    let lag = if let Listing::Lags(lag) = self.service.scenario.listing { lag } else { Duration::ZERO };
                    let mut page = self.service.page(store, created_after, token.as_deref(), lag);
                    if lies {
                        self.service.meet(|met| &mut met.lies);
                        lie_of_page(&mut page.jobs, &mut self.service.seen().rng);
                    }
                    Ok(page)
                }
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
