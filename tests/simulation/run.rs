//! One run: the real supervisor, watchers, sweepers and database on a simulated service, in time that passes only while all of
//! them wait.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::config::watch_list::{JobEntry, StoreEntry, WatchList};
use refwatch::config::{Config, TargetConfig};
use refwatch::core::job::{JobKey, JobStatus, StoreId};
use refwatch::core::time::{Monotonic, Timestamp};
use refwatch::core::transition::Transition;
use refwatch::database::{Database, DatabaseReader, Filter};
use refwatch::instruments::Instruments;
use refwatch::state::{SharedState, TransitionEvent};
use refwatch::tasks::job_watcher::TaskContext;
use refwatch::tasks::supervisor::Supervisor;
use tokio::runtime::Builder;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;

use crate::met::Met;
use crate::scenario::{Event, Found, Job, Scenario};
use crate::service::{Call, Service};
use crate::told::{Told, Watch};

/// Any time would do; it makes times in failures readable.
const START: &str = "2030-01-01T00:00:00Z";

/// How long timers may take to do what is due.
const SETTLING: Duration = Duration::from_secs(10);

/// Looks for starvation during one patience.
const LOOKS: u32 = 8;

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The same for two runs that did the same.
    pub fingerprint: u64,
    /// How long it went on.
    pub lasted: Duration,
    /// What the daemons met.
    pub met: Met,
    /// Every request.
    pub calls: Vec<Call>,
    /// The end of each job, as each daemon saw it.
    pub ends: Vec<End>,
    /// Watches that were in sight at last.
    pub in_sight: usize,
}

/// A job's end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub ended: Duration,
    /// When it was in the database and announced.
    pub known: Duration,
}

/// Runs a scenario.
///
/// # Errors
/// What may not be and was.
pub(crate) fn run(scenario: &Scenario) -> Result<Report, String> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let clock = Clock::simulated(START.parse::<Timestamp>().expect("a time"));
        let service = Service::new(scenario, clock);
        let folder = folder();
        let mut daemons = JoinSet::new();
        for daemon in 0..scenario.daemons {
            let path = folder.path().join(format!("{daemon}.db"));
            let (service, scenario) = (Arc::clone(&service), scenario.clone());
            let (ends, left_out, own, settled_at) = Default::default();
            daemons.spawn(Host { daemon, path, clock, service, scenario, ends, left_out, own, settled_at }.run());
        }
        let (mut ends, mut in_sight) = (Vec::new(), 0);
        while let Some(of_one) = daemons.join_next().await {
            let (its_ends, its_watches) = of_one.map_err(|error| error.to_string())?;
            ends.extend(its_ends);
            in_sight += its_watches;
        }
        let (fingerprint, lasted) = (service.fingerprint(), service.now());
        let report = Report { fingerprint, lasted, met: service.met(), calls: service.calls(), ends, in_sight };
        service.violation().map_or(Ok(report), Err)
    })
}

/// In memory where there is such a file system: that what is committed survives is the database's own tests' business.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// Where one daemon lives, however often it is started.
struct Host {
    daemon: usize,
    path: PathBuf,
    clock: Clock,
    service: Arc<Service>,
    scenario: Scenario,
    ends: BTreeMap<JobKey, Duration>,
    /// The jobs that the watch list in force leaves out.
    left_out: Vec<usize>,
    /// The jobs that have an entry of their own in it.
    own: BTreeSet<JobKey>,
    /// From when on the board can be expected to stand, after everything was late at once.
    settled_at: Duration,
}

/// One daemon from a start to its end.
struct Instance {
    context: TaskContext,
    supervisor: Supervisor,
    announced: Receiver<Arc<TransitionEvent>>,
    /// How many transitions of each job are known to be recorded.
    recorded: BTreeMap<JobKey, usize>,
    writer: JoinSet<()>,
}

impl Host {
    /// The ends that it saw, and how many watches were in sight at last.
    async fn run(mut self) -> (Vec<End>, usize) {
        let mut events = self.scenario.events.clone().into_iter().peekable();
        let mut instance = self.start().await;
        while !self.is_over(events.peek().is_some()) {
            let until = events.peek().map_or(self.scenario.end, |(time, _)| *time);
            if !self.work(&mut instance, until).await {
                continue;
            }
            let Some((_, event)) = events.next() else { break };
            match event {
                Event::Kill => {
                    self.service.meet(|met| &mut met.kills);
                    instance.kill().await;
                    instance = self.start().await;
                }
                Event::Restart => {
                    self.service.meet(|met| &mut met.restarts);
                    instance.stop().await;
                    instance = self.start().await;
                }
                Event::Reload(without) => {
                    self.service.meet(|met| &mut met.reloads);
                    self.left_out = without;
                    self.apply(&mut instance).await;
                }
                Event::Suspend(asleep) => {
                    self.service.meet(|met| &mut met.suspensions);
                    tokio::time::advance(asleep).await;
                    self.service.slept();
                    self.settled_at = self.service.now() + SETTLING;
                }
            }
        }
        self.drain(&mut instance);
        let in_sight = instance.context.board.watches().len();
        instance.stop().await;
        self.look_at_the_record();
        let ends = self.ends.iter().filter_map(|(key, known)| {
            let job = self.scenario.jobs.iter().find(|job| job.key == *key)?;
            Some(End { ended: job.end()?.0, known: *known })
        });
        (ends.collect(), in_sight)
    }

    /// Whether there is nothing more to come.
    fn is_over(&self, events: bool) -> bool {
        let ending = self.scenario.jobs.iter().filter(|job| job.end().is_some()).count();
        let all_ended = self.ends.len() == ending && ending == self.scenario.jobs.len();
        self.service.violation().is_some() || self.service.now() >= self.scenario.end || (all_ended && !events)
    }

    /// Lets the daemon work; `true` at `until`, `false` when somebody should look before that.
    async fn work(&mut self, instance: &mut Instance, until: Duration) -> bool {
        let look = self.service.now() + self.scenario.patience() / LOOKS;
        tokio::select! {
            biased;
            () = self.service.violated.notified() => {}
            announced = instance.announced.recv() => match announced {
                Ok(announced) => self.hear(instance, &announced),
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
            () = self.clock.sleep_until(Monotonic::at(look)) => {
                self.service.look_for_starvation();
                self.look_at_the_board(&instance.context.board);
            }
        }
        false
    }

    /// A transition is announced: it has to be the next that the daemon was told of.
    fn hear(&mut self, instance: &mut Instance, announced: &TransitionEvent) {
        let (key, to) = (&announced.id.key, &announced.transition.to);
        self.service.trace((self.daemon, key, to));
        let nth = instance.recorded.entry(key.clone()).or_default();
        let wrong = self.service.told(self.daemon, key, |told| {
            let before = nth.checked_sub(1).and_then(|before| told.changes.get(before));
            let times = [announced.transition.created_at, announced.transition.completed_at];
            let as_told = told
                .changes
                .get(*nth)
                .is_some_and(|change| change.status == *to && change.times.is_none_or(|told| told == times));
            let follows = announced.transition.from.as_ref() == before.map(|before| &before.status);
            (!as_told || !follows).then(|| format!("{announced:?} as number {nth} of {:?}", told.changes))
        });
        if let Some(wrong) = wrong {
            self.service.violate(&wrong);
        }
        *nth += 1;
        if to.is_terminal() {
            self.ends.entry(key.clone()).or_insert(self.service.now());
        }
    }

    /// Hears what was announced and not yet heard.
    fn drain(&mut self, instance: &mut Instance) {
        while let Ok(announced) = instance.announced.try_recv() {
            self.hear(instance, &announced);
        }
    }

    async fn start(&mut self) -> Instance {
        let recorded = recorded(&self.path);
        self.compare(&recorded, true);
        self.service.daemon_starts(self.daemon, &recorded);
        let instruments = Instruments::new().expect("metrics");
        let (database, writing) = Database::open_unwritten(&self.path, &instruments).expect("a database");
        let mut writer = JoinSet::new();
        writer.spawn(writing);
        let context = TaskContext { clock: self.clock, database, board: SharedState::default(), instruments };
        let access = Arc::new(self.service.access(self.daemon));
        let supervisor = Supervisor::new(context.clone(), access, self.scenario.seed);
        let recorded = recorded.into_iter().map(|(job, statuses)| (job, statuses.len())).collect();
        let announced = context.board.follow();
        let mut instance = Instance { context, supervisor, announced, recorded, writer };
        self.apply(&mut instance).await;
        instance
    }

    async fn apply(&mut self, instance: &mut Instance) {
        let left_out = &self.left_out;
        let own_entry = |(place, job): &(usize, &Job)| match self.scenario.found {
            None => !left_out.contains(place),
            // A job that is still to come would not be there for its entry.
            Some(_) => left_out.contains(place) && job.life[0].0 <= self.service.now(),
        };
        let own = self.scenario.jobs.iter().enumerate().filter(own_entry);
        let own: BTreeMap<JobKey, &Job> = own.map(|(_, job)| (job.key.clone(), job)).collect();
        let mut watch_list = WatchList::of_jobs(own.keys().cloned(), self.scenario.poll.policy());
        for (id, entry) in Arc::make_mut(&mut watch_list.jobs) {
            entry.policy = own[&id.key].policy(self.scenario.poll).into();
        }
        self.own = own.into_keys().collect();
        if let Some(Found { since, remove_after }) = self.scenario.found {
            for Job { key, .. } in &self.scenario.jobs {
                let entry = StoreEntry::new(key.store.as_str().into(), self.scenario.poll.policy());
                let each = JobEntry { remove_after: Some(remove_after), ..entry.each };
                let id = StoreId { target: TargetConfig::DEFAULT.into(), store: key.store.clone() };
                watch_list.stores.insert(id, StoreEntry { created_within: since, each });
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
        self.service.daemon_watches(self.daemon, |job, told| match self.scenario.found {
            _ if self.own.contains(job) => Watch::Own,
            // One that was never seen, or that is gone, is yet to be found.
            Some(_) if told.last().is_some() && !told.vanished => Watch::Found,
            Some(_) | None => Watch::None,
        });
    }

    /// A job that was found has to be in sight until its time there is over, and no longer, but for those with an entry of their own.
    fn look_at_the_board(&self, board: &SharedState) {
        let Some(found) = self.scenario.found.filter(|_| self.service.now() >= self.settled_at) else { return };
        let (now, patience) = (self.clock.now().wall, self.scenario.patience());
        let in_sight: BTreeSet<JobKey> = board.watches().iter().map(|watch| watch.id.key.clone()).collect();
        for job in &self.scenario.jobs {
            let told = self.service.told(self.daemon, &job.key, |told| {
                let last = told.last().filter(|_| !told.vanished && !told.parked && !told.retold).cloned()?;
                Some((last, told.ended_at.map(|ended| ended + found.remove_after)))
            });
            let Some((last, over_at)) = told else { continue };
            let own = self.own.contains(&job.key);
            let expected = own || over_at.is_none_or(|over| now < over);
            let just_over = over_at.is_some_and(|over| now.duration_since(over).unsigned_abs() < SETTLING);
            // One that a listing shows otherwise is asked once more, and goes after that.
            let asked_again =
                !expected && over_at.is_some_and(|over| now.duration_since(over).unsigned_abs() < patience);
            if in_sight.contains(&job.key) != expected && !just_over && !asked_again {
                self.service.violate(&format!("{}, last told {last}, in sight: {}", job.key, !expected));
            }
        }
    }

    /// The database has to hold each status that the daemon was told, once and in order, up to each job's true end.
    fn look_at_the_record(&self) {
        let recorded = recorded(&self.path);
        self.compare(&recorded, false);
        for job in &self.scenario.jobs {
            let last = recorded.get(&job.key).and_then(|statuses| statuses.last());
            let Some((_, end)) = job.end().filter(|_| self.scenario.gets) else { continue };
            // An end that was a lie is believed, and not asked about again.
            let believed = self.scenario.faults.lies > 0.0 && last.is_some_and(JobStatus::is_terminal);
            let given_up = self.scenario.found.is_some() && self.service.told(self.daemon, &job.key, |told| told.gone);
            if last != Some(end) && !believed && !given_up && self.service.violation().is_none() {
                self.service.violate(&format!("the end of {} was not seen: {last:?}, not {end:?}", job.key));
            }
        }
    }

    /// Where the daemon was `killed`, the last answer of a job may have come too late for the database.
    fn compare(&self, recorded: &BTreeMap<JobKey, Vec<JobStatus>>, killed: bool) {
        for Job { key, .. } in &self.scenario.jobs {
            let told = self.service.told(self.daemon, key, Told::statuses);
            let (told, rows) = (&told[..], recorded.get(key).map_or(&[][..], Vec::as_slice));
            let late = killed && told.split_last().is_some_and(|(_, before)| before == rows);
            if told != rows && !late {
                self.service.violate(&format!("of {key} were told {told:?} and are recorded {rows:?}"));
            }
        }
    }
}

impl Instance {
    /// Nothing gets to finish anything.
    async fn kill(mut self) {
        self.writer.shutdown().await;
        drop(self.supervisor);
        // The tasks of the supervisor end when they would next run.
        tokio::task::yield_now().await;
    }

    async fn stop(mut self) {
        self.supervisor.stop().await;
        self.context.database.close().await;
        while self.writer.join_next().await.is_some() {}
    }
}

/// The statuses of each job that the database holds, in order.
fn recorded(path: &Path) -> BTreeMap<JobKey, Vec<JobStatus>> {
    let mut recorded: BTreeMap<JobKey, Vec<JobStatus>> = BTreeMap::new();
    if !path.exists() {
        return recorded;
    }
    for row in DatabaseReader::new(path).rows::<Transition>(&Filter::default()).expect("a database") {
        recorded.entry(row.job.key).or_default().push(row.value.to);
    }
    recorded
}
