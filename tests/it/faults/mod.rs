//! Faults, each caused for real: `tests/FAULTS.md` says which test is for which, and is held here against the tests.

mod answers;
mod credentials;
mod identity;
mod machine;
mod network;
mod outside;
mod secrets;
mod service;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// How many faults there are.
const FAULTS: u16 = 114;

/// In the table, begins the reason why a fault has no test.
const NOT_CAUSED: &str = "not caused: ";

/// Where tests are.
const ROOTS: [&str; 2] = ["src", "tests"];

#[test]
fn every_fault_has_its_tests_or_says_why_it_has_none() {
    let table = fs::read_to_string(root().join("tests/FAULTS.md")).expect("the table");
    let rows: BTreeMap<u16, &str> = table.lines().filter_map(row).collect();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=FAULTS).collect::<Vec<_>>());
    let tests = tests();
    for (number, told) in rows {
        let there: BTreeSet<&str> =
            tests.iter().filter(|(_, numbers)| numbers.contains(&number)).map(|(name, _)| name.as_str()).collect();
        let told_tests: BTreeSet<&str> = told.split('`').skip(1).step_by(2).collect();
        if let Some(why) = told.strip_prefix(NOT_CAUSED) {
            assert!(!why.is_empty() && there.is_empty(), "{number}: {told}, but {there:?}");
        } else {
            assert!(!there.is_empty(), "{number}: no test's name has this number");
            assert_eq!(told_tests, there, "{number}: what the table names, and what there is");
        }
    }
}

/// The number of a row of the table, and its last column.
fn row(line: &str) -> Option<(u16, &str)> {
    let cells = line.strip_prefix("| ")?.strip_suffix('|')?;
    let (number, rest) = cells.split_once(" | ")?;
    Some((number.parse().ok()?, rest.rsplit_once(" |")?.1.trim()))
}

/// Every test that is for faults, and their numbers: `fault_003_014_…` is for 3 and 14.
fn tests() -> Vec<(String, Vec<u16>)> {
    let mut tests = Vec::new();
    for path in ROOTS.iter().flat_map(|directory| sources(&root().join(directory))) {
        let text = fs::read_to_string(&path).expect("a source");
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
