//! The connection to a store: TLS, whom to trust, and a proxy. Owns the HTTP client that all buckets share.
//!
//! Invariant: only the config decides whom we talk to; proxies from the environment are not taken.

use crate::upload::UploadError;
use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::path::Path;

const PROVIDER: Provider = Provider::Rustls(CryptoMode::Ring);

/// A client that goes through `proxy` and trusts the certificates in `ca_file` beside the system's.
pub(super) fn open(proxy: Option<&str>, ca_file: Option<&Path>) -> Result<SharedHttpClient, UploadError> {
    let tls = trust(ca_file)?;
    let Some(url) = proxy else {
        return Ok(Builder::new().tls_provider(PROVIDER).tls_context(tls).build_https());
    };
    let proxy = ProxyConfig::all(url)
        .map_err(|error| UploadError::Config { key: "proxy", detail: error.to_string() })?;
    // The one builder of the SDK's that hands a proxy on.
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        builder.tls_provider(PROVIDER).tls_context(tls.clone()).build()
    }))
}

fn trust(ca_file: Option<&Path>) -> Result<TlsContext, UploadError> {
    let wrong = |detail: String| UploadError::Config { key: "ca_file", detail };
    let mut store = TrustStore::default();
    if let Some(path) = ca_file {
        let pem = crate::named::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        // Looked at here, because the SDK panics on what is no certificate.
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => store.add_pem_certificate(pem),
            Ok(_) => return Err(wrong(format!("{} holds no certificate in PEM", path.display()))),
            Err(error) => return Err(wrong(format!("{}: {error}", path.display()))),
        };
    }
    TlsContext::builder().with_trust_store(store).build().map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_and_a_proxy_without_an_address_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            std::fs::write(file.path(), text).unwrap();
            let error = open(None, Some(file.path())).unwrap_err();
            assert!(matches!(error, UploadError::Config { key: "ca_file", .. }), "{error}");
        }
        let error = open(Some("no address"), None).unwrap_err();
        assert!(matches!(error, UploadError::Config { key: "proxy", .. }), "{error}");
        assert!(open(Some("http://127.0.0.1:3128"), None).is_ok());
    }
}
