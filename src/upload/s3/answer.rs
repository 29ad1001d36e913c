//! How long an answer of a store may be. Owns the bound; not what an answer means.
//!
//! The SDK reads lists and errors into memory as a whole, so a store that sends without end would take the host's memory.
//! The body of an object is read piece by piece, and its reader has a bound of its own.
//!
//! Lists are read in pages, and answers are parsed by the threads that serve everybody: pages are short, and a store that names page
//! after page is asked with pauses.
//!
//! Invariant: of every other answer at most [`ANSWER_BYTES_MAX`] bytes are held, of a list [`LIST_PAGE_BYTES_MAX`].

use super::retry::Target;
use crate::upload::UploadError;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use http_body_util::Limited;
use std::time::Duration;

/// An error, or the name of what was made, with some XML around it.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// [`PAGE_ENTRIES`] names of 1024 bytes, with what stands beside each.
const LIST_PAGE_BYTES_MAX: usize = 1 << 20;
/// What one page of a list is asked to have.
pub(super) const PAGE_ENTRIES: i32 = 500;
/// Pages of one list: a million objects.
const PAGES_MAX: u32 = 2000;
/// Pages that are asked for at once; before each further one there is a pause.
const PAGES_AT_ONCE: u32 = 20;
const PAGE_PAUSE: Duration = Duration::from_millis(20);

/// The request for an object's bytes.
const OBJECT: &str = "GetObject";
/// The requests whose answers are lists.
const LISTS: [&str; 3] = ["ListObjectsV2", "ListParts", "ListMultipartUploads"];

/// The pages of one list.
#[derive(Debug, Default)]
pub(super) struct Pages(u32);

impl Pages {
    /// Before the next one is asked for.
    ///
    /// # Errors
    /// The store names more of them than any list has.
    pub(super) async fn next(&mut self, place: &Target) -> Result<(), UploadError> {
        self.0 += 1;
        if self.0 > PAGES_MAX {
            let detail = format!("a list has more than {PAGES_MAX} pages of {PAGE_ENTRIES}");
            return Err(UploadError::Refused { place: place.place(), detail });
        }
        if self.0 > PAGES_AT_ONCE {
            tokio::time::sleep(PAGE_PAUSE).await;
        }
        Ok(())
    }
}

/// See the module. An interceptor, so that no request can be forgotten.
#[derive(Debug)]
pub(super) struct AnswerBound;

impl Intercept for AnswerBound {
    fn name(&self) -> &'static str {
        "AnswerBound"
    }

    /// Before the SDK reads the body.
    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let asked = config.load::<Metadata>().map_or("", |asked| asked.name());
        let answer = context.response_mut();
        if asked == OBJECT && answer.status().is_success() {
            return Ok(());
        }
        let is_list = LISTS.contains(&asked) && answer.status().is_success();
        let bytes_max = if is_list { LIST_PAGE_BYTES_MAX } else { ANSWER_BYTES_MAX };
        let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
        *answer.body_mut() = SdkBody::from_body_1_x(Limited::new(body, bytes_max));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{S3Config, S3Stores};
    use super::*;
    use crate::job::S3Credentials;
    use crate::upload::ObjectStore as _;
    use bytes::Bytes;
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// More than any answer may have, and a little for the sockets between.
    const SENT_MAX: usize = 16 * LIST_PAGE_BYTES_MAX;

    /// A store that answers everything with this status and a body without an end, and how much of the longest one it could
    /// send.
    fn endless_store(status: &'static str) -> (String, Arc<AtomicUsize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let longest = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&longest);
        std::thread::spawn(move || {
            for mut asked in listener.incoming().flatten() {
                let mut request = [0; 16 << 10];
                let _the_head_is_enough = asked.read(&mut request);
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n<Error><Code>");
                let mut sent = 0;
                let piece = [b'x'; 64 << 10];
                let mut is_read = asked.write_all(head.as_bytes()).is_ok();
                while is_read && sent < SENT_MAX {
                    is_read = asked.write_all(&piece).is_ok();
                    sent += piece.len();
                }
                seen.fetch_max(sent, Ordering::SeqCst);
            }
        });
        (endpoint, longest)
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off_whatever_was_asked() {
        for status in ["200 OK", "403 Forbidden", "503 Slow Down"] {
            let (endpoint, longest) = endless_store(status);
            let keys = S3Credentials { access_key_id: "k".to_owned(), secret_access_key: "s".to_owned() };
            let stores = S3Stores::new(S3Config {
                endpoint: Some(endpoint),
                retry_seconds_max: 1,
                attempt_seconds_max: 30,
                credentials: Some(keys),
                ..S3Config::default()
            })
            .unwrap();
            let store = stores.open("bucket", "", "us-east-1", None).await.unwrap();
            assert!(store.list("pcap_").await.is_err(), "{status}");
            assert!(store.put("a", Bytes::from_static(b"a")).await.is_err(), "{status}");
            assert!(store.get("a", 1000).await.is_err(), "{status}");
            let sent = longest.load(Ordering::SeqCst);
            assert!(sent < SENT_MAX, "{status}: {sent} bytes were read");
        }
    }
}
