//! `destination_conf`: where a capture's objects go. Owns the URI forms and their strict parsing.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A parsed `destination_conf`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// `file:///absolute/dir`.
    File {
        /// The directory.
        dir: PathBuf,
    },
    /// `s3://bucket[/directory]?region=region`.
    S3 {
        /// The bucket.
        bucket: String,
        /// Key prefix without leading or trailing slash; empty for none.
        directory: String,
        /// The bucket's region.
        region: String,
    },
}
