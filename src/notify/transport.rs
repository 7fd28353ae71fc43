//! Sends one notification to a sink. The simulation tests have their own implementation.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;

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

pub trait Transport: Debug + Send + Sync {
    /// Sends one request, without a retry and without following a redirect. The error says why there is no response, and contains no
    /// secret. The caller sets the timeout.
    fn send(&self, sink: &SinkConfig, notification: Notification) -> BoxFuture<'static, Result<SinkResponse, String>>;
}
