//! Formats durations for diagnostics, the schema and `/config`.

use std::fmt::{self, Display};
use std::time::Duration;

/// A duration in the largest unit without a fraction, rounded down to milliseconds. The configuration file accepts this format.
pub(super) struct DurationText(pub Duration);

impl Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let millis = self.0.as_millis();
        match units.into_iter().find(|(_, length)| millis >= *length && millis.is_multiple_of(*length)) {
            Some((unit, length)) => write!(f, "{}{unit}", millis / length),
            None => write!(f, "{millis}ms"),
        }
    }
}
