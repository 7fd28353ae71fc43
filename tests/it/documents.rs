//! What the documents say of the program is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of the events of all warnings and errors in this source.
fn told(source: &str) -> impl Iterator<Item = &str> {
    ["warn!(", "error!("].into_iter().flat_map(|level| source.split(level).skip(1)).filter_map(|rest| {
        let named = rest.trim_start().strip_prefix("event = \"")?;
        named.split('"').next()
    })
}

fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let read = |path: &Path| fs::read_to_string(path).expect("a source");
    entries.map(|path| if path.is_dir() { sources(&path) } else { read(&path) }).collect()
}

#[test]
fn every_event_that_warns_has_its_row_in_the_document_of_operation_and_no_other_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources(&root.join("src"));
    let told: BTreeSet<&str> = told(&sources).collect();
    let document = fs::read_to_string(root.join("docs/operation.md")).expect("the document");
    let table = document.split_once("\n| event | means | do |\n").expect("the table").1;
    let rows: BTreeSet<&str> = table.lines().skip(1).filter_map(|row| row.split('`').nth(1)).collect();
    assert!(told.len() > 20, "{told:?}");
    assert_eq!(told, rows);
}
