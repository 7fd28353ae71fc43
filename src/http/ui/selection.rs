//! What the status page is asked for in its query: which watches, in which order, which of its pages. Links carry it, so a
//! choice can be bookmarked and needs no script.
//!
//! A person may have typed it: what makes no sense is left out with a word, and the rest holds.

use std::cmp::Reverse;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::severity::{Severity, severity};
use crate::core::job::{JobStatus, SourceStatus};
use crate::core::sanitize::excerpt;
use crate::state::{WatchState, WatchView};

/// Rows of one page. A browser lays out so many at once, and a person reads fewer.
pub(super) const ROWS_MAX: usize = 100;

/// Characters looked for: more than the longest name of a watch that is seen whole anywhere.
pub(super) const TEXT_MAX: usize = 100;

/// Characters shown of a parameter that makes no sense.
const SHOWN: usize = 40;

/// Everything but the unreserved characters of RFC 3986 is encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// In place of a status: the job was not seen yet.
pub(super) const NOT_SEEN: &str = "not_seen";

/// In place of a state: a person should look, whatever the state.
pub(super) const ATTENTION: &str = "attention";

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// What needs a person first, then what goes on, the latest change first.
    #[default]
    Attention,
    /// The `watch` label.
    Name,
    /// The order of a life.
    Status,
    /// How long it has had its status.
    Duration,
    /// How much of its sources is done.
    Sources,
    /// When it is polled next.
    NextPoll,
}

impl Sort {
    /// Every order, and its name in a query.
    const ALL: [(Self, &'static str); 6] = [
        (Self::Attention, "attention"),
        (Self::Name, "name"),
        (Self::Status, "status"),
        (Self::Duration, "duration"),
        (Self::Sources, "sources"),
        (Self::NextPoll, "next_poll"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(sort, _)| *sort == self).map_or("", |(_, name)| name)
    }

    /// What orders a watch; `None` puts it last, whichever way the table is sorted.
    fn key(self, watch: &WatchView) -> Option<(Severity, i64, String)> {
        let known = watch.known.as_ref();
        let number = |number: i64| (Severity::Attention, number, String::new());
        match self {
            Self::Attention => {
                let since = known.map_or(i64::MAX, |known| -known.since.as_millisecond());
                Some((severity(watch), since, String::new()))
            }
            Self::Name => Some((Severity::Attention, 0, watch.name.to_lowercase())),
            Self::Status => known.and_then(|known| i64::try_from(known.status.index()).ok()).map(number),
            Self::Duration => known.map(|known| number(-known.since.as_millisecond())),
            Self::Sources => {
                let sources = known.map(|known| &known.sources).filter(|sources| !sources.is_empty())?;
                let done = sources.values().filter(|source| source.status == SourceStatus::Finished).count();
                i64::try_from(1000 * done / sources.len()).ok().map(number)
            }
            Self::NextPoll => watch.next_poll.map(|at| number(at.as_millisecond())),
        }
    }
}

/// Which watches are shown, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// What the table is sorted by.
    pub sort: Sort,
    /// Whether it is sorted the other way round.
    pub reversed: bool,
    /// A status's label, or [`NOT_SEEN`].
    pub status: Option<&'static str>,
    /// A state's label, or [`ATTENTION`].
    pub state: Option<&'static str>,
    /// What name, ids, target or status have to contain.
    pub text: String,
    /// Pages before the one that is shown.
    pub page: usize,
    /// Whether the page stays as it is until it is asked for again.
    pub still: bool,
}

impl Selection {
    /// The selection that a query asks for, and what of the query makes no sense.
    pub(super) fn parse(query: &[(String, String)]) -> (Self, Vec<String>) {
        let (mut selection, mut notes) = (Self::default(), Vec::new());
        for (name, value) in query {
            if let Err(expected) = selection.take(name, value) {
                notes.push(format!("{}={} is left out: {expected}.", excerpt(name, SHOWN), excerpt(value, SHOWN)));
            }
        }
        (selection, notes)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let one_of = |known: Vec<&'static str>| {
            let found = known.iter().copied().find(|known| *known == value);
            found.map(Some).ok_or_else(|| format!("{name} is one of {}", known.join(", ")))
        };
        match name {
            // A form sends the fields that were left empty, too.
            _ if value.is_empty() => {}
            "sort" => {
                let (reversed, wished) = value.strip_prefix('-').map_or((false, value), |wished| (true, wished));
                let Some((sort, _)) = Sort::ALL.into_iter().find(|(_, name)| *name == wished) else {
                    return Err(format!("sort is one of {}", Sort::ALL.map(|(_, name)| name).join(", ")));
                };
                (self.sort, self.reversed) = (sort, reversed);
            }
            "status" => self.status = one_of(JobStatus::labels().chain([NOT_SEEN]).collect())?,
            "state" => self.state = one_of(WatchState::LABELS.into_iter().chain([ATTENTION]).collect())?,
            "q" => {
                self.text = value.chars().take(TEXT_MAX).collect();
                if self.text.len() < value.len() {
                    return Err(format!("only its first {TEXT_MAX} characters are looked for"));
                }
            }
            "page" => {
                let page = value.parse::<usize>().ok().filter(|page| *page > 0);
                self.page = page.ok_or("page is a number from 1")? - 1;
            }
            "refresh" if value == "off" => self.still = true,
            "refresh" => return Err("refresh can be off".to_owned()),
            _ => return Err("there are sort, status, state, q, page and refresh".to_owned()),
        }
        Ok(())
    }

    /// The watches that are asked for, in the order that is asked for.
    pub(super) fn of(&self, watches: &[Arc<WatchView>]) -> Vec<Arc<WatchView>> {
        let text = self.text.to_lowercase();
        let mut selected: Vec<_> = watches.iter().filter(|watch| self.holds(watch, &text)).cloned().collect();
        // Both sorts keep the order of equals: by target, store and job.
        if self.reversed {
            selected.sort_by_cached_key(|watch| Reverse(self.sort.key(watch)));
            selected.sort_by_cached_key(|watch| self.sort.key(watch).is_none());
        } else {
            selected.sort_by_cached_key(|watch| self.sort.key(watch).map_or((true, None), |key| (false, Some(key))));
        }
        selected
    }

    fn holds(&self, watch: &WatchView, text: &str) -> bool {
        let status = watch.known.as_ref().map_or(NOT_SEEN, |known| known.status.label());
        let state = |wished| match wished {
            ATTENTION => severity(watch) == Severity::Attention,
            wished => watch.state.label() == wished,
        };
        let found = || {
            let id = &watch.id;
            let places = format!("{} {} {} {status} {}", watch.name, id.key, id.target, watch.aws_region);
            places.to_lowercase().contains(text)
        };
        self.status.is_none_or(|wished| status == wished)
            && self.state.is_none_or(state)
            && (text.is_empty() || found())
    }

    /// Whether some watches are left out.
    pub(super) fn narrows(&self) -> bool {
        self.status.is_some() || self.state.is_some() || !self.text.is_empty()
    }

    /// What the query says, but for defaults.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let sign = if self.reversed { "-" } else { "" };
        let sorted = self.reversed || self.sort != Sort::default();
        let mut query = Vec::new();
        for (name, value) in [
            ("sort", sorted.then(|| format!("{sign}{}", self.sort.name()))),
            ("status", self.status.map(str::to_owned)),
            ("state", self.state.map(str::to_owned)),
            ("q", Some(self.text.clone()).filter(|text| !text.is_empty())),
            ("page", (self.page > 0).then(|| (self.page + 1).to_string())),
            ("refresh", self.still.then(|| "off".to_owned())),
        ] {
            query.extend(value.map(|value| (name, value)));
        }
        query
    }

    /// The link to the same page after a change.
    pub(super) fn link(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut changed = Self { page: 0, ..self.clone() };
        change(&mut changed);
        let parameters: Vec<String> = changed
            .query()
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, UNRESERVED)))
            .collect();
        if parameters.is_empty() { "/".to_owned() } else { format!("/?{}", parameters.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> (Selection, Vec<String>) {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Selection::parse(&pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn a_link_says_what_the_query_said() {
        for query in ["", "sort=-name", "sort=-attention", "status=FAILED&state=live&q=GRCh38&page=2&refresh=off"] {
            let (selection, notes) = parsed(query);
            let page = selection.page;
            let link = selection.link(|selection| selection.page = page);
            assert_eq!((link.trim_start_matches(['/', '?']), notes.len()), (query, 0));
        }
        let odd = Selection { text: "ä &<#".to_owned(), ..Selection::default() };
        assert_eq!(odd.link(|_| {}), "/?q=%C3%A4%20%26%3C%23");
    }

    #[test]
    fn what_makes_no_sense_is_left_out_with_a_word() {
        let (selection, notes) = parsed("sort=size&status=FAILED&page=0&colour=red&state=");
        assert_eq!(selection, Selection { status: Some("FAILED"), ..Selection::default() });
        assert_eq!(
            notes,
            [
                "sort=size is left out: sort is one of attention, name, status, duration, sources, next_poll.",
                "page=0 is left out: page is a number from 1.",
                "colour=red is left out: there are sort, status, state, q, page and refresh.",
            ]
        );
    }
}
