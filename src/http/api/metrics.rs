//! `/metrics`. Scrapes that come while one is rendered share it, so a crowd of them costs what one costs.

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

/// The bytes of a scrape, or why there are none.
type Scrape = Result<Bytes, Arc<dyn std::error::Error + Send + Sync>>;

/// How a scrape is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    format: Format,
    gzip: bool,
}

/// The rendering under way in each form, for as long as a scrape waits for it.
#[derive(Debug, Default)]
pub(in crate::http) struct UnderWay(Mutex<Vec<(Form, Weak<OnceCell<Scrape>>)>>);

impl UnderWay {
    /// The rendering to wait for: one that has ended is an old picture.
    fn join(&self, form: Form) -> Arc<OnceCell<Scrape>> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |scrape: &Weak<OnceCell<Scrape>>| scrape.upgrade().filter(|scrape| !scrape.initialized());
        under_way.retain(|(_, scrape)| running(scrape).is_some());
        let same = under_way.iter().find(|(other, _)| *other == form);
        same.and_then(|(_, scrape)| running(scrape)).unwrap_or_else(|| {
            let scrape = Arc::default();
            under_way.push((form, Arc::downgrade(&scrape)));
            scrape
        })
    }
}

pub(in crate::http) async fn show(under_way: Arc<UnderWay>, state: AppState, headers: HeaderMap) -> Response {
    let form = Form { format: negotiation::format(&headers), gzip: negotiation::gzip(&headers) };
    match under_way.join(form).get_or_init(|| render(state.metrics, form)).await {
        Ok(bytes) => {
            let described =
                [(header::CONTENT_TYPE, form.format.content_type()), (header::VARY, "accept, accept-encoding")];
            let encoded = form.gzip.then_some((header::CONTENT_ENCODING, "gzip"));
            (AppendHeaders(encoded), described, bytes.clone()).into_response()
        }
        Err(fault) => internal_error(fault.as_ref()),
    }
}

async fn render(metrics: Arc<Metrics>, form: Form) -> Scrape {
    let rendered = tokio::task::spawn_blocking(move || {
        let text = metrics.render(form.format)?;
        Ok::<Bytes, prometheus::Error>(if form.gzip { gzip(&text)?.into() } else { text.into() })
    });
    match rendered.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(fault)) => Err(Arc::new(fault)),
        Err(fault) => Err(Arc::new(fault)),
    }
}

/// Fast rather than small: metrics repeat themselves so much that the first level leaves a twentieth of them.
fn gzip(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
