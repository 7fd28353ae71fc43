//! Renders responses on blocking threads, because 10,000 watches take up to 1 s and must not delay polls.
//!
//! - A scrape has the same content for every client. Concurrent requests share one rendering and its bytes. It runs to its end even if the
//!   client that started it disconnects.
//! - A page or JSON depends on its request. At most [`RENDERINGS_MAX`] calls of `response` and one call of `large_response` render at a
//!   time.
//! - The response is 503 with `Retry-After` if more than [`UNSENT_BYTES_MAX`] bytes are unsent, or if waiting and rendering take longer
//!   than [`DEADLINE`], for example because no thread can be started.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::{IntoResponse as _, IntoResponseParts, Response};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::error;

use super::response::{busy, internal_error};
use crate::metrics::Format;

/// Renderings of usual size at a time. Each may open the database, which takes three file descriptors.
const RENDERINGS_MAX: usize = 8;

/// While the unsent bodies have more bytes than this, nothing is rendered. A scrape of 10,000 watches has 40 MB without compression.
const UNSENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Shorter than the 10 s that Prometheus and CLI subcommands wait.
const DEADLINE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScrapeVariant {
    pub format: Format,
    pub gzip: bool,
}

/// The requests that share a rendering of a scrape wait for this value in a `watch` channel: `None` until the rendering has ended. If the
/// rendering fails, the channel closes without another value.
type Outcome = Option<Result<Bytes, Busy>>;

/// Too many bytes wait to be sent.
#[derive(Clone, Copy, Debug)]
struct Busy;

/// Clones share the limits and the renderings.
#[derive(Clone, Debug)]
pub struct Renderer {
    permits: Arc<Semaphore>,
    large_permit: Arc<Semaphore>,
    /// The current rendering of each variant, as long as its thread runs.
    current: Arc<Mutex<BTreeMap<ScrapeVariant, Weak<watch::Sender<Outcome>>>>>,
    /// Scrapes are rendered one at a time: to limit memory, because a rendering needs more than its result, and because two renderings at
    /// the same time could end in another order than they read the metrics. A later response would then have older values.
    scrape_lock: Arc<Mutex<()>>,
    unsent: UnsentCount,
}

impl Default for Renderer {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(RENDERINGS_MAX)),
            large_permit: Arc::new(Semaphore::new(1)),
            current: Arc::default(),
            scrape_lock: Arc::default(),
            unsent: UnsentCount::default(),
        }
    }
}

impl Renderer {
    /// Calls `render`, or waits for the current rendering of the variant. `headers` are those of the response.
    pub(super) async fn scrape(
        &self,
        variant: ScrapeVariant,
        headers: impl IntoResponseParts,
        render: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
    ) -> Response {
        let mut outcome = self.subscribe_or_start(variant, render);
        match timeout(DEADLINE, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(done)) => match &*done {
                Some(Ok(bytes)) => (headers, bytes.clone()).into_response(),
                // `None` cannot occur: `wait_for` waits for `Some`.
                Some(Err(Busy)) | None => busy("requests"),
            },
            Ok(Err(sender_dropped)) => internal_error(&sender_dropped),
            Err(_) => busy("requests"),
        }
    }

    fn subscribe_or_start(
        &self,
        variant: ScrapeVariant,
        render: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
    ) -> watch::Receiver<Outcome> {
        let mut renderings = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let current = renderings.get(&variant).and_then(Weak::upgrade);
        // Only an unfinished rendering is shared. `upgrade` may also return a finished one, because its thread drops the sender a moment
        // after it has released `scrape_lock`. Then another variant may have newer metrics, and a client of both would see values go back.
        if let Some(current) = current.filter(|current| current.borrow().is_none()) {
            return current.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        renderings.insert(variant, Arc::downgrade(&sender));
        let (lock, unsent) = (Arc::clone(&self.scrape_lock), self.unsent.clone());
        drop(spawn_blocking(move || {
            let _lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let rendered = if unsent.is_full() { Ok(Err(Busy)) } else { render().map(|bytes| Ok(unsent.track(bytes))) };
            match rendered {
                Ok(rendered) => drop(sender.send_replace(Some(rendered))),
                Err(error) => error!(event = "response_failed", %error, ?variant, "cannot render an HTTP response"),
            }
        }));
        receiver
    }

    /// For a response that grows with the number of watches or of entries in the configuration, so it may have tens of megabytes.
    pub(super) async fn large_response(&self, render: impl FnOnce() -> Response + Send + 'static) -> Response {
        self.with_permit(&self.large_permit, render).await
    }

    /// For a response of usual size.
    pub(super) async fn response(&self, render: impl FnOnce() -> Response + Send + 'static) -> Response {
        self.with_permit(&self.permits, render).await
    }

    async fn with_permit(
        &self,
        permits: &Arc<Semaphore>,
        render: impl FnOnce() -> Response + Send + 'static,
    ) -> Response {
        let rendered = async {
            // The semaphore is never closed, so there is no error.
            let permit = Arc::clone(permits).acquire_owned().await.ok();
            if self.unsent.is_full() {
                return Ok(busy("requests"));
            }
            let render = move || {
                let response = render();
                drop(permit);
                response
            };
            spawn_blocking(render).await
        };
        let (head, body) = match timeout(DEADLINE, rendered).await {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(error)) => return internal_error(&error),
            Err(_) => return busy("requests"),
        };
        match to_bytes(body, usize::MAX).await {
            Ok(bytes) => Response::from_parts(head, Body::from(self.unsent.track(bytes))),
            Err(error) => internal_error(&error),
        }
    }
}

/// Counts the bytes of rendered bodies until they are sent or their connections have ended. Clones share the count.
#[derive(Clone, Debug, Default)]
struct UnsentCount(Arc<AtomicUsize>);

/// Bytes that are counted as unsent. hyper drops them after the last write.
struct CountedBytes {
    bytes: Bytes,
    count: Arc<AtomicUsize>,
}

impl UnsentCount {
    fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) > UNSENT_BYTES_MAX
    }

    /// Counts the bytes until the returned `Bytes` are dropped.
    fn track(&self, bytes: Bytes) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(CountedBytes { bytes, count: Arc::clone(&self.0) })
    }
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
