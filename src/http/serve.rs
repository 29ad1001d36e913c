//! Connections of the API. Owns how many there are, how long they may idle and their end; not what they carry.
//!
//! Invariant: no client can hold more than one of a bounded number of connections, and none longer than a bounded time
//! without a complete request; after shutdown no new one is taken and those at work get an answer.

use super::fault::{Answer, Fault, Watched, refuse};
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
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

/// The first byte of a TLS connection: the type of a handshake's record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Answers requests, over TLS if `tls` is given, until `shutdown` is done, then takes no more and waits for those at work.
///
/// What is no request is answered by `answer`.
///
/// Own accept loop and not `axum::serve`, which bounds neither connections nor the time that a request's head may take.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    bounds: Bounds,
    tls: Option<TlsAcceptor>,
    answer: Answer,
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
                let carries = Carries { router, answer, head_time_max: bounds.head_time_max, ending: ending.subscribe() };
                let connection = connection(stream, tls.clone(), carries);
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

/// What a connection needs to answer.
struct Carries {
    router: Router,
    answer: Answer,
    head_time_max: Duration,
    ending: watch::Receiver<bool>,
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, carries: Carries) {
    // An answer is one write; waiting to fill a segment would only delay it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let Some(tls) = tls else { return answer(stream, carries).await };
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] != TLS_HANDSHAKE => Err(stream),
            _ => Ok(tls.accept(stream).await),
        }
    };
    match tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake).await {
        Ok(Ok(Ok(stream))) => answer(stream, carries).await,
        Ok(Ok(Err(error))) => tracing::debug!(%error, "a TLS handshake failed"),
        Ok(Err(plain)) => {
            tracing::debug!("plain HTTP on a port of HTTPS");
            refuse(plain, (carries.answer)(Fault::PlainOnTls)).await;
        }
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, mut carries: Carries) {
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(carries.head_time_max)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Watched::new(stream)), TowerToHyperService::new(carries.router));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async { drop(carries.ending.wait_for(|ending| *ending).await) } => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(error) = &ended {
        tracing::debug!(%error, "an API connection ended early");
    }
    let (fault, stream) = connection.into_parts().io.into_inner().fault(ended.err().as_ref());
    if let Some(fault) = fault {
        refuse(stream, (carries.answer)(fault)).await;
    }
}
