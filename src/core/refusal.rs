//! Whether AWS refuses whoever asks: an identity everywhere, or one operation on one store.
//!
//! Where it does, all requests alike are refused, so one at a time asks for all of them, ever more rarely.

use super::backoff::{Backoff, BackoffPolicy};
use super::time::Monotonic;

/// Refusals without an answer between them. Fewer may befall a request alone: a key that has just been replaced, a policy that is
/// not everywhere yet.
const REFUSALS_MIN: u32 = 3;

/// What is known of the refusals of requests that are alike.
#[derive(Debug)]
pub struct Refusal {
    in_a_row: u32,
    backoff: Backoff,
    standing: Option<Standing>,
    ended_at: Option<Monotonic>,
}

/// All are refused.
#[derive(Debug)]
struct Standing {
    message: String,
    told_at: Monotonic,
    probe_at: Monotonic,
}

impl Refusal {
    /// Nothing was refused so far.
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { in_a_row: 0, backoff: Backoff::new(policy), standing: None, ended_at: None }
    }

    /// A request that went out at `sent` was refused with this `message`. Says whether since then all are.
    pub fn refused(&mut self, message: &str, sent: Monotonic, now: Monotonic) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        // Of those in flight together one alone counts as a probe.
        if self.in_a_row < REFUSALS_MIN || self.standing.as_ref().is_some_and(|standing| sent < standing.told_at) {
            return false;
        }
        // There is one probe at a time, so nothing has to be spread by a jitter.
        let probe_at = now + self.backoff.next_delay(0.0);
        self.standing.replace(Standing { message: message.to_owned(), told_at: now, probe_at }).is_none()
    }

    /// A request was let through. Says whether all were refused until then.
    pub fn accepted(&mut self, now: Monotonic) -> bool {
        self.in_a_row = 0;
        self.backoff.reset();
        let ended = self.standing.take().is_some();
        if ended {
            self.ended_at = Some(now);
        }
        ended
    }

    /// What was said at the last refusal, while all are refused.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.standing.as_ref().map(|standing| &*standing.message)
    }

    /// While all are refused: when the next one may ask for all of them.
    #[must_use]
    pub fn probe_at(&self) -> Option<Monotonic> {
        self.standing.as_ref().map(|standing| standing.probe_at)
    }

    /// Whether the refusal of all has ended after `sent`.
    #[must_use]
    pub fn ended_after(&self, sent: Monotonic) -> bool {
        self.ended_at.is_some_and(|ended| ended > sent)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn after_some_refusals_one_asks_for_all_ever_more_rarely_until_it_is_let_through() {
        let at = |seconds| Monotonic::at(Duration::from_secs(seconds));
        let policy = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_secs(4) };
        let mut refusal = Refusal::new(policy);
        assert!(!refusal.refused("no", at(0), at(0)) && !refusal.refused("no", at(0), at(0)));
        assert!(!refusal.accepted(at(0)) && !refusal.ended_after(at(0)), "two were refused alone");
        let script = [
            // Sent, answered, whether all are refused since then, the next probe.
            (1, 2, false, None),
            (1, 2, false, None),
            (1, 2, true, Some(3)),
            (1, 3, false, Some(3)),
            (3, 3, false, Some(5)),
            (5, 6, false, Some(10)),
            (10, 10, false, Some(14)),
            // One that went out when the last was told is a probe.
            (10, 11, false, Some(15)),
        ];
        for (step, (sent, answered, news, probe)) in script.into_iter().enumerate() {
            assert_eq!(refusal.refused("no", at(sent), at(answered)), news, "step {step}");
            assert_eq!(refusal.probe_at(), probe.map(at), "step {step}");
        }
        assert_eq!(refusal.message(), Some("no"));
        assert!(refusal.accepted(at(20)) && refusal.message().is_none());
        assert!(refusal.ended_after(at(19)) && !refusal.ended_after(at(20)));
    }
}
