//! Serves HTTP on a listener, for the simulated service and the simulated receiver of notifications.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::faults::ConnectionFault;
use crate::clock::Clock;

/// Further connections wait. The daemon opens at most 128 per operation.
const CONNECTIONS_MAX: usize = 1024;

/// The pause after a failed accept, such as without free file descriptors. It prevents a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest request body. A filter has about 100 bytes, a notification less than 16 KiB.
const REQUEST_BODY_MAX: usize = 64 << 10;

const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinSet<()>,
}

#[derive(Debug)]
pub(super) enum BodyError {
    Unreadable(String),
    Timeout,
}

impl Server {
    /// Serves with `respond`. If that returns a [`ConnectionFault`], the fault is injected into the connection.
    pub(super) fn start<R, F>(listener: TcpListener, clock: Clock, respond: R) -> io::Result<Self>
    where
        R: Fn(Request<Incoming>) -> F + Clone + Send + Unpin + 'static,
        F: Future<Output = Result<Response<Body>, ConnectionFault>> + Send + 'static,
    {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, stop.clone(), clock, respond));
        Ok(Self { address, stop, task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Aborts requests in flight. Returns once every connection is closed.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            report(ended);
        }
    }
}

async fn serve<R, F>(listener: TcpListener, stop: CancellationToken, clock: Clock, respond: R)
where
    R: Fn(Request<Incoming>) -> F + Clone + Send + Unpin + 'static,
    F: Future<Output = Result<Response<Body>, ConnectionFault>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, clock, respond.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator cannot accept a connection");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Serves one connection until either side closes it. Errors of the client are ignored.
async fn serve_connection<R, F>(stream: TcpStream, clock: Clock, respond: R)
where
    R: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Result<Response<Body>, ConnectionFault>>,
{
    let respond = service_fn(respond);
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), respond);
    let Err(error) = (&mut connection).await else { return };
    if let Some(fault) = error.source().and_then(<dyn Error>::downcast_ref::<ConnectionFault>) {
        let stream = connection.into_parts().io.into_inner();
        if let Err(error) = fault.inject(stream, clock).await {
            tracing::debug!(%error, "the client of the simulator has disconnected");
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the simulator failed");
    }
}

pub(super) async fn read_body(body: Incoming) -> Result<Bytes, BodyError> {
    match tokio::time::timeout(REQUEST_BODY_TIMEOUT, Limited::new(body, REQUEST_BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(BodyError::Unreadable(error.to_string())),
        Err(_elapsed) => Err(BodyError::Timeout),
    }
}
