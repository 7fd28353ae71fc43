//! Response bodies that arrive slowly or incompletely.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::ConnectionFault;
use crate::clock::Clock;

/// Between two bytes of a slow body.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// Before the connection is reset, so that the client receives the first half of the body.
const CUT_OFF_PAUSE: Duration = Duration::from_millis(50);

pub(in crate::simulator) struct Trickle {
    rest: Bytes,
    /// In bytes.
    chunk_length: usize,
    /// Before the second chunk, each later chunk, and the end.
    pause: Duration,
    /// The number of bytes that are never sent. If it is not zero, the body ends with an error.
    withheld: usize,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    clock: Clock,
}

impl Trickle {
    pub(in crate::simulator) fn slow(body: Bytes, clock: Clock) -> Self {
        Self { rest: body, chunk_length: 1, pause: SLOW_PAUSE, withheld: 0, waiting: None, clock }
    }

    pub(super) fn cut_off(body: Bytes, clock: Clock) -> Self {
        let chunk_length = body.len() / 2;
        Self {
            withheld: body.len() - chunk_length,
            rest: body,
            chunk_length,
            pause: CUT_OFF_PAUSE,
            waiting: None,
            clock,
        }
    }
}

impl HttpBody for Trickle {
    type Data = Bytes;
    type Error = ConnectionFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionFault>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(context));
        }
        let (clock, pause) = (self.clock, self.pause);
        self.waiting = Some(Box::pin(clock.sleep(pause)));
        let length = self.chunk_length.min(self.rest.len() - self.withheld);
        Poll::Ready(match length {
            0 if self.withheld > 0 => Some(Err(ConnectionFault::Reset)),
            0 => None,
            _ => Some(Ok(Frame::data(self.rest.split_to(length)))),
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
