//! Redacts credentials in quoted text. AWS's error for a wrong signature quotes the signed request with its session token. A
//! pre-signed URL contains its signature.

use std::sync::LazyLock;

use regex_lite::Regex;

/// Matches a credential or a signature in a query, a header, JSON or XML. The first group is its name and the separator.
static CREDENTIAL: LazyLock<Regex> = LazyLock::new(|| {
    let names = "signature|credential|security-?token|sessiontoken|secretaccesskey|accesskeyid|password";
    Regex::new(&format!(r#"(?i)((?:{names})["' ]*[=:>]["' =:>]*)[^\s&,;"'<]*"#))
        .unwrap_or_else(|_| unreachable!("a valid pattern"))
});

/// Replaces the value of each match of [`CREDENTIAL`] with `[redacted]`.
pub(super) fn redacted(text: &str) -> String {
    CREDENTIAL.replace_all(text, "${1}[redacted]").into_owned()
}
