//! `/metrics`. Scrapes that come while one is rendered share it, so a crowd of them costs what one costs.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::OnceCell;

use super::{AppState, broken};
use crate::metrics::{CONTENT_TYPE, Metrics};

/// The text of a scrape, or why there is none.
type Scrape = Result<Bytes, Arc<dyn std::error::Error + Send + Sync>>;

/// The rendering under way, for as long as a scrape waits for it.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Weak<OnceCell<Scrape>>>);

impl UnderWay {
    /// The rendering to wait for: one that has ended is an old picture.
    fn join(&self) -> Arc<OnceCell<Scrape>> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.upgrade().filter(|scrape| !scrape.initialized()).unwrap_or_else(|| {
            let scrape = Arc::default();
            *under_way = Arc::downgrade(&scrape);
            scrape
        })
    }
}

pub(super) async fn show(under_way: Arc<UnderWay>, state: AppState) -> Response {
    match under_way.join().get_or_init(|| render(state.metrics)).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text.clone()).into_response(),
        Err(fault) => broken(fault.as_ref()),
    }
}

async fn render(metrics: Arc<Metrics>) -> Scrape {
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(Ok(text)) => Ok(text.into()),
        Ok(Err(fault)) => Err(Arc::new(fault)),
        Err(fault) => Err(Arc::new(fault)),
    }
}
