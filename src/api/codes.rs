//! The error codes. Owns numbers, statuses and what a client is told about retrying; not the messages.
//!
//! Invariant: a number never changes its meaning; `docs/API.md` lists exactly these.

use axum::http::StatusCode;

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The account has no such capture.
    PcapNotFound,
    /// The body is not a JSON object, or names a member twice.
    MalformedBody,
    /// A member that the API does not have.
    UnknownMember,
    /// A required member is absent.
    MissingMember,
    /// A member's value cannot be used.
    InvalidValue,
    /// A member that this type of capture does not have.
    MemberNotAllowed,
    /// Something that this host does not offer.
    NotSupported,
    /// The body is longer than the host takes.
    BodyTooLarge,
    /// A full capture of the account is pending or running.
    FullCaptureActive,
    /// Every capture slot is taken.
    NoSlot,
    /// The host is shutting down.
    ShuttingDown,
    /// The record of the capture could not be written or read.
    RecordFailed,
    /// The host did not answer in time.
    TimedOut,
    /// A bug of ours.
    Internal,
    /// The credential may only read.
    ReadOnly,
    /// The account has no such ownership.
    OwnershipNotFound,
    /// What was sent is not the content of the challenge.
    OwnershipWrong,
    /// The challenge was not answered in time.
    OwnershipExpired,
    /// The account has not proven that the bucket is its own.
    NotValidated,
    /// The account has as many buckets as it may.
    BucketsFull,
    /// The account may not start another simple capture yet: it did a short time ago, or waits for many look backs.
    SimpleTooSoon,
    /// A download of a capture that has not ended.
    NotEnded,
    /// A download of a capture that failed.
    NoFile,
    /// A download of a full capture.
    FullDownload,
    /// A download of a capture whose file was removed.
    FileGone,
    /// No byte of the file is in the range that was asked for.
    BadRange,
    /// The peer failed to authenticate for the account too often.
    TooManyFailures,
    /// The destination's store did not answer in time.
    DestinationSilent,
    /// What came is no HTTP/1.1.
    MalformedRequest,
    /// The head of a request was not complete in time.
    HeadTimeout,
    /// The first line of a request is longer than the host takes.
    UriTooLong,
    /// The head of a request is longer than the host takes.
    HeadTooLarge,
    /// A version of HTTP that is not spoken here.
    HttpVersion,
    /// As many captures of the account wait for their upload as may.
    TooManyWaiting,
    /// The account has as much on the host's spool as it may.
    ShareFull,
    /// What is to be dropped still takes packets.
    StillCapturing,
    /// The account asked for a challenge in that bucket a short time ago, or for many.
    ChallengeTooSoon,
    /// The account has as many connections as it may, each of them at work.
    TooManyConnections,
    /// The host cannot write its audit log, and nothing was done.
    AuditStopped,
    /// It was done, and its line of the audit log could not be written.
    Unrecorded,
    /// The account, or the host, has as many streams as it may.
    TooManyStreams,
    /// A login that no page of this host caused.
    CrossSite,
    /// A login whose cookie would cross a network in clear.
    InsecureLogin,
    /// The dashboard was asked for under a name that is not the host's.
    WrongHost,
    /// The capture has no object of that number.
    ObjectNotFound,
    /// The bucket does not let the host read what it wrote.
    NotReadable,
    /// The account reads as many objects as it may at once.
    TooManyViews,
    /// The account asked for many estimates a short time ago, or waits for one.
    EstimateTooSoon,
    /// Nobody kept the capture's counts second by second.
    NoSeries,
    /// The account asks more requests a second than it may.
    TooManyRequests,
    /// What the hosts of a fleet share cannot be reached.
    FleetAway,
    /// A note, never an error: why a simple capture failed.
    SimpleFailed,
    /// A note, never an error: what threatens a capture that goes on.
    Threatened,
    /// A note, never an error: what a capture that takes no more packets has on the host.
    Held,
    /// A note, never an error: a bucket's proof that counts no more.
    ProofEnded,
    /// A note, never an error: hosts whose packets are not in a simple capture.
    HostsMissing,
    /// No route for the path.
    NoRoute,
    /// The path has no such method.
    MethodNotAllowed,
    /// An id in the path that can be no id.
    BadIdentifier,
    /// No credential was sent.
    MissingCredential,
    /// The credential does not open the account.
    Authentication,
}

/// What the official SDKs should do; they retry 408, 409, 429 and 5xx by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing is said: the SDKs do not retry this status.
    Unsaid,
    /// `x-should-retry: false`: seconds cannot cure it, or it may have been done.
    Never,
    /// `Retry-After`, in seconds.
    AfterSeconds(u16),
    /// `Retry-After` with the seconds that are left, and `x-should-retry: false`: the wait may be a minute, and the
    /// client learns of it at once instead of hanging in an SDK.
    Later,
}

/// One row of [`TABLE`].
pub(super) struct Row {
    pub(super) code: Code,
    pub(super) number: u16,
    pub(super) status: StatusCode,
    pub(super) retry: Retry,
}

const fn row(code: Code, number: u16, status: StatusCode, retry: Retry) -> Row {
    Row { code, number, status, retry }
}

/// Every code, in the order of [`Code`]. 7000, 7003, 9106 and 10000 are Cloudflare's published ones.
pub(super) const TABLE: [Row; 61] = [
    row(Code::PcapNotFound, 1001, StatusCode::NOT_FOUND, Retry::Unsaid),
    row(Code::MalformedBody, 1002, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::UnknownMember, 1003, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::MissingMember, 1004, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::InvalidValue, 1005, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::MemberNotAllowed, 1006, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::NotSupported, 1007, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::BodyTooLarge, 1008, StatusCode::PAYLOAD_TOO_LARGE, Retry::Unsaid),
    row(Code::FullCaptureActive, 1009, StatusCode::CONFLICT, Retry::Never),
    row(Code::NoSlot, 1010, StatusCode::TOO_MANY_REQUESTS, Retry::Never),
    row(Code::ShuttingDown, 1011, StatusCode::SERVICE_UNAVAILABLE, Retry::AfterSeconds(10)),
    row(Code::RecordFailed, 1012, StatusCode::INTERNAL_SERVER_ERROR, Retry::Never),
    row(Code::TimedOut, 1013, StatusCode::GATEWAY_TIMEOUT, Retry::Never),
    row(Code::Internal, 1014, StatusCode::INTERNAL_SERVER_ERROR, Retry::Never),
    row(Code::ReadOnly, 1015, StatusCode::FORBIDDEN, Retry::Unsaid),
    row(Code::OwnershipNotFound, 1016, StatusCode::NOT_FOUND, Retry::Unsaid),
    row(Code::OwnershipWrong, 1017, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::OwnershipExpired, 1018, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::NotValidated, 1019, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::BucketsFull, 1020, StatusCode::CONFLICT, Retry::Never),
    row(Code::SimpleTooSoon, 1021, StatusCode::TOO_MANY_REQUESTS, Retry::Later),
    row(Code::NotEnded, 1022, StatusCode::CONFLICT, Retry::Never),
    row(Code::NoFile, 1023, StatusCode::NOT_FOUND, Retry::Unsaid),
    row(Code::FullDownload, 1024, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::FileGone, 1025, StatusCode::GONE, Retry::Unsaid),
    row(Code::BadRange, 1026, StatusCode::RANGE_NOT_SATISFIABLE, Retry::Unsaid),
    row(Code::TooManyFailures, 1027, StatusCode::TOO_MANY_REQUESTS, Retry::AfterSeconds(10)),
    row(Code::DestinationSilent, 1028, StatusCode::GATEWAY_TIMEOUT, Retry::Never),
    row(Code::MalformedRequest, 1029, StatusCode::BAD_REQUEST, Retry::Unsaid),
    row(Code::HeadTimeout, 1030, StatusCode::REQUEST_TIMEOUT, Retry::AfterSeconds(1)),
    row(Code::UriTooLong, 1031, StatusCode::URI_TOO_LONG, Retry::Unsaid),
    row(Code::HeadTooLarge, 1032, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Retry::Unsaid),
    row(Code::HttpVersion, 1033, StatusCode::HTTP_VERSION_NOT_SUPPORTED, Retry::Never),
    row(Code::TooManyWaiting, 1040, StatusCode::CONFLICT, Retry::Never),
    row(Code::ShareFull, 1041, StatusCode::CONFLICT, Retry::Never),
    row(Code::StillCapturing, 1042, StatusCode::CONFLICT, Retry::Never),
    row(Code::ChallengeTooSoon, 1043, StatusCode::TOO_MANY_REQUESTS, Retry::Later),
    row(Code::TooManyConnections, 1044, StatusCode::TOO_MANY_REQUESTS, Retry::AfterSeconds(1)),
    row(Code::AuditStopped, 1045, StatusCode::SERVICE_UNAVAILABLE, Retry::AfterSeconds(10)),
    row(Code::Unrecorded, 1046, StatusCode::INTERNAL_SERVER_ERROR, Retry::Never),
    row(Code::TooManyStreams, 1060, StatusCode::TOO_MANY_REQUESTS, Retry::AfterSeconds(10)),
    row(Code::CrossSite, 1061, StatusCode::FORBIDDEN, Retry::Unsaid),
    row(Code::InsecureLogin, 1062, StatusCode::FORBIDDEN, Retry::Unsaid),
    row(Code::WrongHost, 1063, StatusCode::MISDIRECTED_REQUEST, Retry::Unsaid),
    row(Code::ObjectNotFound, 1064, StatusCode::NOT_FOUND, Retry::Unsaid),
    row(Code::NotReadable, 1065, StatusCode::CONFLICT, Retry::Never),
    row(Code::TooManyViews, 1066, StatusCode::TOO_MANY_REQUESTS, Retry::AfterSeconds(1)),
    row(Code::EstimateTooSoon, 1067, StatusCode::TOO_MANY_REQUESTS, Retry::Later),
    row(Code::NoSeries, 1068, StatusCode::GONE, Retry::Unsaid),
    row(Code::TooManyRequests, 1069, StatusCode::TOO_MANY_REQUESTS, Retry::AfterSeconds(1)),
    row(Code::FleetAway, 1070, StatusCode::SERVICE_UNAVAILABLE, Retry::AfterSeconds(5)),
    row(Code::SimpleFailed, 1101, StatusCode::OK, Retry::Unsaid),
    row(Code::Threatened, 1102, StatusCode::OK, Retry::Unsaid),
    row(Code::Held, 1103, StatusCode::OK, Retry::Unsaid),
    row(Code::ProofEnded, 1104, StatusCode::OK, Retry::Unsaid),
    row(Code::HostsMissing, 1105, StatusCode::OK, Retry::Unsaid),
    row(Code::NoRoute, 7000, StatusCode::NOT_FOUND, Retry::Unsaid),
    row(Code::MethodNotAllowed, 7001, StatusCode::METHOD_NOT_ALLOWED, Retry::Unsaid),
    row(Code::BadIdentifier, 7003, StatusCode::NOT_FOUND, Retry::Unsaid),
    row(Code::MissingCredential, 9106, StatusCode::UNAUTHORIZED, Retry::Unsaid),
    row(Code::Authentication, 10000, StatusCode::UNAUTHORIZED, Retry::Unsaid),
];

const _: () = {
    let mut at = 0;
    while at < TABLE.len() {
        assert!(TABLE[at].code as usize == at, "the rows stand in the order of the codes");
        at += 1;
    }
};

impl Code {
    /// Its row.
    pub(super) fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes' rows of the document, as (number, status, retry).
    fn documented() -> Vec<(String, String, String)> {
        let rows = include_str!("../../docs/API.md").lines().filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let number = *cells.get(1)?;
            (number.len() >= 4 && number.bytes().all(|b| b.is_ascii_digit()))
                .then(|| (number.to_owned(), cells[2].to_owned(), cells[3].to_owned()))
        });
        rows.collect()
    }

    #[test]
    fn the_document_lists_exactly_these_codes() {
        let ours: Vec<_> = TABLE
            .iter()
            .map(|row| {
                let retry = match row.retry {
                    Retry::Unsaid => "–".to_owned(),
                    Retry::Never => "`x-should-retry: false`".to_owned(),
                    Retry::Later => "`Retry-After`, `x-should-retry: false`".to_owned(),
                    Retry::AfterSeconds(seconds) => format!("`Retry-After: {seconds}`"),
                };
                (row.number.to_string(), row.status.as_u16().to_string(), retry)
            })
            .collect();
        assert_eq!(documented(), ours);
    }

    #[test]
    fn no_number_is_used_twice() {
        for row in &TABLE {
            assert_eq!(TABLE.iter().filter(|other| other.number == row.number).count(), 1);
        }
    }

    #[test]
    fn what_the_sdks_would_retry_says_how() {
        for row in &TABLE {
            let retried = matches!(row.status.as_u16(), 408 | 409 | 429) || row.status.is_server_error();
            assert_eq!(retried, row.retry != Retry::Unsaid, "{}", row.number);
        }
    }
}
