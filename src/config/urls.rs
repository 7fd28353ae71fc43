//! The rules of URLs in the configuration, the environment and the arguments. `sinks` has those of a sink.

use http::Uri;
use serde_json::Value as Json;
use toml::de::DeValue;

use super::values::{Invalid, ValueType, no_candidates, parse, pattern_schema, read_text, require, value_type};

value_type!(EndpointUrl, String, pattern_schema("^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@ ]+(/[^?# ]*)?$"), |value| {
    read_text(value, parse_endpoint_url, no_candidates)
});
value_type!(ExternalUrl, Uri, EndpointUrl::schema(), |value| { read_text(value, parse_external_url, no_candidates) });

/// Checks the URL of an endpoint.
///
/// # Errors
/// The rule that the URL violates.
pub fn parse_endpoint_url(text: &str) -> Result<String, String> {
    let rule = "must be a URL such as \"http://127.0.0.1:4566\", without user name, password, query and fragment";
    http_url(text, rule).map(|_| text.to_owned())
}

/// Checks the URL at which people open the pages.
///
/// # Errors
/// The rule that the URL violates.
pub fn parse_external_url(text: &str) -> Result<Uri, String> {
    let rule =
        "must be a URL such as \"https://ops.lab.example/refwatch/\", without user name, password, query and fragment";
    http_url(text, rule)
}

fn http_url(text: &str, rule: &str) -> Result<Uri, String> {
    let uri: Uri = parse(text, rule)?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    require(is_http && has_host && has_valid_port(&uri) && !text.contains(['@', '?', '#']), rule).map(|()| uri)
}

/// Whether the URL has no port, or one that can exist: `Uri` also accepts an empty port, and one above 65535.
pub(super) fn has_valid_port(url: &Uri) -> bool {
    url.authority().is_some_and(|authority| authority.as_str() == authority.host() || authority.port_u16().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_port_is_rejected() {
        for (url, is_valid) in [
            ("http://127.0.0.1", true),
            ("http://[::1]:4566", true),
            ("http://127.0.0.1:", false),
            ("http://127.0.0.1:99999", false),
        ] {
            assert_eq!(parse_endpoint_url(url).is_ok(), is_valid, "{url}");
        }
    }
}
