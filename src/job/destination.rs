//! `destination_conf`: where a capture's objects go. Owns the URI forms and their strict parsing; not whether the place
//! exists or may be used.
//!
//! Invariant: a [`Destination`] holds no secret: what is sent with a URI once (keys of `r2://`, the owner of `s3://`) is taken out of
//! it while it is read, and only where the caller asks for it. What [`Destination::parse`] takes, `Display` and serde give back byte for byte. To keep that simple there is
//! one spelling of every destination: percent-encoding, dot segments and unknown query keys are refused.

use super::S3Credentials;
use super::bucket_name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest URI that is read, as for Cloudflare's Logpush.
const URI_BYTES_MAX: usize = 4096;

/// Names the account that owns an S3 bucket.
const OWNER_KEY: &str = "expected-bucket-owner";

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
    /// `r2://bucket[/directory]?account-id=account`.
    R2 {
        /// The bucket.
        bucket: String,
        /// As in `S3`.
        directory: String,
        /// Cloudflare account: 32 hexadecimal digits.
        account_id: String,
    },
    /// `gs://bucket[/directory]`.
    Gcs {
        /// The bucket.
        bucket: String,
        /// As in `S3`.
        directory: String,
    },
}

/// What is sent with a destination once, to prove it, and is no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Access keys of an `r2://` bucket.
    pub keys: Option<S3Credentials>,
    /// AWS account that owns an `s3://` bucket: 12 digits.
    pub owner: Option<String>,
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
        "the destination is no known form; use s3://bucket[/directory]?region=region, \
         gs://bucket[/directory], r2://bucket[/directory]?account-id=account or file:///absolute/dir"
    )]
    UnknownForm,
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
    /// Against the store's naming rules.
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
    /// The value may be a secret.
    #[error(
        "query key {key:?} is not taken here; s3 destinations take region once, and expected-bucket-owner in \
         POST …/pcaps/ownership alone"
    )]
    Query {
        /// The key without its value.
        key: String,
    },
    /// No AWS account.
    #[error("expected-bucket-owner is an AWS account id: 12 digits")]
    Owner,
    /// A query after a gs destination.
    #[error("gs destinations have no query; use gs://bucket[/directory]")]
    GcsQuery,
    /// `account-id` is missing or no account.
    #[error("r2 destinations name their account; append ?account-id= and its 32 hexadecimal digits")]
    Account,
    /// A query key of an r2 destination that is unknown, empty or there twice; the value may be a secret.
    #[error(
        "query key {key:?} is not taken here; r2 destinations take account-id, and access-key-id with \
         secret-access-key in POST …/pcaps/ownership alone"
    )]
    R2Query {
        /// The key without its value.
        key: String,
    },
}

impl Destination {
    /// Reads a URI; one with keys in it is refused.
    ///
    /// # Errors
    /// [`DestinationError`] says which part is wrong and what would be right.
    pub fn parse(uri: &str) -> Result<Self, DestinationError> {
        match Self::parse_sent(uri)? {
            (_, Sent { keys: Some(_), .. }) => {
                Err(DestinationError::R2Query { key: "access-key-id".to_owned() })
            }
            (_, Sent { owner: Some(_), .. }) => Err(DestinationError::Query { key: OWNER_KEY.to_owned() }),
            (destination, _) => Ok(destination),
        }
    }

    /// Reads a URI that may hold access keys (`r2://…&access-key-id=…&secret-access-key=…`), and takes them out of it.
    ///
    /// # Errors
    /// As [`Destination::parse`].
    pub fn parse_with_keys(uri: &str) -> Result<(Self, Option<S3Credentials>), DestinationError> {
        Self::parse_sent(uri).map(|(destination, sent)| (destination, sent.keys))
    }

    /// The same, and the bucket's owner (`s3://…&expected-bucket-owner=…`).
    ///
    /// # Errors
    /// As [`Destination::parse`].
    pub fn parse_sent(uri: &str) -> Result<(Self, Sent), DestinationError> {
        if uri.len() > URI_BYTES_MAX {
            return Err(DestinationError::TooLong { bytes: uri.len() });
        }
        let (scheme, rest) = uri.split_once("://").ok_or(DestinationError::UnknownForm)?;
        match scheme {
            "s3" => parse_s3(rest),
            "file" => Ok((parse_file(rest)?, Sent::default())),
            "r2" => parse_r2(rest),
            "gs" => Ok((parse_gcs(rest)?, Sent::default())),
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

fn parse_s3(rest: &str) -> Result<(Destination, Sent), DestinationError> {
    check_characters(rest)?;
    let (place, query) = rest.split_once('?').ok_or(DestinationError::NoRegion)?;
    let (bucket, directory) = parse_place(place, bucket_name::s3)?;
    let (region, owner) = parse_s3_query(query)?;
    let sent = Sent { owner: owner.map(str::to_owned), keys: None };
    Ok((Destination::S3 { bucket, directory, region: region.to_owned() }, sent))
}

fn parse_gcs(rest: &str) -> Result<Destination, DestinationError> {
    check_characters(rest)?;
    if rest.contains('?') {
        return Err(DestinationError::GcsQuery);
    }
    let (bucket, directory) = parse_place(rest, bucket_name::gcs)?;
    Ok(Destination::Gcs { bucket, directory })
}

fn parse_r2(rest: &str) -> Result<(Destination, Sent), DestinationError> {
    check_characters(rest)?;
    let (place, query) = rest.split_once('?').ok_or(DestinationError::Account)?;
    let (bucket, directory) = parse_place(place, bucket_name::r2)?;
    let [mut account, mut key, mut secret] = [None; 3];
    for part in query.split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let slot = match name {
            "account-id" => &mut account,
            "access-key-id" => &mut key,
            "secret-access-key" => &mut secret,
            _ => return Err(DestinationError::R2Query { key: name.to_owned() }),
        };
        if value.is_empty() || slot.replace(value).is_some() {
            return Err(DestinationError::R2Query { key: name.to_owned() });
        }
    }
    let hex =
        |id: &&str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let account_id = account.filter(hex).ok_or(DestinationError::Account)?.to_owned();
    let keys = match (key, secret) {
        (Some(key), Some(secret)) => {
            Some(S3Credentials { access_key_id: key.to_owned(), secret_access_key: secret.to_owned() })
        }
        (None, None) => None,
        _ => return Err(DestinationError::R2Query { key: "access-key-id".to_owned() }),
    };
    Ok((Destination::R2 { bucket, directory, account_id }, Sent { keys, owner: None }))
}

/// What S3 calls safe in keys, and the three that separate the parts; a user, a port and a fragment need others.
fn check_characters(rest: &str) -> Result<(), DestinationError> {
    let known = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()+=,/?&".contains(c);
    match rest.chars().find(|&c| !known(c)) {
        Some(found) => Err(DestinationError::Character { found }),
        None => Ok(()),
    }
}

/// Bucket and directory.
fn parse_place(
    place: &str,
    rule_broken: impl Fn(&str) -> Option<&'static str>,
) -> Result<(String, String), DestinationError> {
    let (bucket, directory) = match place.split_once('/') {
        Some((bucket, "")) => (bucket, "/"),
        Some((_, "/")) => return Err(DestinationError::Segment { segment: String::new() }),
        Some((bucket, directory)) => (bucket, directory),
        None => (place, ""),
    };
    if let Some(rule) = rule_broken(bucket) {
        return Err(DestinationError::Bucket { bucket: bucket.to_owned(), rule });
    }
    if directory.contains('&') {
        return Err(DestinationError::Character { found: '&' });
    }
    if directory.len() > DIRECTORY_BYTES_MAX {
        return Err(DestinationError::DirectoryTooLong { bytes: directory.len() });
    }
    if !matches!(directory, "" | "/") {
        check_segments(directory)?;
    }
    Ok((bucket.to_owned(), directory.to_owned()))
}

/// Region and owner.
fn parse_s3_query(query: &str) -> Result<(&str, Option<&str>), DestinationError> {
    let [mut region, mut owner] = [None; 2];
    for part in query.split('&') {
        match part.split_once('=') {
            Some(("region", value)) if region.is_none() => region = Some(value),
            Some((OWNER_KEY, value)) if owner.is_none() => owner = Some(value),
            _ if part.is_empty() && query.is_empty() => return Err(DestinationError::NoRegion),
            Some((key, _)) => return Err(DestinationError::Query { key: key.to_owned() }),
            // Without a key all of it may be a value.
            None => return Err(DestinationError::Query { key: String::new() }),
        }
    }
    let region = region.ok_or(DestinationError::NoRegion)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if region.is_empty() || region.len() > 32 || !region.bytes().all(plain) {
        return Err(DestinationError::Region { region: region.to_owned() });
    }
    if owner.is_some_and(|id| id.len() != 12 || !id.bytes().all(|b| b.is_ascii_digit())) {
        return Err(DestinationError::Owner);
    }
    Ok((region, owner))
}

/// Every segment is a name; one slash may stand at the end.
fn check_segments(path: &str) -> Result<(), DestinationError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    match path.split('/').find(|segment| matches!(*segment, "" | "." | "..")) {
        Some(segment) => Err(DestinationError::Segment { segment: segment.to_owned() }),
        None => Ok(()),
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { dir } => write!(f, "file://{}", dir.display()),
            Self::S3 { bucket, directory, region } => {
                write!(f, "s3://{bucket}{}{directory}?region={region}", slash(directory))
            }
            Self::R2 { bucket, directory, account_id } => {
                write!(f, "r2://{bucket}{}{directory}?account-id={account_id}", slash(directory))
            }
            Self::Gcs { bucket, directory } => write!(f, "gs://{bucket}{}{directory}", slash(directory)),
        }
    }
}

/// Between bucket and directory.
fn slash(directory: &str) -> &'static str {
    if matches!(directory, "" | "/") { "" } else { "/" }
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
