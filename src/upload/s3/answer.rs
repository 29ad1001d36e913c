//! How long an answer of a store may be. Owns the bound; not what an answer means.
//!
//! The SDK reads lists and errors into memory as a whole, so a store that sends without end would take the host's memory.
//! The body of an object is read piece by piece, and its reader has a bound of its own.
//!
//! Invariant: of every other answer at most [`ANSWER_BYTES_MAX`] bytes are held.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use http_body_util::Limited;

/// The longest answer that S3 has is a list of 1000 names of 1024 bytes each, three times as long if they are escaped.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The request for an object's bytes.
const OBJECT: &str = "GetObject";

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
        let asks_for_object = config.load::<Metadata>().is_some_and(|asked| asked.name() == OBJECT);
        let answer = context.response_mut();
        if asks_for_object && answer.status().is_success() {
            return Ok(());
        }
        let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
        *answer.body_mut() = SdkBody::from_body_1_x(Limited::new(body, ANSWER_BYTES_MAX));
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
    const SENT_MAX: usize = 4 * ANSWER_BYTES_MAX;

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
