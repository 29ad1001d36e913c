//! Connections of the API. Owns how they are taken, how long each may last and their end; not what they carry.
//!
//! Invariant: no client can hold more than a bounded number of connections, none longer than a bounded time without a complete
//! request, without reading its answers, or without a right credential; after shutdown no new one is taken and those at work get
//! an answer.

use super::accept::Acceptor;
use super::counts::Cut;
use super::fault::{Answer, Fault, Watched, refuse};
use super::pace::Paced;
use super::peer::{Peer, Standing};
use super::places::{NoPlace, Place, Places};
use super::proxy;
use super::tls::Tls;
use crate::seldom::Seldom;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONNECTION, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use socket2::SockRef;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// What connections may take of the host.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at a time.
    pub connections_max: usize,
    /// Of one peer.
    pub connections_per_peer_max: usize,
    /// Of one account.
    pub connections_per_account_max: usize,
    /// Of all, those that only the host itself can take.
    pub loopback_reserved: usize,
    /// Of all, those that no connection of an account keeps: there operators get in whatever accounts hold.
    pub operators_reserved: usize,
    /// From the end of an answer, or the start of the connection, to the last byte of the next request's head. Also how
    /// long an idle connection stays.
    pub head_time_max: Duration,
    /// How long a client may keep an answer waiting, see [`Paced`].
    pub write_time_max: Duration,
    /// How long a connection without a right credential stays.
    pub stranger_time_max: Duration,
    /// Requests that it may make.
    pub stranger_requests_max: u32,
    /// What a request may take; those at work at shutdown have less.
    pub request_time_max: Duration,
}

impl Bounds {
    /// With the usual bounds of one connection, and none for one peer or account.
    #[must_use]
    pub fn new(connections_max: usize, request_time_max: Duration) -> Self {
        Self {
            connections_max,
            connections_per_peer_max: connections_max,
            connections_per_account_max: connections_max,
            loopback_reserved: 0,
            operators_reserved: 0,
            head_time_max: HEAD_TIME_MAX,
            write_time_max: WRITE_TIME_MAX,
            stranger_time_max: STRANGER_TIME_MAX,
            stranger_requests_max: STRANGER_REQUESTS_MAX,
            request_time_max,
        }
    }
}

/// A customer's SDK keeps one or two connections and asks every few seconds.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// As long as a request's head; the same for the kernel's wait for an acknowledgement.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// A client presents its credential with its first request.
const STRANGER_TIME_MAX: Duration = Duration::from_secs(60);

/// Enough for a reader of the OpenAPI document and for a scraper of metrics.
const STRANGER_REQUESTS_MAX: u32 = 100;

/// From when a stranger's time is up, or the host ends, to the end of the answer that a client is getting. Clients that do not read
/// or never send all of a request must not hold up a restart.
const LAST_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// A TLS handshake is two round trips; a proxy's header comes at once.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of one connection's buffer; hyper's default of 400 KiB times all connections would be 200 MiB.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Bytes that wait in the kernel beyond those on their way. Little, because a client counts as slow by what it takes from there.
const UNSENT_BYTES_MAX: u32 = 32 << 10;

/// The first byte of a TLS connection: the type of a handshake's record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What stands behind a listener.
#[derive(Clone)]
pub struct Door {
    /// Answers requests.
    pub router: Router,
    /// Answers what is none.
    pub answer: Answer,
    /// What connections may take.
    pub bounds: Bounds,
    /// Plain HTTP without.
    pub tls: Option<Arc<Tls>>,
    /// Peers that must say in a PROXY header whom they speak for.
    pub proxies: Vec<IpNet>,
}

/// Answers requests until `shutdown` is done, then takes no more and waits for those at work.
///
/// Own accept loop and not `axum::serve`, which bounds neither connections nor the time that a request's head may take.
pub async fn serve(listener: TcpListener, door: Door, shutdown: impl Future<Output = ()>) {
    let places = Places::new(door.bounds);
    let (ending, _) = watch::channel(false);
    let last_time_max = door.bounds.request_time_max.min(LAST_ANSWER_TIME_MAX);
    let house = Arc::new(House { door, said: Seldom::default() });
    let mut acceptor = Acceptor::new(listener);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    // Taken, and without a place yet.
    let mut newcomer = None;
    loop {
        if let Some((stream, address)) = newcomer.take() {
            newcomer = seat(&house, &places, &mut connections, &ending, stream, address);
        }
        tokio::select! {
            () = &mut shutdown => break,
            accepted = acceptor.accept(&places), if newcomer.is_none() && places.has_room() => {
                newcomer = Some(accepted);
            }
            Some(_ended) = connections.join_next() => {}
            () = places.freed() => {}
        }
    }
    drop(acceptor);
    ending.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(last_time_max, all_ended).await.is_err() {
        tracing::warn!(
            "API connections were cut at shutdown: their clients neither sent whole requests nor read their answers"
        );
    }
}

/// Starts a connection, if it has a place; gives it back if it has to wait for one.
fn seat(
    house: &Arc<House>,
    places: &Arc<Places>,
    connections: &mut JoinSet<()>,
    ending: &watch::Sender<bool>,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(TcpStream, SocketAddr)> {
    let peer = Peer(address.ip().to_canonical());
    let is_proxy = house.door.proxies.iter().any(|net| net.contains(&peer.0));
    match places.take(peer, !is_proxy) {
        Ok(place) => {
            let id = place.id;
            let visit = Visit { house: Arc::clone(house), peer, place, ending: ending.subscribe() };
            places.started(id, connections.spawn(visit.run(stream, address, is_proxy)));
            None
        }
        Err(NoPlace::ForPeer) => None,
        Err(NoPlace::Yet) => Some((stream, address)),
    }
}

/// What all connections of a listener share.
struct House {
    door: Door,
    /// Proxies that do not say whom they speak for.
    said: Seldom,
}

/// One connection.
struct Visit {
    house: Arc<House>,
    peer: Peer,
    place: Place,
    ending: watch::Receiver<bool>,
}

impl Visit {
    async fn run(mut self, stream: TcpStream, address: SocketAddr, is_proxy: bool) {
        let bounds = &self.house.door.bounds;
        set_up(&stream, bounds.write_time_max);
        let mut stream = stream;
        if is_proxy && !self.is_introduced(&mut stream, address).await {
            return;
        }
        let tls = self.house.door.tls.as_ref().map(|tls| tls.acceptor());
        let write_time_max = self.house.door.bounds.write_time_max;
        let pace = self.place.standing.pace();
        let paced = |stream| Paced::new(stream, write_time_max, || Cut::Slow.count()).at(pace);
        match tls {
            None => self.answer(paced(stream)).await,
            Some(tls) => match handshake(&tls, stream, paced).await {
                Some(Secured::Tls(stream)) => self.answer(*stream).await,
                Some(Secured::Plain(stream)) => {
                    tracing::debug!("plain HTTP on a port of HTTPS");
                    refuse(stream, (self.house.door.answer)(Fault::PlainOnTls)).await;
                }
                None => {}
            },
        }
    }

    /// Reads whom a proxy speaks for. False if it does not say, or if its client has as many connections as it may.
    async fn is_introduced(&mut self, stream: &mut TcpStream, address: SocketAddr) -> bool {
        let header = tokio::time::timeout(HANDSHAKE_TIME_MAX, proxy::read(stream)).await;
        let header =
            header.unwrap_or_else(|_| Err(proxy::ProxyError::Io(std::io::ErrorKind::TimedOut.into())));
        match header {
            Ok(client) => {
                self.peer = client.map_or(self.peer, Peer);
                client.is_none() || self.place.is_of(self.peer)
            }
            Err(error) => {
                Cut::Proxy.count();
                if self.house.said.may(Instant::now()) {
                    tracing::warn!(
                        proxy = %address.ip(), %error,
                        "a connection from api.trusted_proxies is refused; make it send PROXY protocol, version 2. This is said once a minute"
                    );
                }
                false
            }
        }
    }

    async fn answer(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let bounds = self.house.door.bounds;
        let (router, peer) = (self.house.door.router.clone(), self.peer);
        let standing = Arc::clone(&self.place.standing);
        let service = service_fn(move |request| {
            respond(router.clone(), request, peer, Arc::clone(&standing), bounds.stranger_requests_max)
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head_time_max)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(Watched::new(stream, Arc::clone(&self.place.standing))), service);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stays_too_long(&self.place.standing, bounds.stranger_time_max) => {
                Cut::Stranger.count();
                Pin::new(&mut connection).graceful_shutdown();
                match tokio::time::timeout(LAST_ANSWER_TIME_MAX, &mut connection).await {
                    Ok(ended) => ended,
                    Err(_reads_too_slowly) => return,
                }
            }
            () = async { drop(self.ending.wait_for(|ending| *ending).await) } => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        if let Err(error) = &ended {
            tracing::debug!(%error, "an API connection ended early");
        }
        let (fault, stream) = connection.into_parts().io.into_inner().fault(ended.err().as_ref());
        if let Some(fault) = fault {
            refuse(stream, (self.house.door.answer)(fault)).await;
        }
    }
}

/// Ends when the time of a connection without a right credential is up.
async fn stays_too_long(standing: &Standing, time_max: Duration) {
    tokio::time::sleep(time_max).await;
    if standing.has_credential() {
        std::future::pending::<()>().await;
    }
}

/// What the kernel has to know of a connection.
fn set_up(stream: &TcpStream, write_time_max: Duration) {
    let socket = SockRef::from(stream);
    // An answer is one write; waiting to fill a segment would only delay it.
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(write_time_max)))
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX));
    if let Err(error) = set {
        tracing::debug!(%error, "could not set a connection's options");
    }
}

/// What a listener of HTTPS got.
enum Secured<S> {
    Tls(Box<tokio_rustls::server::TlsStream<S>>),
    /// Something else than a handshake.
    Plain(S),
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &TlsAcceptor,
    stream: TcpStream,
    paced: impl FnOnce(TcpStream) -> S,
) -> Option<Secured<S>> {
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] != TLS_HANDSHAKE => Ok(Secured::Plain(paced(stream))),
            _ => tls.accept(paced(stream)).await.map(|stream| Secured::Tls(Box::new(stream))),
        }
    };
    match tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake).await {
        Ok(Ok(secured)) => Some(secured),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

/// One request, with what is known of its client; the last one that a stranger may make ends the connection.
async fn respond(
    router: Router,
    request: Request<Incoming>,
    peer: Peer,
    standing: Arc<Standing>,
    stranger_requests_max: u32,
) -> Result<Response, Infallible> {
    let requests = standing.request();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(Arc::clone(&standing));
    let mut response = router.oneshot(request).await?;
    let headers = response.headers_mut();
    // No browser may take an answer for something else than it says.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if requests >= stranger_requests_max && !standing.has_credential() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Body::new(UnderWay { body, standing })))
}

/// The body of an answer; when it is dropped, all of it was handed over.
struct UnderWay {
    body: Body,
    standing: Arc<Standing>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.standing.answered();
    }
}

impl HttpBody for UnderWay {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
