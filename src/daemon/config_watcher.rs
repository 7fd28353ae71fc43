//! Loads the configuration again on request and when its files have changed. It never applies a configuration.
//!
//! Twice a second it compares names, inodes, sizes and times of the files. Unlike inotify, this also works on network
//! file systems and for symbolic links that Kubernetes replaces. A change must be stable for one check, so that a half-written file
//! is not loaded. A load with a problem is repeated every 30 s, because its cause may be outside of the files, such as a permission.
//!
//! Checks and loads run on a blocking thread, one at a time, because file systems can hang.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::clock::Clock;
use crate::config::{Loaded, LoadedFiles, Problems, Stamps, current_stamps};
use crate::core::time::Monotonic;
use crate::reload::ReloadRequest;

/// A change is loaded after two or three checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The shortest time between a load and the next requested one.
const REQUEST_PAUSE: Duration = Duration::from_secs(1);

const RETRY_INTERVAL: Duration = Duration::from_secs(30);

pub type Loader = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

/// The result of a load without `Loaded::files`, and the requests that wait for it.
pub(super) struct ConfigLoad {
    pub outcome: Result<Loaded, Problems>,
    pub requests: Vec<ReloadRequest>,
}

struct Check {
    stamps: Stamps,
    outcome: Option<Result<Loaded, Problems>>,
    requests: Vec<ReloadRequest>,
}

pub(super) struct ConfigWatcher {
    loader: Loader,
    clock: Clock,
    queue: mpsc::Receiver<ReloadRequest>,
    /// Requests for the next load.
    requests: Vec<ReloadRequest>,
    /// The main file and the include patterns.
    patterns: Vec<PathBuf>,
    /// The stamps at the last check.
    checked: Stamps,
    /// The stamps at the last load. `None`: a load is due.
    loaded: Option<Stamps>,
    next_check: Monotonic,
    next_requested_load: Monotonic,
    retry_at: Option<Monotonic>,
    running: JoinSet<Check>,
}

impl ConfigWatcher {
    pub(super) fn new(loader: Loader, files: LoadedFiles, queue: mpsc::Receiver<ReloadRequest>, clock: Clock) -> Self {
        let now = clock.now().monotonic;
        Self {
            loader,
            clock,
            queue,
            requests: Vec::new(),
            patterns: files.patterns,
            checked: Stamps::new(),
            loaded: Some(files.stamps),
            next_check: now,
            next_requested_load: now,
            retry_at: None,
            running: JoinSet::new(),
        }
    }

    /// Waits for the next load. Cancel safe.
    ///
    /// # Errors
    /// The loader panicked.
    pub(super) async fn next(&mut self) -> Result<ConfigLoad, JoinError> {
        loop {
            let due = if self.requests.is_empty() { self.next_check } else { self.next_requested_load };
            tokio::select! {
                // In this order: all requests in the queue share the load that begins.
                biased;
                Some(request) = self.queue.recv() => self.requests.push(request),
                Some(check) = self.running.join_next() => {
                    if let Some(load) = self.finish_check(check?) {
                        return Ok(load);
                    }
                }
                () = self.clock.sleep_until(due), if self.running.is_empty() => self.begin_check(),
            }
        }
    }

    /// Schedules a load after `RETRY_INTERVAL`, even if no file changes.
    pub(super) fn retry(&mut self) {
        self.retry_at = Some(self.clock.now().monotonic + RETRY_INTERVAL);
    }

    fn begin_check(&mut self) {
        if self.retry_at.is_some_and(|at| at <= self.clock.now().monotonic) {
            self.loaded = None;
        }
        let (load_config, requests) = (Arc::clone(&self.loader), mem::take(&mut self.requests));
        let (patterns, checked, loaded) = (self.patterns.clone(), self.checked.clone(), self.loaded.clone());
        self.running.spawn_blocking(move || {
            // Taken before the load, so that the next check detects a change during the load.
            let stamps = current_stamps(&patterns);
            let edited = stamps == checked && Some(&stamps) != loaded.as_ref();
            let outcome = (edited || !requests.is_empty()).then(|| load_config());
            Check { stamps, outcome, requests }
        });
    }

    fn finish_check(&mut self, Check { stamps, outcome, requests }: Check) -> Option<ConfigLoad> {
        let now = self.clock.now().monotonic;
        self.next_check = now + CHECK_INTERVAL;
        self.checked.clone_from(&stamps);
        let mut outcome = outcome?;
        self.next_requested_load = now + REQUEST_PAUSE;
        (self.loaded, self.retry_at) = (Some(stamps), None);
        if let Ok(Loaded { files, .. }) = &mut outcome {
            let LoadedFiles { patterns, stamps } = mem::take(files);
            (self.patterns, self.loaded) = (patterns, Some(stamps));
        }
        if !outcome.as_ref().is_ok_and(|loaded| loaded.problems.is_empty()) {
            self.retry();
        }
        Some(ConfigLoad { outcome, requests })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tokio::time::timeout;

    use super::*;
    use crate::config;
    use crate::reload::ReloadRequests;

    fn watcher(path: &Path) -> (ConfigWatcher, ReloadRequests) {
        let (requests, queue) = ReloadRequests::new();
        let (clock, main) = (Clock::system(), path.to_owned());
        let loader: Loader = Arc::new(move || config::load(&main));
        let files = LoadedFiles { patterns: vec![path.to_owned()], stamps: Stamps::new() };
        (ConfigWatcher::new(loader, files, queue, clock), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_is_loaded_within_two_seconds_and_unchanged_files_never() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("refwatch.toml");
        fs::write(&path, "database.path = \"refwatch.db\"\n").expect("a file");
        let (mut watcher, requests) = watcher(&path);
        let mut loads = async |wait: u64| {
            let mut loads = 0;
            while let Ok(load) = timeout(Duration::from_secs(wait), watcher.next()).await {
                assert!(load.expect("a load").outcome.is_ok());
                loads += 1;
            }
            loads
        };
        assert_eq!(loads(60).await, 1);
        for edit in ["database.path = \"other.db\"\n", "database.path = \"third.db\"\n"] {
            fs::write(&path, edit).expect("a file");
            assert_eq!(loads(2).await, 1, "{edit}");
        }
        let new = folder.path().join("new");
        fs::write(&new, "database.path = \"third.db\"\n").expect("a file");
        fs::rename(&new, &path).expect("a file");
        assert_eq!(loads(2).await, 1, "replaced");
        fs::create_dir(folder.path().join("conf.d")).expect("a directory");
        assert_eq!(loads(60).await, 0, "no file has changed");
        fs::write(folder.path().join("conf.d/a.toml"), "").expect("a file");
        assert_eq!(loads(2).await, 1, "a new included file");
        for _ in 0..1_000 {
            requests.send();
        }
        assert_eq!(loads(60).await, 1, "fault 90: requests before a load share that load");
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_with_a_problem_is_repeated() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("refwatch.toml"), "database.path = \"refwatch.db\"\n").expect("a file");
        fs::write(folder.path().join("conf.d"), "no directory").expect("a file");
        for (name, is_rejected) in [("missing.toml", true), ("refwatch.toml", false)] {
            let (mut watcher, _requests) = watcher(&folder.path().join(name));
            for _ in 0..2 {
                let load = timeout(Duration::from_secs(31), watcher.next()).await.expect("in time").expect("a load");
                assert_eq!(load.outcome.is_err(), is_rejected, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_is_loaded_only_when_two_checks_in_a_row_find_it_unchanged() {
        let folder = tempfile::tempdir().expect("a directory");
        let (mut watcher, _requests) = watcher(&folder.path().join("refwatch.toml"));
        let stamps = |size| Stamps::from([("a".into(), Some((1, 1, size, [0; 2])))]);
        for size in [1, 2] {
            let check = Check { stamps: stamps(size), outcome: None, requests: Vec::new() };
            assert!(watcher.finish_check(check).is_none());
        }
        watcher.begin_check();
        let check = watcher.running.join_next().await.expect("a check").expect("no panic");
        assert!(check.outcome.is_none(), "the stamps differ from the stamps of the previous check");
    }
}
