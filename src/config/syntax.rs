//! What is no TOML at all: the parser's words where they are good, ours where people make the mistake often.

use toml::de::Error;

use super::problem::Problem;
use super::source::Source;

/// What the parser says of a word that is no value, by what it took the first letter for.
const BARE_WORDS: [&str; 3] =
    ["string values must be quoted", "invalid float, expected `", "invalid boolean, expected `"];

/// What is said of a line in a language that the file as a whole looks like.
const NO_TOML: &str = "this is no TOML";

/// The problems of TOML itself, one for each line, since what follows on it follows from the first; and one for each other
/// language that the file looks like.
pub(super) fn problems(source: &Source, errors: &[Error]) -> Vec<Problem> {
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().unwrap_or_default().start);
    let mut problems: Vec<Problem> = Vec::new();
    for found in errors.into_iter().map(|error| problem(source, error)) {
        let told =
            |earlier: &Problem| earlier.line() == found.line() || (found.says(NO_TOML) && earlier.repeats(&found));
        if !problems.iter().any(told) {
            problems.push(found);
        }
    }
    problems
}

/// Whether nobody knows what the lines below the error are about: it breaks a header.
pub(super) fn breaks_header(source: &Source, error: &Error) -> bool {
    let (_, before, _) = place(source, error);
    before.trim_start().starts_with('[') && error.message() != "duplicate key"
}

/// The offset of an error, and its line before and from there on.
fn place<'a>(source: &'a Source, error: &Error) -> (usize, &'a str, &'a str) {
    let text = &source.text;
    let start = text.floor_char_boundary(error.span().unwrap_or_default().start.min(text.len()));
    let before = text[..start].rsplit('\n').next().unwrap_or_default();
    (start, before, text[start..].lines().next().unwrap_or_default())
}

fn problem(source: &Source, error: &Error) -> Problem {
    let (start, before, rest) = place(source, error);
    let span = error.span().unwrap_or(start..start);
    let problem = |message: &str, help: Option<&str>| {
        Problem::new(source.place(span.clone()), message).help(help.map(str::to_owned))
    };
    let line = before.trim_start();
    match error.message() {
        "duplicate key" => duplicate(source, start, problem),
        message if BARE_WORDS.into_iter().any(|word| message.starts_with(word)) => problem_of_word(rest, problem),
        message if message.starts_with("invalid multi-line ") => {
            let quotes = if message.starts_with("invalid multi-line literal") { "'''" } else { "\"\"\"" };
            let begin = source.text[..start].rfind(quotes).unwrap_or(start);
            Problem::new(
                source.place(begin..begin + quotes.len()),
                &format!("this string has no end: {quotes} is missing"),
            )
        }
        message if message.starts_with("invalid basic string") || message.starts_with("invalid literal string") => {
            let quote = if message.starts_with("invalid literal") { "'" } else { "\"" };
            match rest {
                "" => problem(&format!("this string has no end: {quote} is missing"), None),
                _ => problem("a string must not hold control characters", None),
            }
        }
        _ if line.is_empty() && rest.starts_with(';') || rest.starts_with("//") || line.starts_with("//") => {
            problem("a comment begins with `#`", None)
        }
        _ if source.text.trim_start().starts_with('{') => {
            problem(NO_TOML, Some("it looks like JSON: TOML writes `key = value`, and a table as [table]"))
        }
        message
            if rest.starts_with(':')
                || (message.starts_with("key with no value") && before.trim_end().ends_with(':')) =>
        {
            problem(NO_TOML, Some("it looks like YAML: TOML writes `key = value`, and a table as [table]"))
        }
        message if message.starts_with("unexpected key or value") => match rest.chars().next() {
            Some(',') if before.ends_with(|c: char| c.is_ascii_digit()) => {
                problem("there is more after the value", Some("a number's fraction begins with `.`"))
            }
            Some(',' | ';') => problem("there is more after the value", Some("a line ends with its value")),
            _ => problem("there is more after the value", Some("a line has one key and one value")),
        },
        "unexpected leading zero, expected nothing" => {
            problem("a number must not begin with 0", Some("write an id in quotes"))
        }
        message if message.starts_with("invalid mantissa") => {
            problem("a number must begin with a digit", Some("write 0 before the point"))
        }
        message if message.contains("escape") => problem(
            "this is no escape",
            Some("a backslash begins an escape: write `\\\\`, or the text in single quotes"),
        ),
        message if message.starts_with("unclosed table") => problem("this header has no end: ] is missing", None),
        message if message.starts_with("unclosed array table") => {
            problem("this header has no end: ]] is missing", None)
        }
        message if message.starts_with("extra `=`") => problem("one `=` is enough", None),
        // The parser also expects a string in quotes of the other kind, which says no more.
        message => problem(message.strip_suffix(", expected literal string").unwrap_or(message), None),
    }
}

/// A value that is a bare word, or none.
fn problem_of_word(rest: &str, problem: impl Fn(&str, Option<&str>) -> Problem) -> Problem {
    let word = rest.split(['#', ',', ']', '}']).next().unwrap_or_default().trim();
    match word.to_lowercase().as_str() {
        "" => problem("the value is missing", None),
        "yes" | "no" | "on" | "off" | "true" | "false" => problem("a boolean is `true` or `false`", None),
        "null" | "none" | "nil" => problem("TOML has no null", Some("leave the key out")),
        _ if word.contains(['“', '”', '„', '‘', '’']) => {
            problem("a string must be quoted", Some("write straight quotes: \" or '"))
        }
        _ => problem("a string must be quoted", Some("write it in quotes")),
    }
}

/// A key or a table that stands twice, with both places where the first can be found.
fn duplicate(source: &Source, start: usize, problem: impl Fn(&str, Option<&str>) -> Problem) -> Problem {
    let text = &source.text;
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let is_header = line.trim_start().starts_with('[');
    let name = |line: &str| {
        let key = if is_header { line.split('#').next() } else { line.split('=').next() };
        key.unwrap_or_default().trim().to_owned()
    };
    let mut offset = 0;
    let mut first = None;
    for earlier in text[..line_start].split_inclusive('\n') {
        if !is_header && earlier.trim_start().starts_with('[') {
            first = None;
        }
        if first.is_none() && name(earlier) == name(line) {
            let begin = offset + earlier.len() - earlier.trim_start().len();
            first = Some(begin..begin + name(line).len());
        }
        offset += earlier.len();
    }
    let found = if is_header {
        problem("this table is in the file twice", Some("put its keys together"))
    } else {
        problem("this key is in its table twice", None)
    };
    match first {
        Some(span) => found.related("first written here", source.place(span)),
        None => found,
    }
}
