//! The quota: when the next request of one target and operation may go out.

use std::time::Duration;

use super::time::Monotonic;

/// A token bucket. It fills at the allowed rate, holds at most `burst` tokens, and each request takes one.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    requests_per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Option<Monotonic>,
}

impl TokenBucket {
    /// A full bucket. The rate and the burst must be over zero; the configuration sees to that.
    #[must_use]
    pub fn new(requests_per_second: f64, burst: f64) -> Self {
        Self { requests_per_second, burst, tokens: burst, filled_at: None }
    }

    /// The rate that this bucket allows, in requests per second.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        self.requests_per_second
    }

    /// Takes a token, or says how long it is until there is one.
    ///
    /// # Errors
    /// The time to wait before asking again.
    pub fn take(&mut self, now: Monotonic) -> Result<(), Duration> {
        let idle = self.filled_at.map_or(Duration::ZERO, |filled| now.since(filled));
        self.tokens = (self.tokens + idle.as_secs_f64() * self.requests_per_second).min(self.burst);
        self.filled_at = Some(now);
        if self.tokens >= 1.0 - FILLED {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / self.requests_per_second))
        }
    }
}

/// Arithmetic on fractions of a token may fall short of a whole one by this much; without it a caller could be told to wait
/// less than the clock can tell.
const FILLED: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_go_out_at_the_rate_once_the_burst_is_used_up() {
        let mut bucket = TokenBucket::new(4.0, 2.0);
        let at = |millis| Monotonic::at(Duration::from_millis(millis));
        let script = [
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(250)),
            (100, Err(150)),
            (250, Ok(())),
            (250, Err(250)),
            (60_000, Ok(())),
        ];
        for (millis, expected) in script {
            let answer = bucket.take(at(millis)).map_err(|wait| wait.as_millis());
            assert_eq!(answer, expected, "at {millis} ms");
        }
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_the_burst_and_what_the_rate_adds(
            rate in 0.1_f64..50.0, burst in 1_u32..10, gaps in prop::collection::vec(0_u64..3_000, 1..200),
        ) {
            let mut bucket = TokenBucket::new(rate, f64::from(burst));
            let mut now = Monotonic::at(Duration::ZERO);
            let mut sent: Vec<Monotonic> = Vec::new();
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                if bucket.take(now).is_ok() {
                    sent.push(now);
                }
            }
            for (first, start) in sent.iter().enumerate() {
                for (last, end) in sent.iter().enumerate().skip(first) {
                    let count = f64::from(u32::try_from(last - first + 1).expect("small"));
                    prop_assert!(count <= f64::from(burst) + end.since(*start).as_secs_f64() * rate + 1e-3);
                }
            }
        }

        #[test]
        fn whoever_waits_as_long_as_told_gets_a_token(rate in 0.1_f64..50.0, idle in 0_u64..5_000) {
            let mut bucket = TokenBucket::new(rate, 1.0);
            let start = Monotonic::at(Duration::ZERO);
            prop_assert_eq!(bucket.take(start), Ok(()));
            let asked = start + Duration::from_millis(idle);
            if let Err(wait) = bucket.take(asked) {
                prop_assert_eq!(bucket.take(asked + wait), Ok(()));
            }
        }
    }
}
