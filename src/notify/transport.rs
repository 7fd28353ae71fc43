//! Sends one notification to a sink. The simulation tests have their own implementation.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::SinkConfig;

/// A request to a sink, without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The event's id, also in the header `webhook-id`.
    pub id: String,
    /// In seconds since 1970.
    pub timestamp: i64,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

/// The head of a response. Bodies are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkResponse {
    pub status: u16,
    pub retry_after: Option<Duration>,
}

/// One request, sent when the future is awaited. The error says why there is no response, and contains no secret.
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<SinkResponse, String>> + Send + 'a>>;

/// The connection to one sink.
pub trait Transport: Debug + Send + Sync {
    /// Sends one request, without a retry and without following a redirect.
    fn send(&self, notification: Notification) -> SendFuture<'_>;
}

pub trait TransportFactory: Debug + Send + Sync {
    fn build(&self, config: &SinkConfig) -> Arc<dyn Transport>;
}
