//! The section of the status page with the request rates of each operation: used, allowed now (less than configured after AWS
//! has throttled), and configured.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::html::table;
use crate::core::sanitize::Sanitized;
use crate::instruments::Rate;

pub(super) fn section(rates: &BTreeMap<(String, String), Rate>) -> Markup {
    let rows = rates.iter().map(|((target, operation), Rate { used, allowed, configured })| {
        // Compares the rates as displayed, so that "1.0 of 1.0" is not called reduced.
        let shown = |rate: &f64| format!("{rate:.1}");
        let reduced = allowed < configured && shown(allowed) != shown(configured);
        let label = format!("Requests of {operation} on {}", Sanitized(target));
        let rate = html! {
            span.nowrap { (shown(used)) " of " (shown(allowed)) }
            progress class=(if reduced { "mixed" } else { "active" }) max=(if *allowed > 0.0 { *allowed } else { 1.0 }) value=(used.min(*allowed)) aria-label=(label) {}
        };
        let limit = html! {
            @if reduced { "AWS throttles: " (shown(allowed)) " of " (shown(configured)) " requests per second; rises automatically" }
            @else { (shown(configured)) " requests per second, as configured" }
        };
        [html! { (operation) }, html! { (Sanitized(target)) }, rate, limit]
    });
    let caption = html! { "Requests per second, the mean of the last 30 s" };
    html! {
        @if !rates.is_empty() {
            section.quota aria-labelledby="quota" {
                h2 id="quota" { "Quota" }
                (table(&caption, ["Operation", "Target", "Used of allowed", "Limit"], rows))
            }
        }
    }
}
