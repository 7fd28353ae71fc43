//! The filters of the status page: links by state, status and kind, and the search form.

use std::collections::BTreeMap;
use std::sync::Arc;

use maud::{Markup, html};

use super::selection::Selection;
use crate::core::job::{JobStatus, WatchId};
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::http::filter::{ATTENTION, NOT_SEEN, Severity, severity, status_label};
use crate::state::WatchStatus;

/// A link for each state, status and kind, with the number of watches, and a search form. Without several kinds there are no links by kind.
pub(super) fn filters(selection: &Selection, watches: &[Arc<WatchStatus>]) -> Markup {
    // Statuses, states, kinds and `ATTENTION` share one map: their labels differ.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for watch in watches {
        let attention = (severity(watch) == Severity::Attention).then_some(ATTENTION);
        for label in [status_label(watch), watch.state.label(), watch.id.key.kind.as_str()].into_iter().chain(attention)
        {
            *counts.entry(label).or_default() += 1;
        }
    }
    let count = |label| counts.get(label).copied().unwrap_or_default();
    let next_value = |label: &str, chosen: bool| if chosen { String::new() } else { label.to_owned() };
    let states = [(ATTENTION, "Need attention"), ("live", "Live"), ("finished", "Finished"), ("parked", "Parked")];
    let states = states.map(|(label, text)| {
        let chosen = selection.state == label;
        filter(text, count(label), &selection.link_with(|changed| changed.state = next_value(label, chosen)), chosen)
    });
    let statuses = JobStatus::labels().map(|label| (label, label)).chain([(NOT_SEEN, "Not seen yet")]);
    let statuses = statuses.map(|(label, text)| {
        let chosen = selection.status == label;
        filter(text, count(label), &selection.link_with(|changed| changed.status = next_value(label, chosen)), chosen)
    });
    let kinds = JobKind::ALL.into_iter().map(|kind| {
        let chosen = selection.kind == Some(kind);
        let link = selection.link_with(|changed| changed.kind = Some(kind).filter(|_| !chosen));
        filter(kind.as_str(), count(kind.as_str()), &link, chosen)
    });
    let all = selection.link_with(|changed| {
        *changed = Selection { sort: changed.sort, refresh: changed.refresh, ..Selection::default() };
    });
    html! {
        div.filters {
            nav aria-label="Filters" data-part="filters" {
                ul { (filter("All", watches.len(), &all, !selection.is_filtered())) @for state in states { (state) } }
                ul { @for status in statuses { (status) } }
                @if selection.kind.is_some() || has_several(watches, |id| id.key.kind) { ul { @for kind in kinds { (kind) } } }
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

/// True if not all watches have the same `part`.
pub(super) fn has_several<'a, T: PartialEq>(watches: &'a [Arc<WatchStatus>], part: impl Fn(&'a WatchId) -> T) -> bool {
    watches.iter().any(|watch| part(&watch.id) != part(&watches[0].id))
}

/// A link that applies a filter or, if it is chosen, removes it. A filter without watches is hidden unless it is chosen.
fn filter(text: &str, count: usize, link: &str, chosen: bool) -> Markup {
    html! {
        @if count > 0 || chosen {
            li { a href=(link) aria-current=[chosen.then_some("true")] { (text) " " span.count { (count) } } }
        }
    }
}
