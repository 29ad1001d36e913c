//! The way to a time-stamping authority over HTTP (RFC 3161, section 3.4). Owns one request and its bounds; not when one is made.
//!
//! Invariant: only the config decides who is asked: no redirect is followed, and no proxy of the environment; an answer is bounded in
//! time and size, and is an error unless it stands every check.

use super::TOKEN_BYTES_MAX;
use super::form::{Imprint, Request};
use super::token::{Anchors, Stamp, StampError, check};
use crate::chain::chain;
use bytes::Bytes;
use der::Encode as _;
use der::asn1::Int;
use reqwest::{Certificate, Client, Proxy, redirect};
use ring::digest::{self, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Longest wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest wait for an answer: an authority signs one hash.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a nonce.
const NONCE_BYTES: usize = 16;

/// Manifests that got a time stamp since the process started, and that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampCounts {
    /// Those that did.
    pub stamped: u64,
    /// Those that did not in time.
    pub missed: u64,
}

static COUNTS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// See [`StampCounts`].
#[must_use]
pub fn stamp_counts() -> StampCounts {
    StampCounts { stamped: COUNTS[0].load(Relaxed), missed: COUNTS[1].load(Relaxed) }
}

/// Who is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityConfig {
    /// `http://` or `https://`.
    pub url: String,
    /// Certificates of which one must vouch for an answer; any certificate does if none.
    pub anchors: Option<PathBuf>,
    /// How long a manifest waits for its time stamp.
    pub patience: Duration,
    /// An HTTP proxy on the way.
    pub proxy: Option<String>,
    /// Certificates that TLS trusts beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A time-stamping authority.
#[derive(Debug)]
pub struct Authority {
    client: Client,
    url: String,
    anchors: Option<Anchors>,
    patience: Duration,
    /// The last manifest got none: the next one does not wait for more than one answer.
    is_away: AtomicBool,
}

impl Authority {
    /// Reads the certificates. Nobody is asked yet.
    ///
    /// # Errors
    /// When a file or the proxy is none.
    pub fn new(config: &AuthorityConfig) -> Result<Self, StampError> {
        let wrong = |key, detail: String| StampError::Config { key, detail };
        let anchors = config.anchors.as_deref().map(Anchors::load).transpose()?;
        let mut builder = Client::builder()
            .user_agent(concat!("trawl/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(ATTEMPT_TIME_MAX)
            .redirect(redirect::Policy::none())
            .no_proxy();
        if let Some(url) = &config.proxy {
            let proxy = Proxy::all(url).map_err(|error| wrong("upload.proxy", chain(&error)))?;
            builder = builder.proxy(proxy);
        }
        if let Some(path) = &config.ca_file {
            let wrong = |detail| wrong("upload.ca_file", format!("{}: {detail}", path.display()));
            let pem = crate::named::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(&error)))?;
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(Self {
            client: builder.build().map_err(|error| wrong("manifest.timestamp_url", chain(&error)))?,
            url: config.url.clone(),
            anchors,
            patience: config.patience,
            is_away: AtomicBool::new(false),
        })
    }

    /// How long a manifest waits: not at all beyond the first try, while the authority is known to be away.
    #[must_use]
    pub fn patience(&self) -> Duration {
        if self.is_away.load(Relaxed) { Duration::ZERO } else { self.patience }
    }

    /// A manifest got its time stamp, or did not in time.
    pub fn ended(&self, is_stamped: bool) {
        self.is_away.store(!is_stamped, Relaxed);
        COUNTS[usize::from(!is_stamped)].fetch_add(1, Relaxed);
    }

    /// Asks once for a time stamp of these bytes, and gives the answer as it came with what it says.
    ///
    /// # Errors
    /// When there is none, or what is wrong with it.
    pub async fn ask(&self, bytes: &[u8]) -> Result<(Bytes, Stamp), StampError> {
        let mut nonce = [0; NONCE_BYTES];
        let random = SystemRandom::new().fill(&mut nonce);
        random.map_err(|_| StampError::Unreachable("this host has no random numbers".to_owned()))?;
        // A positive number without leading zeros.
        nonce[0] = nonce[0] & 0x7f | 0x40;
        let request = request(bytes, &nonce).map_err(|error| StampError::Form(error.to_string()))?;
        let unreachable = |error: &reqwest::Error| StampError::Unreachable(chain(error));
        let post = self.client.post(&self.url).header("content-type", "application/timestamp-query");
        let mut answer = post.body(request).send().await.map_err(|error| unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(StampError::Refused(format!("HTTP {}", answer.status().as_u16())));
        }
        let mut whole = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if (whole.len() + piece.len()) as u64 > TOKEN_BYTES_MAX {
                return Err(StampError::Form("it is larger than any time stamp".to_owned()));
            }
            whole.extend_from_slice(&piece);
        }
        let stamp = check(&whole, bytes, Some(&nonce), self.anchors.as_ref())?;
        Ok((whole.into(), stamp))
    }
}

fn request(bytes: &[u8], nonce: &[u8]) -> der::Result<Vec<u8>> {
    let imprint = Imprint::sha256(digest(&digest::SHA256, bytes).as_ref())?;
    Request { version: 1, imprint, nonce: Int::new(nonce)?, cert_req: true }.to_der()
}
