//! Whether hosts can deliver where a request says. Owns the try, and what of the bucket's entry goes to the hosts with the capture; not
//! what a proof is worth (`ownership`).
//!
//! Invariant: a capture is accepted only for a place that took this node's look at it, under terms that held then.

use crate::deliver::{open_destination, try_destination};
use crate::engine::Refusal;
use crate::job::{AccountId, BucketTerms, Destination, Request};
use crate::ownership::BucketKeys;
use crate::upload::{ObjectStore, Stores, UploadError};
use std::sync::Arc;
use std::time::Duration;

/// The way to customers' buckets.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The ways to stores.
    pub stores: Arc<Stores>,
    /// What is known of buckets, and which need a proof.
    pub keys: BucketKeys,
    /// How long an answer of a store is waited for.
    pub within: Duration,
}

impl Reach {
    /// Looks at the place of a request that has one.
    pub(super) async fn try_out(&self, request: &Request) -> Result<BucketTerms, Refusal> {
        let Some(destination) = &request.destination else { return Ok(BucketTerms::default()) };
        let tried =
            try_destination(&self.stores, &self.keys, &request.account, destination, self.within).await;
        tried.map_err(|(error, words)| match error {
            UploadError::Unproven { .. } => Refusal::Unproven(error.to_string()),
            UploadError::Unreachable { .. } => Refusal::DestinationSilent(words),
            _ => Refusal::Destination(words),
        })
    }

    /// The store of a capture that was accepted under these terms.
    pub(in crate::node) async fn open(
        &self,
        account: &AccountId,
        destination: &Destination,
        terms: &BucketTerms,
    ) -> Result<Arc<dyn ObjectStore>, UploadError> {
        open_destination(&self.stores, &self.keys, account, destination, terms.clone()).await
    }
}
