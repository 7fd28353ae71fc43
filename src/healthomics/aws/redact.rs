//! Removes credentials from quoted text. AWS's error about a wrong signature quotes the signed request with its session token, and
//! a pre-signed URL contains its signature.

/// Names whose value is a credential or a signature, in lower case.
const NAMES: [&str; 8] = [
    "signature",
    "credential",
    "security-token",
    "securitytoken",
    "sessiontoken",
    "secretaccesskey",
    "accesskeyid",
    "password",
];

const REDACTED: &str = "[redacted]";

/// `text` without the values behind [`NAMES`]: in a query, a header, JSON or XML.
pub(super) fn redacted(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut shown = String::with_capacity(text.len());
    let mut rest = 0;
    let end_of = |from: usize, is_end: fn(char) -> bool| text[from..].find(is_end).map_or(text.len(), |at| from + at);
    let name_end = |from: usize| {
        let ends = NAMES.iter().filter_map(|name| lower[from..].find(name).map(|at| from + at + name.len()));
        ends.min()
    };
    while let Some(name) = name_end(rest) {
        let value = end_of(name, |c| !matches!(c, '"' | '\'' | ' ' | '=' | ':' | '>'));
        shown.push_str(&text[rest..value]);
        rest = value;
        if text[name..value].contains(['=', ':', '>']) {
            rest = end_of(value, |c| c.is_whitespace() || matches!(c, '&' | ',' | ';' | '"' | '\'' | '<'));
            shown.push_str(REDACTED);
        }
    }
    shown.push_str(&text[rest..]);
    shown
}
