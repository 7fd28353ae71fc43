//! Redacts credentials in quoted text. AWS's error for a wrong signature quotes the signed request with its session token. A
//! pre-signed URL contains its signature. The URL of a proxy or an endpoint may contain a user and a password.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

/// Matches the characters between a name and its value, also in JSON that is quoted in JSON.
const SEPARATOR: &str = r#"["'\\ ]*[=:>][ =:>\\]*"#;

/// The part of a pattern that matches a value: quoted (up to, but without, the closing mark) or unquoted. Each of [`CREDENTIAL`] and
/// [`ASSIGNMENT`] has exactly one group before it, which contains all that precedes the value. So the groups here are number 2 (opening
/// `"`) and 3 (opening `'`).
const VALUE: &str = r#"(?:(")[^"]*|(')[^']*|[^\s&,;"'<]*)"#;

/// Replaces a match of a pattern that ends with [`VALUE`]: keeps groups 1 to 3 and hides the value.
const REPLACEMENT: &str = "${1}${2}${3}[redacted]";

/// Matches a credential or a signature in a query, a header, JSON or XML. The first group is its name and the separator.
static CREDENTIAL: LazyLock<Regex> = LazyLock::new(|| {
    let names =
        "signature|credential|(?:security|session)[_-]?token|secret[_-]?access[_-]?key|access[_-]?key[_-]?id|password";
    regex(&format!("(?i)((?:{names}){SEPARATOR}){VALUE}"))
});

/// Matches the user and password of a URL. The first group is its scheme.
static USER_INFO: LazyLock<Regex> = LazyLock::new(|| regex(r#"(?i)([a-z][a-z0-9+.-]*://)[^/?#"'<>\s]*@"#));

/// Replaces the value of each match of [`CREDENTIAL`] and of [`USER_INFO`] with `[redacted]`.
pub(super) fn redacted(text: &str) -> String {
    let text = USER_INFO.replace_all(text, "${1}[redacted]@");
    CREDENTIAL.replace_all(&text, REPLACEMENT).into_owned()
}

/// Matches an assignment to a name that may be a secret's. The first group is the name, the separator and the scheme
/// of an `Authorization` header.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    let names = "secret|token|passw|passphrase|pwd|credential|signature|key|auth";
    regex(&format!(r"(?i)((?:{names})[\w-]*{SEPARATOR}(?:bearer |basic )?){VALUE}"))
});

/// Matches text that may be a key or a token.
static TOKEN: LazyLock<Regex> = LazyLock::new(|| regex("[A-Za-z0-9+/_-]{32,}=*"));

/// Redacts the output of a program, whose form is unknown. Harmless text may be redacted too. A match of [`TOKEN`] that looks like a path
/// (starts with `/`, no capital letters) is kept. [`TOKEN`] matches no dot, so the text after a dot in a path is a match of its own: it
/// does not start with `/`, and is redacted.
pub(super) fn redacted_output(text: &str) -> String {
    let text = redacted(text);
    let text = ASSIGNMENT.replace_all(&text, REPLACEMENT);
    let is_path = |text: &str| text.starts_with('/') && !text.contains(|c: char| c.is_ascii_uppercase());
    let hide_token =
        |found: &Captures<'_>| if is_path(&found[0]) { found[0].to_owned() } else { "[redacted]".to_owned() };
    TOKEN.replace_all(&text, hide_token).into_owned()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|_| unreachable!("a valid pattern"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_secrets_in_the_output_of_a_program_are_redacted() {
        for (text, shown) in [
            ("export AWS_SECRET_ACCESS_KEY=abc; done", "export AWS_SECRET_ACCESS_KEY=[redacted]; done"),
            ("AWS_SESSION_TOKEN: 'abc'", "AWS_SESSION_TOKEN: '[redacted]'"),
            (r#"{"client_secret": "abc", "code": 3}"#, r#"{"client_secret": "[redacted]", "code": 3}"#),
            ("Authorization: Bearer abc", "Authorization: Bearer [redacted]"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY is wrong", "[redacted] is wrong"),
            // Redacted twice: `secret…=` looks like an assignment without a value, and the whole text like a token.
            ("A1B2secretC3D4E5F6G7H8I9J0K1L2M3N4O5P6==", "[redacted][redacted]"),
            ("/usr/lib/python3/dist-packages/vault: no role", "/usr/lib/python3/dist-packages/vault: no role"),
        ] {
            assert_eq!(redacted_output(text), shown);
        }
    }

    #[test]
    fn values_of_credentials_and_users_of_urls_are_redacted() {
        for (text, expected) in [
            ("AWS_SECRET_ACCESS_KEY=abc/+def rest", "AWS_SECRET_ACCESS_KEY=[redacted] rest"),
            ("\"SecretAccessKey\": \"abc\", \"a\": 1", "\"SecretAccessKey\": \"[redacted]\", \"a\": 1"),
            ("aws_session_token = abc", "aws_session_token = [redacted]"),
            ("password=\"hunter, 2\" rest", "password=\"[redacted]\" rest"),
            // The backslash before the closing mark counts as value.
            (r#"{\"SessionToken\":\"abc\"}"#, r#"{\"SessionToken\":\"[redacted]"}"#),
            ("X-Amz-Security-Token:abc&b", "X-Amz-Security-Token:[redacted]&b"),
            ("to HTTPS://ada:p@ss@b.example:1/x@y", "to HTTPS://[redacted]@b.example:1/x@y"),
            ("postgres+tls://ada@[::1]/", "postgres+tls://[redacted]@[::1]/"),
            ("s3://bucket/a@b and ada@b.example", "s3://bucket/a@b and ada@b.example"),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }
}
