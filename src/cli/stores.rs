//! Buckets as this host itself reaches them, for commands that read objects. Owns the choice of endpoint and patience.
//!
//! Invariant: credentials come from the standard chains of AWS and Google, those of an R2 bucket from the environment or from
//! who calls.

use super::args::StoreArgs;
use crate::job::{Destination, DestinationError, S3Credentials};
use crate::upload::{
    FileStore, GcsConfig, GcsCredentials, ObjectStore, R2Config, S3Config, Stores, StoresConfig, UploadError,
};

/// How long a store that fails is tried again: a person waits.
const RETRY_SECONDS_MAX: u64 = 30;

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The text is no destination.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The store's words.
    #[error(transparent)]
    Store(#[from] UploadError),
    /// Not a plain name.
    #[error("object name {0:?} is not a plain file name")]
    Name(String),
}

/// Where the keys of an R2 bucket stand in the environment: id and secret.
pub const R2_VARIABLES: [&str; 2] = ["TRAWL_R2_ACCESS_KEY_ID", "TRAWL_R2_SECRET_ACCESS_KEY"];

fn r2_keys() -> Option<S3Credentials> {
    let [id, secret] = R2_VARIABLES.map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    Some(S3Credentials { access_key_id: id?, secret_access_key: secret? })
}

/// Where an emulator of Google's store is, in the variable that Google's own libraries read; it knows nobody's credentials.
const GCS_EMULATOR_VARIABLE: &str = "STORAGE_EMULATOR_HOST";

fn gcs() -> GcsConfig {
    let config = GcsConfig { retry_seconds_max: RETRY_SECONDS_MAX, ..GcsConfig::default() };
    match std::env::var(GCS_EMULATOR_VARIABLE).ok().filter(|host| !host.is_empty()) {
        Some(host) => {
            let endpoint = if host.contains("://") { host } else { format!("http://{host}") };
            GcsConfig { endpoint: Some(endpoint), credentials: GcsCredentials::None, ..config }
        }
        None => config,
    }
}

/// The store of a destination; the keys of an R2 bucket may stand in it.
///
/// # Errors
/// [`StoreError`] when the text is no destination, or without credentials.
pub async fn open(uri: &str, args: &StoreArgs) -> Result<Box<dyn ObjectStore>, StoreError> {
    let endpoint = args.endpoint.clone().filter(|endpoint| !endpoint.is_empty());
    let r2 = Some(R2Config { endpoint: endpoint.clone(), credentials: r2_keys() });
    let s3 = S3Config { endpoint, retry_seconds_max: RETRY_SECONDS_MAX, ..S3Config::default() };
    let gcs = uri.starts_with("gs://").then(gcs);
    let stores = Stores::new(StoresConfig { s3, r2, gcs, ..StoresConfig::default() })?;
    let (destination, sent) = Destination::parse_sent(uri)?;
    if let Destination::File { dir } = destination {
        // Named by the one who reads there.
        return Ok(Box::new(FileStore::new(dir)));
    }
    Ok(stores.open_as(&destination, sent.keys.as_ref(), sent.owner.as_deref()).await?)
}

/// The destination and the object's name of an object's URI, which is a destination with the name behind its directory.
pub fn split(uri: &str) -> Option<(String, String)> {
    let (place, query) = match uri.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (uri, String::new()),
    };
    let (directory, name) = place.rsplit_once('/')?;
    (!name.is_empty() && !directory.ends_with('/')).then(|| (format!("{directory}{query}"), name.to_owned()))
}

/// The URI of an object of a destination: what [`split`] takes apart.
pub fn join(destination: &str, name: &str) -> String {
    match destination.split_once('?') {
        Some((place, query)) => format!("{place}/{name}?{query}"),
        None => format!("{destination}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_uri_is_a_destination_and_a_name() {
        for (uri, destination, name) in [
            ("s3://b/d/e/pcap_x.json?region=r", "s3://b/d/e?region=r", "pcap_x.json"),
            ("s3://b/pcap_x.json?region=r", "s3://b?region=r", "pcap_x.json"),
            ("gs://b/d/pcap_x.json", "gs://b/d", "pcap_x.json"),
            ("gs://b/pcap_x.json", "gs://b", "pcap_x.json"),
            ("file:///d/x.json", "file:///d", "x.json"),
        ] {
            assert_eq!(split(uri), Some((destination.to_owned(), name.to_owned())));
            assert_eq!(join(destination, name), uri);
        }
        for uri in ["s3://bucket?region=r", "s3://bucket/?region=r", "file:///x", "gs://bucket", "x"] {
            assert_eq!(split(uri), None, "{uri}");
        }
    }
}
