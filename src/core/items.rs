//! Matches the items of a response with the known items of the job.
//!
//! An item has no id in the API. Items with the same name and file are a multiset: only their statuses distinguish them. Their
//! order in a response has no meaning.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::job::{Item, ItemKey, ItemStatus, Items};
use super::time::Timestamp;
use super::transition::ItemTransition;

/// Gives each item of a response the `nth` of the known item that it continues. Among items with the same name and file, those
/// with an unchanged status are matched first, then the others in the order of the life cycle.
pub(super) fn match_items(known: &Items, seen: Items) -> Items {
    let mut groups: BTreeMap<_, BTreeMap<ItemStatus, VecDeque<Item>>> = BTreeMap::new();
    for (ItemKey { name, source_file, .. }, item) in seen {
        let by_status = groups.entry((name, source_file)).or_default();
        by_status.entry(item.status.clone()).or_default().push_back(item);
    }
    let mut matched = Items::new();
    for ((name, source_file), mut by_status) in groups {
        let key = |nth| ItemKey { name: name.clone(), source_file: source_file.clone(), nth };
        let (mut used, mut changed) = (BTreeSet::new(), Vec::new());
        for (known_key, item) in known.range(key(0)..=key(u32::MAX)) {
            used.insert(known_key.nth);
            if let Some(unchanged) = by_status.get_mut(&item.status).and_then(VecDeque::pop_front) {
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

/// Items that are new, have another status, or are gone.
pub(super) fn item_transitions(known: &Items, seen: &Items, observed_at: Timestamp) -> Vec<ItemTransition> {
    let changed = seen.iter().filter_map(|(key, item)| {
        let from = known.get(key).map(|known| known.status.clone());
        let to = Some(item.clone());
        (from.as_ref() != Some(&item.status)).then(|| ItemTransition { key: key.clone(), from, to, observed_at })
    });
    let gone = known.iter().filter(|(key, _)| !seen.contains_key(key)).map(|(key, item)| ItemTransition {
        key: key.clone(),
        from: Some(item.status.clone()),
        to: None,
        observed_at,
    });
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Items that share name and file, with these statuses and numbers.
    fn items(numbered: &[(u32, &str)]) -> Items {
        let item = |&(nth, status): &(u32, &str)| {
            let key = ItemKey { name: "a".into(), source_file: "s3://b/a".into(), nth };
            (key, Item { status: status.into(), status_message: None })
        };
        numbered.iter().map(item).collect()
    }

    #[test]
    fn equal_sources_are_matched_by_status() {
        let known = items(&[(0, "NOT_STARTED"), (1, "IN_PROGRESS"), (2, "FAILED")]);
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
            assert_eq!(match_items(&known, items(&seen)), items(&expected), "{seen:?}");
        }
    }

    fn any_items() -> impl Strategy<Value = Items> {
        let statuses = ItemStatus::DOCUMENTED.map(|status| status.as_str().to_owned());
        let statuses = proptest::collection::vec(prop::sample::select(statuses.to_vec()), 0..6);
        statuses.prop_map(|all| items(&(0..).zip(all.iter().map(String::as_str)).collect::<Vec<_>>()))
    }

    proptest! {
        #[test]
        fn a_match_keeps_every_source_and_a_repetition_in_another_order_changes_nothing(
            known in any_items(), seen in any_items(),
        ) {
            let matched = match_items(&known, seen.clone());
            let statuses = |items: &Items| {
                let mut all: Vec<_> = items.values().map(|item| item.status.clone()).collect();
                all.sort();
                all
            };
            prop_assert_eq!(statuses(&matched), statuses(&seen));
            let count = u32::try_from(seen.len()).expect("few");
            let reversed = seen.into_iter().map(|(key, item)| (ItemKey { nth: count - key.nth, ..key }, item));
            prop_assert_eq!(match_items(&matched, reversed.collect()), matched);
        }
    }
}
