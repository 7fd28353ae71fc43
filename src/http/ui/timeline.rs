//! The timeline of a job or a source: an SVG with a bar for each status, a mark for the end, and a text for screen readers.
//!
//! The widths of bars are percentages, so the image fits any width. Colours are CSS classes, because the content security
//! policy forbids inline styles.

use maud::{Markup, html};

use super::html::status_text;
use super::presentation::{WAITING, job_tone, source_tone};
use crate::core::job::SourceStatus;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::Transition;
use crate::http::response::duration_between;

const END_MARK_WIDTH: u32 = 5;
const HEIGHT: u32 = 16;

/// A status. It lasts until the next span of the job or source begins.
#[derive(Clone, Debug)]
pub(super) struct StatusSpan {
    tone: &'static str,
    status: String,
    is_terminal: bool,
    /// When the status was first observed.
    since: Timestamp,
}

impl StatusSpan {
    pub(super) fn of_job(Transition { to, observed_at, .. }: &Transition) -> Self {
        Self::new(job_tone(to), to.as_str(), to.is_terminal(), *observed_at)
    }

    pub(super) fn of_source(status: &SourceStatus, since: Timestamp) -> Self {
        let is_terminal = [SourceStatus::Finished, SourceStatus::Failed].contains(status);
        Self::new(source_tone(status), status.as_str(), is_terminal, since)
    }

    fn new(tone: &'static str, status: &str, is_terminal: bool, since: Timestamp) -> Self {
        Self { tone, status: status_text(status), is_terminal, since }
    }
}

/// A fraction of the image's width. A narrower bar would be invisible and is not drawn.
const BAR_DRAWN_MIN: f64 = 0.000_5;

/// The horizontal axis: the times of the left and the right edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeAxis {
    pub begin: Timestamp,
    /// Not before `begin`.
    pub end: Timestamp,
}

impl TimeAxis {
    /// Begins with the job's creation or the first span, the earlier of the two. If the job has ended, the axis ends with its completion
    /// or its last span, the earlier of the two. If not, it ends when the job vanished, or `now`. `None` without spans.
    pub(super) fn of_job(spans: &[StatusSpan], job: &JobState, now: Timestamp) -> Option<Self> {
        let (first, last) = (spans.first()?, spans.last()?);
        let earlier = |time: Option<Timestamp>, span: &StatusSpan| time.map_or(span.since, |time| time.min(span.since));
        let begin = earlier(job.created_at, first);
        let end = if last.is_terminal { earlier(job.completed_at, last) } else { job.vanished_at.unwrap_or(now) };
        Some(Self { begin, end: end.max(begin) })
    }

    /// The position of a time, from 0 (left) to 1 (right). If the axis has no duration, every time is at the right.
    fn position(self, time: Timestamp) -> f64 {
        let seconds = |until| self.begin.duration_until(until).as_secs_f64();
        let duration = seconds(self.end);
        if duration > 0.0 { (seconds(time) / duration).clamp(0.0, 1.0) } else { 1.0 }
    }
}

pub(super) fn timeline(name: &str, spans: &[StatusSpan], axis: TimeAxis) -> Markup {
    html! {
        svg.timeline role="img" height=(HEIGHT) {
            title { (Sanitized(name)) ": " (description(spans, axis)) }
            desc { "From " (axis.begin.strftime("%F %T")) " to " (axis.end.strftime("%F %T")) " UTC" }
            rect.track x="0" y=(HEIGHT / 2 - 1) width="100%" height="2" {}
            @for (nth, span) in spans.iter().enumerate() {
                @let next = spans.get(nth + 1);
                @if span.is_terminal && next.is_none() {
                    (end_mark(span, axis))
                } @else {
                    (bar(span, axis, next.map_or(axis.end, |next| next.since)))
                }
            }
        }
    }
}

fn bar(span: &StatusSpan, axis: TimeAxis, until: Timestamp) -> Markup {
    let (left, right) = (axis.position(span.since), axis.position(until));
    let height = if span.tone == WAITING { HEIGHT / 4 } else { HEIGHT * 5 / 8 };
    html! {
        @if right - left > BAR_DRAWN_MIN {
            rect class=(span.tone) x=(percent(left)) y=((HEIGHT - height) / 2) width=(percent(right - left)) height=(height) {
                title { (span.status) ", " (duration_between(span.since, until)) }
            }
        }
    }
}

/// The mark of a terminal status. It is moved to the left in the right half of the image, so it is never cut off.
fn end_mark(span: &StatusSpan, axis: TimeAxis) -> Markup {
    let left = axis.position(span.since);
    html! {
        rect class=(span.tone) x=(percent(left)) y="0" width=(END_MARK_WIDTH) height=(HEIGHT) rx="1.5"
            transform=(format!("translate({})", if left > 0.5 { -i64::from(END_MARK_WIDTH) } else { 0 }))
        { title { (span.status) } }
    }
}

/// The text for screen readers: "FIRST for 12s, then SECOND for 4m 2s, then LAST".
fn description(spans: &[StatusSpan], axis: TimeAxis) -> String {
    let parts = spans.iter().enumerate().map(|(nth, span)| match spans.get(nth + 1) {
        None if span.is_terminal => span.status.clone(),
        next => {
            let until = next.map_or(axis.end, |next| next.since);
            format!("{} for {}", span.status, duration_between(span.since, until))
        }
    });
    parts.collect::<Vec<_>>().join(", then ")
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", fraction * 100.0)
}
