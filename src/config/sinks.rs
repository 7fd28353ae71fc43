//! The receivers of notifications, and the types of values in `[[notify]]`.
//!
//! A URL and the values of headers may contain tokens, so they are secrets. This module reads no files: see `notify::secrets`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, Uri};
use regex_lite::Regex;
use rustls::pki_types::ServerName;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use toml::de::DeValue;

use super::urls::has_valid_port;
use super::values::{
    Invalid, ValueType, duration, duration_candidates, duration_schema, no_candidates, parse_duration_between,
    parse_name, pattern_schema, read_text, read_word, regex, require, value_type, words_schema,
};
use crate::core::event::{EventFilter, EventType};
use crate::core::secret::Secret;

/// A receiver of notifications: a `[[notify]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// The value of the metric label `sink`.
    pub name: Arc<str>,
    pub url: SinkUrl,
    /// Standard Webhooks secrets (`whsec_…`), one a line. Each request has a signature by each of them.
    pub secret_file: Option<PathBuf>,
    pub bearer_token_file: Option<PathBuf>,
    /// By name. No two names are equal if case is ignored.
    pub headers: BTreeMap<String, Secret>,
    /// The keys `on` and `watches`.
    pub events: EventFilter,
    pub format: SinkFormat,
    /// The timeout of one request.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkUrl {
    Text(Secret),
    /// A file with the URL.
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkFormat {
    CloudEvents,
    /// The body of incoming webhooks of Slack, Mattermost and Teams.
    Slack,
}

impl SinkConfig {
    pub(super) const FORMAT_DEFAULT: SinkFormat = SinkFormat::CloudEvents;
    pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

    /// A hash of all keys of the sink, to detect a change. It does not include the content of the files of `url_file`, `secret_file` and
    /// `bearer_token_file`.
    #[must_use]
    pub fn hash(&self) -> String {
        let Self { url, headers, .. } = self;
        // `{self:?}` hides secrets, so they are added here.
        let url = if let SinkUrl::Text(url) = url { url.expose() } else { "" };
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name, value.expose())).collect();
        let hash = Sha256::digest(format!("{self:?} {url:?} {headers:?}"));
        BASE64_STANDARD.encode(hash)
    }

    /// The scheme, host and port of the URL, or the file that contains the URL.
    #[must_use]
    pub fn shown_url(&self) -> String {
        match &self.url {
            SinkUrl::Text(url) => parse_sink_url(url.expose()).map(|url| redacted_url(&url)).unwrap_or_default(),
            SinkUrl::File(file) => file.display().to_string(),
        }
    }

    /// The files that it names, each with its key.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let url = match &self.url {
            SinkUrl::Text(_) => None,
            SinkUrl::File(file) => Some(file),
        };
        let files = [
            ("url_file", url),
            ("secret_file", self.secret_file.as_ref()),
            ("bearer_token_file", self.bearer_token_file.as_ref()),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file?.as_path())))
    }
}

/// Checks the URL of a sink, from `url` or from the file of `url_file`. The error never quotes the URL.
///
/// # Errors
/// The rule that the URL violates.
pub fn parse_sink_url(text: &str) -> Result<Uri, String> {
    let rule = "must be a URL such as \"https://hooks.lab.example/refwatch\"";
    let url: Uri = text.parse().map_err(|_| rule.to_owned())?;
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    require(
        !authority.contains('@'),
        "must not contain a user name and password: write a token to the file of `bearer_token_file`",
    )?;
    require(!text.contains('#'), "must not contain a fragment, which begins with `#`")?;
    require(text.is_ascii(), "must be ASCII, with percent-encoding of other characters")?;
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    require(ServerName::try_from(address).is_ok() && has_valid_port(&url), rule)?;
    let is_loopback = address.parse::<IpAddr>().map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback());
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback => Ok(url),
        Some("http") => {
            Err("must begin with https://. Plain http is allowed only to localhost, 127.0.0.1 and [::1]".to_owned())
        }
        _ => Err(rule.to_owned()),
    }
}

/// The scheme, host and port of a URL. Its path and query may contain a token.
#[must_use]
pub fn redacted_url(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", url.authority().map(http::uri::Authority::as_str).unwrap_or_default())
}

/// refwatch sets these headers itself, and all that begin with `webhook-`.
const RESERVED_HEADERS: [&str; 6] =
    ["connection", "content-length", "content-type", "host", "transfer-encoding", "user-agent"];

// A sink's name is short, because it is a metric label and people type it in commands.
value_type!(SinkName, String, pattern_schema("^(?=.*\\S).{1,64}$"), |value| {
    read_text(value, |text| parse_name(text, 64), no_candidates)
});
value_type!(SinkUrlText, Secret, pattern_schema(URL_PATTERN), |value| {
    read_text(value, |text| parse_sink_url(text).map(|_| Secret::new(text)), no_candidates)
});
value_type!(HeaderNameText, String, pattern_schema("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"), |value| {
    read_text(value, header_name, no_candidates)
});
regex!(HeaderText, Secret, Secret::new, "^[ -~]{1,1024}$", "must be 1 to 1024 printable ASCII characters");
value_type!(EventTypeWord, EventType, words_schema(&words(&event_types())), |value| read_word(
    value,
    &words(&event_types())
));
value_type!(SinkFormatWord, SinkFormat, words_schema(&FORMATS), |value| read_word(value, &FORMATS));
duration!(SinkTimeout, Duration::from_secs(1), Duration::from_mins(1));

/// The rule of [`parse_sink_url`] for the schema. JSON Schema has no flag to ignore case.
const URL_PATTERN: &str = "^([Hh][Tt][Tt][Pp][Ss]://[^/?#@ ]+|[Hh][Tt][Tt][Pp]://([Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]|127\\.[0-9.]+|\\[[0:]*:0*1\\])\
                           (:[0-9]+)?)([/?][^# ]*)?$";
const FORMATS: [(&str, SinkFormat); 2] = [("cloudevents", SinkFormat::CloudEvents), ("slack", SinkFormat::Slack)];

/// The event types that `on` accepts: `vanished`, and the statuses that AWS documents.
fn event_types() -> Vec<EventType> {
    EventType::documented().collect()
}

fn words(event_types: &[EventType]) -> Vec<(&str, EventType)> {
    event_types.iter().map(|event| (event.as_str(), event.clone())).collect()
}

fn header_name(text: &str) -> Result<String, String> {
    let header = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| text.len() <= 128);
    let header = header.ok_or("must be 1 to 128 letters, digits, hyphens or other characters of a header's name")?;
    let name = header.as_str();
    if name == "authorization" {
        return Err("must not be `authorization`: write the token to the file of `bearer_token_file`".to_owned());
    }
    let is_reserved = name.starts_with("webhook-") || RESERVED_HEADERS.contains(&name);
    let rule = format!("must not be a header that refwatch sets: `webhook-*`, `{}`", RESERVED_HEADERS.join("`, `"));
    require(!is_reserved, &rule).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_or_http_to_this_machine() {
        for text in [
            "https://hooks.lab.example",
            "https://hooks.lab.example:8443/refwatch?token=a@b",
            "HTTPS://192.0.2.1/",
            "http://localhost:8080/",
            "http://LOCALHOST/",
            "http://127.8.9.10/x",
            "http://[::1]:80/x",
            "https://[2001:db8::1]/x",
        ] {
            assert!(parse_sink_url(text).is_ok(), "{text}");
            let schema = SinkUrlText::schema();
            let pattern = Regex::new(schema["pattern"].as_str().expect("a pattern")).expect("a valid pattern");
            assert!(pattern.is_match(text), "{text}");
        }
        for (text, rule) in [
            ("", "must be a URL"),
            ("hooks.lab.example", "must be a URL"),
            ("/refwatch", "must be a URL"),
            ("ftp://hooks.lab.example/", "must be a URL"),
            ("https://", "must be a URL"),
            ("https://hooks lab.example/", "must be a URL"),
            ("https://hooks.lab.example:99999/", "must be a URL"),
            ("https://hooks.lab.example:/", "must be a URL"),
            ("https://h$ooks.lab.example/", "must be a URL"),
            ("https://hooks.lab.example/ä", "must be ASCII"),
            ("https://ada:hunter2@hooks.lab.example/", "must not contain a user name"),
            ("https://ada@hooks.lab.example/", "must not contain a user name"),
            ("https://hooks.lab.example/#x", "must not contain a fragment"),
            ("http://hooks.lab.example/", "must begin with https://"),
            ("http://192.0.2.1/", "must begin with https://"),
            ("http://localhost.lab.example/", "must begin with https://"),
            ("http://[2001:db8::1]/", "must begin with https://"),
        ] {
            let error = parse_sink_url(text).expect_err(text);
            assert!(error.starts_with(rule), "{text}: {error}");
        }
    }

    #[test]
    fn a_redacted_url_has_neither_path_nor_query() {
        let url = parse_sink_url("https://hooks.lab.example:8443/services/T0/B0?token=secret").expect("a URL");
        assert_eq!(redacted_url(&url), "https://hooks.lab.example:8443");
    }
}
