//! `messages.txt` lists the messages of the program, so that a review shows each change of wording.
//!
//! A message is a string literal with at least two words in `src`, outside of tests and the simulator. `BLESS=1 cargo test
//! messages` rewrites the list.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const LIST: &str = include_str!("messages.txt");

/// First words of SQL, which is no message.
const SQL: [&str; 8] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WHERE ", "NOT EXISTS ", "PRAGMA ", "EXPLAIN "];

#[test]
fn the_list_of_messages_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut list = String::new();
    for file in super::module_deps::sources("src").iter().filter(|file| !file.starts_with(root.join("src/simulator"))) {
        let source = fs::read_to_string(file).expect("a source");
        let program = source.split("#[cfg(test)]").next().unwrap_or_default();
        let messages: Vec<String> = string_literals(program).into_iter().filter(|text| is_message(text)).collect();
        let is_test = file.ends_with("tests.rs") || file.iter().any(|part| part == "tests");
        if !is_test && !messages.is_empty() {
            let name = file.strip_prefix(root).unwrap_or(file).display();
            writeln!(list, "## {name}\n{}\n", messages.join("\n")).expect("a string");
        }
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(root.join("tests/it/messages.txt"), &list).expect("the list");
    } else {
        assert!(LIST == list, "the messages have changed: run BLESS=1 cargo test messages, and read the difference");
    }
}

fn is_message(text: &str) -> bool {
    let words = text.split(' ').filter(|word| word.chars().filter(char::is_ascii_lowercase).count() > 1);
    words.count() > 1 && !SQL.iter().any(|sql| text.trim_start().starts_with(sql))
}

/// The string literals of Rust code as they are written, each on one line.
fn string_literals(code: &str) -> Vec<String> {
    let mut literals = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (start, raw) = (&rest[at..], rest[..at].ends_with(['r', '#']));
        let length = if start.starts_with("//") {
            start.find('\n').unwrap_or(start.len())
        } else if let Some(text) = start.strip_prefix('"') {
            let hashes = if raw { rest[..at].len() - rest[..at].trim_end_matches('#').len() } else { 0 };
            let end = string_end(text, raw.then_some(hashes)) + 1;
            literals.push(one_line(&text[..end - 1]));
            end + 1
        } else if start.starts_with("'\"'") {
            3
        } else if start.starts_with("'\\") {
            4
        } else {
            1
        };
        rest = &start[length..];
    }
    literals
}

/// The offset of the closing quote. `raw` is the number of `#` of a raw string.
fn string_end(text: &str, raw: Option<usize>) -> usize {
    if let Some(hashes) = raw {
        return text.find(&format!("\"{}", "#".repeat(hashes))).expect("the end of a raw string");
    }
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.expect("the end of a string")
}

/// Removes line continuations.
fn one_line(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start()).replace('\n', "\\n")
}
