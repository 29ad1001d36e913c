//! The connection to Google: TLS, whom to trust, a proxy, and tokens. Owns the HTTP client and the credentials of all buckets. Only this
//! file names the crate that makes tokens.
//!
//! Invariant: only the config decides whom objects and sessions go to; neither redirects nor proxies from the environment are
//! followed. Keys and tokens are never printed.

use super::{GcsConfig, GcsCredentials};
use crate::chain::chain;
use crate::upload::UploadError;
use google_cloud_auth::credentials::{AccessTokenCredentials, Builder, service_account};
use google_cloud_auth::errors::CredentialsError;
use reqwest::{Certificate, Client, Proxy, redirect};
use std::path::Path;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Longest wait for a connection; a host that is there answers within a few round trips.
const CONNECT_SECONDS_MAX: u64 = 5;

/// Objects are read, written and created; nothing is administered.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// Why there is no token.
pub(super) struct NoToken {
    pub detail: String,
    /// Whether it may be there at the next try: the network failed, not the key.
    pub transient: bool,
}

impl From<CredentialsError> for NoToken {
    fn from(error: CredentialsError) -> Self {
        Self { detail: chain(&error), transient: error.is_transient() }
    }
}

/// A client that goes through the proxy of `config` and trusts its certificates beside the system's.
pub(super) fn open(config: &GcsConfig) -> Result<Client, UploadError> {
    let wrong = |key, detail: String| UploadError::Config { key, detail };
    let mut builder = Client::builder()
        .user_agent(concat!("trawl/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
        .redirect(redirect::Policy::none())
        .no_proxy();
    if let Some(url) = &config.proxy {
        builder = builder.proxy(Proxy::all(url).map_err(|error| wrong("proxy", chain(&error)))?);
    }
    if let Some(path) = &config.ca_file {
        let pem = read("ca_file", path)?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|error| wrong("ca_file", format!("{}: {}", path.display(), chain(&error))))?;
        if certificates.is_empty() {
            return Err(wrong("ca_file", format!("{} holds no certificate in PEM", path.display())));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| wrong("ca_file", chain(&error)))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, UploadError> {
    let wrong =
        |error: std::io::Error| UploadError::Config { key, detail: format!("{}: {error}", path.display()) };
    crate::named::read(path).map_err(wrong)
}

/// Where tokens come from.
enum Source {
    /// There are none.
    None,
    /// Application Default Credentials.
    Default,
    /// A service account's key.
    Key(serde_json::Value),
}

/// Tokens that identify this host, made when they are first needed and renewed by themselves.
pub(super) struct Tokens {
    source: Source,
    chain: OnceCell<Option<AccessTokenCredentials>>,
}

impl Tokens {
    /// A key file is read here, once: later the process may not have the right to.
    pub(super) fn new(credentials: &GcsCredentials) -> Result<Self, UploadError> {
        const KEY: &str = "gcs.credentials_file";
        let source = match credentials {
            GcsCredentials::None => Source::None,
            GcsCredentials::Default => Source::Default,
            // The parser's words may quote the key.
            GcsCredentials::File(path) => match serde_json::from_slice(&read(KEY, path)?) {
                Ok(key) => Source::Key(key),
                Err(_) => {
                    let detail = format!("{} is no service account key in JSON", path.display());
                    return Err(UploadError::Config { key: KEY, detail });
                }
            },
        };
        Ok(Self { source, chain: OnceCell::new() })
    }

    /// A token; none where requests go without.
    pub(super) async fn get(&self) -> Result<Option<String>, NoToken> {
        let make = || match &self.source {
            Source::None => Ok(None),
            Source::Default => {
                Builder::default().with_scopes([SCOPE]).build_access_token_credentials().map(Some)
            }
            Source::Key(key) => {
                let scopes = service_account::AccessSpecifier::from_scopes([SCOPE]);
                let builder = service_account::Builder::new(key.clone()).with_access_specifier(scopes);
                builder.build_access_token_credentials().map(Some)
            }
        };
        let made = self.chain.get_or_try_init(|| async { make() }).await;
        let chain = made.map_err(|error| NoToken { detail: chain(&error), transient: false })?;
        let Some(chain) = chain else { return Ok(None) };
        Ok(Some(chain.access_token().await?.token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ca: &Path) -> GcsConfig {
        GcsConfig { ca_file: Some(ca.to_owned()), ..GcsConfig::default() }
    }

    #[test]
    fn a_file_without_certificates_and_a_proxy_without_an_address_are_refused() {
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            std::fs::write(file.path(), text).unwrap();
            let error = open(&config(file.path())).unwrap_err();
            assert!(matches!(error, UploadError::Config { key: "ca_file", .. }), "{error}");
        }
        let proxy = GcsConfig { proxy: Some("http://".to_owned()), ..GcsConfig::default() };
        let error = open(&proxy).unwrap_err();
        assert!(matches!(error, UploadError::Config { key: "proxy", .. }), "{error}");
        assert!(open(&GcsConfig::default()).is_ok());
    }

    #[tokio::test]
    async fn a_service_account_key_makes_tokens_without_a_network_and_a_wrong_one_says_so() {
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let file = tempfile::NamedTempFile::new().unwrap();
        let tokens = || Tokens::new(&GcsCredentials::File(file.path().to_owned()));
        std::fs::write(file.path(), "hush").unwrap();
        let error = tokens().err().unwrap().to_string();
        assert!(error.contains("gcs.credentials_file") && !error.contains("hush"), "{error}");
        for text in ["{}", "{\"type\":\"service_account\",\"private_key\":\"hush\"}"] {
            std::fs::write(file.path(), text).unwrap();
            let refused = tokens().unwrap().get().await.err().unwrap();
            assert!(!refused.transient && !refused.detail.contains("hush"), "{}", refused.detail);
        }
        let key = std::process::Command::new("openssl").args(["genrsa", "2048"]).output();
        let Ok(key) = key else {
            return crate::skip::skip("openssl", "it makes the test's key");
        };
        let key = serde_json::json!({
            "type": "service_account", "project_id": "p", "private_key_id": "k",
            "private_key": String::from_utf8(key.stdout).unwrap(),
            "client_email": "trawl@p.iam.gserviceaccount.com",
        });
        std::fs::write(file.path(), key.to_string()).unwrap();
        let token = tokens().unwrap().get().await.map_err(|refused| refused.detail).unwrap().unwrap();
        assert_eq!(token.split('.').count(), 3, "a signed token has a head, claims and a signature");
        let nobody = Tokens::new(&GcsCredentials::None).unwrap();
        assert_eq!(nobody.get().await.ok().unwrap(), None);
    }
}
