//! The envelope that every JSON answer is in. Owns its four members, failures and their headers; not what is in `result`.
//!
//! Invariant: an answer has `result`, `success`, `errors` and `messages`, all four, or is 204 without a body; a failure has
//! a status of 4xx or 5xx and at least one error, because the SDKs do not look at `success`.

use super::codes::{Code, Retry};
use super::trail::Said;
use crate::engine::Refusal;
use crate::ownership::OwnershipError;
use crate::store::StoreError;
use crate::upload::UploadError;
use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

const SHOULD_RETRY: &str = "x-should-retry";

#[derive(Serialize)]
struct Envelope<T> {
    result: T,
    success: bool,
    errors: Vec<Problem>,
    messages: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Source {
    pointer: String,
}

/// An item of `errors` or `messages`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Problem {
    #[serde(serialize_with = "number")]
    code: Code,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
}

fn number<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(code.row().number)
}

impl Problem {
    /// A problem of the whole request.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// A problem of one member of the body; `pointer` is a JSON pointer (RFC 6901).
    pub(super) fn at(pointer: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: Some(Source { pointer: pointer.into() }) }
    }
}

/// A request that was not done, and every reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// Decides the status and the headers.
    first: Problem,
    others: Vec<Problem>,
    /// For [`Retry::Later`].
    seconds_left: u64,
}

impl Failure {
    /// One reason.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { first: Problem::new(code, message), others: Vec::new(), seconds_left: 0 }
    }

    /// One reason, in one member of the body.
    pub(super) fn at(pointer: &str, code: Code, message: impl Into<String>) -> Self {
        Self { first: Problem::at(pointer, code, message), others: Vec::new(), seconds_left: 0 }
    }

    /// All reasons, if there is one.
    pub(super) fn of(problems: Vec<Problem>) -> Option<Self> {
        let mut problems = problems.into_iter();
        Some(Self { first: problems.next()?, others: problems.collect(), seconds_left: 0 })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::NotFound(_) => Self::new(Code::PcapNotFound, "pcap not found"),
            Refusal::FullCaptureActive(_) => Self::new(Code::FullCaptureActive, refusal.to_string()),
            Refusal::SimpleTooSoon { seconds_left, .. }
            | Refusal::LookBackTooSoon { seconds_left, .. }
            | Refusal::TooManyLookBacks { seconds_left, .. } => {
                let failure = Self::new(Code::SimpleTooSoon, refusal.to_string());
                Self { seconds_left: *seconds_left, ..failure }
            }
            Refusal::TooManyWaiting { .. } => Self::new(Code::TooManyWaiting, refusal.to_string()),
            Refusal::ShareFull { .. } => Self::new(Code::ShareFull, refusal.to_string()),
            // Only another node is answered so.
            Refusal::Adopted(_) | Refusal::UnknownAccount(_) => {
                Self::new(Code::Internal, refusal.to_string())
            }
            Refusal::StillCapturing(_) => Self::new(Code::StillCapturing, refusal.to_string()),
            Refusal::NoSlot(_) | Refusal::NoBlocks(_) | Refusal::SlotsKept { .. } => {
                Self::new(Code::NoSlot, refusal.to_string())
            }
            Refusal::NoSeries => Self::new(Code::NoSeries, refusal.to_string()),
            Refusal::NoEstimate(_) => Self::new(Code::NotSupported, refusal.to_string()),
            Refusal::EstimateTooSoon { seconds_left } => {
                let failure = Self::new(Code::EstimateTooSoon, refusal.to_string());
                Self { seconds_left: *seconds_left, ..failure }
            }
            Refusal::NoHistory => Self::at("/offset_time", Code::NotSupported, refusal.to_string()),
            Refusal::ShuttingDown => Self::new(Code::ShuttingDown, refusal.to_string()),
            Refusal::AccountGone => Self::new(Code::Authentication, refusal.to_string()),
            Refusal::Filter(_) => Self::at("/filter_v1", Code::InvalidValue, refusal.to_string()),
            Refusal::DestinationSilent(_) => {
                Self::at("/destination_conf", Code::DestinationSilent, refusal.to_string())
            }
            Refusal::Unproven(_) => Self::at("/destination_conf", Code::NotValidated, refusal.to_string()),
            Refusal::Destination(_) => Self::at("/destination_conf", Code::InvalidValue, refusal.to_string()),
            Refusal::FleetAway(_) => Self::new(Code::FleetAway, refusal.to_string()),
            Refusal::NoColo { .. } => Self::at("/colo_name", Code::InvalidValue, refusal.to_string()),
            Refusal::NotOffered(_) => Self::new(Code::NotSupported, refusal.to_string()),
            Refusal::Undurable => Self::new(Code::RecordFailed, refusal.to_string()),
            // What the store says names files of the host: for its operator, not for the customer.
            Refusal::Store(detail) => record_failed(detail),
        }
    }
}

impl From<OwnershipError> for Failure {
    fn from(error: OwnershipError) -> Self {
        match &error {
            OwnershipError::NotFound => Self::new(Code::OwnershipNotFound, error.to_string()),
            OwnershipError::TooSoon { seconds_left } => {
                let failure = Self::at("/destination_conf", Code::ChallengeTooSoon, error.to_string());
                Self { seconds_left: *seconds_left, ..failure }
            }
            OwnershipError::Wrong { .. } => {
                Self::at("/ownership_challenge", Code::OwnershipWrong, error.to_string())
            }
            OwnershipError::Expired(_) | OwnershipError::Ended(_) => {
                Self::at("/ownership_challenge", Code::OwnershipExpired, error.to_string())
            }
            OwnershipError::Destination(UploadError::Unreachable { .. }) => {
                Self::at("/destination_conf", Code::DestinationSilent, error.to_string())
            }
            OwnershipError::Destination(cause) => {
                let said = cause.customer_text().unwrap_or_else(|| "ask this host's operator".to_owned());
                let said = format!("the challenge could not be written: {said}");
                Self::at("/destination_conf", Code::InvalidValue, said)
            }
            OwnershipError::NoKeyFile => Self::at("/destination_conf", Code::NotSupported, error.to_string()),
            OwnershipError::Store(StoreError::BucketsFull(_)) => {
                Self::new(Code::BucketsFull, error.to_string())
            }
            // Somebody answered or removed it at the same moment; a second try sees what came of it.
            OwnershipError::Store(StoreError::BucketStale(_)) => {
                Self::new(Code::OwnershipNotFound, OwnershipError::NotFound.to_string())
            }
            OwnershipError::Store(StoreError::ShuttingDown) => {
                Self::new(Code::ShuttingDown, error.to_string())
            }
            OwnershipError::Store(StoreError::Away(_)) => Self::new(Code::FleetAway, error.to_string()),
            OwnershipError::Store(_) | OwnershipError::Random => record_failed(&error.to_string()),
        }
    }
}

fn record_failed(detail: &str) -> Failure {
    tracing::error!(detail, "a record could not be written or read");
    let message = "this host could not write or read its record; ask its operator";
    Failure::new(Code::RecordFailed, message)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let row = self.first.code.row();
        let mut errors = vec![self.first];
        errors.extend(self.others);
        let envelope = Envelope { result: (), success: false, errors, messages: Vec::new() };
        let mut response = (row.status, Json(envelope)).into_response();
        response.extensions_mut().insert(Said(row.number));
        match row.retry {
            Retry::Unsaid => {}
            Retry::Never => {
                response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::Later => {
                response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(self.seconds_left));
            }
            Retry::AfterSeconds(seconds) => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        if row.status == axum::http::StatusCode::UNAUTHORIZED {
            // RFC 9110, section 11.6.1: a 401 names a scheme.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// 200 with `result` and no messages.
pub(super) fn success(result: impl Serialize) -> Response {
    success_with(result, Vec::new())
}

/// Where a page of a list stands.
#[derive(Serialize)]
pub(super) struct ResultInfo {
    pub(super) count: usize,
    pub(super) per_page: usize,
    pub(super) total_count: u64,
    pub(super) next: Option<String>,
}

#[derive(Serialize)]
struct Paged<T> {
    result: T,
    success: bool,
    errors: Vec<Problem>,
    messages: Vec<Problem>,
    result_info: ResultInfo,
}

/// 200 with a page of a list.
pub(super) fn page(result: impl Serialize, messages: Vec<Problem>, result_info: ResultInfo) -> Response {
    Json(Paged { result, success: true, errors: Vec::new(), messages, result_info }).into_response()
}

/// 200 with `result` and notes beside it.
pub(super) fn success_with(result: impl Serialize, messages: Vec<Problem>) -> Response {
    Json(Envelope { result, success: true, errors: Vec::new(), messages }).into_response()
}
