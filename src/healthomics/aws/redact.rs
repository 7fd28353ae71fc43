//! Removes credentials from quoted text. AWS's error about a wrong signature quotes the signed request with its session token, and
//! a pre-signed URL contains its signature.

use std::sync::LazyLock;

use regex_lite::Regex;

/// A name whose value is a credential or a signature, in a query, a header, JSON or XML, and the value.
static CREDENTIAL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let names = "signature|credential|security-?token|sessiontoken|secretaccesskey|accesskeyid|password";
    Regex::new(&format!(r#"(?i)((?:{names})["' ]*[=:>]["' =:>]*)[^\s&,;"'<]*"#)).ok()
});

/// `text` without credentials.
pub(super) fn redacted(text: &str) -> String {
    CREDENTIAL
        .as_ref()
        .map_or_else(String::new, |credential| credential.replace_all(text, "${1}[redacted]").into_owned())
}
