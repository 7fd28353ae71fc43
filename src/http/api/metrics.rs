//! `/metrics`. Concurrent scrapes of the same format and encoding share one rendering.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use super::negotiation;
use crate::http::app_state::AppState;
use crate::http::response::internal_error;
use crate::metrics::{Format, Metrics};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Variant {
    format: Format,
    gzip: bool,
}

/// The current rendering of each variant. It is dropped with the last scrape that waits for it.
#[derive(Debug, Default)]
pub(in crate::http) struct CurrentRenderings(Mutex<BTreeMap<Variant, Weak<OnceCell<Bytes>>>>);

impl CurrentRenderings {
    /// Returns the cell of the current rendering, or a new cell if there is none or it has finished.
    fn join(&self, variant: Variant) -> Arc<OnceCell<Bytes>> {
        let mut renderings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = renderings.get(&variant).and_then(Weak::upgrade).filter(|cell| !cell.initialized());
        current.unwrap_or_else(|| {
            let cell = Arc::default();
            renderings.insert(variant, Arc::downgrade(&cell));
            cell
        })
    }
}

pub(in crate::http) async fn show(renderings: Arc<CurrentRenderings>, state: AppState, headers: HeaderMap) -> Response {
    let variant = Variant { format: negotiation::format(&headers), gzip: negotiation::gzip(&headers) };
    match renderings.join(variant).get_or_try_init(|| render(state.metrics, variant)).await {
        Ok(bytes) => {
            let content_type = (header::CONTENT_TYPE, variant.format.content_type());
            let encoding = variant.gzip.then_some((header::CONTENT_ENCODING, "gzip"));
            let vary = (header::VARY, "accept, accept-encoding");
            (AppendHeaders(encoding), [content_type, vary], bytes.clone()).into_response()
        }
        Err(error) => internal_error(&error),
    }
}

async fn render(metrics: Arc<Metrics>, Variant { format, gzip }: Variant) -> io::Result<Bytes> {
    let rendered = tokio::task::spawn_blocking(move || {
        let text = metrics.render(format);
        if !gzip {
            return Ok(text.into());
        }
        // The fastest level already compresses metrics to about 5 % of their size.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes())?;
        Ok(encoder.finish()?.into())
    });
    rendered.await?
}
