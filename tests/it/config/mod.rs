//! The configuration: diagnostics of invalid files, values of valid ones, the schema, includes. `bad.txt` has the invalid files.

mod includes;
mod online;
mod secrets;
mod sink_files;
mod sinks;

use std::fs;
use std::iter;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use refwatch::cli::{Exit, check};
use refwatch::config::watch_list::{JobSettings, StoreSettings};
use refwatch::config::{Config, FILE_SIZE_MAX, Loaded, Problems, load, schema};
use refwatch::core::failure::Operation;
use refwatch::core::kind::JobKind;
use refwatch::core::secret::Secret;
use tempfile::TempDir;

const SHIPPED: &str = include_str!("../../../config/refwatch.toml");

const BAD: &str = include_str!("bad.txt");

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn load_in(directory: &TempDir) -> Result<Loaded, Problems> {
    load(&directory.path().join("refwatch.toml"))
}

fn load_text(text: &str) -> Result<Loaded, Problems> {
    load_in(&directory(&[("refwatch.toml", text)]))
}

fn good(text: &str) -> Config {
    let loaded = load_text(text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.problems, Problems::default());
    loaded.config
}

/// The output of `refwatch check` for the files of one row.
fn output(files: &[(&str, &str)]) -> String {
    let directory = directory(&[]);
    for (name, text) in files {
        let (name, bytes) = match name.strip_suffix(", escaped") {
            Some(name) => (name, unescaped(text)),
            None => (*name, text.as_bytes().to_vec()),
        };
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_refwatch"));
    check.args(["--config", "refwatch.toml", "check"]).current_dir(directory.path()).env_clear();
    let result = check.env("HOME", directory.path()).output().expect("the binary runs");
    let output = String::from_utf8(result.stderr).expect("text");
    assert_eq!((result.status.code(), result.stdout.as_slice()), (Some(78), &[][..]), "{files:?}: {output}");
    // The messages name files by their absolute paths.
    output.trim_end().replace(&format!("{}/", directory.path().display()), "")
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut pieces = text.split("\\x");
    let mut bytes = pieces.next().expect("a first piece").as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    bytes
}

/// The table of invalid files: a title and sections with name and text. The last section is the expected output.
fn bad_files() -> impl Iterator<Item = (&'static str, Vec<(&'static str, &'static str)>)> {
    BAD.split("\n### ").skip(1).map(|row| {
        let mut sections = row.split("\n## ");
        let title = sections.next().expect("a title");
        (title, sections.map(|section| section.split_once('\n').unwrap_or((section, ""))).collect())
    })
}

/// The differing lines of two texts, without their common beginning and end.
fn difference(expected: &str, output: &str) -> String {
    let (expected, output): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), output.lines().collect());
    let begin = iter::zip(&expected, &output).take_while(|(left, right)| left == right).count();
    let rest = iter::zip(expected[begin..].iter().rev(), output[begin..].iter().rev());
    let end = rest.take_while(|(left, right)| left == right).count();
    let marked = |mark, lines: &[&str]| -> String {
        lines[begin..lines.len() - end].iter().flat_map(|line| [mark, " ", line, "\n"]).collect()
    };
    format!("  … after {begin} lines\n{}{}", marked("-", &expected), marked("+", &output))
}

/// `BLESS=1` rewrites the table with the current output.
#[test]
fn every_bad_file_has_the_expected_output() {
    let mut blessed = BAD.split("\n### ").next().expect("a preface").to_owned();
    let mut differences = String::new();
    for (title, mut sections) in bad_files() {
        let (_, expected) = sections.pop().expect("the problems");
        let output = output(&sections);
        if output != expected.trim_end() {
            differences.extend([title, "\n", &difference(expected.trim_end(), &output)]);
        }
        blessed.extend(["\n### ", title, "\n"]);
        for (name, text) in sections {
            blessed.extend(["## ", name, "\n", text, "\n"]);
        }
        blessed.extend(["## problems\n", &output, "\n"]);
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write("tests/it/config/bad.txt", blessed).expect("the table");
    } else {
        assert!(differences.is_empty(), "expected (-) and actual (+) output differ:\n\n{differences}");
    }
}

#[test]
fn the_shipped_schema_is_current_and_the_shipped_file_refers_to_it() {
    let shipped = include_str!("../../../config/refwatch.schema.json");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/refwatch.schema.json");
    let generated = format!("{:#}\n", schema());
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, &generated).expect("the schema");
    } else {
        assert!(shipped == generated, "{}", difference(shipped, &generated));
    }
    assert!(SHIPPED.starts_with("#:schema file:///usr/share/refwatch/refwatch.schema.json\n"));
}

#[test]
fn on_a_terminal_check_marks_the_location_in_its_line() {
    let text = "database.path = \"a.db\"\n[poll]\nintervall = \"30s\"\n";
    let shown = load_text(text).expect_err("a problem").render(false);
    for part in
        ["unknown key `intervall`", "3 | intervall = \"30s\"", "  | ^^^^^^^^^", "help: did you mean `interval`?"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn the_schema_describes_every_key_and_has_the_right_defaults() {
    fn keys(table: &serde_json::Value, path: &str, keys_of_schema: &mut Vec<(String, serde_json::Value)>) {
        let (properties, named) = (table["properties"].as_object(), table["patternProperties"].as_object());
        for (key, value) in properties.into_iter().flatten().chain(named.into_iter().flatten()) {
            let path = if named.is_some() { format!("{path}.*") } else { format!("{path}.{key}") };
            keys_of_schema.push((path.clone(), value.clone()));
            keys(value, &path, keys_of_schema);
            keys(&value["items"], &path, keys_of_schema);
        }
    }
    let mut keys_of_schema = Vec::new();
    keys(&schema(), "", &mut keys_of_schema);
    assert!(keys_of_schema.len() > 40, "{keys_of_schema:?}");
    for (path, key) in &keys_of_schema {
        assert!(key["description"].is_string() || key["items"]["description"].is_string(), "{path}: {key}");
        assert!(key["type"].is_string(), "{path}: {key}");
    }
    // Setting a key to its default changes nothing.
    for (path, key) in keys_of_schema.iter().filter(|(_, key)| !key["default"].is_null()) {
        let [table, name] = path.trim_start_matches('.').split('.').collect::<Vec<_>>()[..] else { panic!("{path}") };
        let (header, ids) = match table {
            "job" => ("[[job]]", "reference_store_id = \"1234567890\"\nid = \"9876543210\""),
            "store" => ("[[store]]", "reference_store_id = \"1234567890\""),
            "notify" => ("[[notify]]", "name = \"a\"\nurl = \"https://a.example\""),
            table => (&*format!("[{table}]"), ""),
        };
        let text = |line: &str| match table {
            "database" => format!("[database]\npath = \"/refwatch.db\"\n{line}\n"),
            _ => format!("database.path = \"/refwatch.db\"\n{header}\n{ids}\n{line}\n"),
        };
        let written = good(&text(&format!("{name} = {}", key["default"])));
        assert_eq!(written, good(&text("")), "{path}");
    }
}

#[test]
fn a_full_file_is_loaded_as_written() {
    let config = good(FULL);
    let entries: Vec<String> = config
        .watch_list
        .jobs
        .iter()
        .map(|(id, JobSettings { name, labels, policy, .. })| {
            format!("{} {} {name} {:?} {labels:?}", id.target, id.key, policy.interval)
        })
        .collect();
    assert_eq!(
        entries,
        [
            "default 1234567890/9876543210 1234567890/9876543210 30s {}",
            "default read_set_activation/3234567890/4234567890 read_set_activation/3234567890/4234567890 30s {}",
            r#"eu 1234567890/9876543211 GRCh38 2s {"project": ""}"#,
        ]
    );
    let stores: Vec<String> = config
        .watch_list
        .stores
        .iter()
        .map(
            |(
                id,
                StoreSettings { created_within, job_settings: JobSettings { name, labels, policy, remove_after } },
            )| {
                format!(
                    "{} {} {} {name} {created_within:?} {remove_after:?} {:?} {labels:?}",
                    id.target, id.kind, id.store, policy.interval
                )
            },
        )
        .collect();
    let default = |kind, id, labels| format!("default {kind} {id} {id} 604800s Some(86400s) 30s {labels}");
    let labels = r#"{"project": "sequencing \"core\""}"#;
    let expected = [
        default("reference_import", "1234567890", "{}"),
        default("read_set_import", "3234567890", labels),
        default("read_set_export", "3234567890", labels),
        "eu reference_import 1234567890 shared references 3600s Some(60s) 5s {}".to_owned(),
    ];
    assert_eq!(stores, expected);
    let eu = &config.targets["eu"];
    assert_eq!((eu.quota.requests_per_second, eu.quota.share), (10.0, 0.5));
    // The target's quota overrides that of the operation for all targets.
    let quota = |target: &str, kind| config.targets[target].quota_of(Operation::Get(kind)).requests_per_second;
    let import = JobKind::ReadSetImport;
    let quotas = (quota("default", import), quota("eu", import), quota("default", JobKind::ReadSetExport));
    assert_eq!(quotas, (20.0, 10.0, 5.0));
    assert_eq!((eu.timeout, eu.region.as_deref()), (Duration::from_secs(10), Some("us-gov-west-1")));
    assert!(config.targets["default"].quota.configured_rate() - 2.5 < 1e-9);
    assert_eq!(config.log.level, tracing::Level::WARN);
    assert!(config.database.path.is_absolute() && config.database.path.ends_with("data/refwatch.db"));
}

const FULL: &str = include_str!("full.toml");

#[test]
fn the_effective_configuration_can_be_loaded_and_hides_secrets() {
    let mut config = good(FULL);
    assert!(!config.to_redacted_toml().contains("not-for-all-eyes"));
    assert!(config.to_redacted_toml().contains("external_id = \"(hidden)\""));
    for target in config.targets.values_mut() {
        target.external_id = None;
    }
    for sink in &mut config.sinks {
        sink.headers.values_mut().for_each(|value| *value = Secret::new("(hidden)"));
    }
    assert_eq!(good(&config.to_redacted_toml()), config);
    let default = Config::new("/var/lib/refwatch/refwatch.db".into());
    assert_eq!(good(&default.to_redacted_toml()), default);
}

#[test]
fn the_shipped_file_shows_the_defaults() {
    assert_eq!(good(SHIPPED), Config::new("/var/lib/refwatch/refwatch.db".into()));
}

#[test]
fn the_examples_in_the_shipped_file_are_valid_and_cover_every_key() {
    let is_key = |line: &str| {
        let key = line.split_once(" = ").map(|(key, _)| key);
        let header = line.starts_with('[') && line.ends_with(']');
        header || key.is_some_and(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    };
    let example = |line: &'static str| line.strip_prefix("# ").filter(|line| is_key(line)).unwrap_or(line);
    let text: Vec<&str> = SHIPPED.lines().map(example).collect();
    let config = good(&text.join("\n"));
    assert_eq!((config.targets.len(), config.watch_list.jobs.len()), (2, 2));
    let store = config.watch_list.stores.first_key_value().expect("a store");
    assert_eq!(*store.1, StoreSettings::new("shared references".into(), config.poll.policy()));

    // A configuration with all keys set shows all keys.
    let keys = format!("{}{}", config.to_redacted_toml(), good(FULL).to_redacted_toml());
    for key in keys.lines().filter_map(|line| Some(line.split_once(" = ")?.0)) {
        assert!(
            text.iter().any(|line| line.starts_with(&format!("{key} = ")) || line.contains(&format!(" {key} = "))),
            "{key}"
        );
    }
}

#[test]
fn fault_087_088_a_file_that_is_no_configuration_is_rejected_without_blocking() {
    let directory = directory(&[("empty", "")]);
    let path = |name: &str| directory.path().join(name);
    let huge = fs::File::create(path("huge")).expect("a file");
    huge.set_len(100 * FILE_SIZE_MAX).expect("a sparse file");
    fs::write(path("binary"), b"[log]\nlevel = \"\xff\0\"\n").expect("a file");
    let generated = Command::new("mkfifo").arg(path("fifo")).status().expect("mkfifo");
    assert!(generated.success());
    let table = [
        ("missing", "this file cannot be read: No such file or directory (os error 2)"),
        ("", "this file cannot be read: not a regular file"),
        ("fifo", "this file cannot be read: not a regular file"),
        ("huge", "this file is larger than 1024 KiB: split it with `include`"),
        ("binary", "this is a binary file or UTF-16, not UTF-8"),
    ];
    for (name, expected) in table {
        let (path, (sender, receiver)) = (path(name), mpsc::channel());
        let loading = path.clone();
        thread::spawn(move || sender.send(load(&loading).map(|_| ())));
        let result = receiver.recv_timeout(Duration::from_secs(30)).expect("a result");
        let problems = result.expect_err("no configuration");
        assert_eq!(problems.summary(), format!("{}: {expected}", path.display()));
    }
    assert!(load(&path("empty")).is_ok());
}

#[test]
fn at_most_100_errors_are_reported() {
    let problems = load_text(&"[[job]]\n".repeat(10_000)).expect_err("jobs without ids");
    assert_eq!(problems.0.len(), 100);
    let problems = load_text(&("x\n".to_owned() + &"[[job]]\n".repeat(10_000))).expect_err("no TOML");
    assert_eq!(problems.0.len(), 1);
    let problems = load_text(&"x\n".repeat(10_000)).expect_err("no TOML");
    assert_eq!(problems.0.len(), 100);
}

#[tokio::test]
async fn check_prints_one_line_or_all_errors() {
    let good = directory(&[("refwatch.toml", "database.path = \"refwatch.db\"\n")]);
    let bad = directory(&[("refwatch.toml", "include = [\"conf.d/*\"]\n"), ("conf.d/a.toml", "x = 1\ny = 2\n")]);
    let check = async |directory: &Path| check::run(&directory.join("refwatch.toml"), check::Args::default()).await;
    assert_eq!(check(good.path()).await.expect("no problems"), Exit::Done);
    let failure = check(bad.path()).await.expect_err("an included file is bad");
    assert_eq!(failure.exit, Exit::Config);
    assert!(failure.message.contains("a.toml:1:1") && failure.message.contains("a.toml:2:1"), "{}", failure.message);
}

/// Almost valid files, made of pieces of the table.
fn nearly_toml() -> impl Strategy<Value = String> {
    let pieces: Vec<&'static str> =
        bad_files().flat_map(|(_, sections)| sections).flat_map(|(_, text)| text.lines()).collect();
    let piece = prop_oneof![8 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => ".{0,20}", 1 => "[\\[\\]{}\"'=#.,\u{202e}\u{3000}äé\t\r]{0,8}"];
    prop::collection::vec((piece, "\n|\r\n||\n\n"), 0..30)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, end)| piece + &end).collect())
}

proptest! {
    #[test]
    fn fault_113_no_text_makes_the_loader_panic_or_reaches_diagnostics_unsanitized(text in prop_oneof!["(?s).{0,200}", nearly_toml()]) {
        crate::untrusted_text::check_configuration(text.as_bytes());
    }
}
