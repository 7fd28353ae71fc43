//! Checks the dependencies between modules in ARCHITECTURE.md and the length of files, by reading the sources.
//!
//! The table lists the allowed imports of each module. Two files must not import each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 400;

/// Every module and the modules that it may import. A module imports from rows above it only, so there is no cycle.
const MODULES: &[(&str, &str)] = &[
    ("core", ""),
    ("files", ""),
    ("reload", ""),
    ("version", ""),
    ("clock", "core"),
    ("instruments", "core"),
    ("config", "core files"),
    ("state", "core"),
    ("logging", "clock config core files instruments"),
    ("database", "clock core instruments"),
    ("notify", "clock config core database files instruments state"),
    ("healthomics", "clock config core files instruments"),
    ("tasks", "clock config core database healthomics instruments state"),
    ("metrics", "clock core instruments state version"),
    ("http", "clock config core database files instruments metrics notify reload state"),
    ("daemon", "clock config core database healthomics http instruments logging metrics notify reload state tasks"),
    ("simulator", "clock core notify"),
    (
        "cli",
        "clock config core daemon database healthomics http instruments logging notify reload simulator state tasks \
         version",
    ),
    ("main", "cli"),
];

/// Crates that only these modules may name. AWS, SQL and HTTP types do not leave them.
const CRATES: &[(&str, &[&str])] =
    &[("rusqlite", &["database"]), ("aws_", &["healthomics"]), ("axum", &["http", "simulator"])];

/// Crates that the core may not name: it has no I/O, tasks or log.
const NOT_IN_CORE: [&str; 3] = ["tokio", "tracing", "prometheus"];

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut errors = Vec::new();
    for (row, (module, allowed)) in MODULES.iter().enumerate() {
        let above: Vec<&str> = MODULES[..row].iter().map(|(name, _)| *name).collect();
        let below = allowed.split_whitespace().filter(|name| !above.contains(name));
        errors.extend(below.map(|name| format!("{module}: {name} is not above it")));
    }
    for file in sources("src").iter().filter(|file| !file.ends_with("src/lib.rs")) {
        let module = module_path(file)[0].clone();
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            errors.push(format!("{}: the table has no module {module}", file.display()));
            continue;
        };
        for (line, path) in paths(file) {
            if let ["crate" | "refwatch", other, ..] = path.iter().map(String::as_str).collect::<Vec<_>>()[..]
                && other != module
                && !allowed.split_whitespace().any(|name| name == other)
            {
                errors.push(format!("{}:{line}: {module} may not import {other}", file.display()));
            }
            let forbidden =
                CRATES.iter().filter(|(_, modules)| !modules.contains(&module.as_str())).map(|(name, _)| name);
            let core = NOT_IN_CORE.iter().filter(|_| module == "core");
            if forbidden.chain(core).any(|name| path[0].starts_with(name)) {
                errors.push(format!("{}:{line}: {module} may not name {}", file.display(), path[0]));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
}

#[test]
fn no_file_imports_a_file_that_imports_it() {
    let files = sources("src");
    let imports: BTreeSet<(PathBuf, PathBuf)> = files
        .iter()
        .flat_map(|file| {
            paths(file).into_iter().filter_map(|(_, path)| Some((file.clone(), target(file, &path, &files)?)))
        })
        .collect();
    assert!(imports.len() > 100, "too few imports: {imports:?}");
    // A `mod.rs` declares its children and re-exports them.
    let cycles: Vec<_> = imports
        .iter()
        .filter(|(from, to)| from < to && imports.contains(&(to.clone(), from.clone())))
        .filter(|(from, to)| !from.ends_with("mod.rs") && !to.ends_with("mod.rs"))
        .collect();
    assert!(cycles.is_empty(), "{cycles:?}");
}

#[test]
fn no_file_has_more_than_400_lines() {
    let files = ["benches", "fuzz/fuzz_targets", "src", "tests"].map(sources).concat();
    let long = files.iter().filter(|file| text(file).lines().count() > FILE_LINES_MAX);
    assert_eq!(long.collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

/// Every Rust file below `directory`.
pub(crate) fn sources(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "no sources in {directory}");
    files.sort();
    files
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The path of a file's module below the crate: `src/core/job.rs` is `core`, `job`.
fn module_path(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    let parts = inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>();
    parts.into_iter().filter(|part| part != "mod").collect()
}

/// Every path with `::` outside comments, with its line number. `use a::{b, c}` on one line counts as `a::b` and `a::c`.
fn paths(file: &Path) -> Vec<(usize, Vec<String>)> {
    let braced = |line: &str| {
        let Some((before, names)) = line.strip_prefix("use ").and_then(|line| line.split_once('{')) else {
            return line.to_owned();
        };
        names.split(',').flat_map(|name| [before, name.trim(), " "]).collect()
    };
    let text = text(file).lines().map(braced).collect::<Vec<_>>().join("\n");
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"));
    let words = lines.flat_map(|(number, line)| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).map(move |word| (number, word))
    });
    let paths = words
        .map(|(number, word)| (number, word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()));
    paths.filter(|(_, path): &(usize, Vec<String>)| path.len() > 1).collect()
}

/// The imported file, if it is another file of the crate.
fn target(file: &Path, path: &[String], files: &[PathBuf]) -> Option<PathBuf> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let mut module = match path[0].as_str() {
        "crate" => Vec::new(),
        "super" => module_path(file),
        _ => return None,
    };
    module.truncate(module.len().saturating_sub(supers));
    module.extend(path.iter().skip(supers.max(1)).cloned());
    while !module.is_empty() {
        let imported = files.iter().find(|other| module_path(other) == module);
        if let Some(imported) = imported {
            return Some(imported.clone()).filter(|imported| imported != file);
        }
        module.pop();
    }
    None
}
