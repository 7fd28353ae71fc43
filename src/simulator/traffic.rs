//! Decides about each request: throttle it, inject a fault, or respond. Counts the decisions.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

use super::Options;
use super::faults::{Fault, FaultRate, draw};
use super::kinds::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ApiOperation {
    Get(Kind),
    List(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Respond,
    Throttle,
    Fault(Fault),
}

#[derive(Debug)]
pub(super) struct Traffic {
    faults: Vec<FaultRate>,
    rng: Rng,
    requests_per_second: f64,
    /// The only quota, if all operations share it.
    shared_quota: Option<TokenBucket>,
    /// The quotas of the operations that were called.
    quotas: BTreeMap<ApiOperation, TokenBucket>,
    calls: AllCalls,
}

/// The number of requests by verdict. A documented error for an invalid request counts as answered.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Calls {
    answered: u64,
    throttled: u64,
    faulted: u64,
}

/// The response of `/-/calls`: the operations of the simulated kinds, by name.
pub(super) type AllCalls = BTreeMap<&'static str, Calls>;

/// The quota of an operation. The bucket holds the tokens of one second, but at least one token.
#[derive(Debug)]
struct TokenBucket {
    requests_per_second: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Traffic {
    pub(super) fn new(options: &Options) -> Self {
        let operations = options.kinds.iter().flat_map(|kind| [ApiOperation::Get(*kind), ApiOperation::List(*kind)]);
        Self {
            faults: options.faults.clone(),
            rng: Rng::with_seed(options.seed),
            requests_per_second: options.requests_per_second,
            shared_quota: options.shared_quota.then(|| TokenBucket::new(options.requests_per_second)),
            quotas: BTreeMap::new(),
            calls: operations.map(|operation| (operation.name(), Calls::default())).collect(),
        }
    }

    /// Decides about a request that arrives at `now`, the time since the simulator's start.
    pub(super) fn admit(&mut self, operation: ApiOperation, now: Duration) -> Verdict {
        let calls = self.calls.entry(operation.name()).or_default();
        let quota = match &mut self.shared_quota {
            Some(quota) => quota,
            None => self.quotas.entry(operation).or_insert_with(|| TokenBucket::new(self.requests_per_second)),
        };
        if !quota.take(now) {
            calls.throttled += 1;
            return Verdict::Throttle;
        }
        let faults = self.faults.iter().copied().filter(|fault| applies_to(fault.fault, operation));
        if let Some(fault) = draw(faults, &mut self.rng) {
            calls.faulted += 1;
            return Verdict::Fault(fault);
        }
        calls.answered += 1;
        Verdict::Respond
    }

    pub(super) fn calls(&self) -> &AllCalls {
        &self.calls
    }
}

impl ApiOperation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get(kind) => kind.api().get_operation,
            Self::List(kind) => kind.api().list_operation,
        }
    }
}

impl TokenBucket {
    fn new(requests_per_second: f64) -> Self {
        Self { requests_per_second, tokens: requests_per_second.max(1.0), filled_at: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> bool {
        let added = now.saturating_sub(self.filled_at).as_secs_f64() * self.requests_per_second;
        self.tokens = (self.tokens + added).min(self.requests_per_second.max(1.0));
        self.filled_at = self.filled_at.max(now);
        let taken = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(taken));
        taken
    }
}

fn applies_to(fault: Fault, operation: ApiOperation) -> bool {
    fault != Fault::ListDenied || matches!(operation, ApiOperation::List(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: ApiOperation = ApiOperation::Get(Kind::ReferenceImport);
    const LIST: ApiOperation = ApiOperation::List(Kind::ReferenceImport);
    const EXPORT: ApiOperation = ApiOperation::Get(Kind::ReadSetExport);

    #[test]
    fn each_operation_has_its_own_quota_which_refills() {
        let mut traffic = Traffic::new(&Options { requests_per_second: 2.0, ..Options::default() });
        let mut admitted =
            |operation, millis| traffic.admit(operation, Duration::from_millis(millis)) == Verdict::Respond;
        let script = [(0, true), (0, true), (0, false), (499, false), (500, true), (500, false), (60_000, true)];
        for (millis, expected) in script {
            assert_eq!(admitted(GET, millis), expected, "at {millis} ms");
        }
        assert!(admitted(LIST, 60_000) && admitted(EXPORT, 60_000));
        let calls = traffic.calls();
        assert_eq!((calls[GET.name()].answered, calls[GET.name()].throttled), (4, 3));
        assert_eq!((calls[LIST.name()].answered, calls[EXPORT.name()].answered), (1, 1));
    }

    #[test]
    fn a_shared_quota_counts_all_operations() {
        let options = Options { requests_per_second: 2.0, shared_quota: true, ..Options::default() };
        let mut traffic = Traffic::new(&options);
        let script = [(GET, 0, true), (LIST, 0, true), (EXPORT, 0, false), (GET, 0, false), (EXPORT, 500, true)];
        for (operation, millis, expected) in script {
            let admitted = traffic.admit(operation, Duration::from_millis(millis)) == Verdict::Respond;
            assert_eq!(admitted, expected, "{operation:?} at {millis} ms");
        }
        let calls = traffic.calls();
        assert_eq!((calls[GET.name()].throttled, calls[EXPORT.name()].throttled), (1, 1));
    }

    #[test]
    fn faults_occur_at_their_rate_and_the_same_seed_gives_the_same_faults() {
        let faults = vec![FaultRate { fault: Fault::Hang, rate: 0.1 }, FaultRate { fault: Fault::Html, rate: 0.3 }];
        let options = Options { faults, requests_per_second: 1e6, ..Options::default() };
        let verdicts = || {
            let mut traffic = Traffic::new(&options);
            (0..1000).map(|_| traffic.admit(GET, Duration::ZERO)).collect::<Vec<_>>()
        };
        let seen = verdicts();
        let share = |fault| seen.iter().filter(|verdict| **verdict == Verdict::Fault(fault)).count();
        assert!((60..140).contains(&share(Fault::Hang)) && (210..330).contains(&share(Fault::Html)), "{seen:?}");
        assert_eq!(seen, verdicts());
    }
}
