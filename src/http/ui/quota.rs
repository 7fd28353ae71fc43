//! The quota on the status page: the configured request rates, and what refwatch allows itself of them now.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::html::table;
use crate::core::sanitize::Sanitized;
use crate::instruments::Rate;

/// Two rates that differ by less are shown as the same.
const SHOWN_DIFFERENCE: f64 = 0.05;

/// Every operation of every target.
pub(super) fn section(rates: &BTreeMap<(String, String), Rate>) -> Markup {
    let rows = rates.iter().map(|((target, operation), Rate { allowed, configured })| {
        let slowed = configured - allowed >= SHOWN_DIFFERENCE;
        let rate = html! {
            span.nowrap { (format!("{allowed:.1} of {configured:.1}")) }
            progress class=(if slowed { "mixed" } else { "active" }) max=(configured) value=(allowed.min(*configured)) aria-label="Allowed of configured" {}
        };
        let pace = if slowed { "slowed down after AWS throttled; it grows again by itself" } else { "as configured" };
        [html! { (Sanitized(target)) }, html! { (operation) }, rate, html! { (pace) }]
    });
    let caption = html! { "Requests per second that refwatch allows itself, of those configured" };
    html! {
        @if !rates.is_empty() {
            section aria-labelledby="quota" {
                h2 id="quota" { "Quota in use" }
                (table(&caption, ["Target", "Operation", "Requests a second", "Pace"], rows))
            }
        }
    }
}
