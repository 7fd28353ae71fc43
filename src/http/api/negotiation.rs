//! Content negotiation of `/metrics` and of pages (RFC 9110, 12.5.1 and 12.5.3). Malformed elements of `Accept` are ignored.

use axum::http::header::{ACCEPT, ACCEPT_ENCODING};
use axum::http::{HeaderMap, HeaderName};
use mime::MimeIter;

use crate::metrics::Format;

/// OpenMetrics if `Accept` names it with at least the weight of `text/plain`. Ranges such as `*/*` are ignored.
pub(super) fn metrics_format(headers: &HeaderMap) -> Format {
    let openmetrics = weight(headers, "application/openmetrics-text", Some("1.0.0"));
    let text = weight(headers, "text/plain", Some("0.0.4"));
    if openmetrics > 0.0 && openmetrics >= text { Format::OpenMetrics } else { Format::Text }
}

/// Whether the client names HTML, as browsers do. Ranges such as `*/*` are ignored.
pub(in crate::http) fn accepts_html(headers: &HeaderMap) -> bool {
    weight(headers, "text/html", None) > 0.0
}

/// The highest weight (`q`) of a media type in `Accept`, from 0 (not accepted) to 1. An element with a version matches only if its
/// version equals `version`.
fn weight(headers: &HeaderMap, media_type: &str, version: Option<&str>) -> f32 {
    let accepted = values(headers, &ACCEPT).flat_map(MimeIter::new).filter_map(Result::ok);
    let named = accepted.filter(|mime| {
        mime.essence_str() == media_type
            && mime.get_param("version").is_none_or(|other| version.is_some_and(|version| other == version))
    });
    let weights = named.filter_map(|mime| mime.get_param("q").map_or(Some(1.0), |q| q.as_str().parse().ok()));
    weights.filter(|weight| (0.0..=1.0).contains(weight)).fold(0.0, f32::max)
}

/// Whether `Accept-Encoding` names gzip with a weight other than 0.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    values(headers, &ACCEPT_ENCODING).flat_map(|value| value.split(',')).any(|element| {
        let (coding, weight) = element.split_once(';').unwrap_or((element, "q=1"));
        let weight = weight.trim().to_ascii_lowercase();
        let is_excluded = weight.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0));
        coding.trim().eq_ignore_ascii_case("gzip") && !is_excluded
    })
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().expect("a header's value"))).collect()
    }

    #[test]
    fn openmetrics_is_sent_if_the_client_names_it_and_does_not_prefer_text() {
        // Prometheus 2.42, 3.5, and 3.5 with `scrape_protocols: [PrometheusText0.0.4, OpenMetricsText1.0.0]`.
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let text_first = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.4";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        let (text, open) = (Format::Text, Format::OpenMetrics);
        #[rustfmt::skip]
        let cases: &[(&[&str], Format)] = &[
            (&[], text),
            (&["*/*"], text),
            (&[browser], text),
            (&[prometheus_2], open),
            (&[prometheus_3], open),
            (&[text_first], text),
            (&["application/openmetrics-text"], open),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\" ; Q=0.001"], open),
            (&["text/plain;q=0.5", "application/openmetrics-text;q=0.5"], open),
            (&["text/plain;q=0.5", "application/openmetrics-text;q=0.4"], text),
            (&["*/*, text/*;q=0.6, text/plain;q=0.2, application/openmetrics-text;q=0.5"], open),
            (&["text/plain;version=1.0.0, application/openmetrics-text;q=0.5"], open),
            (&["application/openmetrics-text;version=0.0.1"], text),
            (&["application/openmetrics-text;version=2.0.0, text/plain;q=0.1"], text),
            (&["application/openmetrics-text;q=0, */*;q=0"], text),
            // Malformed elements are ignored. Without a known type the client gets text.
            (&["application/openmetrics-text;q=2, */*;q=0.1"], text),
            (&["application/openmetrics-text;q=NaN"], text),
            (&["application/openmetrics-text;q"], text),
            (&[",;,=,", "application/json"], text),
        ];
        for (accept, expected) in cases {
            assert_eq!(metrics_format(&headers(&ACCEPT, accept)), *expected, "{accept:?}");
        }
    }

    #[test]
    fn gzip_is_sent_if_the_client_names_it_and_does_not_exclude_it() {
        let cases: &[(&[&str], bool)] = &[
            (&[], false),
            (&[""], false),
            (&["gzip"], true),
            (&["br", "GZIP;q=0.1"], true),
            (&["*"], false),
            (&["deflate, br"], false),
            (&["gzip;q=0"], false),
            (&["gzip; Q=0"], false),
            (&["*, gzip;q=0"], false),
            (&["gzip, identity;q=0.5"], true),
        ];
        for (accept, expected) in cases {
            assert_eq!(accepts_gzip(&headers(&ACCEPT_ENCODING, accept)), *expected, "{accept:?}");
        }
    }
}
