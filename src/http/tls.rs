//! TLS of the API: certificate and key from PEM files. Owns their reading, also again while connections are served; the
//! handshakes are in `serve.rs`.
//!
//! Invariant: what is returned can answer a handshake: the key fits the certificate.

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
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
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    acceptor: RwLock<TlsAcceptor>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert", &self.cert).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// When a file cannot be read or the two do not belong together.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let acceptor = RwLock::new(acceptor(cert, key)?);
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), acceptor })
    }

    /// Reads both files again. Handshakes from now on use them; connections that are there keep theirs.
    ///
    /// # Errors
    /// As [`Tls::load`]; then everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let acceptor = acceptor(&self.cert, &self.key)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    /// For one handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let unread = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { what, path, source }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain = chain.map_err(unread("api.tls_cert", cert))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unread("api.tls_key", key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let mut config =
        config.map_err(|source| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
