//! Connections of the API. Owns how many there are, how long they may idle and their end; not what they carry.
//!
//! Invariant: no client can hold more than one of a bounded number of connections, and none longer than a bounded time
//! without a complete request; after shutdown no new one is taken and those at work get an answer.

use super::REQUEST_SECONDS_MAX;
use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// What connections may take of the host.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at a time; more wait in the listener's backlog.
    pub(super) connections_max: usize,
    /// From the end of an answer, or the start of the connection, to the last byte of the next request's head. Also how
    /// long an idle connection stays.
    pub(super) head_time_max: Duration,
}

/// A customer's SDK keeps one or two connections and asks every few seconds.
const BOUNDS: Bounds = Bounds { connections_max: 512, head_time_max: Duration::from_secs(30) };

/// Bytes of one connection's buffer; hyper's default of 400 KiB times all connections would be 200 MiB.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Answers requests until `shutdown` is done, then takes no more and waits for those at work.
///
/// Own accept loop and not `axum::serve`, which bounds neither connections nor the time that a request's head may take.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve_within(BOUNDS, listener, router, shutdown).await;
}

/// As [`serve`], within other bounds.
pub(super) async fn serve_within(
    bounds: Bounds,
    mut listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let (ending, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            // Waits and tries again by itself when the process has no descriptor left.
            let (stream, _) = Listener::accept(&mut listener).await;
            (slot, stream)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (slot, stream) = accepted => {
                let connection = answer(stream, router.clone(), bounds.head_time_max, ending.subscribe());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
    drop(listener);
    ending.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(REQUEST_SECONDS_MAX), all_ended).await.is_err() {
        tracing::warn!("API connections were cut at shutdown: their clients did not read their answers");
    }
}

async fn answer(
    stream: TcpStream,
    router: Router,
    head_time_max: Duration,
    mut ending: watch::Receiver<bool>,
) {
    // An answer is one write; waiting to fill a segment would only delay it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time_max)
        .max_buf_size(BUFFER_BYTES_MAX);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(ending.wait_for(|ending| *ending).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an API connection ended early");
    }
}
