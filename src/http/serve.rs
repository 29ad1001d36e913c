//! Connections of the API. Owns how many there are, how long they may idle and their end; not what they carry.
//!
//! Invariant: no client can hold more than one of a bounded number of connections, and none longer than a bounded time
//! without a complete request; after shutdown no new one is taken and those at work get an answer.

use axum::serve::Listener;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Where a request comes from; every request carries it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What connections may take of the host.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Connections at a time; more wait in the listener's backlog.
    pub connections_max: usize,
    /// From the end of an answer, or the start of the connection, to the last byte of the next request's head. Also how
    /// long an idle connection stays.
    pub head_time_max: Duration,
    /// For the requests at work at shutdown.
    pub request_time_max: Duration,
}

impl Bounds {
    /// With the usual time for a request's head.
    #[must_use]
    pub fn new(connections_max: usize, request_time_max: Duration) -> Self {
        Self { connections_max, head_time_max: HEAD_TIME_MAX, request_time_max }
    }
}

/// A customer's SDK keeps one or two connections and asks every few seconds.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// A TLS handshake is two round trips.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of one connection's buffer; hyper's default of 400 KiB times all connections would be 200 MiB.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Answers requests, over TLS if `tls` is given, until `shutdown` is done, then takes no more and waits for those at work.
///
/// Own accept loop and not `axum::serve`, which bounds neither connections nor the time that a request's head may take.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    bounds: Bounds,
    tls: Option<TlsAcceptor>,
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
            let (stream, peer) = Listener::accept(&mut listener).await;
            (slot, stream, peer)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (slot, stream, peer) = accepted => {
                let router = router.clone().layer(Extension(Peer(peer.ip())));
                let connection = connection(stream, tls.clone(), router, bounds.head_time_max, ending.subscribe());
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
    if tokio::time::timeout(bounds.request_time_max, all_ended).await.is_err() {
        tracing::warn!("API connections were cut at shutdown: their clients did not read their answers");
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    head_time_max: Duration,
    ending: watch::Receiver<bool>,
) {
    // An answer is one write; waiting to fill a segment would only delay it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let Some(tls) = tls else { return answer(stream, router, head_time_max, ending).await };
    match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => answer(stream, router, head_time_max, ending).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    head_time_max: Duration,
    mut ending: watch::Receiver<bool>,
) {
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
