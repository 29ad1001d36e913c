//! The owner that a bucket must have. Owns the header that says so in every request.
//!
//! Invariant: no request of a store that has an owner leaves without it. AWS then refuses with 403 if the bucket is another
//! account's, before it reads or writes anything.

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// See <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html>.
const HEADER: &str = "x-amz-expected-bucket-owner";

/// See the module. An interceptor and no member of each request, so that a request cannot be forgotten.
#[derive(Debug)]
pub(super) struct ExpectedOwner(String);

impl ExpectedOwner {
    pub(super) fn new(owner: &str) -> Self {
        Self(owner.to_owned())
    }
}

impl Intercept for ExpectedOwner {
    fn name(&self) -> &'static str {
        "ExpectedOwner"
    }

    /// Before signing, so that nobody on the way can take it out.
    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().try_insert(HEADER, self.0.clone())?;
        Ok(())
    }
}
