//! Notifications to systemd (`sd_notify(3)`), with the line that `systemctl status` shows. Without `NOTIFY_SOCKET` nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::core::job::JobStatus;
use crate::core::sanitize::Sanitized;
use crate::core::time::Now;
use crate::state::{SharedState, WatchState, WatchStatus};

/// The configuration, the database and the listener stand.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// The start goes on and will for as long as `patience` at least, for this reason.
pub fn waiting(status: &str, patience: Duration) {
    let patience = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(patience), NotifyState::Status(&line(status))]);
}

/// One line for people, in `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(&line(status))]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(monotonic) => notify(&[NotifyState::Reloading, monotonic]),
        Err(error) => warn!(%error, "systemd is not told of the reload"),
    }
}

/// The process is on its way out.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The process makes progress.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] has to be said, if at all: systemd advises half of the time it waits.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

/// A line break would begin a new assignment in the protocol.
fn line(text: &str) -> String {
    Sanitized(text).to_string()
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd does not listen");
    }
}

/// The most important problem, then "12 jobs: 3 in progress, 9 finished, 0 parked; 1 stores; last poll 2 s ago".
pub(super) fn status_line(board: &SharedState, now: Now) -> String {
    let (watches, stores, daemon) = (board.watches(), board.stores(), board.daemon());
    let unlisted = stores.iter().find(|store| store.error.is_some());
    let problem = match (daemon.ready(), daemon.config_error, unlisted) {
        (Err(reason), _, _) => Some(format!("not ready: {reason}")),
        (Ok(()), Some(error), _) => Some(format!("configuration: {}", error.summary)),
        (Ok(()), None, Some(store)) => Some(format!("no new job of the store {} can be found", store.name)),
        (Ok(()), None, None) => None,
    };
    let count = |fits: fn(&WatchStatus) -> bool| watches.iter().filter(|watch| fits(watch)).count();
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
