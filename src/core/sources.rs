//! Matches the sources of a response with the known sources of the job.
//!
//! A source has no id in the API. Sources with the same name and file are a multiset: only their statuses distinguish them. Their
//! order in a response has no meaning.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::job::{Source, SourceKey, SourceStatus, Sources};
use super::time::Timestamp;
use super::transition::SourceTransition;

/// Gives each source of a response the `nth` of the known source that it continues. Among sources with the same name and file, those
/// with an unchanged status are matched first, then the others in the order of the life cycle.
pub(super) fn match_sources(known: &Sources, seen: Sources) -> Sources {
    let mut groups: BTreeMap<_, BTreeMap<SourceStatus, VecDeque<Source>>> = BTreeMap::new();
    for (SourceKey { name, source_file, .. }, source) in seen {
        let by_status = groups.entry((name, source_file)).or_default();
        by_status.entry(source.status.clone()).or_default().push_back(source);
    }
    let mut matched = Sources::new();
    for ((name, source_file), mut by_status) in groups {
        let key = |nth| SourceKey { name: name.clone(), source_file: source_file.clone(), nth };
        let (mut used, mut changed) = (BTreeSet::new(), Vec::new());
        for (known_key, source) in known.range(key(0)..=key(u32::MAX)) {
            used.insert(known_key.nth);
            if let Some(unchanged) = by_status.get_mut(&source.status).and_then(VecDeque::pop_front) {
                matched.insert(known_key.clone(), unchanged);
            } else {
                changed.push(known_key.nth);
            }
        }
        let new = (0..).filter(|nth| !used.contains(nth));
        matched.extend(changed.into_iter().chain(new).map(key).zip(by_status.into_values().flatten()));
    }
    matched
}

/// Sources that are new, have another status, or are gone.
pub(super) fn source_transitions(known: &Sources, seen: &Sources, observed_at: Timestamp) -> Vec<SourceTransition> {
    let changed = seen.iter().filter_map(|(key, source)| {
        let from = known.get(key).map(|known| known.status.clone());
        let to = Some(source.clone());
        (from.as_ref() != Some(&source.status)).then(|| SourceTransition { key: key.clone(), from, to, observed_at })
    });
    let gone = known.iter().filter(|(key, _)| !seen.contains_key(key)).map(|(key, source)| SourceTransition {
        key: key.clone(),
        from: Some(source.status.clone()),
        to: None,
        observed_at,
    });
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sources that share name and file, with these statuses and numbers.
    fn sources(numbered: &[(u32, &str)]) -> Sources {
        let source = |&(nth, status): &(u32, &str)| {
            let key = SourceKey { name: "a".into(), source_file: "s3://b/a".into(), nth };
            (key, Source { status: status.into(), status_message: None })
        };
        numbered.iter().map(source).collect()
    }

    #[test]
    fn equal_sources_are_matched_by_status() {
        let known = sources(&[(0, "NOT_STARTED"), (1, "IN_PROGRESS"), (2, "FAILED")]);
        for (seen, expected) in [
            (vec!["FAILED", "IN_PROGRESS", "NOT_STARTED"], vec![(0, "NOT_STARTED"), (1, "IN_PROGRESS"), (2, "FAILED")]),
            (vec!["FAILED", "FINISHED", "IN_PROGRESS"], vec![(0, "FINISHED"), (1, "IN_PROGRESS"), (2, "FAILED")]),
            (vec!["FAILED"], vec![(2, "FAILED")]),
            (vec!["FINISHED"], vec![(0, "FINISHED")]),
            (
                vec!["IN_PROGRESS", "FAILED", "NOT_STARTED", "FAILED"],
                vec![(0, "NOT_STARTED"), (1, "IN_PROGRESS"), (2, "FAILED"), (3, "FAILED")],
            ),
        ] {
            let seen: Vec<_> = (0..).zip(seen).collect();
            assert_eq!(match_sources(&known, sources(&seen)), sources(&expected), "{seen:?}");
        }
    }

    fn any_sources() -> impl Strategy<Value = Sources> {
        let statuses = SourceStatus::DOCUMENTED.map(|status| status.as_str().to_owned());
        let statuses = proptest::collection::vec(prop::sample::select(statuses.to_vec()), 0..6);
        statuses.prop_map(|all| sources(&(0..).zip(all.iter().map(String::as_str)).collect::<Vec<_>>()))
    }

    proptest! {
        #[test]
        fn a_match_keeps_every_source_and_a_repetition_in_another_order_changes_nothing(
            known in any_sources(), seen in any_sources(),
        ) {
            let matched = match_sources(&known, seen.clone());
            let statuses = |sources: &Sources| {
                let mut all: Vec<_> = sources.values().map(|source| source.status.clone()).collect();
                all.sort();
                all
            };
            prop_assert_eq!(statuses(&matched), statuses(&seen));
            let count = u32::try_from(seen.len()).expect("few");
            let reversed = seen.into_iter().map(|(key, source)| (SourceKey { nth: count - key.nth, ..key }, source));
            prop_assert_eq!(match_sources(&matched, reversed.collect()), matched);
        }
    }
}
