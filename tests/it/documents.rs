//! Compares the documents with the program: `docs/operation.md` lists every logged warning and error, `docs/configuration.md` every
//! key.

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

#[test]
fn the_configuration_guide_lists_every_key_with_its_description_and_default() {
    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).expect("the document");
    let lines = document.lines().filter(|line| line.starts_with("| `"));
    let in_document: BTreeSet<String> = lines.map(|line| without_default(line).to_owned()).collect();
    let mut in_schema = BTreeSet::new();
    let schema = refwatch::config::schema();
    for (name, section) in schema["properties"].as_object().expect("tables") {
        let table = if section["type"] == "array" { &section["items"] } else { section };
        let before = in_schema.len();
        collect_rows(table, &mut in_schema);
        if in_schema.len() == before {
            in_schema.insert(row(name, section));
        }
    }
    let with_default = in_schema.iter().filter(|row| !row.ends_with("| – |"));
    let missing: Vec<&String> = with_default.filter(|row| !document.lines().any(|line| line == *row)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(in_schema.len() > 30, "{in_schema:#?}");
    assert_eq!(in_document, in_schema.iter().map(|row| without_default(row).to_owned()).collect());
}

/// The rows of a table's keys and of the tables in it.
fn collect_rows(table: &serde_json::Value, rows: &mut BTreeSet<String>) {
    for table in table["patternProperties"].as_object().into_iter().flat_map(|tables| tables.values()) {
        collect_rows(table, rows);
    }
    for (key, value) in table["properties"].as_object().into_iter().flatten() {
        rows.insert(row(key, value));
        collect_rows(value, rows);
    }
}

fn row(key: &str, value: &serde_json::Value) -> String {
    let default = &value["default"];
    let default = if default.is_null() { "–".to_owned() } else { format!("`{default}`") };
    format!("| `{key}` | {} | {default} |", value["description"].as_str().unwrap_or_default())
}

fn without_default(row: &str) -> &str {
    row.trim_end_matches(" |").rsplit_once(" | ").expect("three columns").0
}

#[test]
fn the_examples_of_the_configuration_guide_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/configuration.md")).expect("the document");
    let examples: Vec<&str> = document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() > 8, "{examples:?}");
    for example in examples {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("refwatch.toml");
        fs::create_dir(directory.path().join("projects")).expect("a directory");
        fs::write(
            &path,
            format!("database.path = \"refwatch.db\"\n{example}")
                .replace("database.path = \"refwatch.db\"\n[database]", "[database]"),
        )
        .expect("a file");
        if let Err(problems) = refwatch::config::load(&path) {
            panic!("{example}\n{problems}");
        }
    }
}
