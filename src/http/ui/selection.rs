//! The query parameters of the status page: filters, order, page and refresh. They are in the URL, so a selection can be
//! bookmarked and needs no script.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::presentation::job_duration;
use crate::core::time::Timestamp;
use crate::http::filter::{WatchFilter, severity};
use crate::state::WatchStatus;

pub(super) const ROWS_PER_PAGE: usize = 100;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Sort {
    /// By [`severity`], then the latest change first.
    #[default]
    #[serde(rename = "attention")]
    Attention,
    #[serde(rename = "name")]
    Name,
    #[serde(rename = "-name")]
    NameDescending,
    /// By the duration of the job so far, the shortest first.
    #[serde(rename = "duration")]
    Duration,
    #[serde(rename = "-duration")]
    DurationDescending,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refresh {
    /// By the script, which keeps what a person types.
    #[default]
    #[serde(rename = "script")]
    Script,
    /// By the script or, without it, by the browser, whose reload clears what a person types.
    #[serde(rename = "on")]
    ScriptOrBrowser,
    #[serde(rename = "off")]
    Off,
}

/// The query. Links omit parameters that have their default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::http) struct Selection {
    #[serde(skip_serializing_if = "is_default")]
    pub(super) sort: Sort,
    /// [`WatchFilter`] describes `kind`, `status`, `state` and `q`.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) status: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) state: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) q: String,
    /// Counts from 1; 0 also selects the first page.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) page: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) refresh: Refresh,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Selection {
    /// The selected watches of all pages, sorted.
    pub(super) fn apply(&self, watches: &[Arc<WatchStatus>], now: Timestamp) -> Vec<Arc<WatchStatus>> {
        let filter = self.filter();
        let mut selected: Vec<_> = watches.iter().filter(|watch| filter.matches(watch)).cloned().collect();
        let since = |watch: &WatchStatus| watch.known.as_ref().map(|job| job.since);
        let duration = |watch: &WatchStatus| watch.known.as_ref().map(|job| job_duration(job, now));
        let name = |watch: &WatchStatus| watch.name.to_lowercase();
        // The sort is stable: equal watches stay in their order, by target, store and job. Watches without a status are last in both orders
        // by duration: by `is_none`, and by `Reverse(None)`.
        match self.sort {
            Sort::Attention => selected.sort_by_key(|watch| (severity(watch), Reverse(since(watch)))),
            Sort::Name => selected.sort_by_cached_key(|watch| name(watch)),
            Sort::NameDescending => selected.sort_by_cached_key(|watch| Reverse(name(watch))),
            Sort::Duration => selected.sort_by_key(|watch| (watch.known.is_none(), duration(watch))),
            Sort::DurationDescending => selected.sort_by_key(|watch| Reverse(duration(watch))),
        }
        selected
    }

    pub(super) fn filter(&self) -> WatchFilter<'_> {
        WatchFilter { kind: &self.kind, status: &self.status, state: &self.state, q: &self.q }
    }

    pub(super) fn is_filtered(&self) -> bool {
        [&self.kind, &self.status, &self.state, &self.q].iter().any(|filter| !filter.is_empty())
    }

    /// The relative link to the changed selection. It leads to the first page unless `change` sets one.
    pub(super) fn link_with(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut changed = Self { page: 0, ..self.clone() };
        change(&mut changed);
        let query = changed.query();
        if query.is_empty() { "./".to_owned() } else { format!("./?{query}") }
    }

    /// The relative link to all watches, in the same order and with the same refresh.
    pub(super) fn link_to_all(&self) -> String {
        self.link_with(|changed| {
            *changed = Self { sort: changed.sort, refresh: changed.refresh, ..Self::default() };
        })
    }

    /// The parameters that differ from their defaults.
    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        serde_urlencoded::from_str(&self.query()).unwrap_or_default()
    }

    fn query(&self) -> String {
        // Strings, numbers and unit variants always serialize.
        serde_urlencoded::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_repeats_the_query() {
        for query in [
            "",
            "sort=-name",
            "sort=-duration",
            "kind=read_set_export&status=FAILED&state=live&q=GRCh38&page=2&refresh=off",
        ] {
            let selection: Selection = serde_urlencoded::from_str(query).expect("a selection");
            let page = selection.page;
            let link = selection.link_with(|changed| changed.page = page);
            assert_eq!(link.trim_start_matches(['.', '/', '?']), query);
        }
        let odd = Selection { q: "ä &<#".to_owned(), ..Selection::default() };
        assert_eq!(odd.link_with(|_| {}), "./?q=%C3%A4+%26%3C%23");
    }
}
