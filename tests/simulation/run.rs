//! One run of a scenario: the real supervisor, watchers, listers and database against the simulated service.
//!
//! Time is paused and advances only while all tasks wait. Each daemon is started, killed, restarted, reloaded and suspended as the
//! scenario says. Checks: a published transition is the next expected one, the shared state holds exactly the retained jobs, and
//! the database holds each reported status once, in order, up to the true end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::config::watch_list::{JobSettings, StoreSettings, WatchList};
use refwatch::config::{Config, TargetConfig};
use refwatch::core::failure::Operation;
use refwatch::core::job::{JobKey, JobStatus, TargetStore};
use refwatch::core::kind::JobKind;
use refwatch::core::time::{Monotonic, Timestamp};
use refwatch::database::Database;
use refwatch::instruments::Instruments;
use refwatch::state::{SharedState, TransitionEvent};
use refwatch::tasks::context::TaskContext;
use refwatch::tasks::supervisor::Supervisor;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::counters::Counters;
use crate::expectations::{Expectation, Watch};
use crate::instance::{Instance, recorded};
use crate::scenario::{Discovery, Event, Job, Scenario};
use crate::service::{Call, Service};
use crate::sinks::SinkHost;

/// Arbitrary; a fixed date makes failures readable.
const START: &str = "2030-01-01T00:00:00Z";

/// Tolerance for timers that are due.
const SETTLING: Duration = Duration::from_secs(10);

/// Checks during one longest poll gap.
const CHECKS_PER_GAP: u32 = 8;

#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Equal for two runs with the same trace.
    pub fingerprint: u64,
    /// Simulated time.
    pub lasted: Duration,
    pub counters: Counters,
    pub calls: Vec<Call>,
    /// The end of each job, as each daemon saw it.
    pub ends: Vec<End>,
    /// Watches left at the end of the run.
    pub retained: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub kind: JobKind,
    pub ended: Duration,
    /// When its transition was committed and published.
    pub detected: Duration,
}

/// # Errors
/// The first violated check.
pub(crate) fn run(scenario: &Scenario) -> Result<Report, String> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let clock = Clock::simulated(START.parse::<Timestamp>().expect("a time"));
        let service = Service::new(scenario, clock);
        let directory = directory();
        let mut daemons = JoinSet::new();
        for daemon in 0..scenario.daemons {
            let path = directory.path().join(format!("{daemon}.db"));
            let (service, scenario) = (Arc::clone(&service), scenario.clone());
            let (ends, removed, configured_jobs, state_settled_at) = Default::default();
            let sinks = SinkHost::new(&path, clock, Arc::clone(&service), &scenario);
            let host = DaemonHost {
                daemon,
                path,
                clock,
                service,
                scenario,
                ends,
                removed,
                configured_jobs,
                sinks,
                state_settled_at,
            };
            daemons.spawn(host.run());
        }
        let (mut ends, mut retained) = (Vec::new(), 0);
        while let Some(own) = daemons.join_next().await {
            let (daemon_ends, daemon_watches) = own.map_err(|error| error.to_string())?;
            ends.extend(daemon_ends);
            retained += daemon_watches;
        }
        let (fingerprint, lasted) = (service.fingerprint(), service.now());
        let report =
            Report { fingerprint, lasted, counters: service.counters(), calls: service.calls(), ends, retained };
        service.violation().map_or(Ok(report), Err)
    })
}

/// In memory where possible: tests of the database cover durability.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// Runs one daemon through all of its restarts.
struct DaemonHost {
    daemon: usize,
    path: PathBuf,
    clock: Clock,
    service: Arc<Service>,
    scenario: Scenario,
    ends: BTreeMap<JobKey, Duration>,
    /// Indexes of the jobs that the applied watch list leaves out.
    removed: Vec<usize>,
    /// Jobs with an entry in the applied watch list.
    configured_jobs: BTreeSet<JobKey>,
    sinks: SinkHost,
    /// After a suspension all timers are late. The shared state is checked from this time on.
    state_settled_at: Duration,
}

impl DaemonHost {
    /// Returns the ends that the daemon saw and the number of watches left.
    async fn run(mut self) -> (Vec<End>, usize) {
        let mut events = self.scenario.events.clone().into_iter().peekable();
        let mut instance = self.start().await;
        while !self.is_over(events.peek().is_some()) {
            let until = events.peek().map_or(self.scenario.end, |(time, _)| *time);
            if !self.run_until(&mut instance, until).await {
                continue;
            }
            let Some((_, event)) = events.next() else { break };
            match event {
                Event::Kill => {
                    self.service.count(|counters| &mut counters.kills);
                    instance.kill().await;
                    instance = self.start().await;
                }
                Event::Restart => {
                    self.service.count(|counters| &mut counters.restarts);
                    instance.stop(None).await;
                    instance = self.start().await;
                }
                Event::Reload(without) => {
                    self.service.count(|counters| &mut counters.reloads);
                    self.removed = without;
                    self.sinks.reload();
                    self.apply(&mut instance).await;
                }
                Event::Suspend(asleep) => {
                    self.service.count(|counters| &mut counters.suspensions);
                    tokio::time::advance(asleep).await;
                    self.service.reset_poll_gaps();
                    self.state_settled_at = self.service.now() + SETTLING;
                }
            }
        }
        self.check_pending(&mut instance);
        let retained = instance.context.shared.watches().len();
        let drained = self.scenario.has_sinks && self.service.violation().is_none();
        instance.stop(drained.then_some(&self.sinks)).await;
        self.check_database();
        let ends = self.ends.iter().filter_map(|(key, detected)| {
            let job = self.scenario.jobs.iter().find(|job| job.key == *key)?;
            Some(End { kind: key.kind, ended: job.end()?.0, detected: *detected })
        });
        (ends.collect(), retained)
    }

    fn is_over(&self, events: bool) -> bool {
        let ending = self.scenario.jobs.iter().filter(|job| job.end().is_some()).count();
        let all_ended = self.ends.len() == ending && ending == self.scenario.jobs.len();
        self.service.violation().is_some() || self.service.now() >= self.scenario.end || (all_ended && !events)
    }

    /// Runs the daemon. Returns true at `until`, false earlier if the caller should check whether the run is over.
    async fn run_until(&mut self, instance: &mut Instance, until: Duration) -> bool {
        let next_check = self.service.now() + self.scenario.max_poll_gap() / CHECKS_PER_GAP;
        tokio::select! {
            biased;
            () = self.service.violated.notified() => {}
            announced = instance.announced.recv() => match announced {
                Ok(announced) => self.check_transition(instance, &announced),
                Err(error) => self.service.violate(&format!("announcements: {error}")),
            },
            event = instance.supervisor.next_event() => {
                if let Err(error) = instance.supervisor.handle_event(event).await {
                    self.service.violate(&error.to_string());
                }
                if instance.context.instruments.task_restarts.get() > 0 {
                    self.service.violate("a task panicked");
                }
            }
            () = self.clock.sleep_until(Monotonic::at(until)) => return true,
            () = self.clock.sleep_until(Monotonic::at(next_check)) => {
                self.service.check_starvation();
                self.check_state(&instance.context.shared);
            }
        }
        false
    }

    /// Checks that a published transition is the next expected one.
    fn check_transition(&mut self, instance: &mut Instance, announced: &TransitionEvent) {
        let (key, to) = (&announced.id.key, &announced.transition.to);
        self.service.trace((self.daemon, key, to));
        let nth = instance.recorded.entry(key.clone()).or_default();
        let error = self.service.expectation(self.daemon, key, |expectation| {
            let before = nth.checked_sub(1).and_then(|before| expectation.changes.get(before));
            let times = [announced.transition.created_at, announced.transition.completed_at];
            let as_expected = expectation.changes.get(*nth).is_some_and(|change| {
                change.status == *to && change.times.is_none_or(|expectation| expectation == times)
            });
            let follows = announced.transition.from.as_ref() == before.map(|before| &before.status);
            (!as_expected || !follows).then(|| format!("{announced:?} as number {nth} of {:?}", expectation.changes))
        });
        if let Some(error) = error {
            self.service.violate(&error);
        }
        *nth += 1;
        if to.is_terminal() {
            self.ends.entry(key.clone()).or_insert(self.service.now());
        }
    }

    /// Checks the transitions that are published and not yet received.
    fn check_pending(&mut self, instance: &mut Instance) {
        while let Ok(announced) = instance.announced.try_recv() {
            self.check_transition(instance, &announced);
        }
    }

    async fn start(&mut self) -> Instance {
        let recorded = recorded(&self.path);
        self.compare(&recorded, true);
        self.service.daemon_starts(self.daemon, &recorded);
        let instruments = Instruments::new().expect("metrics");
        let (database, writing) = Database::open_without_thread(&self.path, &instruments).expect("a database");
        let mut writer = JoinSet::new();
        writer.spawn(writing);
        let context = TaskContext { clock: self.clock, database, shared: SharedState::default(), instruments };
        let access = Arc::new(self.service.access(self.daemon));
        let supervisor = Supervisor::new(context.clone(), access, self.scenario.seed);
        let recorded = recorded.into_iter().map(|(job, statuses)| (job, statuses.len())).collect();
        let announced = context.shared.subscribe();
        let sinks = self.sinks.start(&context);
        let mut instance = Instance { context, supervisor, announced, recorded, sinks, writer };
        self.apply(&mut instance).await;
        instance
    }

    async fn apply(&mut self, instance: &mut Instance) {
        let removed = &self.removed;
        let has_entry = |(index, job): &(usize, &Job)| match self.scenario.discovery {
            None => !removed.contains(index),
            // A job that is not created yet would return 404 for its entry.
            Some(_) => removed.contains(index) && job.timeline[0].0 <= self.service.now(),
        };
        let configured_jobs = self.scenario.jobs.iter().enumerate().filter(has_entry);
        let configured_jobs: BTreeMap<JobKey, &Job> = configured_jobs.map(|(_, job)| (job.key.clone(), job)).collect();
        let mut watch_list = WatchList::of_jobs(configured_jobs.keys().cloned(), self.scenario.poll.policy());
        for (id, entry) in Arc::make_mut(&mut watch_list.jobs) {
            entry.policy = configured_jobs[&id.key].policy(self.scenario.poll);
        }
        self.configured_jobs = configured_jobs.into_keys().collect();
        if let Some(Discovery { since, remove_after }) = self.scenario.discovery {
            for Job { key, .. } in &self.scenario.jobs {
                let entry = StoreSettings::new(key.store.as_str().into(), self.scenario.poll.policy());
                let job_settings = JobSettings { remove_after: Some(remove_after), ..entry.job_settings };
                let id = TargetStore { target: TargetConfig::DEFAULT.into(), store: key.store.clone(), kind: key.kind };
                watch_list.stores.insert(id, StoreSettings { created_within: since, job_settings });
            }
        }
        let target = TargetConfig {
            quota: self.scenario.configured,
            timeout: self.scenario.timeout,
            ..TargetConfig::new(TargetConfig::DEFAULT)
        };
        let config = Config {
            targets: [(Arc::clone(&target.name), target)].into(),
            watch_list,
            poll: self.scenario.poll,
            ..Config::new(self.path.clone())
        };
        if let Err(error) = instance.supervisor.apply(&config).await {
            self.service.violate(&error.to_string());
        }
        if self.scenario.has_sinks {
            self.sinks.apply(&mut instance.sinks).await;
        }
        self.service.set_watches(self.daemon, |job, expectation| match self.scenario.discovery {
            _ if self.configured_jobs.contains(job) => Watch::Configured,
            // Jobs without a response, and jobs that returned 404, must be discovered first.
            Some(_) if expectation.last().is_some() && !expectation.not_found => Watch::Discovered,
            Some(_) | None => Watch::None,
        });
    }

    /// A discovered job is retained until its retention expires, and no longer. A configured job is always retained.
    fn check_state(&self, shared: &SharedState) {
        let Some(discovery) = self.scenario.discovery.filter(|_| self.service.now() >= self.state_settled_at) else {
            return;
        };
        let (now, max_poll_gap) = (self.clock.now().wall, self.scenario.max_poll_gap());
        let retained: BTreeSet<JobKey> = shared.watches().iter().map(|watch| watch.id.key.clone()).collect();
        for job in &self.scenario.jobs {
            let expectation = self.service.expectation(self.daemon, &job.key, |expectation| {
                let last = expectation
                    .last()
                    .filter(|_| !expectation.not_found && !expectation.parked && !expectation.end_repeated)
                    .cloned()?;
                Some((last, expectation.ended_at.map(|ended| ended + discovery.remove_after)))
            });
            let Some((last, expires_at)) = expectation else { continue };
            let configured_jobs = self.configured_jobs.contains(&job.key);
            let expected = configured_jobs || expires_at.is_none_or(|expiry| now < expiry);
            let just_expired = expires_at.is_some_and(|expiry| now.duration_since(expiry).unsigned_abs() < SETTLING);
            // If a listing shows an ended job as running, it is polled once more and removed after that.
            let polled_again =
                !expected && expires_at.is_some_and(|expiry| now.duration_since(expiry).unsigned_abs() < max_poll_gap);
            if retained.contains(&job.key) != expected && !just_expired && !polled_again {
                self.service.violate(&format!("{}, last status {last}, retained: {}", job.key, !expected));
            }
        }
    }

    /// The database must hold each reported status once, in order, up to the true end of each job.
    fn check_database(&self) {
        let recorded = recorded(&self.path);
        self.compare(&recorded, false);
        for job in &self.scenario.jobs {
            let last = recorded.get(&job.key).and_then(|statuses| statuses.last());
            let Some((_, end)) = job.end().filter(|_| !self.scenario.denied.contains(&Operation::Get(job.key.kind)))
            else {
                continue;
            };
            // A daemon believes a wrong end and stops polling the job.
            let believed = self.scenario.faults.incorrect > 0.0 && last.is_some_and(JobStatus::is_terminal);
            let removed_after_404 = self.scenario.discovery.is_some()
                && self.service.expectation(self.daemon, &job.key, |expectation| expectation.not_found_twice);
            if last != Some(end) && !believed && !removed_after_404 && self.service.violation().is_none() {
                self.service.violate(&format!("the end of {} is missing: {last:?} instead of {end:?}", job.key));
            }
        }
    }

    /// After a kill the last response of a job may be missing from the database.
    fn compare(&self, recorded: &BTreeMap<JobKey, Vec<JobStatus>>, killed: bool) {
        for Job { key, .. } in &self.scenario.jobs {
            let expectation = self.service.expectation(self.daemon, key, Expectation::statuses);
            let (expectation, rows) = (&expectation[..], recorded.get(key).map_or(&[][..], Vec::as_slice));
            let late = killed && expectation.split_last().is_some_and(|(_, before)| before == rows);
            if expectation != rows && !late {
                self.service.violate(&format!("{key}: expected {expectation:?}, the database has {rows:?}"));
            }
        }
    }
}
