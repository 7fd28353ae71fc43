//! Compares the documentation with the sources: each logged warning and error has a row in `docs/operation.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The events of all warnings and errors in a source.
fn warning_events(source: &str) -> impl Iterator<Item = &str> {
    ["warn!(", "error!("].into_iter().flat_map(|level| source.split(level).skip(1)).filter_map(|rest| {
        let name = rest.trim_start().strip_prefix("event = \"")?;
        name.split('"').next()
    })
}

fn sources(directory: &Path) -> String {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let read = |path: &Path| fs::read_to_string(path).expect("a source");
    entries.map(|path| if path.is_dir() { sources(&path) } else { read(&path) }).collect()
}

#[test]
fn the_operation_guide_lists_exactly_the_warning_and_error_events() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources(&root.join("src"));
    let events: BTreeSet<&str> = warning_events(&sources).collect();
    let document = fs::read_to_string(root.join("docs/operation.md")).expect("the document");
    let table = document.split_once("\n| event | means | do |\n").expect("the table").1;
    let rows: BTreeSet<&str> = table.lines().skip(1).filter_map(|row| row.split('`').nth(1)).collect();
    assert!(events.len() > 20, "{events:?}");
    assert_eq!(events, rows);
}
