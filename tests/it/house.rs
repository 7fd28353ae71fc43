//! The house as ARCHITECTURE.md draws it, held by reading the sources: which room may name which, what the core may not name, how long
//! a file may be. Clippy holds the rest: the length of a function, a reason for every exemption, clocks, tasks and printing.

use std::fs;
use std::path::{Path, PathBuf};

/// A file fits a sitting.
const FILE_LINES_MAX: usize = 400;

/// What a longer file says in its head, followed by why.
const LONG_FILE_MARK: &str = "Over 400 lines: ";

/// In place of a list: every room.
const ANYTHING: &[&str] = &["*"];

/// Every room, and the rooms that it may name. A new room is entered here first.
const HOUSE: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("main", &["commands"]),
    ("commands", ANYTHING),
    (
        "daemon",
        &[
            "board",
            "clock",
            "config",
            "core",
            "edits",
            "http",
            "instruments",
            "logging",
            "metrics",
            "omics",
            "record",
            "reload",
            "signals",
            "supervisor",
            "systemd",
            "watcher",
        ],
    ),
    (
        "supervisor",
        &["board", "clock", "config", "core", "hints", "instruments", "omics", "record", "sweeper", "watcher"],
    ),
    ("watcher", &["board", "clock", "core", "hints", "instruments", "omics", "record"]),
    ("sweeper", &["board", "clock", "core", "hints", "omics"]),
    ("http", &["board", "clock", "config", "core", "instruments", "metrics", "record", "reload"]),
    ("metrics", &["board", "clock", "core", "instruments"]),
    ("systemd", &["board", "clock", "core"]),
    ("record", &["clock", "core", "instruments"]),
    ("omics", &["clock", "config", "core", "instruments"]),
    ("logging", &["config", "core", "instruments"]),
    ("board", &["core"]),
    ("instruments", &["core"]),
    ("clock", &["core"]),
    ("hints", &["core"]),
    ("config", &["core"]),
    ("core", &[]),
    ("edits", &["clock", "core"]),
    ("reload", &[]),
    ("signals", &[]),
    ("simulator", &["clock"]),
];

/// The world outside, which the core does not name.
const OUTSIDE_THE_CORE: &[&str] = &["tokio", "rusqlite", "tracing", "prometheus"];

#[test]
fn every_source_file_keeps_to_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files =
        ["benches", "fuzz/fuzz_targets", "src", "tests"].map(|folder| files_under(&root.join(folder))).concat();
    // A table of cases is as long as its cases are many.
    files.retain(|file| file.extension().is_none_or(|extension| extension != "txt"));
    assert!(files.len() > 20, "the sources are not where they were: {files:?}");
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let path = file.strip_prefix(root).expect("under the root").to_str().expect("a UTF-8 name");
            let bytes = fs::read(file).unwrap_or_else(|error| panic!("{path}: {error}"));
            complaints(path, &String::from_utf8_lossy(&bytes))
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_rule_is_broken_by_something() {
    let long = "\n".repeat(FILE_LINES_MAX + 1);
    let reasoned = format!("//! The words.\n//! {LONG_FILE_MARK}one page of the API.\n{long}");
    #[rustfmt::skip]
    let cases = [
        // What a room may name, however it is written.
        ("src/record/mod.rs", "use crate::core::job::JobKey;", ""),
        ("src/record/mod.rs", "use super::instruments::Instruments;", ""),
        ("src/record/append.rs", "use super::omics; // record's own child", ""),
        ("src/record/mod.rs", "//! As [`crate::omics`] does.", ""),
        ("src/record/mod.rs", "use crate::omics::Client;", "src/record/mod.rs:1: record may not name omics"),
        ("src/record/append.rs", "\nlet _ = super::super::http::serve;", "src/record/append.rs:2: record may not name http"),
        ("src/metrics.rs", "use super::record::Record;", "src/metrics.rs:1: metrics may not name record"),
        ("src/main.rs", "use refwatch::record::Record;", "src/main.rs:1: main may not name record"),
        ("src/record/mod.rs", "pub(in crate::omics) fn f() {}", "src/record/mod.rs:1: record may not name omics"),
        ("src/record/mod.rs", "use crate::{core, omics};", "src/record/mod.rs:1: one room a `use`, so that this test can read it"),
        ("src/commands/run.rs", "use crate::daemon;", ""),
        ("src/commands/run.rs", "use crate::attic;", "src/commands/run.rs:1: commands may not name attic"),
        ("src/attic/mod.rs", "", "src/attic/mod.rs: a room that HOUSE does not know"),
        // What the core may not name.
        ("src/core/pacer.rs", "use std::time::Duration;", ""),
        ("src/core/pacer.rs", "use tokio::time::Instant;", "src/core/pacer.rs:1: the core may not name tokio"),
        ("src/core/pacer.rs", "fn f(_: ::aws_sdk_omics::Client) {}", "src/core/pacer.rs:1: the core may not name aws_sdk_omics"),
        ("src/clock.rs", "use tokio::time::Instant;", ""),
        // How long a file may be.
        ("tests/it/long.rs", long.as_str(), "tests/it/long.rs: over 400 lines, and its head does not say why"),
        ("tests/e2e/long.py", long.as_str(), "tests/e2e/long.py: over 400 lines, and its head does not say why"),
        ("tests/it/long.rs", reasoned.as_str(), ""),
    ];
    for (path, text, complaint) in cases {
        let expected: Vec<&str> = Some(complaint).into_iter().filter(|complaint| !complaint.is_empty()).collect();
        assert_eq!(complaints(path, text), expected, "{path}: {text:.60}");
    }
}

/// Everything that is wrong with one file.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.lines().count() > FILE_LINES_MAX && !head(text).any(|line| line.contains(LONG_FILE_MARK)) {
        complaints.push(format!("{path}: over {FILE_LINES_MAX} lines, and its head does not say why"));
    }
    let Some(modules) = module_path(path) else { return complaints };
    let room = modules[0];
    let Some((_, allowed)) = HOUSE.iter().find(|(known, _)| *known == room) else {
        complaints.push(format!("{path}: a room that HOUSE does not know"));
        return complaints;
    };
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for name in names(line) {
            let named = room_named(&name, &modules);
            if named == Some("") {
                complaints.push(format!("{path}:{number}: one room a `use`, so that this test can read it"));
            } else if let Some(named) = named.filter(|named| !may_name(room, allowed, named)) {
                complaints.push(format!("{path}:{number}: {room} may not name {named}"));
            }
            if let Some(outside) = (room == "core").then(|| outside_the_core(&name)).flatten() {
                complaints.push(format!("{path}:{number}: the core may not name {outside}"));
            }
        }
    }
    complaints
}

/// The comment that a file begins with.
fn head(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| line.starts_with("//!") || line.starts_with('#'))
}

/// The module that a file of `src` holds, from its room down; `None` for another file.
fn module_path(path: &str) -> Option<Vec<&str>> {
    let inside = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    Some(inside.strip_suffix("/mod").unwrap_or(inside).split('/').collect())
}

/// Every path in a line of Rust, cut into its parts: `crate::core::job` is `crate`, `core`, `job`.
fn names(line: &str) -> impl Iterator<Item = Vec<&str>> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .map(|path| path.trim_start_matches(':').split("::").collect::<Vec<_>>())
        .filter(|path| path.len() > 1)
}

/// The room that a path leads to, empty where the path leaves it to a brace or a star; `None` where it stays in its own
/// module or leaves the crate.
fn room_named<'a>(name: &[&'a str], modules: &[&str]) -> Option<&'a str> {
    let supers = name.iter().take_while(|part| **part == "super").count();
    match name[0] {
        "crate" => Some(name[1]),
        // The binary is a crate of its own.
        "refwatch" if modules == ["main"] => Some(name[1]),
        // In an inline module one `super` less gets out of it, so only a room's name tells.
        "super" if supers >= modules.len() => {
            name.get(supers).filter(|part| HOUSE.iter().any(|(known, _)| known == *part)).copied()
        }
        _ => None,
    }
}

fn may_name(room: &str, allowed: &[&str], named: &str) -> bool {
    let known = HOUSE.iter().any(|(known, _)| *known == named);
    known && (room == named || allowed == ANYTHING || allowed.contains(&named))
}

fn outside_the_core<'a>(name: &[&'a str]) -> Option<&'a str> {
    Some(name[0]).filter(|first| OUTSIDE_THE_CORE.contains(first) || first.starts_with("aws_"))
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
