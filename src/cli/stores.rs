//! Buckets as this host itself reaches them, for commands that read objects. Owns the choice of endpoint and patience.
//!
//! Invariant: credentials come from the standard AWS chain alone.

use super::args::StoreArgs;
use crate::upload::{
    Destination, DestinationError, ObjectStore, S3Config, Stores, StoresConfig, UploadError,
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
    let stores = Stores::new(StoresConfig { allow_file: true, s3 })?;
    Ok(stores.open(&Destination::parse(uri)?).await?)
}
