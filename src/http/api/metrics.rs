//! `/metrics`.

use std::io::{self, Write as _};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{AppendHeaders, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::negotiation;
use crate::http::app_state::AppState;
use crate::http::renderer::ScrapeVariant;
use crate::metrics::{Format, Metrics};

pub(in crate::http) async fn show(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let (format, gzip) = (negotiation::metrics_format(&headers), negotiation::accepts_gzip(&headers));
    let content_type = (header::CONTENT_TYPE, format.content_type());
    let encoding = gzip.then_some((header::CONTENT_ENCODING, "gzip"));
    let headers = (AppendHeaders(encoding), [content_type, (header::VARY, "accept, accept-encoding")]);
    let metrics = state.metrics;
    state.renderer.scrape(ScrapeVariant { format, gzip }, headers, move || render(&metrics, format, gzip)).await
}

fn render(metrics: &Metrics, format: Format, gzip: bool) -> io::Result<Bytes> {
    let text = metrics.render(format);
    if !gzip {
        return Ok(text.into());
    }
    // The fastest level already compresses metrics to about 5 % of their size.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?.into())
}
