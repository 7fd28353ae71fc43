//! The receivers of notifications on the status page, and the deliveries of one job on its page.

use std::sync::Arc;

use maud::{Markup, html};

use super::html::{badge, relative_time, table};
use super::presentation::WAITING;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::database::UndeliveredEvent;
use crate::state::{SinkState, SinkStatus};

/// Empty without sinks.
pub(super) fn section(sinks: &[Arc<SinkStatus>], now: Timestamp) -> Markup {
    let rows = sinks.iter().map(|sink| {
        let tone = match sink.state {
            SinkState::Up => "good",
            SinkState::Paused => "mixed",
            SinkState::Disabled => "bad",
        };
        [
            html! { (Sanitized(&sink.name)) small { (Sanitized(&sink.url)) } },
            badge(tone, sink.state.as_str()),
            html! { (sink.waiting) },
            html! { @if sink.failed > 0 { span.bad { (sink.failed) } } @else { "0" } },
            html! { @if let Some(at) = sink.last_delivered_at { (relative_time(at, now)) " ago" } @else { "none" } },
            html! { (Sanitized(sink.last_error.as_deref().unwrap_or_default())) },
        ]
    });
    let caption = html! { "Receivers, and the events that wait for delivery or have failed" };
    html! {
        @if !sinks.is_empty() {
            section aria-labelledby="notifications" {
                h2 id="notifications" { "Notifications" }
                (table(&caption, ["Sink", "State", "Waiting", "Failed", "Last delivery", "Error"], rows))
            }
        }
    }
}

/// The events of a job in a target that wait for delivery or have failed. Empty if there are none.
pub(super) fn deliveries_table(deliveries: &[UndeliveredEvent], target: &str) -> Markup {
    let deliveries: Vec<_> = deliveries.iter().filter(|delivery| delivery.target == target).collect();
    let rows = deliveries.iter().map(|delivery| {
        let state = if delivery.has_failed { badge("bad", "failed") } else { badge(WAITING, "waiting") };
        let error = delivery.reason.as_deref().unwrap_or_default();
        [
            html! { (Sanitized(&delivery.sink)) },
            html! { (Sanitized(&delivery.event_type)) },
            state,
            html! { (delivery.rejections) },
            html! { (Sanitized(error)) },
        ]
    });
    let caption = html! { "Notifications" small { "Those that wait for delivery, and those that have failed." } };
    html! {
        @if !deliveries.is_empty() { (table(&caption, ["Sink", "Event", "Delivery", "Rejections", "Reason"], rows)) }
    }
}
