//! The outcomes of listings: what the lister logs, counts and publishes, and how long it pauses.

use std::time::Duration;

use tracing::{info, warn};

use super::{DiscoveryPolicy, Lister};
use crate::core::failure::{FailureReason, RequestFailure, Scope};
use crate::core::job::TargetStore;
use crate::core::limits::Limit;
use crate::core::listing::{AfterFailure, after_failure};
use crate::core::tracker::RETRY_AFTER_MAX;

/// The pause, in place of the backoff, after a failure that a person must fix and that concerns only this store, such as a denied listing.
/// Not used with discovery.
const RECHECK_INTERVAL: Duration = Duration::from_mins(15);

impl Lister {
    /// Called after each listed part. Logs the recovery from failed listings. With discovery, sets and publishes `hand_over_error`, and
    /// logs it when hand-overs begin to fail.
    pub(super) fn on_part_listed(&mut self, hand_over_error: Option<String>) {
        self.retry_on_recovery = false;
        let TargetStore { target, kind, store } = &self.store;
        if !std::mem::take(&mut self.logged_failures).is_empty() {
            info!(event = "listing_recovered", %target, %kind, store_id = %store, "listing works again");
        }
        if let Some(DiscoveryPolicy { name, .. }) = &self.policy.discovery {
            if let (Some(reason), None) = (&hand_over_error, &self.hand_over_error) {
                warn!(event = "discovery_failed", %target, %kind, store_id = %store, watch = &**name,
                    "new jobs of this store cannot be watched: {reason}");
            }
            self.hand_over_error.clone_from(&hand_over_error);
            self.context.shared.update_store(&self.store, |view| view.error = hand_over_error);
        }
    }

    /// Returns the pause until the next attempt to list. If the failure is likely to last (`after_failure`), the jobs are polled one by
    /// one until a listing succeeds.
    pub(super) fn on_failure(&mut self, failure: &RequestFailure) -> Duration {
        let (info, retry_after) = (failure.reason.info(), failure.retry_after);
        if after_failure(failure, self.failed_requests) == AfterFailure::PollOneByOne {
            self.fall_back_to_polls(failure);
        }
        let is_target_wide = info.scope == Scope::Target;
        // The pause may end early only if another task can cause the recovery. A poll can close the target's breaker. Only this task can
        // close the breaker of listings of this kind in this store.
        self.retry_on_recovery = is_target_wide && retry_after.is_none();
        // Without listings no job is discovered, so a store with discovery is retried more often.
        let recheck_rarely = info.needs_operator && !is_target_wide && self.policy.discovery.is_none();
        let delay = if recheck_rarely { RECHECK_INTERVAL } else { self.backoff.next_delay(self.jitter.f64()) };
        delay.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// Removes the routine interval, so the jobs are polled one by one. Logs the failure if its reason is new.
    fn fall_back_to_polls(&mut self, RequestFailure { reason, message, .. }: &RequestFailure) {
        self.registry.set_routine_interval(None);
        let not_found = *reason == FailureReason::NotFound;
        let advice = if not_found {
            format!(" (check {}, and the region and account of the target)", self.store.kind.info().store.id_key())
        } else {
            String::new()
        };
        let discovery = self.policy.discovery.as_ref();
        if self.logged_failures.insert(*reason) {
            let follows = if discovery.is_some() {
                "its jobs cannot be discovered, and its watched jobs are polled one by one"
            } else {
                "its jobs are polled one by one"
            };
            warn!(event = "listing_failed", target = %self.store.target, kind = %self.store.kind, store_id = %self.store.store,
                watch = discovery.map(|discovery| &*discovery.name), reason = reason.label(),
                "this store cannot be listed: {follows}: {message}{advice}");
        }
        if discovery.is_some() {
            let error = format!("it cannot be listed: {message}{advice}");
            self.context.shared.update_store(&self.store, |view| view.error = Some(error));
        }
    }

    /// Counts an exceeded limit. Logs it once and, with discovery, publishes it.
    pub(super) fn on_limit(&mut self, limit: Limit) {
        self.context.instruments.count_exceeded(limit);
        if self.logged_limits.insert(limit) {
            let TargetStore { target, kind, store } = &self.store;
            // AWS never returns more jobs on a page than requested, and rarely more than 1,000 pages. Another endpoint may exceed both
            // limits.
            let endpoint_advice = (limit != Limit::DiscoveredJobs).then_some("check `endpoint_url`");
            let has_window_advice = self.window.is_some() && limit != Limit::PageJobs;
            let window_advice = has_window_advice.then_some("set a shorter `created_within`");
            let advice: Vec<&str> = endpoint_advice.into_iter().chain(window_advice).collect();
            let message =
                format!("more than {} {}; the rest is ignored: {}", limit.max(), limit.text(), advice.join(", or "));
            warn!(event = "limit_exceeded", %target, %kind, store_id = %store, limit = limit.label(), "{message}");
            if self.window.is_some() {
                self.context.shared.update_store(&self.store, |view| view.limit_message = Some(message));
            }
        }
    }

    /// Counts unreadable listed jobs. Logs the first.
    pub(super) fn on_unreadable(&mut self, reasons: &[String]) {
        self.context.instruments.listed_jobs_skipped.inc_by(reasons.len() as u64);
        if let Some(reason) = reasons.first().filter(|_| !self.unreadable_logged) {
            self.unreadable_logged = true;
            let TargetStore { target, kind, store } = &self.store;
            warn!(event = "listed_job_skipped", %target, %kind, store_id = %store, "a listed job is unreadable and skipped: {reason}");
        }
    }
}
