//! Compares the documents with the program: `docs/operation.md` lists every logged warning and error, `docs/configuration.md` every
//! key, and the policies in `config/iam/` allow exactly the operations of each kind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use refwatch::core::kind::{JobKind, StoreType};

/// The events of all warnings and errors in a source. Each has one.
fn warning_events(source: &str) -> impl Iterator<Item = &str> {
    ["warn!(", "error!(", "event!("].into_iter().flat_map(|level| source.split(level).skip(1)).map(|rest| {
        let call = rest.trim_start().trim_start_matches("$level,").trim_start();
        let name =
            call.strip_prefix("event = \"").unwrap_or_else(|| panic!("no event: {}", call.lines().next().unwrap()));
        name.split('"').next().expect("a name")
    })
}

/// The sources of a directory without unit tests. The simulator is not the daemon.
fn sources(directory: &Path) -> String {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let entries = entries.filter(|path| !path.ends_with("simulator") && !path.ends_with("tests.rs"));
    let read = |path: &Path| {
        let source = fs::read_to_string(path).expect("a source");
        source.split("#[cfg(test)]").next().expect("a part").to_owned()
    };
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

/// The IAM actions that the daemon needs for a kind.
fn actions(kind: JobKind) -> BTreeSet<String> {
    let info = kind.info();
    [info.get_operation, info.list_operation].map(|operation| format!("omics:{operation}")).into()
}

/// The type of an IAM resource and the parameter with the store's id.
fn iam_store(store: StoreType) -> &'static str {
    match store {
        StoreType::Reference => "referenceStore/${ReferenceStoreId}",
        StoreType::Sequence => "sequenceStore/${SequenceStoreId}",
    }
}

#[test]
fn the_policy_of_each_kind_allows_its_two_operations_on_one_store() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/iam");
    let entries = fs::read_dir(&directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let policies = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    assert_eq!(policies.count(), JobKind::ALL.len());
    for kind in JobKind::ALL {
        let text = fs::read_to_string(directory.join(format!("{kind}.json"))).expect("a policy");
        let policy: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let [statement] = policy["Statement"].as_array().expect("statements").as_slice() else {
            panic!("{kind}: {policy}");
        };
        let allowed = statement["Action"].as_array().expect("actions").iter();
        let allowed: Vec<&str> = allowed.map(|action| action.as_str().expect("an action")).collect();
        assert_eq!(allowed.len(), 2, "{kind}: {allowed:?}");
        assert_eq!(allowed.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), actions(kind), "{kind}");
        assert_eq!(statement["Effect"], "Allow", "{kind}");
        let resource = format!("arn:${{Partition}}:omics:${{Region}}:${{Account}}:{}", iam_store(kind.info().store));
        assert_eq!(statement["Resource"], resource, "{kind}");
    }
}

#[test]
fn the_cloudformation_template_allows_the_operations_of_all_kinds_on_their_stores() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/iam/cloudformation.yaml");
    let template = fs::read_to_string(path).expect("the template");
    // The trust policy has its action on the same line.
    let mut statements = BTreeSet::new();
    for statement in template.split(" Action:\n").skip(1) {
        let (allowed, rest) = statement.split_once(" Resource: ").expect("a resource");
        let allowed: BTreeSet<String> =
            allowed.lines().filter_map(|line| line.trim().strip_prefix("- ")).map(str::to_owned).collect();
        statements.insert((rest.lines().next().unwrap_or_default().to_owned(), allowed));
    }
    let expected = [StoreType::Reference, StoreType::Sequence].map(|store| {
        let arn = "!Sub arn:${AWS::Partition}:omics:${AWS::Region}:${AWS::AccountId}";
        (format!("{arn}:{}", iam_store(store)), JobKind::of_store(store).flat_map(actions).collect())
    });
    assert_eq!(statements, BTreeSet::from(expected));
    let trust = template.lines().filter_map(|line| line.trim().strip_prefix("Action: "));
    assert!(trust.eq(["sts:AssumeRole"; 2]), "only the trust policy has an action on one line");
}

#[test]
fn both_guides_for_contributors_name_every_end_to_end_check() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file");
    let script = read("tests/e2e/run");
    let checks = script.split_once("readonly CHECKS=(").expect("the list").1.split_once(')').expect("its end").0;
    let checks: Vec<&str> = checks.split_whitespace().chain(["readme", "systemd", "install", "reproducible"]).collect();
    assert!(checks.len() > 10, "{checks:?}");
    for document in ["CONTRIBUTING.md", "tests/README.md"] {
        let text = read(document);
        let missing: Vec<_> = checks.iter().filter(|check| !text.contains(&format!("`{check}`"))).collect();
        assert!(missing.is_empty(), "{document} does not name {missing:?}");
    }
}
