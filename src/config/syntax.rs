//! Text that is no TOML: the parser's own message, and advice from a look at the line.

use toml::de::{DeTable, Error};

use super::diagnostics::Source;
use super::reader::Reader;

const ENDS_WITH_VALUE: &str = "a line has one key and one value, and ends with the value";

/// Reports the errors of the parser, at most one a line and one for each other language that the file seems to be in.
pub(super) fn report(reader: &mut Reader<'_>, source: &Source, errors: &[Error]) {
    let mut places: Vec<(usize, &Error)> = errors.iter().map(|error| (start(source, error), error)).collect();
    places.sort_by_key(|(start, _)| *start);
    let mut last_line = None;
    let mut other_language = None;
    for (start, error) in places {
        let (line, before, rest) = line_at(source, start);
        let advice = advice(&source.text, before, rest);
        let is_language = advice.is_some_and(|advice| advice.starts_with("it looks like"));
        if last_line == Some(line) || (is_language && other_language == advice) {
            continue;
        }
        last_line = Some(line);
        other_language = other_language.or(advice.filter(|_| is_language));
        let end = error.span().map_or(start, |span| span.end.max(start));
        reader.report(start..end, error.message(), advice.map(str::to_owned));
    }
}

/// Whether the error is in a header, so that the table of the lines below is unknown.
pub(super) fn is_in_header(source: &Source, error: &Error) -> bool {
    let (line_start, before, rest) = line_at(source, start(source, error));
    let line = &source.text[line_start..line_start + before.len() + rest.len()];
    // A header that is right by itself is a duplicate.
    line.trim_start().starts_with('[') && DeTable::parse(line).is_err()
}

/// Where an error is. A string in three quotes without an end is found at the end of the file, but is wrong at its begin.
fn start(source: &Source, error: &Error) -> usize {
    let text = &source.text;
    let start = text.floor_char_boundary(error.span().unwrap_or_default().start.min(text.len()));
    let quotes = || text.rfind("\"\"\"").max(text.rfind("'''"));
    if start >= text.trim_end().len() { quotes().unwrap_or(start) } else { start }
}

/// The start of a line, and the line before and after an offset.
fn line_at(Source { text, .. }: &Source, offset: usize) -> (usize, &str, &str) {
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    (line_start, &text[line_start..offset], text[offset..].lines().next().unwrap_or_default())
}

fn advice(text: &str, before: &str, rest: &str) -> Option<&'static str> {
    let (line, value) = (before.trim_start(), before.trim_end().ends_with(['=', '[', ',']));
    let word = rest.split(['#', ',', ']', '}']).next().unwrap_or_default().trim().to_lowercase();
    Some(match rest.chars().next() {
        _ if line.starts_with("//") || rest.starts_with("//") || (line.is_empty() && rest.starts_with(';')) => {
            "a comment begins with `#`"
        }
        _ if text.trim_start().starts_with('{') => "it looks like JSON: TOML has `key = value` and [table]",
        _ if rest.starts_with(':') || before.trim_end().ends_with(':') => {
            "it looks like YAML: TOML has `key = value` and [table]"
        }
        _ if value => match word.as_str() {
            "" => "write a value",
            "yes" | "no" | "on" | "off" | "true" | "false" => "a boolean is `true` or `false`",
            "null" | "none" | "nil" => "leave the key out",
            _ if word.contains(['“', '”', '„', '‘', '’']) => "write straight quotes: \" or '",
            _ if word.starts_with('.') => "write 0 before the point",
            _ if word.starts_with('0') => "write an id in quotes",
            _ => "write it in quotes",
        },
        Some(',') if before.ends_with(|c: char| c.is_ascii_digit()) => "a number's fraction begins with `.`",
        Some(',' | ';') => ENDS_WITH_VALUE,
        _ if before.contains('\\') || rest.starts_with('\\') => {
            "a backslash begins an escape: write the text in single quotes"
        }
        _ => return None,
    })
}
