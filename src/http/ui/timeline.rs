//! The timeline of a job or an item: an SVG with a bar for each status, a mark for the end, and a text for screen readers.
//!
//! The widths of bars are percentages, so the image fits any width. Colours are CSS classes, because the content security
//! policy forbids inline styles.

use maud::{Markup, html};

use super::axis::{Lifetime, TimeAxis, percent};
use super::html::status_text;
use super::presentation::{WAITING, item_tone, job_tone};
use crate::core::job::ItemStatus;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::{Detail, DetailKind, Transition};
use crate::http::response::duration_between;

const END_MARK_WIDTH: u32 = 5;
const HEIGHT: u32 = 16;

/// A fraction of the image's width. A narrower bar would be invisible and is not drawn.
const BAR_DRAWN_MIN: f64 = 0.000_5;

/// A status. It lasts until the next span of the job or item begins.
#[derive(Clone, Debug)]
pub(super) struct StatusSpan {
    tone: &'static str,
    status: String,
    is_terminal: bool,
    /// When the status was first observed.
    since: Timestamp,
    /// When the previous status was last observed. The bar of that status is hatched from this time to `since`. `None` if unknown, as for
    /// items: that bar is then not hatched.
    previous_last_seen: Option<Timestamp>,
}

impl StatusSpan {
    pub(super) fn of_job(Transition { to, observed_at, not_before, .. }: &Transition) -> Self {
        let span = Self::new(job_tone(to), to.as_str(), to.is_terminal(), *observed_at);
        Self { previous_last_seen: *not_before, ..span }
    }

    pub(super) fn of_item(status: &ItemStatus, since: Timestamp) -> Self {
        let is_terminal = [ItemStatus::Finished, ItemStatus::Failed].contains(status);
        Self::new(item_tone(status), status.as_str(), is_terminal, since)
    }

    fn new(tone: &'static str, status: &str, is_terminal: bool, since: Timestamp) -> Self {
        Self { tone, status: status_text(status), is_terminal, since, previous_last_seen: None }
    }
}

/// The times of a job that are not in its spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobTimes {
    created_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    vanished_at: Option<Timestamp>,
    /// When the last status was last observed.
    pub last_seen: Timestamp,
}

impl From<&JobState> for JobTimes {
    fn from(&JobState { created_at, completed_at, vanished_at, last_seen, .. }: &JobState) -> Self {
        Self { created_at, completed_at, vanished_at, last_seen }
    }
}

impl JobTimes {
    /// The times of a job that is not watched. Details before the last transition are ignored: the transition has newer times.
    pub(super) fn from_rows(last: &Transition, details: &[&Detail]) -> Self {
        let &Transition { created_at, completed_at, observed_at, .. } = last;
        let mut times = Self { created_at, completed_at, vanished_at: None, last_seen: observed_at };
        for detail in details.iter().filter(|detail| detail.observed_at >= last.observed_at) {
            match detail.kind {
                DetailKind::Vanished => times.vanished_at = Some(detail.observed_at),
                DetailKind::Returned => times.vanished_at = None,
                DetailKind::CreationTimeChanged => {
                    times.created_at = detail.value.as_deref().and_then(|time| time.parse().ok());
                    times.last_seen = detail.observed_at;
                }
                DetailKind::StatusMessage | DetailKind::StillSeen => times.last_seen = detail.observed_at,
            }
        }
        times
    }
}

/// Begins at the creation of the job, or at `since` of the first span if that is earlier. Ends at the completion of the job, or at `since`
/// of the last span if that is earlier. If the job has not ended: when it vanished, or `now`. `None` without spans.
pub(super) fn lifetime(spans: &[StatusSpan], times: JobTimes, now: Timestamp) -> Option<Lifetime> {
    let (first, last) = (spans.first()?, spans.last()?);
    let earlier_of = |time: Option<Timestamp>, span: &StatusSpan| time.map_or(span.since, |time| time.min(span.since));
    let begin = earlier_of(times.created_at, first);
    let end = if last.is_terminal { earlier_of(times.completed_at, last) } else { times.vanished_at.unwrap_or(now) };
    Some(Lifetime { begin, end: end.max(begin), is_live: !last.is_terminal && times.vanished_at.is_none() })
}

/// Draws the spans of one job or item as an image, along `axis`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline<'a> {
    pub name: &'a str,
    pub spans: &'a [StatusSpan],
    /// The lifetime of the job, even if the spans are those of an item.
    pub lifetime: Lifetime,
    /// When the last status was last observed. The last bar is hatched after this time.
    pub last_seen: Timestamp,
    pub axis: TimeAxis,
}

impl Timeline<'_> {
    pub(super) fn image(self) -> Markup {
        let Self { name, spans, lifetime, axis, .. } = self;
        html! {
            svg.timeline role="img" height=(HEIGHT) {
                title { (Sanitized(name)) ": " (self.description()) }
                desc { "From " (lifetime.begin.strftime("%F %T")) " to " (lifetime.end.strftime("%F %T")) " UTC" }
                (axis.grid(HEIGHT))
                rect.track x="0" y=(HEIGHT / 2 - 1) width="100%" height="2" {}
                // The shared axis may begin after the end of a job.
                @if lifetime.end < axis.begin {
                    text.earlier x="0" y="12" { "◂ earlier" }
                } @else {
                    @for (nth, span) in spans.iter().enumerate() {
                        @let next = spans.get(nth + 1);
                        @if span.is_terminal && next.is_none() { (self.end_mark(span)) } @else { (self.bar(span, next)) }
                    }
                }
            }
        }
    }

    /// When the span begins, but not after the end of the lifetime: the end of a job may be observed much later than it happened.
    fn begin(&self, span: &StatusSpan) -> Timestamp {
        span.since.min(self.lifetime.end)
    }

    /// When the span before `next` ends.
    fn end_before(&self, next: Option<&StatusSpan>) -> Timestamp {
        next.map_or(self.lifetime.end, |next| self.begin(next))
    }

    /// A bar: solid until the last poll that observed the status, then hatched.
    fn bar(self, span: &StatusSpan, next: Option<&StatusSpan>) -> Markup {
        let (begin, end) = (self.begin(span), self.end_before(next));
        let certain_until = next.map_or(self.last_seen, |next| next.previous_last_seen.unwrap_or(next.since));
        let (left, right) = (self.axis.position(begin), self.axis.position(end));
        let uncertain_from = self.axis.position(certain_until.max(begin));
        let height = if span.tone == WAITING { HEIGHT / 4 } else { HEIGHT * 5 / 8 };
        let y = (HEIGHT - height) / 2;
        html! {
            @if right - left > BAR_DRAWN_MIN {
                rect class=(span.tone) x=(percent(left)) y=(y) width=(percent(right - left)) height=(height) {
                    title { (span.status) ", " (duration_between(begin, end)) }
                }
                @if right - uncertain_from > BAR_DRAWN_MIN {
                    rect.unsure x=(percent(uncertain_from)) y=(y) width=(percent(right - uncertain_from)) height=(height) fill="url(#hatch)" {}
                }
            }
        }
    }

    /// The mark of a terminal status. In the right half of the image the mark ends at the time of the status, otherwise it begins there. So
    /// the mark is never cut off.
    fn end_mark(self, span: &StatusSpan) -> Markup {
        let left = self.axis.position(self.begin(span));
        html! {
            rect class=(span.tone) x=(percent(left)) y="0" width=(END_MARK_WIDTH) height=(HEIGHT) rx="1.5"
                transform=(format!("translate({})", if left > 0.5 { -i64::from(END_MARK_WIDTH) } else { 0 }))
            { title { (span.status) } }
        }
    }

    /// The text for screen readers: "FIRST for 12s, then SECOND for 4m 2s, then LAST".
    fn description(self) -> String {
        let texts = self.spans.iter().enumerate().map(|(nth, span)| match self.spans.get(nth + 1) {
            None if span.is_terminal => span.status.clone(),
            next => format!("{} for {}", span.status, duration_between(self.begin(span), self.end_before(next))),
        });
        texts.collect::<Vec<_>>().join(", then ")
    }
}
