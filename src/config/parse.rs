//! From the text of one file to its tables, with every problem on the way.
//!
//! serde stops at the first error. So each one is noted, the entry that it is about is taken out of the parsed tree, and the
//! rest is read again, until nothing is left to complain of. That way plain serde types say what may be written, and no second
//! description of the file can contradict them.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::file::MAIN_FILE_ONLY;
use super::key::{elsewhere, meant, nearest};
use super::problem::Problem;
use super::source::Source;
use super::syntax;

/// Problems told of one file. Nobody mends more at a time.
pub(super) const PROBLEMS_MAX: usize = 100;

/// Readings of one file's tree: a job whose id is wrong takes two, one for the id and one for the job without it.
const READINGS_MAX: usize = 2 * PROBLEMS_MAX;

/// What was read of one file.
pub(super) struct Parsed<T> {
    /// The tables, without the entries that have problems.
    pub file: T,
    pub problems: Vec<Problem>,
    /// Whether it is TOML at all. Of a file that is not, too little is known to compare it with others.
    pub is_toml: bool,
}

/// Reads the tables of a file.
pub(super) fn parse<T: DeserializeOwned + Default>(source: &Source) -> Parsed<T> {
    let (mut tree, errors) = DeTable::parse_recoverable(&source.text);
    let is_toml = errors.is_empty();
    let mut problems = syntax::problems(source, &errors[..errors.len().min(PROBLEMS_MAX)]);
    if errors.iter().any(|error| syntax::breaks_header(source, error)) {
        return Parsed { file: T::default(), problems, is_toml };
    }
    let broken_lines: BTreeSet<Option<usize>> = problems.iter().map(Problem::line).collect();
    // Keys taken out, and those that were meant by them, by the place of their table: that one is missing then is no news.
    let mut taken: BTreeSet<(usize, String)> = BTreeSet::new();
    for _ in 0..READINGS_MAX {
        let error = match T::deserialize(Deserializer::from(tree.clone())) {
            Ok(file) => return Parsed { file, problems, is_toml },
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let removed = take_from_table(tree.get_mut(), 0, &span);
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let meant = removed.as_ref().and_then(|removed| {
            let there = |key: &str| removed.beside.contains(key) || taken.contains(&(removed.at, key.to_owned()));
            let (key, known) = unknown(error.message(), "unknown field `")?;
            meant(key, &known, there)
        });
        let path = removed.as_ref().map_or(&[][..], |removed| &removed.path);
        let problem = rule(source, Complaint { span: span.clone(), message: error.message(), path, meant });
        // What the parser put in place of a value that it could not read has no extent, or goes up to where it gave up.
        let reaches = |broken: &toml::de::Error| {
            broken.span().is_some_and(|broken| span.contains(&broken.start) || span.end == broken.start)
        };
        let follows = match missing {
            Some(key) => !is_toml || taken.contains(&(span.start, key.to_owned())),
            None => {
                broken_lines.contains(&problem.line()) || (!is_toml && span.is_empty()) || errors.iter().any(reaches)
            }
        };
        // A value that is wrong as a whole goes piece by piece, and each time for the same reason.
        if !follows && !problems.contains(&problem) {
            problems.push(problem);
        }
        let Some(Removed { at, path, .. }) = removed.filter(|_| problems.len() < PROBLEMS_MAX) else { break };
        taken.extend(path.into_iter().next_back().into_iter().chain(meant.map(str::to_owned)).map(|key| (at, key)));
    }
    Parsed { file: T::default(), problems, is_toml }
}

/// What was taken out of a table or an array.
struct Removed {
    /// The place of the table or array.
    at: usize,
    /// The keys that lead to it.
    path: Vec<String>,
    /// The keys that the table still has.
    beside: BTreeSet<String>,
}

/// Takes the smallest entry that `span` lies in out of a table, whose own place is `at`: a key with its value, or an element of
/// an array.
fn take_from_table(table: &mut DeTable<'_>, at: usize, span: &Range<usize>) -> Option<Removed> {
    for (key, value) in table.iter_mut() {
        if let Some(mut removed) = take_from_value(value, span) {
            removed.path.insert(0, key.get_ref().to_string());
            return Some(removed);
        }
    }
    let lies_in = |key: &Spanned<_>, value: &Spanned<_>| contains(&key.span(), span) || contains(&value.span(), span);
    let key = table.iter().find(|(key, value)| lies_in(key, value))?.0.get_ref().clone();
    table.remove(&*key);
    let beside = table.keys().map(|key| key.get_ref().to_string()).collect();
    Some(Removed { at, path: vec![key.into_owned()], beside })
}

fn take_from_value(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Removed> {
    let at = value.span().start;
    match value.get_mut() {
        DeValue::Table(table) => take_from_table(table, at, span),
        DeValue::Array(array) => {
            if let Some(taken) = array.iter_mut().find_map(|element| take_from_value(element, span)) {
                return Some(taken);
            }
            let index = array.iter().position(|element| contains(&element.span(), span))?;
            let mut rest: Vec<_> = std::mem::replace(array, DeArray::new()).into_iter().collect();
            rest.remove(index);
            *array = rest.into_iter().collect();
            Some(Removed { at, path: vec![index.to_string()], beside: BTreeSet::new() })
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            None
        }
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// What serde complains of.
struct Complaint<'a> {
    span: Range<usize>,
    message: &'a str,
    /// The table and the keys that lead to what was taken out for it.
    path: &'a [String],
    /// The key to write in place of an unknown one.
    meant: Option<&'a str>,
}

/// A problem of the tables, in words of TOML where serde uses its own.
fn rule(source: &Source, Complaint { span, message, path, meant }: Complaint) -> Problem {
    let problem = |text: &str| Problem::new(source.place(span.clone()), text);
    let table = path.first().map(String::as_str).unwrap_or_default();
    if let Some((key, known)) = unknown(message, "unknown field `") {
        if MAIN_FILE_ONLY.contains(&key) && known == ["target", "job", "store"] {
            return problem(&format!(
                "`{key}` belongs in the main file: an included one holds [[job]], [[store]] and [target.*] only"
            ));
        }
        let found = problem(&format!("unknown key `{key}`"));
        return match meant {
            Some(_) => found.help(suggestion(meant, &known, "")),
            None => found.help(elsewhere(key).unwrap_or_else(|| suggestion(None, &known, "the keys here are"))),
        };
    }
    if let Some((value, known)) = unknown(message, "unknown variant `") {
        let near = nearest(value, known.iter().copied());
        let near = near.map(|near| format!("\"{near}\""));
        return problem(&format!("unknown value \"{value}\"")).help(match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the values are \"{}\"", known.join("\", \"")),
        });
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        let help = match table {
            "job" => "every [[job]] has a `reference_store_id` and an `id`",
            "store" => "every [[store]] has a `reference_store_id`",
            _ => "[http] has `tls = { cert = \"…\", key = \"…\" }`, both of them PEM files",
        };
        return problem(&format!("the key {key} is missing")).help(help.to_owned());
    }
    if message == "wanted string or table" {
        return problem("this must be a string");
    }
    let types = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = types.and_then(|types| types.rsplit_once(", expected ")) else {
        let (rule, hint) = message.split_once('\n').unzip();
        return problem(rule.unwrap_or(message)).help(hint.map(str::to_owned));
    };
    let text = source.text.get(span.clone()).unwrap_or_default();
    let found = match found.split_once(' ').map_or(found, |(kind, _)| kind) {
        "sequence" => "an array",
        "map" if text.starts_with(|c: char| c.is_ascii_digit()) => "a date or time",
        "map" => "a table",
        "integer" => "an integer",
        "floating" => "a float",
        "boolean" => "a boolean",
        _ => "a string",
    };
    let expected = match expected {
        "a sequence" => "an array",
        "a map" => "a table",
        "f64" => "a number",
        "i64" => "a whole number",
        other => other,
    };
    problem(&format!("this must be {expected}, not {found}")).help(other_type(path, expected, found, text))
}

/// How to write what `text` was meant to be where it has the wrong type.
fn other_type(path: &[String], expected: &str, found: &str, text: &str) -> Option<String> {
    let table = path.first().map(String::as_str).unwrap_or_default();
    let unquoted = text.trim_matches(['"', '\'']);
    match (expected, found) {
        ("a string", "an integer" | "a float") => Some("write it in quotes".to_owned()),
        ("a boolean", "a string") if matches!(unquoted, "true" | "false") => {
            Some(format!("write {unquoted}, without quotes"))
        }
        ("a number" | "a whole number", "a string") => {
            let percent = unquoted.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok());
            let number = unquoted.parse::<f64>().ok().map(|_| format!("write {unquoted}, without quotes"));
            number.or_else(|| percent.map(|percent| format!("{percent} percent is {}", percent / 100.0)))
        }
        ("an array", "a string") if table == "include" => Some(format!("write [{text}]")),
        ("an array", "a table") if matches!(text, "[job]" | "[store]") => Some(format!("write [{text}]")),
        ("an array", "a table" | "a string") | ("a table", "a string") if matches!(table, "job" | "store") => {
            Some(format!("write [[{table}]], and its keys below"))
        }
        ("a table", _) if table == "target" && path.len() <= 2 => {
            Some("a target has a name: write [target.default], and its keys below".to_owned())
        }
        ("a table", "an array") if text.starts_with("[[") => Some(format!("write [{table}]")),
        _ => None,
    }
}

/// The word that serde does not know, and those that it does.
fn unknown<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (word, known) = message.strip_prefix(prefix)?.rsplit_once("`, expected ")?;
    Some((word, known.split('`').skip(1).step_by(2).collect()))
}

fn suggestion(near: Option<&str>, known: &[&str], all: &str) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{all} `{}`", known.join("`, `")),
    }
}
