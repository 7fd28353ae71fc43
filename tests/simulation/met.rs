//! What the daemons of a run met: that it was there at all.

use std::fmt;
use std::ops::Add;

/// How often each was met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    pub requests: u64,
    pub throttles: u64,
    /// Requests that were sent while nothing was answered.
    pub outages: u64,
    pub hangs: u64,
    /// Other failures.
    pub failures: u64,
    pub lies: u64,
    pub kills: u64,
    pub restarts: u64,
    pub reloads: u64,
    pub suspensions: u64,
}

impl Add for Met {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            throttles: self.throttles + other.throttles,
            outages: self.outages + other.outages,
            hangs: self.hangs + other.hangs,
            failures: self.failures + other.failures,
            lies: self.lies + other.lies,
            kills: self.kills + other.kills,
            restarts: self.restarts + other.restarts,
            reloads: self.reloads + other.reloads,
            suspensions: self.suspensions + other.suspensions,
        }
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, throttles, outages, hangs, failures, lies, kills, restarts, reloads, suspensions } = self;
        write!(
            f,
            "{requests} requests, of them {throttles} throttled, {outages} in outages, {hangs} hung, {failures} failed, \
             {lies} answered with a lie; {kills} kills, {restarts} restarts, {reloads} reloads, {suspensions} suspensions"
        )
    }
}
