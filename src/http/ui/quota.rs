//! The quota on the status page: how much of the configured rate refwatch allows itself at present.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::core::sanitize::Printable;
use crate::instruments::Rate;

/// Two rates that differ by less are shown as the same.
const SHOWN_DIFFERENCE: f64 = 0.05;

/// Every operation of every target. Nothing where there is none yet.
pub(super) fn section(rates: &BTreeMap<(String, String), Rate>) -> Markup {
    html! {
        @if !rates.is_empty() {
            section aria-labelledby="quota" {
                h2 id="quota" { "Quota in use" }
                table.cards {
                    caption.unseen { "Requests per second that refwatch allows itself, of those configured" }
                    thead { tr { @for column in ["Target", "Operation", "Requests a second", "Pace"] { th scope="col" { (column) } } } }
                    tbody { @for ((target, operation), rate) in rates { (row(target, operation, *rate)) } }
                }
            }
        }
    }
}

fn row(target: &str, operation: &str, Rate { allowed, configured }: Rate) -> Markup {
    let slowed = configured - allowed >= SHOWN_DIFFERENCE;
    html! {
        tr {
            th scope="row" { (Printable(target)) }
            td data-label="Operation" { (operation) }
            td data-label="Requests a second" {
                span.nowrap { (format!("{allowed:.1} of {configured:.1}")) }
                progress class=(if slowed { "mixed" } else { "active" }) max=(configured) value=(allowed.min(configured)) aria-label="Allowed of configured" {}
            }
            td data-label="Pace" { @if slowed { "slowed down after AWS throttled; it grows again by itself" } @else { "as configured" } }
        }
    }
}
