//! Bodies that do not come at once, or not whole.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::OffScript;
use crate::clock::Clock;

/// The pace of a slow body.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// Before the connection is closed: long enough for what was sent before to arrive as an answer begun.
const CUT_OFF_PAUSE: Duration = Duration::from_millis(50);

/// A body that does not come at once.
pub(super) struct Trickle {
    rest: Bytes,
    /// Bytes in one piece.
    piece: usize,
    /// Before each piece but the first, and before the end.
    pause: Duration,
    /// How many bytes never come: where there are any, the body ends in an error.
    withheld: usize,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    clock: Clock,
}

impl Trickle {
    pub(super) fn slow(body: Bytes, clock: Clock) -> Self {
        Self { rest: body, piece: 1, pause: SLOW_PAUSE, withheld: 0, waiting: None, clock }
    }

    pub(super) fn cut_off(body: Bytes, clock: Clock) -> Self {
        let piece = body.len() / 2;
        Self { withheld: body.len() - piece, rest: body, piece, pause: CUT_OFF_PAUSE, waiting: None, clock }
    }
}

impl HttpBody for Trickle {
    type Data = Bytes;
    type Error = OffScript;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OffScript>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(context));
        }
        let (clock, pause) = (self.clock, self.pause);
        self.waiting = Some(Box::pin(clock.sleep(pause)));
        let piece = self.piece.min(self.rest.len() - self.withheld);
        Poll::Ready(match piece {
            0 if self.withheld > 0 => Some(Err(OffScript::Reset)),
            0 => None,
            _ => Some(Ok(Frame::data(self.rest.split_to(piece)))),
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
