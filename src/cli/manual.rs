//! The manual pages, in roff: one page for each command, and refwatch.toml(5), which is made from the JSON Schema.

use clap::Command;
use clap::builder::Resettable;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use serde_json::Value;

use super::help;
use crate::config;

const SOURCE: &str = concat!("refwatch ", env!("CARGO_PKG_VERSION"));

/// A configuration, for refwatch.toml(5).
const EXAMPLE: &str = r#"[target.default]
region = "us-west-2"

[[job]]
name = "GRCh38"
reference_store_id = "1234567890"
id = "9876543210"
"#;

/// The page of the program or of one of its commands, of a definition that is built.
pub(super) fn command_page(command: &Command) -> std::io::Result<Vec<u8>> {
    let name = command.get_name();
    let is_program = name == "refwatch";
    let mut page = Vec::new();
    // The examples and exit statuses after the options of `--help` have sections of their own here.
    Man::new(command.clone().after_help(Resettable::Reset)).source(SOURCE).render(&mut page)?;
    let mut roff = Roff::new();
    section(&mut roff, "EXAMPLES");
    for line in help::examples(command.get_bin_name().unwrap_or(name)) {
        roff.text([bold(line)]);
        roff.control("br", []);
    }
    section(&mut roff, "EXIT STATUS");
    roff.text([roman(help::exit_status(name))]);
    for (title, terms) in [("FILES", &help::FILES[..]), ("ENVIRONMENT", &help::ENVIRONMENT[..])] {
        section(&mut roff, title);
        for (term, meaning) in terms {
            definition(&mut roff, term, meaning);
        }
    }
    section(&mut roff, "SEE ALSO");
    let others = if is_program { "refwatch.toml(5)" } else { "refwatch(1), refwatch.toml(5)" };
    roff.text([roman(others)]);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// refwatch.toml(5): each table and key with its description, default and values.
pub(super) fn configuration_page() -> String {
    let schema = config::schema();
    let mut roff = Roff::new();
    roff.control("TH", ["refwatch.toml", "5", "", SOURCE, ""]);
    section(&mut roff, "NAME");
    roff.text([roman("refwatch.toml - configuration of refwatch")]);
    section(&mut roff, "DESCRIPTION");
    roff.text([roman(
        "The file is TOML. An unknown key is an error. Durations are strings such as \"30s\", \"5m\" or \"7d\". Relative paths start \
         at the directory of the file. refwatch check reports every problem with its place. The daemon applies a change of the file \
         within two seconds.",
    )]);
    tables(&mut roff, "", &schema);
    section(&mut roff, "EXAMPLES");
    roff.control("nf", []);
    for line in EXAMPLE.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    section(&mut roff, "FILES");
    for (term, meaning) in &help::FILES[..2] {
        definition(&mut roff, term, meaning);
    }
    section(&mut roff, "SEE ALSO");
    roff.text([roman("refwatch(1), refwatch-check(1)")]);
    roff.render()
}

/// A section for the keys of a table, then those for the tables in it.
fn tables(roff: &mut Roff, name: &str, table: &Value) {
    let properties = || table["properties"].as_object().into_iter().flatten();
    let (nested, keys): (Vec<_>, Vec<_>) = properties().partition(|(_, value)| inner_table(value).is_some());
    if !keys.is_empty() {
        section(roff, if name.is_empty() { "TOP LEVEL" } else { name });
        roff.text([roman(description(table))]);
        for (key, value) in keys {
            definition(roff, key, &meaning(value));
        }
    }
    for (key, value) in nested {
        let Some((table, is_array, is_map)) = inner_table(value) else { continue };
        let parent = name.trim_matches(['[', ']']);
        let start = if parent.is_empty() { String::new() } else { format!("{parent}.") };
        let path = format!("{start}{key}{}", if is_map { ".NAME" } else { "" });
        tables(roff, &if is_array { format!("[[{path}]]") } else { format!("[{path}]") }, table);
    }
}

/// The table that a value holds, and whether the value is an array of tables or a map of them.
fn inner_table(value: &Value) -> Option<(&Value, bool, bool)> {
    let has_keys = |value: &Value| value["properties"].is_object();
    let in_map = value["patternProperties"].as_object().and_then(|tables| tables.values().next());
    match in_map.filter(|table| has_keys(table)) {
        Some(table) => Some((table, false, true)),
        None if has_keys(&value["items"]) => Some((&value["items"], true, false)),
        None => has_keys(value).then_some((value, false, false)),
    }
}

fn meaning(value: &Value) -> String {
    let values = value["enum"].as_array().map(|values| {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        format!(" One of {}.", values.join(", "))
    });
    let default =
        Some(&value["default"]).filter(|default| !default.is_null()).map(|default| format!(" Default: {default}"));
    [description(value), &values.unwrap_or_default(), &default.unwrap_or_default()].concat()
}

fn description(value: &Value) -> &str {
    value["description"].as_str().unwrap_or_default()
}

fn section(roff: &mut Roff, title: &str) {
    roff.control("SH", [title]);
}

fn definition(roff: &mut Roff, term: &str, meaning: &str) {
    roff.control("TP", []).text([bold(term)]);
    roff.text([roman(meaning)]);
}
