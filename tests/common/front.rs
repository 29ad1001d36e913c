//! Ways to a store that not everybody can go: TLS of an authority that nobody knows, and a proxy that must be asked. Owns
//! the two listeners; not the server behind them.
//!
//! Invariant: bytes are passed on as they are, so that what the server sees is what it would see without them.

#![allow(dead_code, reason = "each test binary that shares this file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// TLS in front of a server.
pub struct Front {
    pub address: SocketAddr,
    /// The certificate of the authority that vouches for it, in PEM.
    pub authority: String,
}

impl Front {
    /// For those who call it `name`.
    pub async fn start(server: &str, name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.unwrap().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));

        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Self { address: listener.local_addr().unwrap(), authority: authority.pem() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    // Who does not trust it ends the handshake.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(&server).await.unwrap();
                    let _ended = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        front
    }
}

/// An HTTP proxy that knows one server only and remembers whom it was asked for.
pub struct Tunnel {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let tunnel = Self { endpoint, asked: Arc::default() };
        let asked = Arc::clone(&tunnel.asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, Arc::clone(&asked)));
            }
        });
        tunnel
    }

    /// The first line of each request for a connection.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One `CONNECT` and what comes after it.
async fn pass(mut client: TcpStream, server: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
    let is_connect = line.starts_with("CONNECT ");
    asked.lock().unwrap().push(line);
    let answer: &[u8] =
        if is_connect { b"HTTP/1.1 200 OK\r\n\r\n" } else { b"HTTP/1.1 405 Only CONNECT\r\n\r\n" };
    if client.write_all(answer).await.is_ok() && is_connect {
        let mut server = TcpStream::connect(server).await.unwrap();
        let _ended = copy_bidirectional(&mut client, &mut server).await;
    }
}
