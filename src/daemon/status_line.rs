//! The line that `systemctl status` shows.

use crate::core::job::JobStatus;
use crate::core::time::Now;
use crate::state::{StatusBoard, WatchState, WatchView};

/// The most important problem, then "12 jobs: 3 in progress, 9 finished, 0 parked; 1 stores; last poll 2 s ago".
pub(super) fn status_line(board: &StatusBoard, now: Now) -> String {
    let (watches, stores, daemon) = (board.watches(), board.stores(), board.daemon());
    let unlisted = stores.iter().find(|store| store.trouble.is_some());
    let problem = match (daemon.ready(), daemon.config_error, unlisted) {
        (Err(reason), _, _) => Some(format!("not ready: {reason}")),
        (Ok(()), Some(error), _) => Some(format!("configuration: {}", error.summary)),
        (Ok(()), None, Some(store)) => Some(format!("no new job of the store {} can be found", store.name)),
        (Ok(()), None, None) => None,
    };
    let count = |fits: fn(&WatchView) -> bool| watches.iter().filter(|watch| fits(watch)).count();
    let in_progress = count(|watch| {
        let is_in_progress = watch.known.as_ref().is_some_and(|known| known.status == JobStatus::InProgress);
        is_in_progress && matches!(watch.state, WatchState::Live)
    });
    let finished = count(|watch| matches!(watch.state, WatchState::Finished));
    let parked = count(|watch| matches!(watch.state, WatchState::Parked(_)));
    let jobs = format!("{} jobs: {in_progress} in progress, {finished} finished, {parked} parked", watches.len());
    let last_poll = watches.iter().filter_map(|watch| watch.last_successful_poll).max();
    let last_poll = last_poll.map(|last| format!("last poll {} s ago", now.wall.duration_since(last).as_secs().max(0)));
    let parts = [problem, Some(jobs), Some(format!("{} stores", stores.len())), last_poll];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
