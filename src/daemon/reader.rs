//! Reading the configuration anew: when that is due, and one reading at a time, on a thread that may wait for a disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

use super::config_watcher::Edits;
use crate::clock::Clock;
use crate::config::{self, Loaded, Problems};
use crate::core::time::Monotonic;
use crate::reload::{ReloadRequests, Reloaded};

/// The least time between two readings. However many requests and edits come meanwhile, they get one.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a configuration is read from.
pub trait Source: Clone + Send + 'static {
    /// The main file.
    fn path(&self) -> &Path;

    /// Reads it.
    ///
    /// # Errors
    /// Every problem of it.
    fn load(&self) -> Result<Loaded, Problems>;
}

/// The file at a path.
impl Source for PathBuf {
    fn path(&self) -> &Path {
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        crate::config::load(self)
    }
}

/// A configuration that was read anew.
#[derive(Debug)]
pub(super) struct Reading {
    pub outcome: Result<Loaded, Problems>,
    /// Whether somebody asked for it. Else it counts only where it differs from the one before.
    pub asked: bool,
    /// Who waits to hear what comes of it.
    pub to_answer: Vec<oneshot::Sender<Reloaded>>,
}

/// What a good configuration was read from, and the digest of it. One with ten thousand jobs takes nearly a tenth of a second and more
/// than ten mebibytes to read, so the regular look, which mostly finds what was there before, takes the digest alone.
#[derive(Clone, Debug)]
struct Seen {
    files: Vec<PathBuf>,
    /// `None` where the files were others when it was taken.
    digest: Option<u64>,
}

/// How a reading ended: with the digest that the files of the one before it had when it began.
#[derive(Debug)]
struct Done {
    /// `None`: the digest is the one before, so there is nothing new.
    outcome: Option<Result<Loaded, Problems>>,
    digest: Option<u64>,
}

/// Reads it whenever that is due.
#[derive(Debug)]
pub(super) struct Reader<S> {
    source: S,
    clock: Clock,
    requests: ReloadRequests,
    edits: Edits,
    /// Whether the reading to come, if there is one, was asked for.
    due: Option<bool>,
    /// When the next one may begin.
    next: Monotonic,
    under_way: JoinSet<Done>,
    /// What the last reading found, if nothing was wrong.
    seen: Option<Seen>,
    asked: bool,
    to_answer: Vec<oneshot::Sender<Reloaded>>,
}

impl<S: Source> Reader<S> {
    pub(super) fn new(source: S, clock: Clock, requests: ReloadRequests) -> Self {
        let (mut edits, next) = (Edits::new(clock), clock.now().monotonic);
        edits.watch([source.path()]);
        let (under_way, to_answer) = (JoinSet::new(), Vec::new());
        Self { source, clock, requests, edits, due: None, next, under_way, seen: None, asked: false, to_answer }
    }

    /// The next reading. Whoever stops waiting loses nothing.
    ///
    /// # Errors
    /// A fault of ours: reading panicked.
    pub(super) async fn next(&mut self) -> Result<Reading, JoinError> {
        loop {
            let may_begin = self.due.is_some() && self.under_way.is_empty();
            tokio::select! {
                // In this order: a request that has come by the time a reading begins is for that one, and for no other.
                biased;
                () = self.requests.made() => self.due = Some(true),
                Some(done) = self.under_way.join_next() => {
                    if let Some(reading) = self.take(done?) {
                        return Ok(reading);
                    }
                }
                () = self.clock.sleep_until(self.next), if may_begin => self.begin(),
                () = self.edits.next() => self.due = self.due.or(Some(false)),
            }
        }
    }

    /// Takes whatever it reads next for new.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }

    fn begin(&mut self) {
        self.asked = self.due.take().unwrap_or_default();
        self.to_answer = self.requests.take();
        let (source, seen, asked) = (self.source.clone(), self.seen.clone(), self.asked);
        self.under_way.spawn_blocking(move || {
            // Before it is read: what changes meanwhile counts as new the next time.
            let digest = seen.as_ref().map(|seen| config::digest(&seen.files));
            let new = asked || digest.is_none() || digest != seen.and_then(|seen| seen.digest);
            Done { outcome: new.then(|| source.load()), digest }
        });
    }

    fn take(&mut self, Done { outcome, digest }: Done) -> Option<Reading> {
        self.next = self.clock.now().monotonic + PAUSE;
        self.seen = match &outcome {
            // The digest is of the files that are named by now.
            Some(Ok(Loaded { files, .. })) => {
                let digest = digest.filter(|_| self.seen.as_ref().is_some_and(|seen| seen.files == *files));
                Some(Seen { files: files.clone(), digest })
            }
            Some(Err(_)) => None,
            None => self.seen.take(),
        };
        if let Some(seen) = &self.seen {
            self.edits.watch(seen.files.iter().map(PathBuf::as_path));
        }
        Some(Reading { outcome: outcome?, asked: self.asked, to_answer: std::mem::take(&mut self.to_answer) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_reads_what_is_new_and_what_was_read_for_nothing() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("refwatch.toml");
        std::fs::write(&path, "record.path = \"refwatch.db\"\n").expect("a file");
        let mut reader = Reader::new(path.clone(), Clock::system(), ReloadRequests::default());
        // None begins as this ends, half a minute after the one before: it would read while the file is written.
        let looks = Duration::from_secs(3_607);
        let mut next = async || timeout(looks, reader.next()).await.ok();
        // The first one has nothing to compare with, and the next one no digest.
        for reading in [next().await, next().await] {
            assert!(reading.is_some_and(|reading| reading.is_ok_and(|reading| reading.outcome.is_ok())));
        }
        assert!(next().await.is_none());
        std::fs::write(&path, "record.path = \"other.db\"\n").expect("a file");
        assert!(next().await.is_some());
        assert!(next().await.is_none());
        reader.forget();
        assert!(timeout(looks, reader.next()).await.is_ok());
    }
}
