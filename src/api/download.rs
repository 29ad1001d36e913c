//! `…/pcaps/{id}/download`. Owns the choice of the file and HTTP's ranges; not how long files are kept.
//!
//! Invariant: only a file of a capture that ended well is served, and no path is made of what was sent.

use super::auth::Reader;
use super::codes::Code;
use super::envelope::Failure;
use super::objects::View;
use super::results::{ResultFile, Results};
use super::route::{Api, PcapId, Routes};
use super::session::audit;
use crate::job::{Job, Kind, ObjectInfo, Status};
use crate::seldom::Seldom;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::io::{self, SeekFrom};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bytes that one answer holds in memory at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![("/accounts/{account}/pcaps/{id}/download", get(download))]
}

async fn download(
    Reader(account): Reader,
    State(api): Api,
    PcapId(id): PcapId,
    headers: HeaderMap,
    parts: Parts,
) -> Result<Response, Failure> {
    let job = api.captures.get(account.clone(), id).await?;
    let object = object(&job)?;
    let (file, bytes) = open(&*api.results, &object.name).await?;
    audit(&parts, &format!("download of {}", job.id), Some(&account));
    answer(&headers, object, &etag(object, None), bytes, Bytes::File(file)).await
}

/// Where an answer's bytes come from.
pub(super) enum Bytes {
    /// The file of a simple capture.
    File(Box<dyn ResultFile>),
    /// An object in a bucket.
    Stored(Box<View>),
}

/// The answer with an object of that size, or the part of it that was asked for.
pub(super) async fn answer(
    headers: &HeaderMap,
    object: &ObjectInfo,
    etag: &str,
    bytes: u64,
    source: Bytes,
) -> Result<Response, Failure> {
    let range = match headers.get(header::RANGE).filter(|_| range_holds(headers, etag)) {
        Some(range) => parse_range(range, bytes),
        None => Range::Whole,
    };
    let (status, from, len) = match range {
        Range::Whole => (StatusCode::OK, 0, bytes),
        Range::Part { from, len } => (StatusCode::PARTIAL_CONTENT, from, len),
        Range::None => return Ok(no_range(bytes)),
    };
    let body = match source {
        Bytes::File(mut file) => {
            file.seek(SeekFrom::Start(from)).await.map_err(|error| unreadable(&error))?;
            stream(file, len)
        }
        Bytes::Stored(view) => view.body(from, len),
    };
    let mut response = (status, body).into_response();
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(&object.name)));
    head.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    head.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    head.extend(
        [
            (header::ETAG, HeaderValue::from_str(etag)),
            (
                header::CONTENT_DISPOSITION,
                HeaderValue::from_str(&format!("attachment; filename=\"{}\"", object.name)),
            ),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.ok()?))),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        head.extend(content_range(&format!("bytes {from}-{}/{bytes}", from + len - 1)));
    }
    Ok(response)
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("pcapng") => "application/x-pcapng",
        Some("zst") => "application/zstd",
        _ => "application/vnd.tcpdump.pcap",
    }
}

/// The capture's one object: 10000 packets of 160 bytes never fill a segment.
pub(super) fn object(job: &Job) -> Result<&ObjectInfo, Failure> {
    match (job.request.kind, job.status) {
        (Kind::Full, _) => {
            let message =
                "a full capture is not downloaded here; its files are in the bucket of destination_conf";
            Err(Failure::new(Code::FullDownload, message))
        }
        (Kind::Simple, Status::Success) => job.objects.first().ok_or_else(|| {
            Failure::new(
                Code::Internal,
                "this capture succeeded without a file; ask the operator of this host",
            )
        }),
        (Kind::Simple, Status::Failed) => {
            let why = job.error_message.as_deref().unwrap_or("no reason was recorded");
            Err(Failure::new(Code::NoFile, format!("the capture failed and has no file: {why}")))
        }
        (Kind::Simple, _) => {
            let message = "the capture has not ended; download it once its status is success";
            Err(Failure::new(Code::NotEnded, message))
        }
    }
}

pub(super) async fn open(results: &dyn Results, name: &str) -> Result<(Box<dyn ResultFile>, u64), Failure> {
    results.open(name).await.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            let message = "the file was removed, because this host keeps simple captures for a limited time";
            Failure::new(Code::FileGone, message)
        }
        _ => unreadable(&error),
    })
}

fn unreadable(error: &io::Error) -> Failure {
    static SAID: Seldom = Seldom::new();
    if SAID.may(Instant::now()) {
        tracing::error!(%error, "the file of a simple capture could not be read; more within a minute are not told");
    }
    Failure::new(Code::RecordFailed, "this host could not read the file; ask its operator")
}

/// What a range is told from another content's by. A file of this host is what was recorded, so that its hash says it. An object in a
/// bucket is what its owner makes of it, so that the store's mark of what is there now belongs to it.
pub(super) fn etag(object: &ObjectInfo, mark: Option<&str>) -> String {
    let Some(mark) = mark else { return format!("\"{}\"", object.sha256) };
    let now = HEXLOWER.encode(&Sha256::digest(mark)[..8]);
    format!("\"{}-{now}\"", object.sha256)
}

/// RFC 9110, section 13.1.5: with `If-Range`, a range is of this very content or the whole is sent.
fn range_holds(headers: &HeaderMap, etag: &str) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag.as_bytes())
}

#[derive(Debug, PartialEq)]
enum Range {
    Whole,
    Part { from: u64, len: u64 },
    None,
}

/// RFC 9110, section 14.1.2. Several ranges, other units and nonsense are answered with the whole, as section 14.2 allows.
fn parse_range(range: &HeaderValue, bytes: u64) -> Range {
    let spec = range.to_str().ok().and_then(|range| range.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Range::Whole };
    let number = |text: &str| {
        // More digits than a u64 has mean more than any file has.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(from), Some(to)) if from > to => Range::Whole,
        (Some(from), to) if to.is_some() || last.is_empty() => {
            if from >= bytes {
                return Range::None;
            }
            Range::Part { from, len: to.unwrap_or(u64::MAX).min(bytes - 1) - from + 1 }
        }
        (None, Some(0)) if first.is_empty() => Range::None,
        (None, Some(len)) if first.is_empty() => {
            let len = len.min(bytes);
            if len == 0 { Range::None } else { Range::Part { from: bytes - len, len } }
        }
        _ => Range::Whole,
    }
}

fn no_range(bytes: u64) -> Response {
    let message = format!("no byte of the range is in the file, which has {bytes}");
    let mut response = Failure::new(Code::BadRange, message).into_response();
    response.headers_mut().extend(content_range(&format!("bytes */{bytes}")));
    response
}

fn content_range(text: &str) -> Option<(header::HeaderName, HeaderValue)> {
    Some((header::CONTENT_RANGE, HeaderValue::from_str(text).ok()?))
}

/// The next `len` bytes of `file`; an error, which cuts the connection, when it has fewer.
fn stream(file: Box<dyn ResultFile>, len: u64) -> Body {
    Body::from_stream(futures_util::stream::try_unfold((file, len), |(mut file, left)| async move {
        if left == 0 {
            return Ok::<_, io::Error>(None);
        }
        let want = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; want];
        let got = file.read(&mut piece).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(got);
        Ok(Some((bytes::Bytes::from(piece), (file, left - got as u64))))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_rfc_says_and_clipped_to_the_file() {
        let part = |from, len| Range::Part { from, len };
        for (text, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-", part(0, 10)),
            ("bytes=3-4", part(3, 2)),
            ("bytes=9-99999999999999999999999", part(9, 1)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-11", part(0, 10)),
            ("bytes=10-", Range::None),
            ("bytes=99999999999999999999999-", Range::None),
            ("bytes=-0", Range::None),
            ("bytes=4-3", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes", Range::Whole),
            ("bytes=+1-2", Range::Whole),
        ] {
            assert_eq!(parse_range(&HeaderValue::from_str(text).unwrap(), 10), expected, "{text}");
        }
        assert_eq!(parse_range(&HeaderValue::from_static("bytes=-1"), 0), Range::None);
        assert_eq!(parse_range(&HeaderValue::from_static("bytes=0-"), 0), Range::None);
    }
}
