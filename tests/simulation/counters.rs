//! Counts the requests, faults and events of a run. The summary shows that each kind occurred.

use std::fmt;
use std::ops::Add;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub requests: u64,
    pub throttles: u64,
    /// Requests sent during an outage.
    pub outages: u64,
    pub hangs: u64,
    pub failures: u64,
    pub incorrect: u64,
    pub kills: u64,
    pub restarts: u64,
    pub reloads: u64,
    pub suspensions: u64,
    /// Events that each sink had to receive.
    pub events: u64,
    pub failed_events: u64,
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            throttles: self.throttles + other.throttles,
            outages: self.outages + other.outages,
            hangs: self.hangs + other.hangs,
            failures: self.failures + other.failures,
            incorrect: self.incorrect + other.incorrect,
            kills: self.kills + other.kills,
            restarts: self.restarts + other.restarts,
            reloads: self.reloads + other.reloads,
            suspensions: self.suspensions + other.suspensions,
            events: self.events + other.events,
            failed_events: self.failed_events + other.failed_events,
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            throttles,
            outages,
            hangs,
            failures,
            incorrect,
            kills,
            restarts,
            reloads,
            suspensions,
            ..
        } = self;
        let Self { events, failed_events, .. } = self;
        write!(
            f,
            "{requests} requests, of them {throttles} throttled, {outages} in outages, {hangs} hung, {failures} failed, \
             {incorrect} answered incorrectly; {kills} kills, {restarts} restarts, {reloads} reloads, {suspensions} suspensions; \
             {events} events for sinks, {failed_events} of them counted as failed"
        )
    }
}
