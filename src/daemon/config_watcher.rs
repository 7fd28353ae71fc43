//! Edits of the configuration: when its files are worth reading again. inotify tells of what changes in their directories; what it
//! cannot see, as on a network file system or where a directory far up was swapped, is found because they are read every so often
//! whatever it says. This reads none of them itself.
//!
//! Any event is a reason to look and none says more than that: a missed one, or one too many, costs nothing but time.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventStream, Inotify, WatchMask};
use tracing::warn;

use crate::clock::Clock;
use crate::core::time::Monotonic;

/// From one look to the next where nothing tells of an edit.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// From the first sign of an edit to the look: an editor writes a file in several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// Bytes of events that are taken at a time.
const BUFFER: usize = 4096;

/// Directories that are watched. A configuration lies in one or two.
const DIRECTORIES_MAX: usize = 64;

/// Tells when the files of a configuration may have been edited.
#[derive(Debug)]
pub struct Edits {
    clock: Clock,
    /// Where the system refuses it, only the regular look is left.
    inotify: Option<EventStream<Vec<u8>>>,
    directories: BTreeSet<PathBuf>,
    settled_at: Option<Monotonic>,
    next_look: Monotonic,
}

impl Edits {
    /// Watches nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let inotify = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER]));
        let inotify = inotify.map_err(|error| told_of(&error)).ok();
        let next_look = clock.now().monotonic + LOOK_EVERY;
        Self { clock, inotify, directories: BTreeSet::new(), settled_at: None, next_look }
    }

    /// Watches the directories of these files, which need not exist, and may be patterns. If one of them is new, an edit may have been
    /// missed, and a look is due.
    pub fn watch<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        let Some(inotify) = &self.inotify else { return };
        for directory in files.into_iter().flat_map(directories) {
            if self.directories.len() >= DIRECTORIES_MAX && !self.directories.contains(&directory) {
                continue;
            }
            // What replaces, fills, removes or opens up a file; reading one is no event.
            let events = WatchMask::CLOSE_WRITE
                | WatchMask::CREATE
                | WatchMask::DELETE
                | WatchMask::MOVE
                | WatchMask::ATTRIB
                | WatchMask::ONLYDIR;
            match inotify.watches().add(&directory, events) {
                // One that is watched is asked for again: it may have been removed and made anew, and its watch have gone with it.
                Ok(_) if self.directories.insert(directory) => self.settled_at = Some(self.clock.now().monotonic),
                Ok(_) => {}
                // It has just gone, or is not ours to read.
                Err(error)
                    if [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::PermissionDenied]
                        .contains(&error.kind()) => {}
                Err(error) => {
                    told_of(&error);
                    self.inotify = None;
                    return;
                }
            }
        }
    }

    /// Returns when the files are worth reading. Whoever stops waiting misses nothing.
    pub async fn next(&mut self) {
        loop {
            let due = self.settled_at.map_or(self.next_look, |settled| settled.min(self.next_look));
            tokio::select! {
                biased;
                () = self.clock.sleep_until(due) => break,
                () = seen(self.inotify.as_mut()), if self.settled_at.is_none() => {
                    self.settled_at = Some(self.clock.now().monotonic + SETTLE);
                }
            }
        }
        self.drain();
        self.settled_at = None;
        self.next_look = self.clock.now().monotonic + LOOK_EVERY;
    }

    /// Takes what was told so far. A directory that was removed has no watch any more, and another may come in its place.
    fn drain(&mut self) {
        let Some(inotify) = &mut self.inotify else { return };
        while inotify.next().now_or_never().flatten().is_some() {}
        self.directories.retain(|directory| directory.is_dir());
    }
}

fn told_of(error: &io::Error) {
    warn!(event = "edits_unwatched", %error,
        "edits of the configuration are seen within {} s, and not at once", LOOK_EVERY.as_secs());
}

/// Returns when something was told.
async fn seen(inotify: Option<&mut EventStream<Vec<u8>>>) {
    match inotify {
        Some(inotify) => drop(inotify.next().await),
        None => std::future::pending().await,
    }
}

/// Where an edit of `file` can be seen: in its directory, or the nearest that is there; and where it really lies, if it is a link.
fn directories(file: &Path) -> impl Iterator<Item = PathBuf> {
    let there = file.ancestors().skip(1).find(|directory| directory.is_dir()).map(Path::to_owned);
    // The directory of a relative path may be no path at all.
    let there = there.map(|directory| if directory.as_os_str().is_empty() { ".".into() } else { directory });
    let beyond = file.canonicalize().ok().and_then(|real| Some(real.parent()?.to_owned()));
    there.into_iter().chain(beyond)
}
