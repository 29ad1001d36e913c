//! TLS of the API: certificate and key from PEM files. Owns their reading and their exchange while connections are served; the
//! handshakes are in `serve.rs`.
//!
//! Invariant: what is returned can answer a handshake: the key fits the certificate.

use crate::named;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio_rustls::TlsAcceptor;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is missing, unreadable or no PEM of its kind.
    #[error("cannot read {what} {path}: {source}; write a PEM file that trawl's user can read")]
    Pem {
        /// `api.tls_cert` or `api.tls_key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// No certificate, or a key that does not fit it.
    #[error("api.tls_cert {cert} and api.tls_key {key} cannot be used together: {source}")]
    Pair {
        /// The certificates.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
}

/// A TLS 1.2 and 1.3 server with the certificate chain of one file, leaf first, and the private key of another.
pub struct Tls(RwLock<Pair>);

/// A certificate chain and its key, ready to be used.
#[derive(Clone)]
pub struct Pair {
    cert: PathBuf,
    key: PathBuf,
    acceptor: TlsAcceptor,
}

impl Pair {
    /// Reads both files.
    ///
    /// # Errors
    /// When a file cannot be read or the two do not belong together.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let acceptor = acceptor(cert, key)?;
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), acceptor })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = self.pair();
        f.debug_struct("Tls").field("cert", &pair.cert).field("key", &pair.key).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// When a file cannot be read or the two do not belong together.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Pair::load(cert, key)?)))
    }

    /// Handshakes from now on use `pair`; connections that are there keep theirs.
    pub fn replace(&self, pair: Pair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
    }

    fn pair(&self) -> RwLockReadGuard<'_, Pair> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.pair().acceptor.clone()
    }
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let unread = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { what, path, source }
    };
    let text = |path: &Path| named::read(path).map_err(pem::Error::Io);
    let chain = text(cert).and_then(|text| CertificateDer::pem_slice_iter(&text).collect());
    let chain: Vec<_> = chain.map_err(unread("api.tls_cert", cert))?;
    let private = text(key).and_then(|text| PrivateKeyDer::from_pem_slice(&text));
    let private = private.map_err(unread("api.tls_key", key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let mut config =
        config.map_err(|source| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
