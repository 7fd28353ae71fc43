//! Converts errors of the TOML parser to problems, with help for common mistakes.

use toml::de::Error;

use super::diagnostics::{Location, Problem, SourceText};

const OTHER_LANGUAGE: &str = "this looks like JSON or YAML, but TOML is written as `key = value` and [table]";

/// Returns at most one problem for each line. Stops at the first sign of another language, because further problems follow from it.
pub(super) fn problems(source: &SourceText, errors: &[Error]) -> Vec<Problem> {
    let text = source.text.as_str();
    let line_start = |offset: usize| text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let mut places: Vec<(usize, &Error)> = errors.iter().map(|error| (error_start(text, error), error)).collect();
    places.sort_by_key(|(start, _)| *start);
    places.dedup_by_key(|(start, _)| line_start(*start));
    let mut problems = Vec::new();
    for (start, error) in places {
        let before_in_line = &text[line_start(start)..start];
        let help = if Some(start) == unclosed_string_start(text) {
            Some("end the string with three quotes")
        } else {
            help_for(before_in_line, &text[start..])
        };
        let end = error.span().map_or(start, |span| span.end.max(start));
        problems.push(Problem::new(Location::new(source, start..end), error.message(), help.map(str::to_owned)));
        if help == Some(OTHER_LANGUAGE) {
            break;
        }
    }
    problems
}

/// Returns where an error begins. A string in three quotes that is not closed is reported at its quotes, not at the end of the text.
fn error_start(text: &str, error: &Error) -> usize {
    let start = text.floor_char_boundary(error.span().unwrap_or_default().start.min(text.len()));
    if start >= text.trim_end().len() { unclosed_string_start(text).unwrap_or(start) } else { start }
}

/// Returns the start of an unclosed string in three quotes, if there is one: the number of quotes is then odd.
fn unclosed_string_start(text: &str) -> Option<usize> {
    let has_odd_number = |quotes: &&str| text.matches(*quotes).count() % 2 == 1;
    ["\"\"\"", "'''"].into_iter().filter(has_odd_number).filter_map(|quotes| text.rfind(quotes)).max()
}

fn help_for(before_in_line: &str, from_error: &str) -> Option<&'static str> {
    if before_in_line.trim_start().starts_with("//") || from_error.starts_with("//") {
        Some("a comment begins with `#`")
    } else if from_error.starts_with([':', '{']) {
        Some(OTHER_LANGUAGE)
    } else if before_in_line.trim_end().ends_with('=') {
        Some("write the value in quotes, unless it is a number, `true` or `false`")
    } else {
        None
    }
}
