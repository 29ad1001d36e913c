//! Buckets as this host itself reaches them, for commands that read objects. Owns the choice of endpoint and patience.
//!
//! Invariant: credentials come from the standard chains of AWS and Google alone.

use super::args::StoreArgs;
use crate::upload::{
    Destination, DestinationError, GcsConfig, ObjectStore, S3Config, Stores, StoresConfig, UploadError,
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

/// The store of a destination.
///
/// # Errors
/// [`StoreError`] when the text is no destination, or without credentials.
pub async fn open(uri: &str, args: &StoreArgs) -> Result<Box<dyn ObjectStore>, StoreError> {
    let endpoint = args.endpoint.clone().filter(|endpoint| !endpoint.is_empty());
    let s3 = S3Config { endpoint, retry_seconds_max: RETRY_SECONDS_MAX, ..S3Config::default() };
    let gcs = uri
        .starts_with("gs://")
        .then(|| GcsConfig { retry_seconds_max: RETRY_SECONDS_MAX, ..GcsConfig::default() });
    let stores = Stores::new(StoresConfig { allow_file: true, s3, gcs, ..StoresConfig::default() })?;
    Ok(stores.open(&Destination::parse(uri)?).await?)
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
        }
        for uri in ["s3://bucket?region=r", "s3://bucket/?region=r", "file:///x", "gs://bucket", "x"] {
            assert_eq!(split(uri), None, "{uri}");
        }
    }
}
