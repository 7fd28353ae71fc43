//! Faults from `tests/FAULTS.md`, each caused for real.
//!
//! A test for fault 14 has `fault_014` in its name. The test below compares these names with the table.

mod arguments;
mod credential_sources;
mod credentials;
mod database_files;
mod environment;
mod hosts;
mod http_clients;
mod http_load;
mod identity;
mod include;
mod items;
mod limits;
mod listings;
mod machine;
mod network;
mod own_daemon;
mod panics;
mod processes;
mod responses;
mod secrets;
pub(crate) mod service;
mod start;
pub(crate) mod terminals;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FAULTS: u16 = 156;

/// The prefix of a row without a test, before the reason.
const NOT_CAUSED: &str = "not caused: ";

const ROOTS: [&str; 2] = ["src", "tests"];

#[test]
fn every_fault_has_tests_or_a_reason_why_not() {
    let table = fs::read_to_string(root().join("tests/FAULTS.md")).expect("FAULTS.md");
    let rows: BTreeMap<u16, &str> = table.lines().filter_map(row).collect();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=FAULTS).collect::<Vec<_>>());
    let tests = tests();
    for (number, description) in rows {
        let existing: BTreeSet<&str> =
            tests.iter().filter(|(_, numbers)| numbers.contains(&number)).map(|(name, _)| name.as_str()).collect();
        let named: BTreeSet<&str> = description.split('`').skip(1).step_by(2).collect();
        if let Some(why) = description.strip_prefix(NOT_CAUSED) {
            assert!(!why.is_empty() && existing.is_empty(), "{number}: {description}, but there are {existing:?}");
        } else {
            assert!(!existing.is_empty(), "{number}: no test has this number in its name");
            assert_eq!(named, existing, "{number}: tests in the table, existing tests");
        }
    }
}

/// The number and the last column of a table row.
fn row(line: &str) -> Option<(u16, &str)> {
    let cells = line.strip_prefix("| ")?.strip_suffix('|')?;
    let (number, rest) = cells.split_once(" | ")?;
    Some((number.parse().ok()?, rest.rsplit_once(" |")?.1.trim()))
}

/// The tests for faults with their numbers: `fault_003_014_…` covers 3 and 14.
fn tests() -> Vec<(String, Vec<u16>)> {
    let mut tests = Vec::new();
    for path in ROOTS.iter().flat_map(|directory| sources(&root().join(directory))) {
        let text = fs::read_to_string(&path).expect("a readable source");
        for name in
            text.split("fn ").filter_map(|rest| rest.split('(').next()).filter(|name| name.starts_with("fault_"))
        {
            let numbers: Vec<u16> =
                name.split('_').skip(1).map_while(|word| (word.len() == 3).then(|| word.parse().ok())?).collect();
            if !numbers.is_empty() {
                tests.push((name.to_owned(), numbers));
            }
        }
    }
    tests
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(directories.iter().flat_map(|directory| sources(directory))).collect()
}
