//! The filters of the status page: links by state, status and kind, and the search form.

use std::sync::Arc;

use maud::{Markup, html};

use super::selection::Selection;
use crate::core::job::{JobStatus, TargetJob};
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::http::filter::{ATTENTION, NOT_SEEN};
use crate::state::WatchStatus;

/// A link for each state, status and kind, with the number of watches, and a search form. Kinds have links only if the watches have several
/// kinds, or one is selected.
pub(super) fn filters(selection: &Selection, watches: &[Arc<WatchStatus>]) -> Markup {
    // The link that sets one field of the selection, or clears it if it has this value. The count ignores the other fields.
    let link_to = |field_mut: fn(&mut Selection) -> &mut String, value: &str, text: &str| {
        let mut only_this = Selection::default();
        field_mut(&mut only_this).push_str(value);
        let count = watches.iter().filter(|watch| only_this.filter().matches(watch)).count();
        // A clone, because `field_mut` needs a mutable selection.
        let chosen = field_mut(&mut selection.clone()) == value;
        let link =
            selection.link_with(|changed| *field_mut(changed) = if chosen { String::new() } else { value.to_owned() });
        filter_link(text, count, &link, chosen)
    };
    let states = [(ATTENTION, "Need attention"), ("live", "Live"), ("finished", "Finished"), ("parked", "Parked")];
    let statuses = JobStatus::labels().map(|label| (label, label)).chain([(NOT_SEEN, "Not seen yet")]);
    html! {
        div.filters {
            nav aria-label="Filters" data-part="filters" {
                ul { (filter_link("All", watches.len(), &selection.link_to_all(), !selection.is_filtered())) @for (value, text) in states { (link_to(|selection| &mut selection.state, value, text)) } }
                ul { @for (value, text) in statuses { (link_to(|selection| &mut selection.status, value, text)) } }
                @if !selection.kind.is_empty() || values_differ(watches, |id| id.key.kind) {
                    ul { @for kind in JobKind::ALL.map(JobKind::as_str) { (link_to(|selection| &mut selection.kind, kind, kind)) } }
                }
            }
            form role="search" method="get" action="./" {
                input type="search" name="q" value=(Sanitized(&selection.q)) aria-label="Name, id, target or status" placeholder="Name, id, target";
                @for (name, value) in selection.parameters() {
                    @if name != "q" && name != "page" { input type="hidden" name=(name) value=(Sanitized(&value)); }
                }
                button { "Find" }
            }
        }
    }
}

/// True if not all watches have the same value of `field`.
pub(super) fn values_differ<'a, T: PartialEq>(
    watches: &'a [Arc<WatchStatus>],
    field: impl Fn(&'a TargetJob) -> T,
) -> bool {
    watches.iter().any(|watch| field(&watch.id) != field(&watches[0].id))
}

/// A link that applies a filter or, if it is chosen, removes it. A filter without watches is hidden unless it is chosen.
fn filter_link(text: &str, count: usize, link: &str, chosen: bool) -> Markup {
    html! {
        @if count > 0 || chosen {
            li { a href=(link) aria-current=[chosen.then_some("true")] { (text) " " span.count { (count) } } }
        }
    }
}
