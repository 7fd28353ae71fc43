//! The horizontal axis of timelines: its range, its ticks, its labels and the legend.

use jiff::SignedDuration;
use maud::{Markup, html};

use crate::core::time::Timestamp;
use crate::http::response::rfc3339;

/// The length of the shared axis: less if all jobs are younger, more if a live job began earlier. If it covered jobs that ended long ago,
/// the bars of short jobs would be too narrow to see.
const SHARED_RANGE: SignedDuration = SignedDuration::from_hours(24);

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// The distances of ticks in seconds: 1 to 30 s, 1 to 30 min, 1 to 12 h, and 1 to 365 days.
const STEPS: [i64; 20] = [
    1, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000,
    7_776_000, 31_536_000,
];

/// In the narrowest column four labels without a date or three labels with a date fit side by side.
const TICKS_MAX: i64 = 4;
const DATED_TICKS_MAX: i64 = 3;

/// A label nearer to an edge than this fraction of the width would be cut off.
const LABEL_MARGIN: f64 = 0.08;

/// The times of the left and the right edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeAxis {
    pub begin: Timestamp,
    /// Not before `begin`.
    pub end: Timestamp,
}

/// From a job's creation to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub begin: Timestamp,
    /// Not before `begin`. The present if the job is live.
    pub end: Timestamp,
    /// The job has neither ended nor vanished.
    pub is_live: bool,
}

impl Lifetime {
    /// The axis of this job alone.
    pub(super) fn axis(self) -> TimeAxis {
        TimeAxis { begin: self.begin, end: self.end }
    }
}

impl TimeAxis {
    /// One axis for several jobs. It covers every live job. `None` without jobs.
    pub(super) fn shared(jobs: impl Iterator<Item = Lifetime> + Clone) -> Option<Self> {
        let end = jobs.clone().map(|job| job.end).max()?;
        let earliest = jobs.clone().map(|job| job.begin).min()?;
        let range_begin = end.checked_sub(SHARED_RANGE).unwrap_or(Timestamp::MIN);
        let begin = jobs.filter(|job| job.is_live).map(|job| job.begin).fold(range_begin, Timestamp::min);
        Some(Self { begin: begin.max(earliest), end })
    }

    /// The position of a time, from 0 (left) to 1 (right). If the axis has no duration, every time is at the right.
    pub(super) fn position(self, time: Timestamp) -> f64 {
        let seconds = |until| self.begin.duration_until(until).as_secs_f64();
        let duration = seconds(self.end);
        if duration > 0.0 { (seconds(time) / duration).clamp(0.0, 1.0) } else { 1.0 }
    }

    /// The times of the ticks: round times in UTC, after `begin` and up to `end`.
    pub(super) fn ticks(self) -> Vec<Timestamp> {
        let step = self.step();
        let first = self.begin.as_second().div_euclid(step) + 1;
        let last = self.end.as_second().div_euclid(step);
        (first..=last).filter_map(|nth| Timestamp::from_second(nth * step).ok()).collect()
    }

    fn step(self) -> i64 {
        let seconds = self.begin.duration_until(self.end).as_secs();
        let ticks_max = |step: i64| if step >= DAY { DATED_TICKS_MAX } else { TICKS_MAX };
        STEPS.into_iter().find(|step| seconds / step < ticks_max(*step)).unwrap_or(seconds.max(1))
    }

    /// The labels of the ticks, above a column of timelines. The script replaces them by local times of the same length.
    pub(super) fn labels(self) -> Markup {
        let format = match self.step() {
            DAY.. => "%m-%d %H:%M",
            MINUTE.. => "%H:%M",
            _ => "%H:%M:%S",
        };
        let labelled = self.ticks().into_iter().map(|tick| (tick, self.position(tick)));
        let labelled = labelled.filter(|(_, position)| (LABEL_MARGIN..=1.0 - LABEL_MARGIN).contains(position));
        html! {
            svg.axis aria-hidden="true" height="16" {
                @for (tick, position) in labelled {
                    text x=(percent(position)) y="12" text-anchor="middle" data-time=(rfc3339(tick)) { (tick.strftime(format)) }
                }
            }
        }
    }

    /// A line for each tick, behind the bars.
    pub(super) fn grid(self, height: u32) -> Markup {
        html! {
            @for tick in self.ticks() {
                @let x = percent(self.position(tick));
                line.tick x1=(x) x2=(x) y1="0" y2=(height) {}
            }
        }
    }
}

/// The hatching of uncertain times, for every timeline of the page. A page contains it once, because its id must be unique.
pub(super) fn hatch_pattern() -> Markup {
    html! {
        svg.hidden aria-hidden="true" width="0" height="0" {
            pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                rect.stripe width="3" height="5" {}
            }
        }
    }
}

/// The meaning of colours and shapes in timelines.
pub(super) fn legend() -> Markup {
    let entries = [
        ("waiting", "6", "4", "waiting"),
        ("active", "3", "10", "in progress"),
        ("good", "0", "16", "completed"),
        ("mixed", "0", "16", "with failures"),
        ("bad", "0", "16", "failed"),
        ("void", "0", "16", "cancelled"),
    ];
    html! {
        ul.legend aria-label="Legend of the timelines" {
            @for (tone, y, height, text) in entries {
                @let width = if height == "16" { "5" } else { "16" };
                li { svg.timeline aria-hidden="true" width=(width) height="16" { rect class=(tone) width=(width) y=(y) height=(height) {} } (text) }
            }
            li {
                svg.timeline aria-hidden="true" width="16" height="16" {
                    rect.active width="16" y="3" height="10" {}
                    rect.unsure width="16" y="3" height="10" fill="url(#hatch)" {}
                }
                "uncertain: between two polls"
            }
        }
    }
}

pub(super) fn percent(fraction: f64) -> String {
    format!("{:.2}%", fraction * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn axis(begin: &str, end: &str) -> TimeAxis {
        TimeAxis { begin: at(begin), end: at(end) }
    }

    #[test]
    fn ticks_are_round_times_that_fit() {
        for (begin, end, expected) in [
            ("2026-03-01T08:00:30Z", "2026-03-01T08:03:10Z", "08:01 08:02 08:03"),
            ("2026-03-01T08:00:00Z", "2026-03-01T10:00:00Z", "09:00 10:00"),
            ("2026-03-01T08:00:00Z", "2026-03-02T08:00:00Z", "12:00 00:00"),
            ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00Z", ""),
        ] {
            let ticks = axis(begin, end).ticks();
            let shown: Vec<_> = ticks.iter().map(|tick| tick.strftime("%H:%M").to_string()).collect();
            assert_eq!(shown.join(" "), expected, "{begin} {end}");
        }
        assert!(TimeAxis { begin: Timestamp::MIN, end: Timestamp::MAX }.ticks().len() <= 4);
    }

    #[test]
    fn the_shared_axis_covers_live_jobs_and_the_last_day() {
        let job = |begin, end, is_live| Lifetime { begin: at(begin), end: at(end), is_live };
        let ended = job("2026-02-01T00:00:00Z", "2026-02-01T01:00:00Z", false);
        let recent = job("2026-03-01T07:00:00Z", "2026-03-01T08:00:00Z", false);
        let live = job("2026-03-01T09:00:00Z", "2026-03-01T10:00:00Z", true);
        let old = job("2026-02-20T09:00:00Z", "2026-03-01T10:00:00Z", true);
        let shared = |jobs: &[Lifetime]| TimeAxis::shared(jobs.iter().copied());
        assert_eq!(shared(&[]), None);
        assert_eq!(shared(&[recent, live]), Some(axis("2026-03-01T07:00:00Z", "2026-03-01T10:00:00Z")));
        assert_eq!(shared(&[ended, recent, live]), Some(axis("2026-02-28T10:00:00Z", "2026-03-01T10:00:00Z")));
        assert_eq!(shared(&[ended, old]), Some(axis("2026-02-20T09:00:00Z", "2026-03-01T10:00:00Z")));
    }
}
