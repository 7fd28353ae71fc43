//! The line that `systemctl status` shows.

use crate::core::job::JobStatus;
use crate::core::time::{Now, Timestamp};
use crate::state::{StatusBoard, WatchState};

/// "12 jobs: 3 in progress, 9 finished; last poll 2 s ago", the stores that jobs are found in before that, and what is wrong first.
pub(super) fn status_line(board: &StatusBoard, now: Now) -> String {
    let (watches, daemon) = (board.watches(), board.daemon());
    let count = |state: fn(&WatchState) -> bool| watches.iter().filter(|watch| state(&watch.state)).count();
    let in_progress = watches.iter().filter(|watch| {
        matches!(watch.state, WatchState::Live)
            && watch.known.as_ref().is_some_and(|known| known.status == JobStatus::InProgress)
    });
    let finished = count(|state| matches!(state, WatchState::Finished));
    let parked = count(|state| matches!(state, WatchState::Parked(_)));
    let stores = board.stores();
    let unlisted = stores.iter().find(|store| store.trouble.is_some());
    let trouble = match (daemon.ready(), daemon.config_error, unlisted) {
        (Err(reason), _, _) => format!("not ready: {reason}; "),
        (Ok(()), Some(error), _) => format!("configuration: {}; ", error.summary),
        (Ok(()), None, Some(store)) => format!("no new job of the store {} can be found; ", store.name),
        (Ok(()), None, None) => String::new(),
    };
    let parked = if parked > 0 { format!(", {parked} parked") } else { String::new() };
    let last_poll: Option<Timestamp> = watches.iter().filter_map(|watch| watch.last_successful_poll).max();
    let last_poll = last_poll.map(|last| now.wall.duration_since(last).as_secs().max(0));
    let last_poll = last_poll.map(|seconds| format!("; last poll {seconds} s ago")).unwrap_or_default();
    let (jobs, in_progress) = (watches.len(), in_progress.count());
    let stores = match stores.len() {
        0 => String::new(),
        1 => "1 store, ".to_owned(),
        stores => format!("{stores} stores, "),
    };
    format!("{trouble}{stores}{jobs} jobs: {in_progress} in progress, {finished} finished{parked}{last_poll}")
}
