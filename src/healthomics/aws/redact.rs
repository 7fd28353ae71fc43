//! Redacts credentials in quoted text. AWS's error for a wrong signature quotes the signed request with its session token. A
//! pre-signed URL contains its signature. The URL of a proxy or an endpoint may contain a user and a password.

use std::sync::LazyLock;

use regex_lite::Regex;

/// Matches a credential or a signature in a query, a header, JSON or XML. The first group is its name and the separator.
static CREDENTIAL: LazyLock<Regex> = LazyLock::new(|| {
    let names =
        "signature|credential|(?:security|session)[_-]?token|secret[_-]?access[_-]?key|access[_-]?key[_-]?id|password";
    Regex::new(&format!(r#"(?i)((?:{names})["' ]*[=:>]["' =:>]*)[^\s&,;"'<]*"#))
        .unwrap_or_else(|_| unreachable!("a valid pattern"))
});

/// Matches the user and password of a URL. The first group is its scheme.
static USER_INFO: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)([a-z][a-z0-9+.-]*://)[^/?#"'<>\s]*@"#).unwrap_or_else(|_| unreachable!("a valid pattern"))
});

/// Replaces the value of each match of [`CREDENTIAL`] and of [`USER_INFO`] with `[redacted]`.
pub(super) fn redacted(text: &str) -> String {
    let text = USER_INFO.replace_all(text, "${1}[redacted]@");
    CREDENTIAL.replace_all(&text, "${1}[redacted]").into_owned()
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn values_of_credentials_and_users_of_urls_are_redacted() {
        for (text, expected) in [
            ("AWS_SECRET_ACCESS_KEY=abc/+def rest", "AWS_SECRET_ACCESS_KEY=[redacted] rest"),
            ("\"SecretAccessKey\": \"abc\", \"a\": 1", "\"SecretAccessKey\": \"[redacted]\", \"a\": 1"),
            ("aws_session_token = abc", "aws_session_token = [redacted]"),
            ("X-Amz-Security-Token:abc&b", "X-Amz-Security-Token:[redacted]&b"),
            ("to HTTPS://ada:p@ss@b.example:1/x@y", "to HTTPS://[redacted]@b.example:1/x@y"),
            ("postgres+tls://ada@[::1]/", "postgres+tls://[redacted]@[::1]/"),
            ("s3://bucket/a@b and ada@b.example", "s3://bucket/a@b and ada@b.example"),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }
}
