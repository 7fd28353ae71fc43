//! From the text of one file to its tables, with every problem on the way.
//!
//! serde stops at the first error. So each one is noted, the entry that it is about is taken out of the parsed tree, and the
//! rest is read again, until nothing is left to complain of. That way plain serde types say what may be written, and no second
//! description of the file can contradict them.

use std::collections::BTreeSet;
use std::iter;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::file::MAIN_FILE_ONLY;
use super::problem::{Problem, nearest};
use super::source::Source;

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
    let mut problems: Vec<Problem> = errors.iter().take(PROBLEMS_MAX).map(|error| syntax(source, error)).collect();
    // Without a header nobody knows what the lines below it are about.
    if errors.iter().any(|error| breaks_header(source, error)) {
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
        let problem = rule(source, span.clone(), error.message(), meant);
        let follows = match missing {
            Some(key) => !is_toml || taken.contains(&(span.start, key.to_owned())),
            None => broken_lines.contains(&problem.line()),
        };
        // A value that is wrong as a whole goes piece by piece, and each time for the same reason.
        if !follows && !problems.contains(&problem) {
            problems.push(problem);
        }
        let Some(Removed { at, key, .. }) = removed.filter(|_| problems.len() < PROBLEMS_MAX) else { break };
        taken.extend(iter::once(key).chain(meant.map(str::to_owned)).map(|key| (at, key)));
    }
    Parsed { file: T::default(), problems, is_toml }
}

/// What was taken out of a table or an array.
struct Removed {
    /// The place of the table or array.
    at: usize,
    key: String,
    /// The keys that the table still has.
    beside: BTreeSet<String>,
}

/// Takes the smallest entry that `span` lies in out of a table, whose own place is `at`: a key with its value, or an element of
/// an array.
fn take_from_table(table: &mut DeTable<'_>, at: usize, span: &Range<usize>) -> Option<Removed> {
    if let Some(taken) = table.iter_mut().find_map(|(_, value)| take_from_value(value, span)) {
        return Some(taken);
    }
    let lies_in = |key: &Spanned<_>, value: &Spanned<_>| contains(&key.span(), span) || contains(&value.span(), span);
    let key = table.iter().find(|(key, value)| lies_in(key, value))?.0.get_ref().clone();
    table.remove(&*key);
    let beside = table.keys().map(|key| key.get_ref().to_string()).collect();
    Some(Removed { at, key: key.into_owned(), beside })
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
            Some(Removed { at, key: index.to_string(), beside: BTreeSet::new() })
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            None
        }
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn breaks_header(source: &Source, error: &toml::de::Error) -> bool {
    let start = source.text.floor_char_boundary(error.span().unwrap_or_default().start);
    let line = source.text[..start].rsplit('\n').next().unwrap_or_default();
    line.trim_start().starts_with('[') && error.message() != "duplicate key"
}

/// A problem of TOML itself, in the words of the parser.
fn syntax(source: &Source, error: &toml::de::Error) -> Problem {
    let message = error.message();
    let help = match message {
        "duplicate key" => Some("a key stands once in its table, and a table once in the file"),
        _ => None,
    };
    // The parser also expects a string in quotes of the other kind, which says no more.
    let message = message.strip_suffix(", expected literal string").unwrap_or(message);
    Problem::new(source.place(error.span().unwrap_or_default()), message).help(help.map(str::to_owned))
}

/// A problem of the tables, in words of TOML where serde uses its own. `meant` is the key to write in place of an unknown one.
fn rule(source: &Source, span: Range<usize>, message: &str, meant: Option<&str>) -> Problem {
    let problem = |text: &str| Problem::new(source.place(span.clone()), text);
    if let Some((key, known)) = unknown(message, "unknown field `") {
        if MAIN_FILE_ONLY.contains(&key) && known == ["target", "job", "store"] {
            return problem(&format!(
                "`{key}` belongs in the main file: an included one holds [[job]], [[store]] and [target.*] only"
            ));
        }
        return problem(&format!("unknown key `{key}`")).help(suggestion(meant, &known, "the keys here are"));
    }
    if let Some((value, known)) = unknown(message, "unknown variant `") {
        let near = nearest(value, known.iter().copied());
        return problem(&format!("unknown value \"{value}\"")).help(suggestion(near, &known, "the values are"));
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        let help = "every [[job]] has a `reference_store_id` and an `id`, every [[store]] a `reference_store_id`";
        return problem(&format!("the key {key} is missing")).help(help.to_owned());
    }
    if message == "wanted string or table" {
        return problem("this must be a string");
    }
    let types = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = types.and_then(|types| types.rsplit_once(", expected ")) else {
        return problem(message);
    };
    let found = match found.split_once(' ').map_or(found, |(kind, _)| kind) {
        "sequence" => "an array",
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
    let help = match (expected, found, source.text.get(span.clone())) {
        ("a string", "an integer", _) => Some("write it in quotes".to_owned()),
        ("an array", "a table", Some(header @ ("[job]" | "[store]"))) => Some(format!("write [{header}]")),
        _ => None,
    };
    problem(&format!("this must be {expected}, not {found}")).help(help)
}

/// The word that serde does not know, and those that it does.
fn unknown<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (word, known) = message.strip_prefix(prefix)?.rsplit_once("`, expected ")?;
    Some((word, known.split('`').skip(1).step_by(2).collect()))
}

/// Which key was likely meant by one that there is not: one that is like it, or else the only one that it is a part of, unless that
/// is `there`.
fn meant<'a>(key: &str, known: &[&'a str], there: impl Fn(&str) -> bool) -> Option<&'a str> {
    let has_part = |known: &str| format!("_{known}_").contains(&format!("_{key}_"));
    let has_part: Vec<&str> = known.iter().copied().filter(|known| has_part(known) && !there(known)).collect();
    let near = nearest(key, known.iter().copied());
    near.or_else(|| has_part.first().copied().filter(|_| has_part.len() == 1))
}

fn suggestion(near: Option<&str>, known: &[&str], all: &str) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{all} `{}`", known.join("`, `")),
    }
}
