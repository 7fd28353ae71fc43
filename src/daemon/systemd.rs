//! Notifications to systemd (`sd_notify(3)`), and the line that `systemctl status` shows.
//!
//! Without the variable `NOTIFY_SOCKET`, nothing is sent. A failed notification is logged and never stops the daemon.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::core::job::JobStatus;
use crate::core::sanitize::Sanitized;
use crate::core::time::Now;
use crate::state::{SharedState, WatchState, WatchStatus};

/// The start or the reload is complete.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// Extends the timeout of the start. `status` is the reason for the delay.
pub fn extend_start_timeout(status: &str, timeout: Duration) {
    let timeout = u32::try_from(timeout.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(timeout), NotifyState::Status(&line(status))]);
}

pub fn status(status: &str) {
    notify(&[NotifyState::Status(&line(status))]);
}

/// A reload has started. [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(monotonic) => notify(&[NotifyState::Reloading, monotonic]),
        Err(error) => {
            warn!(event = "systemd_not_notified", %error, "cannot read the monotonic clock, so systemd is not notified of the reload");
        }
    }
}

pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

pub fn ping_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// The time between two pings: half of systemd's timeout, as `sd_watchdog_enabled(3)` recommends. `None`: no watchdog.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

/// Removes line breaks, which separate assignments in the protocol.
fn line(text: &str) -> String {
    Sanitized(text).to_string()
}

fn notify(state: &[NotifyState<'_>]) {
    /// Only the first of consecutive failures is logged.
    static FAILING: AtomicBool = AtomicBool::new(false);
    let notified = sd_notify::notify(state);
    let was_failing = FAILING.swap(notified.is_err(), Ordering::Relaxed);
    if let (Err(error), false) = (notified, was_failing) {
        warn!(event = "systemd_not_notified", %error, "cannot notify systemd");
    }
}

/// The most important problem, followed by "12 jobs: 3 in progress, 9 finished, 0 parked; 1 store; last poll 2 s ago".
pub(super) fn status_line(shared: &SharedState, now: Now) -> String {
    let (watches, stores, daemon) = (shared.watches(), shared.stores(), shared.daemon());
    let unlisted = stores.iter().find(|store| store.error.is_some());
    let problem = match (daemon.ready(), daemon.config_error, unlisted) {
        (Err(reason), _, _) => Some(format!("not ready: {reason}")),
        (Ok(()), Some(error), _) => Some(format!("configuration: {}", error.summary)),
        (Ok(()), None, Some(store)) => Some(format!("new jobs of store {} cannot be discovered", store.name)),
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
    // Each kind of a store has a status.
    let stores = stores.iter().map(|store| (&store.id.target, &store.id.store)).collect::<BTreeSet<_>>().len();
    let stores = format!("{stores} store{}", if stores == 1 { "" } else { "s" });
    let parts = [problem, Some(jobs), Some(stores), last_poll];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
