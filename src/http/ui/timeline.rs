//! The timeline: the statuses of a job or a source as a picture along time, and as text for screen readers.
//!
//! Widths are percentages, so the picture fits any width. Colours are classes of the style sheet: the content security policy allows
//! no style in an element.

use maud::{Markup, html};

use super::html::status_text;
use super::words::{job_tone, source_tone};
use crate::core::job::SourceStatus;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::{SourceTransition, Transition};
use crate::http::response::distance;

/// Pixels of the mark at an end, and of the picture's height.
const END_WIDTH: u32 = 5;
const HEIGHT: u32 = 16;

/// A status and when it was first seen.
#[derive(Clone, Debug)]
pub(super) struct StatusSpan {
    tone: &'static str,
    word: String,
    ends: bool,
    seen_at: Timestamp,
}

impl StatusSpan {
    pub(super) fn of_job(Transition { to, observed_at, .. }: &Transition) -> Self {
        Self { tone: job_tone(to), word: status_text(to.as_str()), ends: to.is_terminal(), seen_at: *observed_at }
    }

    pub(super) fn of_source(SourceTransition { to, observed_at, .. }: &SourceTransition) -> Self {
        Self {
            tone: source_tone(&to.status),
            word: status_text(to.status.as_str()),
            ends: [SourceStatus::Finished, SourceStatus::Failed].contains(&to.status),
            seen_at: *observed_at,
        }
    }
}

/// A narrower part of the picture is invisible and is left out.
const STRETCH_MIN: f64 = 0.000_5;

/// The time that a picture spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeAxis {
    /// Its left edge.
    pub begin: Timestamp,
    /// Its right edge, not before the left one.
    pub end: Timestamp,
}

impl TimeAxis {
    /// From a job's creation, or else its first sighting, to its end, or else to `now`.
    pub(super) fn of_job(life: &[StatusSpan], known: &JobState, now: Timestamp) -> Option<Self> {
        let (first, last) = (life.first()?, life.last()?);
        let begin = known.created_at.map_or(first.seen_at, |created| created.min(first.seen_at));
        let end = match known.completed_at {
            _ if !last.ends => known.vanished_at.unwrap_or(now),
            Some(completed) => completed.min(last.seen_at),
            None => last.seen_at,
        };
        Some(Self { begin, end: end.max(begin) })
    }

    /// Where a time lies, from 0 to 1. All is at the right of a picture that spans no time.
    fn part(self, time: Timestamp) -> f64 {
        let seconds = |until| self.begin.duration_until(until).as_secs_f64();
        let span = seconds(self.end);
        if span > 0.0 { (seconds(time) / span).clamp(0.0, 1.0) } else { 1.0 }
    }
}

pub(super) fn timeline(name: &str, life: &[StatusSpan], scale: TimeAxis) -> Markup {
    html! {
        svg.timeline role="img" height=(HEIGHT) {
            title { (Sanitized(name)) ": " (in_words(life, scale)) }
            desc { "From " (scale.begin.strftime("%F %T")) " to " (scale.end.strftime("%F %T")) " UTC" }
            rect.track x="0" y=(HEIGHT / 2 - 1) width="100%" height="2" {}
            @for (nth, sighting) in life.iter().enumerate() {
                @let next = life.get(nth + 1);
                @if sighting.ends && next.is_none() {
                    (end(sighting, scale))
                } @else {
                    (stretch(sighting, scale, next.map_or(scale.end, |next| next.seen_at)))
                }
            }
        }
    }
}

/// A status from its first sighting to another time.
fn stretch(sighting: &StatusSpan, scale: TimeAxis, until: Timestamp) -> Markup {
    let (left, right) = (scale.part(sighting.seen_at), scale.part(until));
    let height = if sighting.tone == "waiting" { HEIGHT / 4 } else { HEIGHT * 5 / 8 };
    html! {
        @if right - left > STRETCH_MIN {
            rect class=(sighting.tone) x=(percent(left)) y=((HEIGHT - height) / 2) width=(percent(right - left)) height=(height) {
                title { (sighting.word) ", " (distance(sighting.seen_at, until)) }
            }
        }
    }
}

/// The mark at the end of a life.
fn end(sighting: &StatusSpan, scale: TimeAxis) -> Markup {
    let right = scale.part(sighting.seen_at);
    html! {
        rect class=(sighting.tone) x=(percent(right)) y="0" width=(END_WIDTH) height=(HEIGHT) rx="1.5"
            transform=(format!("translate({})", if right * 2.0 > 1.0 { -i64::from(END_WIDTH) } else { 0 }))
        { title { (sighting.word) } }
    }
}

/// The text for screen readers: "FIRST for 12s, then SECOND for 4m 2s, then LAST".
fn in_words(life: &[StatusSpan], scale: TimeAxis) -> String {
    let words = life.iter().enumerate().map(|(nth, sighting)| match life.get(nth + 1) {
        None if sighting.ends => sighting.word.clone(),
        next => {
            let until = next.map_or(scale.end, |next| next.seen_at);
            format!("{} for {}", sighting.word, distance(sighting.seen_at, until))
        }
    });
    words.collect::<Vec<_>>().join(", then ")
}

fn percent(part: f64) -> String {
    format!("{:.2}%", part * 100.0)
}
