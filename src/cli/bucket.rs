//! `trawl bucket`: add, prove, list, remove. Owns how a challenge is found and read, and where an R2 bucket's keys come
//! from; the requests are in `client`.
//!
//! Invariant: no secret is taken from the arguments, and none is printed.

use super::args::{BucketAddArgs, BucketArgs, BucketCommand, BucketProveArgs, StoreArgs};
use super::client::Client;
use super::stores::{self, StoreError};
use super::{Error, Outcome, report};
use crate::chain::printable;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// More than any challenge has.
const CHALLENGE_BYTES_MAX: u64 = 64 << 10;

/// What can be wrong before or between the requests.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// A secret in the arguments.
    #[error(
        "leave the keys out of the URI, where every user of this host sees them; set TRAWL_R2_ACCESS_KEY_ID and \
         TRAWL_R2_SECRET_ACCESS_KEY, or give --r2-key-file"
    )]
    SecretInUri,
    /// An R2 bucket without keys, or with such that no URI holds.
    #[error("the keys of an r2:// bucket are missing or malformed; {0}")]
    R2Keys(&'static str),
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The list has no such bucket.
    #[error("{0} is not among the account's buckets; add it with `trawl bucket add`")]
    NotAdded(String),
    /// The answer lacks what the next step needs.
    #[error("the server's answer names no challenge file; see its log")]
    NoFilename,
    /// The challenge cannot be read here.
    #[error(
        "the challenge cannot be read from here: {source}; read {} by other means and give it with \
         `trawl bucket prove URI --challenge-file FILE`",
        printable(filename)
    )]
    Challenge {
        /// The object.
        filename: String,
        /// Why not.
        source: StoreError,
    },
}

impl BucketError {
    /// Whether the arguments were at fault.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::SecretInUri | Self::R2Keys(_))
    }
}

/// Runs one command against the server.
///
/// # Errors
/// [`Error`]: wrong arguments, or what the server or the bucket said.
pub async fn run(args: BucketArgs) -> Result<Outcome, Error> {
    let json = args.server.json;
    let variable = |name: &str| std::env::var(name).ok();
    let whole_uri = match &args.command {
        BucketCommand::Add(add) => Some(with_keys(add, variable)?),
        BucketCommand::Prove(prove) => Some(without_secret(&prove.destination_conf)?.to_owned()),
        _ => None,
    };
    let client = Client::new(&args.server, variable)?;
    match (args.command, whole_uri) {
        (BucketCommand::Add(args), Some(uri)) => add(&client, &args, &uri, json).await,
        (BucketCommand::Prove(args), _) => prove(&client, &args, json).await,
        (BucketCommand::Remove(args), _) => {
            client.remove_bucket(&args.id).await?;
            Outcome::done(format!("{}: removed\n", args.id), &json!({"id": args.id, "removed": true}), json)
        }
        (BucketCommand::List | BucketCommand::Add(_), _) => {
            let list = client.buckets().await?;
            Outcome::done(report::buckets(&list), &list, json)
        }
    }
}

async fn add(client: &Client, args: &BucketAddArgs, uri: &str, json: bool) -> Result<Outcome, Error> {
    let added = client.add_bucket(uri).await?;
    if !args.prove {
        let mut text = report::members(&added);
        text += "\nnow read the file in the bucket and answer with `trawl bucket prove`\n";
        return Outcome::done(text, &added, json);
    }
    let filename = added.get("filename").and_then(Value::as_str).ok_or(BucketError::NoFilename)?;
    let challenge = read_challenge(uri, filename, &args.store).await?;
    // The owner that came with it is no part of it.
    let proven = added.get("destination_conf").and_then(Value::as_str).unwrap_or(&args.destination_conf);
    answer(client, proven, &challenge, json).await
}

async fn prove(client: &Client, args: &BucketProveArgs, json: bool) -> Result<Outcome, Error> {
    let uri = &args.destination_conf;
    let challenge = match &args.challenge_file {
        Some(path) => file_text(path)?,
        None => {
            let list = client.buckets().await?;
            let is_it = |bucket: &&Value| bucket.get("destination_conf").and_then(Value::as_str) == Some(uri);
            let bucket = list.iter().find(is_it).ok_or_else(|| BucketError::NotAdded(uri.clone()))?;
            let filename = bucket.get("filename").and_then(Value::as_str).ok_or(BucketError::NoFilename)?;
            read_challenge(uri, filename, &args.store).await?
        }
    };
    answer(client, uri, &challenge, json).await
}

/// Sends what the challenge says; only a bucket that is then proven is a success.
async fn answer(client: &Client, uri: &str, challenge: &str, json: bool) -> Result<Outcome, Error> {
    let bucket = client.prove_bucket(uri, challenge.trim()).await?;
    let mut outcome = Outcome::done(report::members(&bucket), &bucket, json)?;
    outcome.is_success = bucket.get("status").and_then(Value::as_str) == Some("success");
    Ok(outcome)
}

async fn read_challenge(uri: &str, filename: &str, args: &StoreArgs) -> Result<String, Error> {
    let read = async {
        // The server chose the name; it must not lead out of the destination.
        if filename.is_empty() || filename.contains('/') {
            return Err(StoreError::Name(filename.to_owned()));
        }
        let store = stores::open(uri, args).await?;
        Ok(store.get(filename, CHALLENGE_BYTES_MAX).await?)
    };
    let failed = |source| BucketError::Challenge { filename: filename.to_owned(), source };
    let bytes = read.await.map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn file_text(path: &Path) -> Result<String, BucketError> {
    let failed = |source| BucketError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(CHALLENGE_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(CHALLENGE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map(|_| text).map_err(failed)
}

fn without_secret(uri: &str) -> Result<&str, BucketError> {
    if uri.contains("secret-access-key") || uri.contains("access-key-id") {
        return Err(BucketError::SecretInUri);
    }
    Ok(uri)
}

/// The URI to add: an R2 bucket's has the keys with which the server writes into it.
fn with_keys(args: &BucketAddArgs, variable: impl Fn(&str) -> Option<String>) -> Result<String, BucketError> {
    let uri = without_secret(&args.destination_conf)?;
    if !uri.starts_with("r2://") {
        return Ok(uri.to_owned());
    }
    let (id, secret) = match &args.r2_key_file {
        Some(path) => {
            let text = file_text(path)?;
            let mut lines = text.lines().map(|line| line.trim().to_owned());
            (lines.next(), lines.next())
        }
        None => {
            let [id, secret] = stores::R2_VARIABLES;
            (variable(id), variable(secret))
        }
    };
    let legal = |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (Some(id), Some(secret)) = (id.filter(legal), secret.filter(legal)) else {
        let advice = "set TRAWL_R2_ACCESS_KEY_ID and TRAWL_R2_SECRET_ACCESS_KEY, or give --r2-key-file with one a line";
        return Err(BucketError::R2Keys(advice));
    };
    let joint = if uri.contains('?') { '&' } else { '?' };
    Ok(format!("{uri}{joint}access-key-id={id}&secret-access-key={secret}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(uri: &str) -> BucketAddArgs {
        BucketAddArgs {
            destination_conf: uri.to_owned(),
            r2_key_file: None,
            prove: false,
            store: StoreArgs::default(),
        }
    }

    #[test]
    fn keys_come_from_the_environment_or_a_file_and_never_from_the_arguments() {
        let variable = |name: &str| Some(if name.contains("SECRET") { "s3cr3t" } else { "k3y" }.to_owned());
        let uri = "r2://bucket?account-id=a";
        let whole = "r2://bucket?account-id=a&access-key-id=k3y&secret-access-key=s3cr3t";
        assert_eq!(with_keys(&args(uri), variable).unwrap(), whole);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "k3y\ns3cr3t\n").unwrap();
        let from_file = BucketAddArgs { r2_key_file: Some(file.path().to_owned()), ..args(uri) };
        assert_eq!(with_keys(&from_file, |_| None).unwrap(), whole);
        assert!(matches!(with_keys(&args(uri), |_| None), Err(BucketError::R2Keys(_))));
        assert!(matches!(with_keys(&args(uri), |_| Some("a&b".to_owned())), Err(BucketError::R2Keys(_))));
        let error = with_keys(&args(whole), variable).unwrap_err();
        assert!(error.is_usage() && !error.to_string().contains("s3cr3t"), "{error}");
        assert_eq!(with_keys(&args("s3://b?region=r"), |_| None).unwrap(), "s3://b?region=r");
    }
}
