//! The section of the status page with the allowed and the configured request rate of each operation.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::html::table;
use crate::core::sanitize::Sanitized;
use crate::instruments::Rate;

pub(super) fn section(rates: &BTreeMap<(String, String), Rate>) -> Markup {
    let rows = rates.iter().map(|((target, operation), Rate { allowed, configured })| {
        // As displayed, so "1.0 of 1.0" is not called reduced.
        let shown = |rate: &f64| format!("{rate:.1}");
        let reduced = allowed < configured && shown(allowed) != shown(configured);
        let rate = html! {
            span.nowrap { (shown(allowed)) " of " (shown(configured)) }
            progress class=(if reduced { "mixed" } else { "active" }) max=(configured) value=(allowed.min(*configured)) aria-label="Allowed of configured" {}
        };
        let state = if reduced { "reduced after throttling by AWS; rises automatically" } else { "as configured" };
        [html! { (Sanitized(target)) }, html! { (operation) }, rate, html! { (state) }]
    });
    let caption = html! { "Allowed and configured rate of each operation" };
    html! {
        @if !rates.is_empty() {
            section aria-labelledby="quota" {
                h2 id="quota" { "Allowed request rates" }
                (table(&caption, ["Target", "Operation", "Requests per second", "State"], rows))
            }
        }
    }
}
