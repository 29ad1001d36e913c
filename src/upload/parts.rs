//! The parts of an object that goes up in parts. Owns how the open part fills and how requests in flight end; not what a store
//! calls a part, nor how large it is.
//!
//! Invariant: a request that panicked makes its writer panic, and no request is forgotten.

use super::UploadError;
use bytes::{Bytes, BytesMut};
use std::future::Future;
use tokio::task::{JoinError, JoinSet};

/// Moves bytes into the open part until it has `part_bytes`; whether it is full and more bytes are left, so that it must leave. A
/// full part waits for the next byte, because the last one is sent otherwise.
pub(super) fn fill(open: &mut BytesMut, bytes: &mut Bytes, part_bytes: usize) -> bool {
    let room = part_bytes.saturating_sub(open.len());
    open.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
    !bytes.is_empty()
}

/// Requests in flight, each of which brings a `T`.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    place: String,
    requests: JoinSet<Result<T, UploadError>>,
}

impl<T: Send + 'static> InFlight<T> {
    /// None yet. `place` is what errors name.
    pub(super) fn new(place: String) -> Self {
        Self { place, requests: JoinSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Sends one.
    pub(super) fn send(&mut self, request: impl Future<Output = Result<T, UploadError>> + Send + 'static) {
        self.requests.spawn(request);
    }

    /// Waits for the end of one; none if none is in flight.
    pub(super) async fn next(&mut self) -> Option<Result<T, UploadError>> {
        let ended = self.requests.join_next().await?;
        Some(self.read(ended))
    }

    /// One that has ended; none if there is none.
    pub(super) fn ended(&mut self) -> Option<Result<T, UploadError>> {
        let ended = self.requests.try_join_next()?;
        Some(self.read(ended))
    }

    /// Breaks all of them off, and returns once none is at work.
    pub(super) async fn stop(&mut self) {
        self.requests.shutdown().await;
    }

    fn read(&self, ended: Result<Result<T, UploadError>, JoinError>) -> Result<T, UploadError> {
        ended.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => {
                let detail = "the runtime is shutting down".to_owned();
                Err(UploadError::Refused { place: self.place.clone(), detail })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_part_leaves_only_when_a_byte_behind_it_has_come() {
        let (mut open, mut bytes) = (BytesMut::new(), Bytes::from_static(b"abcdef"));
        assert!(!fill(&mut open, &mut bytes.split_to(3), 3));
        assert_eq!(&open[..], b"abc");
        assert!(fill(&mut open, &mut bytes, 3));
        assert_eq!((&open.split()[..], &bytes[..]), (&b"abc"[..], &b"def"[..]));
        assert!(!fill(&mut open, &mut bytes, 4));
        assert_eq!((&open[..], bytes.len()), (&b"def"[..], 0));
    }
}
