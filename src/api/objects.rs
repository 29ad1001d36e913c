//! `…/pcaps/{id}/objects/{n}` and `…/pcaps/{id}/manifest`: a capture's files as its owner looks at them. Owns where they are read and
//! how fast; not ranges (`download`).
//!
//! Invariant: a number leads to an object that the capture's record names, and no path is made of what was sent; uploads go before
//! views, which have a bounded number and rate.

use super::ApiState;
use super::auth::Reader;
use super::codes::Code;
use super::download::{self, Bytes as Source, answer, etag};
use super::envelope::{Failure, success};
use super::query::whole;
use super::route::{Api, PcapId, Routes};
use super::session::audit;
use super::trail;
use crate::dashboard::StreamPlace;
use crate::deliver::{manifest_name, signature_name};
use crate::http::Standing;
use crate::job::{AccountId, BucketTerms, Job, Kind, ObjectInfo, ObjectRange};
use crate::seldom::SeldomOfEach;
use crate::upload::{ObjectStore, UploadError, within};
use axum::body::HttpBody as _;
use axum::body::{Body, Bytes};
use axum::extract::{RawPathParams, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one request to a store brings.
const PIECE_BYTES: u64 = 1 << 20;
/// How long a store may take for the first of it.
const STORE_TIME_MAX: Duration = Duration::from_secs(10);
/// A manifest with ten thousand objects has a few MiB.
const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// What of an answer is handed to its connection at once: the rest waits for a slow reader with its place.
const ANSWER_PIECE_BYTES: usize = 64 << 10;

/// What customers cause in the log.
static SAID: SeldomOfEach = SeldomOfEach::new();

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![
        ("/accounts/{account}/pcaps/{id}/objects/{n}", get(object)),
        ("/accounts/{account}/pcaps/{id}/manifest", get(manifest)),
    ]
}

/// Where a capture's files are.
async fn store(api: &ApiState, job: &Job) -> Result<Arc<dyn ObjectStore>, UploadError> {
    match &job.request.destination {
        None => Ok(api.results.store()),
        Some(destination) => {
            let kept = BucketTerms { keys: job.keys.clone(), proof: job.proof.clone() };
            api.ownership.open_to_read(&job.request.account, destination, kept).await
        }
    }
}

/// What `contact` brings from a capture's store.
async fn ask<T>(job: &Job, contact: impl Future<Output = Result<T, UploadError>>) -> Result<T, Failure> {
    let asked = match &job.request.destination {
        Some(destination) => within(STORE_TIME_MAX, destination, contact).await,
        None => contact.await,
    };
    asked.map_err(|error| unread(job, &error))
}

fn unread(job: &Job, error: &UploadError) -> Failure {
    let account = &job.request.account;
    if SAID.may(&account.0, Instant::now()) {
        tracing::info!(
            %error, id = %job.id, %account,
            "an object could not be read for its owner; more of this account within a minute are not told"
        );
    }
    if matches!(error, UploadError::NotFound { .. }) {
        let message = "the file is not there any more: this host keeps simple captures for a limited time, and what is in a bucket is its owner's";
        return Failure::new(Code::FileGone, message);
    }
    let said = error.customer_text().unwrap_or_else(|| "ask this host's operator".to_owned());
    match error {
        UploadError::Unreachable { .. } => Failure::new(Code::DestinationSilent, said),
        UploadError::TooLarge { bytes_max, .. } => Failure::new(
            Code::NotReadable,
            format!("it has more than the {bytes_max} bytes that are shown here; open it from your computer"),
        ),
        _ if job.request.kind == Kind::Simple => {
            Failure::new(Code::RecordFailed, "this host could not read the file; ask its operator")
        }
        _ => Failure::new(
            Code::NotReadable,
            format!(
                "the host may not read this bucket; grant s3:GetObject (storage.objects.get) on it, or open the file from your computer: {said}"
            ),
        ),
    }
}

async fn object(
    Reader(account): Reader,
    State(api): Api,
    PcapId(id): PcapId,
    path: RawPathParams,
    headers: HeaderMap,
    parts: Parts,
) -> Result<Response, Failure> {
    let job = api.captures.get(account.clone(), id).await?;
    if job.request.kind == Kind::Simple {
        // Says why there is none.
        download::object(&job)?;
    }
    let number = path.iter().find(|(name, _)| *name == "n").and_then(|(_, n)| whole(n));
    let number = number.and_then(|n| usize::try_from(n).ok());
    let Some(found) = numbered(&api, &job, number).await? else {
        let objects = job.object_sums().objects;
        let message = format!("this capture has {objects} complete objects, numbered from 0");
        return Err(Failure::new(Code::ObjectNotFound, message));
    };
    let found = &found;
    trail::says(&parts, || json!({"object": found.name}));
    if job.request.kind == Kind::Simple {
        audit(&parts, &format!("view of {}", job.id), Some(&account));
        let (file, bytes) = download::open(&*api.results, &found.name).await?;
        return answer(&headers, found, &etag(found, None), bytes, Source::File(file)).await;
    }
    let place = place(&api, &parts, &account)?;
    audit(&parts, &format!("view of {}", job.id), Some(&account));
    let store = ask(&job, store(&api, &job)).await?;
    // Before anything is answered: whether it can be read at all.
    ask(&job, store.read(&found.name, 0, 1)).await?;
    let mark = ask(&job, store.mark(&found.name)).await?;
    let etag = etag(found, Some(mark.as_deref().unwrap_or_default()));
    let view = View { store, name: found.name.clone(), rate: api.ui.view_bytes_per_second, _place: place };
    answer(&headers, found, &etag, found.bytes, Source::Stored(Box::new(view))).await
}

/// One of a capture's objects.
async fn numbered(api: &ApiState, job: &Job, number: Option<usize>) -> Result<Option<ObjectInfo>, Failure> {
    let Some(from) = number else { return Ok(None) };
    if job.objects_beside.is_none() {
        return Ok(job.objects.get(from).cloned());
    }
    let (account, range) = (job.request.account.clone(), ObjectRange { from, count_max: 1 });
    let page = api.captures.progress_with(account, job.id.clone(), range).await?;
    Ok(page.objects.into_iter().next())
}

fn place(api: &ApiState, parts: &Parts, account: &AccountId) -> Result<StreamPlace, Failure> {
    let place = api.ui.views.take(Some(&account.0)).ok_or_else(|| {
        Failure::new(
            Code::TooManyViews,
            "your account, or this host, reads as many objects as it may at once; try again in a second",
        )
    })?;
    if let Some(standing) = parts.extensions.get::<Arc<Standing>>() {
        standing.is_a_view();
    }
    Ok(place)
}

/// An object on its way to a viewer.
pub(super) struct View {
    store: Arc<dyn ObjectStore>,
    name: String,
    rate: u64,
    _place: StreamPlace,
}

impl View {
    /// `len` bytes from `from` on, no faster than the rate.
    pub(super) fn body(self: Box<Self>, from: u64, len: u64) -> Body {
        let end = from.saturating_add(len);
        Body::from_stream(futures_util::stream::try_unfold((self, from), move |(view, at)| async move {
            if at >= end {
                return Ok::<_, io::Error>(None);
            }
            let piece = view.store.read(&view.name, at, PIECE_BYTES.min(end - at));
            let piece: Bytes = piece.await.map_err(io::Error::other)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let sent = piece.len() as u64;
            tokio::time::sleep(Duration::from_secs_f64(sent as f64 / view.rate.max(1) as f64)).await;
            Ok(Some((piece, (view, at + sent))))
        }))
    }
}

/// What must be in a manifest; the rest is passed on as it stands, because the owner of the bucket can write anything there.
#[derive(Deserialize)]
struct Written {
    id: String,
}

async fn manifest(
    Reader(account): Reader,
    State(api): Api,
    PcapId(id): PcapId,
    parts: Parts,
) -> Result<Response, Failure> {
    let job = api.captures.get(account.clone(), id).await?;
    if !job.status.ended() {
        return Err(Failure::new(Code::NotEnded, "the capture has not ended; its manifest is written last"));
    }
    let place = place(&api, &parts, &account)?;
    audit(&parts, &format!("view of the manifest of {}", job.id), Some(&account));
    let store = ask(&job, store(&api, &job)).await?;
    let text = ask(&job, store.get(&manifest_name(&job.part()), MANIFEST_BYTES_MAX)).await?;
    let signature = store.get(&signature_name(&job.part()), 4096).await;
    let signature = signature.ok().map(|bytes| STANDARD.encode(bytes));
    // Seconds of work on a large one, which is no work for the threads that answer everybody.
    let answer = tokio::task::spawn_blocking(move || signed(&job, &text, signature));
    let answer = answer.await.map_err(|error| Failure::new(Code::Internal, error.to_string()))??;
    Ok(held(answer, place))
}

/// The answer with a manifest, if it is of this capture.
fn signed(job: &Job, text: &[u8], signature: Option<String>) -> Result<Response, Failure> {
    let of_this = std::str::from_utf8(text).ok().filter(|text| {
        serde_json::from_str::<Written>(text).is_ok_and(|written| written.id == job.id.as_str())
    });
    let text = of_this.ok_or_else(|| {
        let message = "the manifest in the bucket is none of this capture; `trawl verify` says more";
        Failure::new(Code::RecordFailed, message)
    })?;
    let manifest: &RawValue = serde_json::from_str(text)
        .map_err(|error| Failure::new(Code::RecordFailed, format!("the manifest in the bucket: {error}")))?;
    // A signature is over the text to the byte.
    Ok(success(SignedManifest { manifest, text, signature }))
}

/// The answer, which keeps its place until its last piece has been taken: a slow reader holds memory as long as that.
fn held(answer: Response, place: StreamPlace) -> Response {
    let (mut head, body) = answer.into_parts();
    if let Some(bytes) = body.size_hint().exact() {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    let rest = (body.into_data_stream(), Bytes::new(), place);
    let pieces = futures_util::stream::try_unfold(rest, |(mut body, mut whole, place)| async move {
        while whole.is_empty() {
            match body.next().await {
                Some(chunk) => whole = chunk?,
                None => return Ok::<_, axum::Error>(None),
            }
        }
        let piece = whole.split_to(ANSWER_PIECE_BYTES.min(whole.len()));
        Ok(Some((piece, (body, whole, place))))
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

#[derive(Serialize)]
struct SignedManifest<'a> {
    manifest: &'a RawValue,
    text: &'a str,
    signature: Option<String>,
}
