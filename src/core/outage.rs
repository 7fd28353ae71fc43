//! Whether a target answers at all.
//!
//! Jobs that fail alone back off alone. Where nothing of a target succeeds any more, it is the target that fails, and the first
//! answer after that is news for all of them: without it each would sit out a backoff that has become long.

use std::time::Duration;

use super::failure::FailureReason;
use super::time::Monotonic;

/// How long nothing must have succeeded for it to be an outage. A shorter one leaves no backoff longer than itself behind. It also
/// bounds how often jobs that fail for their own reasons can be called back by those that do not.
const OUTAGE_MIN: Duration = Duration::from_secs(30);

/// What is known of a target's outages.
#[derive(Clone, Debug, Default)]
pub struct Outage {
    failing_since: Option<Monotonic>,
    ended_at: Option<Monotonic>,
}

impl Outage {
    /// Takes in how a request ended, and says whether an outage ended with it.
    pub fn request_ended(&mut self, failure: Option<FailureReason>, now: Monotonic) -> bool {
        if failure.is_some_and(FailureReason::may_be_an_outage) {
            self.failing_since.get_or_insert(now);
            return false;
        }
        let ended = self.failing_since.take().is_some_and(|since| now.since(since) >= OUTAGE_MIN);
        if ended {
            self.ended_at = Some(now);
        }
        ended
    }

    /// Whether an outage has ended after `sent`.
    #[must_use]
    pub fn ended_after(&self, sent: Monotonic) -> bool {
        self.ended_at.is_some_and(|ended| ended > sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_a_time_without_any_answer_and_ends_with_the_first() {
        let at = |seconds| Monotonic::at(Duration::from_secs(seconds));
        let (connect, throttled) = (Some(FailureReason::Connect), Some(FailureReason::Throttled));
        let mut outage = Outage::default();
        let script = [
            // When, how, whether an outage ended.
            (0, None, false),
            (1, connect, false),
            (29, connect, false),
            (30, None, false),
            (40, connect, false),
            (69, connect, false),
            (70, throttled, true),
            (71, None, false),
            (200, connect, false),
            (229, None, false),
        ];
        for (seconds, failure, ended) in script {
            assert_eq!(outage.request_ended(failure, at(seconds)), ended, "at {seconds} s");
        }
        assert!(outage.ended_after(at(69)) && !outage.ended_after(at(70)));
        assert!(!Outage::default().ended_after(at(0)));
    }
}
