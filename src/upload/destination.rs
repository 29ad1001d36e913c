//! `destination_conf`: where a capture's objects go. Owns the URI forms and their strict parsing; not whether the place
//! exists or may be used.
//!
//! Invariant: what [`Destination::parse`] takes, `Display` and serde give back byte for byte. To keep that simple there is
//! one spelling of every destination: percent-encoding, dot segments and unknown query keys are refused.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest URI that is read, as for Cloudflare's Logpush.
const URI_BYTES_MAX: usize = 4096;

/// Longest directory in a bucket: S3 keys have at most 1024 bytes, and the object's name needs its part of them.
const DIRECTORY_BYTES_MAX: usize = 960;

/// A parsed `destination_conf`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
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
        /// What follows the bucket's slash, as sent; `/` if there is a slash and nothing follows it, empty for no slash.
        directory: String,
        /// The bucket's region.
        region: String,
    },
}

/// Why a `destination_conf` is not taken. Never holds a secret: of unsupported forms only the scheme is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Longer than 4096 bytes.
    #[error("the destination has {bytes} bytes; at most {URI_BYTES_MAX} are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// No scheme, or one that means nothing here.
    #[error(
        "the destination is no known form; use s3://bucket[/directory]?region=region or file:///absolute/dir"
    )]
    UnknownForm,
    /// A form of Cloudflare's that this version cannot write to.
    #[error("{scheme}:// destinations are not supported yet; use s3://bucket[/directory]?region=region")]
    NotSupported {
        /// `gs` or `r2`.
        scheme: &'static str,
    },
    /// A byte that may not stand in a destination.
    #[error(
        "{found:?} may not stand in the destination; write it plainly, without percent-encoding or fragment"
    )]
    Character {
        /// The first such character.
        found: char,
    },
    /// Between `file://` and the path stands something.
    #[error("file destinations have no host; use file:///absolute/dir")]
    FileHost,
    /// `file:///` or a query after it.
    #[error("file destinations name an absolute directory and nothing else; use file:///absolute/dir")]
    FilePath,
    /// An empty, `.` or `..` segment.
    #[error("path segment {segment:?} is not allowed; name the directory without dots and doubled slashes")]
    Segment {
        /// The segment.
        segment: String,
    },
    /// Against S3's naming rules.
    #[error("bucket name {bucket:?} is not valid: {rule}")]
    Bucket {
        /// The name.
        bucket: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The directory leaves no room for object names.
    #[error("the directory has {bytes} bytes; at most {DIRECTORY_BYTES_MAX} fit in an object's key")]
    DirectoryTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// No `region`.
    #[error("the region is missing; append ?region=region")]
    NoRegion,
    /// Not a region's name.
    #[error("region {region:?} is not valid; regions have 1 to 32 of a-z 0-9 -")]
    Region {
        /// As sent.
        region: String,
    },
    /// A query key other than one `region`.
    #[error("query part {part:?} is not known here; s3 destinations take region once and nothing else")]
    Query {
        /// `key=value` as sent.
        part: String,
    },
}

impl Destination {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`DestinationError`] says which part is wrong and what would be right.
    pub fn parse(uri: &str) -> Result<Self, DestinationError> {
        if uri.len() > URI_BYTES_MAX {
            return Err(DestinationError::TooLong { bytes: uri.len() });
        }
        let (scheme, rest) = uri.split_once("://").ok_or(DestinationError::UnknownForm)?;
        match scheme {
            "s3" => parse_s3(rest),
            "file" => parse_file(rest),
            "gs" => Err(DestinationError::NotSupported { scheme: "gs" }),
            "r2" => Err(DestinationError::NotSupported { scheme: "r2" }),
            _ => Err(DestinationError::UnknownForm),
        }
    }
}

fn parse_file(rest: &str) -> Result<Destination, DestinationError> {
    if let Some(found) = rest.chars().find(|c| c.is_control() || matches!(c, '%' | '#' | '\\')) {
        return Err(DestinationError::Character { found });
    }
    let path = rest.strip_prefix('/').ok_or(DestinationError::FileHost)?;
    if path.is_empty() || path.contains('?') {
        return Err(DestinationError::FilePath);
    }
    check_segments(path)?;
    Ok(Destination::File { dir: PathBuf::from(rest) })
}

fn parse_s3(rest: &str) -> Result<Destination, DestinationError> {
    // What S3 calls safe in keys, and the three that separate the parts; a user, a port and a fragment need others.
    let known = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()+=,/?&".contains(c);
    if let Some(found) = rest.chars().find(|&c| !known(c)) {
        return Err(DestinationError::Character { found });
    }
    let (place, query) = rest.split_once('?').ok_or(DestinationError::NoRegion)?;
    let (bucket, directory) = match place.split_once('/') {
        Some((bucket, "")) => (bucket, "/"),
        Some((_, "/")) => return Err(DestinationError::Segment { segment: String::new() }),
        Some((bucket, directory)) => (bucket, directory),
        None => (place, ""),
    };
    check_bucket(bucket)?;
    if directory.contains('&') {
        return Err(DestinationError::Character { found: '&' });
    }
    if directory.len() > DIRECTORY_BYTES_MAX {
        return Err(DestinationError::DirectoryTooLong { bytes: directory.len() });
    }
    if !matches!(directory, "" | "/") {
        check_segments(directory)?;
    }
    let region = parse_region(query)?;
    Ok(Destination::S3 {
        bucket: bucket.to_owned(),
        directory: directory.to_owned(),
        region: region.to_owned(),
    })
}

fn parse_region(query: &str) -> Result<&str, DestinationError> {
    let mut region = None;
    for part in query.split('&') {
        match part.split_once('=') {
            Some(("region", value)) if region.is_none() => region = Some(value),
            _ if part.is_empty() && query.is_empty() => return Err(DestinationError::NoRegion),
            _ => return Err(DestinationError::Query { part: part.to_owned() }),
        }
    }
    let region = region.ok_or(DestinationError::NoRegion)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if region.is_empty() || region.len() > 32 || !region.bytes().all(plain) {
        return Err(DestinationError::Region { region: region.to_owned() });
    }
    Ok(region)
}

/// Every segment is a name; one slash may stand at the end.
fn check_segments(path: &str) -> Result<(), DestinationError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    match path.split('/').find(|segment| matches!(*segment, "" | "." | "..")) {
        Some(segment) => Err(DestinationError::Segment { segment: segment.to_owned() }),
        None => Ok(()),
    }
}

/// Rules of general purpose buckets, from the S3 user guide, "Bucket naming rules".
fn check_bucket(bucket: &str) -> Result<(), DestinationError> {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = bucket.as_bytes();
    let rule = if !(3..=63).contains(&bytes.len()) {
        "bucket names have 3 to 63 characters"
    } else if !bytes.iter().all(|b| alphanumeric(b) || matches!(b, b'-' | b'.')) {
        "bucket names have only a-z 0-9 . -"
    } else if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        "bucket names begin and end with a letter or digit"
    } else if bucket.contains("..") {
        "bucket names have no two dots in a row"
    } else if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        "bucket names do not look like an IP address"
    } else if ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| bucket.starts_with(prefix)) {
        "this beginning is reserved by S3"
    } else if ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|end| bucket.ends_with(end))
    {
        "this ending is reserved by S3"
    } else {
        return Ok(());
    };
    Err(DestinationError::Bucket { bucket: bucket.to_owned(), rule })
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { dir } => write!(f, "file://{}", dir.display()),
            Self::S3 { bucket, directory, region } => {
                let slash = if matches!(directory.as_str(), "" | "/") { "" } else { "/" };
                write!(f, "s3://{bucket}{slash}{directory}?region={region}")
            }
        }
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        Self::parse(uri)
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;

    fn try_from(uri: String) -> Result<Self, Self::Error> {
        Self::parse(&uri)
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

#[cfg(test)]
#[path = "destination_tests.rs"]
mod tests;
