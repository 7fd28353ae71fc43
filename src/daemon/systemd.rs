//! What systemd is told (`sd_notify(3)`). Without `NOTIFY_SOCKET` nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::core::sanitize::Printable;

/// The configuration, the record and the listener stand.
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
    Printable(text).to_string()
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd does not listen");
    }
}
