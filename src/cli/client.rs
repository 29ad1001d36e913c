//! The API client. Owns the connection, the credentials and the envelope; not what is printed.
//!
//! Invariant: a secret is in no message, no `Debug` and no URL.

use super::args::ServerArgs;
use super::request::Body;
use crate::chain::printable;
use crate::job::Progress;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A server that does not answer within this time does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A download as a whole; what has come is kept, so a longer one is asked for again.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The longest answer that is read: a list of all captures that a host remembers of an account by default, with room.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why the server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No account.
    #[error("which account? give --account ID or set TRAWL_ACCOUNT")]
    NoAccount,
    /// No credentials.
    #[error("no credentials; set TRAWL_TOKEN, or TRAWL_EMAIL and TRAWL_KEY, or give --token-file")]
    NoCredentials,
    /// An e-mail address without a key.
    #[error("--email (or TRAWL_EMAIL) needs a key; set TRAWL_KEY or give --key-file")]
    NoKey,
    /// A secret's file cannot be read.
    #[error("cannot read {}: {reason}; it must hold the secret alone", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not a URL, account or id that a path could hold.
    #[error("{name} {value:?}: write {advice}")]
    Argument {
        /// The option.
        name: &'static str,
        /// As typed.
        value: String,
        /// What to write.
        advice: &'static str,
    },
    /// No connection.
    #[error(
        "no server at {url}: {reason}; start one with `trawl serve --config FILE`, or name another with --url or TRAWL_URL"
    )]
    Connect {
        /// The base URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// The connection broke or timed out.
    #[error("the server at {url} did not answer: {reason}; see its log")]
    Broken {
        /// The base URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// A wait for bytes that do not come.
    #[error("the server at {url} sent nothing for {} s; see its log", ANSWER_TIMEOUT.as_secs())]
    Stalled {
        /// The base URL.
        url: String,
    },
    /// The server's own refusal.
    #[error("the server refused ({status}): {}", errors.iter().map(|one| format!("{} (code {})", printable(&one.message), one.code)).collect::<Vec<_>>().join("; "))]
    Refused {
        /// HTTP status.
        status: u16,
        /// From its envelope; never empty.
        errors: Vec<Message>,
    },
    /// The server sends to another place, which would get the credentials.
    #[error(
        "{url} answered {status} and sends to {to}; this is not followed. If that is the API, name it with --url"
    )]
    Redirect {
        /// The URL asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// Scheme and host, if there are any.
        to: String,
    },
    /// An answer without an end.
    #[error(
        "{url} answered {status} with more than {} MiB, which is not this API; check --url",
        ANSWER_BYTES_MAX >> 20
    )]
    TooLong {
        /// The URL asked.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// Not the API.
    #[error(
        "{url} answered {status} with something that is not this API; check --url (it ends in /client/v4)"
    )]
    NotTheApi {
        /// The URL asked.
        url: String,
        /// HTTP status.
        status: u16,
    },
}

impl Error {
    /// Whether the arguments were at fault.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoAccount | Self::NoCredentials | Self::NoKey | Self::Argument { .. })
    }

    /// Whether asking again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Stalled { .. } => true,
            Self::Refused { status, .. } | Self::NotTheApi { status, .. } => {
                matches!(status, 408 | 429 | 500..)
            }
            _ => false,
        }
    }
}

/// One error of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// At least 1000.
    pub code: i64,
    /// For people.
    pub message: String,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    result: Value,
    success: bool,
    #[serde(default)]
    errors: Vec<Message>,
    /// Of whatever form: only the result decides.
    #[serde(default)]
    messages: Value,
    #[serde(default)]
    result_info: Value,
}

enum Credentials {
    Token(String),
    Key { email: HeaderValue, key: HeaderValue },
}

/// One account on one server.
pub struct Client {
    http: reqwest::Client,
    /// Without a trailing slash.
    base: String,
    /// `{base}/accounts/{account}/pcaps`
    pcaps: String,
    credentials: Credentials,
    /// Beside the last result.
    notes: Mutex<Vec<Message>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("pcaps", &self.pcaps).finish_non_exhaustive()
    }
}

/// A manifest as the server has it.
#[derive(Debug, Deserialize)]
pub struct SignedManifest {
    /// What is signed.
    pub text: String,
    /// In Base64; none if the host has no key.
    pub signature: Option<String>,
}

impl Client {
    /// A client of the server and account that `args` name, with a secret from a file or from `variable`
    /// (the environment, injected for tests).
    ///
    /// # Errors
    /// Whatever is missing or malformed. Nothing is sent yet.
    pub fn new(args: &ServerArgs, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let base = args.url.trim_end_matches('/').to_owned();
        let url = Url::parse(&base).ok().filter(|url| {
            let plain = url.password().is_none() && url.query().is_none() && url.fragment().is_none();
            matches!(url.scheme(), "http" | "https") && url.has_host() && plain
        });
        let Some(url) = url else {
            let advice = "such as http://127.0.0.1:8080/client/v4, without credentials";
            let value = if base.contains('@') { "(not shown)".to_owned() } else { args.url.clone() };
            return Err(Error::Argument { name: "--url", value, advice });
        };
        let account = args.account.clone().filter(|id| !id.is_empty()).ok_or(Error::NoAccount)?;
        let account = segment("--account", &account, "the account's id")?;
        let credentials = credentials(args, variable)?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("trawl/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            .timeout(ANSWER_TIMEOUT);
        if url
            .host_str()
            .is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
        {
            http = http.no_proxy();
        }
        let http =
            http.build().map_err(|error| Error::Connect { url: base.clone(), reason: root_cause(&error) })?;
        Ok(Self {
            http,
            pcaps: format!("{base}/accounts/{account}/pcaps"),
            base,
            credentials,
            notes: Mutex::default(),
        })
    }

    /// Starts a capture; the answer is the capture as the API shows it.
    ///
    /// # Errors
    /// [`Error`]; so for all methods.
    pub async fn create(&self, body: &Body) -> Result<Value, Error> {
        self.ask(self.request(Method::POST, "").json(body)).await
    }

    /// The account's captures.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn list(&self) -> Result<Vec<Value>, Error> {
        self.ask(self.request(Method::GET, "")).await
    }

    /// A page of the account's captures with this query, and the id behind which the next one begins.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn page(&self, query: &str) -> Result<(Vec<Value>, Option<String>), Error> {
        let (status, url, envelope) = self.envelope(self.request(Method::GET, &format!("?{query}"))).await?;
        let next = envelope.result_info.get("next").and_then(Value::as_str).map(str::to_owned);
        let list = serde_json::from_value(envelope.result).map_err(|_| Error::NotTheApi { url, status })?;
        Ok((list, next))
    }

    /// One capture.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn get(&self, id: &str) -> Result<Value, Error> {
        let id = segment("ID", id, ID_ADVICE)?;
        self.ask(self.request(Method::GET, &format!("/{id}"))).await
    }

    /// One capture's counts and objects.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn progress(&self, id: &str) -> Result<Progress, Error> {
        let id = segment("ID", id, ID_ADVICE)?;
        self.ask(self.request(Method::GET, &format!("/{id}/progress"))).await
    }

    /// A capture's manifest to the byte, and its signature.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn manifest(&self, id: &str) -> Result<SignedManifest, Error> {
        let id = segment("ID", id, ID_ADVICE)?;
        self.ask(self.request(Method::GET, &format!("/{id}/manifest"))).await
    }

    /// Asks for the end of a capture.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn stop(&self, id: &str) -> Result<(), Error> {
        let id = segment("ID", id, ID_ADVICE)?;
        // The API answers 204 without a body.
        self.send(self.request(Method::PUT, &format!("/{id}/stop"))).await.map(|_no_body| ())
    }

    /// Drops what of a capture is on the host and not delivered.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn discard(&self, id: &str) -> Result<(), Error> {
        let id = segment("ID", id, ID_ADVICE)?;
        // The API answers 204 without a body.
        self.send(self.request(Method::DELETE, &format!("/{id}"))).await.map(|_no_body| ())
    }

    /// A simple capture's file from this byte on.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn download(&self, id: &str, from: u64) -> Result<Download<'_>, Error> {
        let id = segment("ID", id, ID_ADVICE)?;
        // The time-out of a request covers its body, which here has any length: it is replaced by one for each chunk.
        let mut request = self
            .request(Method::GET, &format!("/{id}/download"))
            .timeout(DOWNLOAD_TIMEOUT)
            .header(header::ACCEPT, "application/vnd.tcpdump.pcap");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await;
        let answer = sent.map_err(|_| self.stalled())?.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(redirect(&answer));
        }
        if !status.is_success() && status != StatusCode::RANGE_NOT_SATISFIABLE {
            let url = answer.url().to_string();
            let bytes = self.body(answer).await?;
            return Err(refusal(status.as_u16(), url, &bytes));
        }
        let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let (from, total) = match (status, range.and_then(content_range)) {
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, Some(range)) => range,
            _ => (Some(0), answer.content_length()),
        };
        let has_bytes = status.is_success();
        Ok(Download { client: self, answer: has_bytes.then_some(answer), from, total })
    }

    /// Names a bucket; the answer has the challenge's file name.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn add_bucket(&self, destination_conf: &str) -> Result<Value, Error> {
        let body = serde_json::json!({"destination_conf": destination_conf});
        self.ask(self.request(Method::POST, "/ownership").json(&body)).await
    }

    /// Answers a bucket's challenge.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn prove_bucket(&self, destination_conf: &str, challenge: &str) -> Result<Value, Error> {
        let body =
            serde_json::json!({"destination_conf": destination_conf, "ownership_challenge": challenge});
        self.ask(self.request(Method::POST, "/ownership/validate").json(&body)).await
    }

    /// The account's buckets.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn buckets(&self) -> Result<Vec<Value>, Error> {
        self.ask(self.request(Method::GET, "/ownership")).await
    }

    /// Takes a bucket from the list.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn remove_bucket(&self, id: &str) -> Result<(), Error> {
        let id = segment("ID", id, "an entry's id as `trawl bucket list` shows it")?;
        // The API answers 204 without a body.
        self.send(self.request(Method::DELETE, &format!("/ownership/{id}"))).await.map(|_no_body| ())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.pcaps));
        match &self.credentials {
            Credentials::Token(token) => request.bearer_auth(token),
            Credentials::Key { email, key } => {
                request.header("X-Auth-Email", email).header("X-Auth-Key", key)
            }
        }
    }

    /// A success: its status, where it came from, and what is in it.
    async fn envelope(&self, request: RequestBuilder) -> Result<(u16, String, Envelope), Error> {
        let (status, url, bytes) = self.send(request).await?;
        let envelope = serde_json::from_slice::<Envelope>(&bytes).ok().filter(|envelope| envelope.success);
        let Some(mut envelope) = envelope else { return Err(Error::NotTheApi { url, status }) };
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) =
            serde_json::from_value(std::mem::take(&mut envelope.messages)).unwrap_or_default();
        Ok((status, url, envelope))
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let (status, url, envelope) = self.envelope(request).await?;
        serde_json::from_value(envelope.result).map_err(|_| Error::NotTheApi { url, status })
    }

    /// What the server said beside the last result, such as what of a capture is still on its host.
    pub fn take_notes(&self) -> Vec<Message> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends; the status is a success.
    async fn send(&self, request: RequestBuilder) -> Result<(u16, String, Vec<u8>), Error> {
        let answer = request.send().await.map_err(|error| self.broken(&error))?;
        let (status, url) = (answer.status(), answer.url().to_string());
        if status.is_redirection() {
            return Err(redirect(&answer));
        }
        let bytes = self.body(answer).await?;
        if status.is_success() {
            return Ok((status.as_u16(), url, bytes));
        }
        Err(refusal(status.as_u16(), url, &bytes))
    }

    /// The whole body, if it is no longer than an answer may be.
    async fn body(&self, mut answer: Response) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.broken(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLong {
                    url: answer.url().to_string(),
                    status: answer.status().as_u16(),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn broken(&self, error: &reqwest::Error) -> Error {
        let (url, reason) = (self.base.clone(), root_cause(error));
        if error.is_connect() { Error::Connect { url, reason } } else { Error::Broken { url, reason } }
    }

    fn stalled(&self) -> Error {
        Error::Stalled { url: self.base.clone() }
    }
}

/// A file on its way.
#[derive(Debug)]
pub struct Download<'a> {
    client: &'a Client,
    /// None where nothing is left to send.
    answer: Option<reqwest::Response>,
    /// Where its bytes begin; none where the server said that there are none from there on.
    pub from: Option<u64>,
    /// Size of the whole file in bytes, if the server tells.
    pub total: Option<u64>,
}

impl Download<'_> {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// See [`Client::create`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(answer) = &mut self.answer else { return Ok(None) };
        let chunk = tokio::time::timeout(ANSWER_TIMEOUT, answer.chunk()).await;
        chunk.map_err(|_| self.client.stalled())?.map_err(|error| self.client.broken(&error))
    }
}

/// First byte and whole size of `bytes 0-9/10`, `bytes */10` and `bytes 0-9/*` (RFC 9110, section 14.4).
fn content_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let from = range.split_once('-').and_then(|(from, _)| from.parse().ok());
    Some((from, total.parse().ok()))
}

fn refusal(status: u16, url: String, bytes: &[u8]) -> Error {
    match serde_json::from_slice::<Envelope>(bytes) {
        Ok(envelope) if !envelope.errors.is_empty() => Error::Refused { status, errors: envelope.errors },
        _ => Error::NotTheApi { url, status },
    }
}

/// Where the server would send us; the host alone, because the rest may be anything.
fn redirect(answer: &Response) -> Error {
    let location = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
    let to = location.and_then(|to| answer.url().join(to).ok());
    let to = to.and_then(|to| Some(format!("{}://{}", to.scheme(), to.host_str()?)));
    let to = to.map_or_else(|| "nowhere".to_owned(), |to| printable(&to).into_owned());
    Error::Redirect { url: answer.url().to_string(), status: answer.status().as_u16(), to }
}

const ID_ADVICE: &str = "a capture's id as `trawl capture list` shows it";

/// `value` if it can stand in a path as it is.
fn segment(name: &'static str, value: &str, advice: &'static str) -> Result<String, Error> {
    let legal =
        !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    legal.then(|| value.to_owned()).ok_or_else(|| Error::Argument { name, value: value.to_owned(), advice })
}

fn credentials(args: &ServerArgs, variable: impl Fn(&str) -> Option<String>) -> Result<Credentials, Error> {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(path) = &args.token_file {
        return Ok(Credentials::Token(secret(path)?));
    }
    // A key that was asked for by option outranks a token that happens to be in the environment.
    let token = variable("TRAWL_TOKEN").filter(|_| args.key_file.is_none());
    if let Some(token) = token {
        return Ok(Credentials::Token(checked(token, Path::new("TRAWL_TOKEN"))?));
    }
    let email = args.email.clone().filter(|email| !email.is_empty()).ok_or(Error::NoCredentials)?;
    let key = match &args.key_file {
        Some(path) => secret(path)?,
        None => checked(variable("TRAWL_KEY").ok_or(Error::NoKey)?, Path::new("TRAWL_KEY"))?,
    };
    let email = header_value(&checked(email, Path::new("--email"))?, Path::new("--email"))?;
    Ok(Credentials::Key { email, key: header_value(&key, Path::new("--key-file"))? })
}

/// A header's value that no log and no `Debug` shows.
fn header_value(text: &str, source: &Path) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|error| Error::Secret { path: source.to_owned(), reason: error.to_string() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn secret(path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Secret { path: path.to_owned(), reason: error.to_string() })?;
    checked(text.trim().to_owned(), path)
}

/// A secret that can stand in a header; `source` is named if it cannot.
fn checked(text: String, source: &Path) -> Result<String, Error> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    Err(Error::Secret { path: source.to_owned(), reason: "empty, or not one word of ASCII".to_owned() })
}

/// The innermost reason: reqwest's own words repeat the URL and say little.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, |cause| printable(&cause.to_string()).into_owned())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
