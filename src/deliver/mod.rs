//! From a capture's published segments to complete objects and a manifest in its bucket. Owns the delivery, its journal, the
//! manifest, its signature and the check of a bucket against it; not how a store works (`upload`), nor when a capture ends
//! (`engine`).
//!
//! Invariant: a segment is freed only after the objects that hold its packets are complete in the store and journalled.

mod checkpoint_file;
mod delivery;
mod inherit;
pub mod journal;
mod line;
mod lineup;
mod manifest;
mod object;
pub mod orphan;
mod pace;
mod parts;
mod places;
mod publish;
mod record;
mod relay;
mod report;
mod retry;
mod round;
mod route;
mod seek;
mod sign;
mod stamp;
mod stamped;
mod verify;
mod whole;
mod words;

pub(crate) use delivery::Delivery;
pub(crate) use inherit::{Found, Known, sweep, swept};
#[cfg(test)]
pub(crate) use manifest::tests::empty as empty_manifest;
pub use manifest::{
    Limits, MANIFEST_VERSION, Manifest, ManifestError, manifest_name, object_name, signature_name, stamp_name,
};
pub use pace::{Load, Pace, PaceRules, PaceView};
pub use parts::{is_manifest, manifests, objects};
pub use places::{AtWork, Places};
pub(crate) use publish::{Vouched, Vouchers, put_manifest};
pub(crate) use record::discard;
pub use relay::{DeliveryRecord, PublishError, deliver, publish_manifest};
pub(crate) use report::{Report, Reporter};
pub(crate) use retry::{Outcome, RetryBounds, RetryPolicy};
pub(crate) use route::{Route, sweep_store};
pub use route::{open_destination, try_destination};
pub(crate) use seek::{find_manifest, has_remains, queues_of};
pub use sign::{KeyError, PublicKey, SIGNATURE_BYTES, SigningKey};
pub use verify::{
    Bucket, Directory, Finding, Place, Step, Verified, VerifyError, Wanted, read_manifest, verify, verify_at,
    verify_file,
};
pub use whole::{WHOLE_VERSION, Whole, WholeHost, WholeVerified, read_whole, verify_whole};
pub(crate) use words::Words;
