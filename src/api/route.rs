//! What every resource's routes are made of: the table's form, the state, the id in a path. Owns these types; not the list of
//! routes (`routes`).
//!
//! Invariant: an id that is none is refused before anybody is asked about it.

use super::ApiState;
use super::codes::Code;
use super::envelope::Failure;
use super::trail;
use crate::job::CaptureId;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::request::Parts;
use axum::routing::MethodRouter;
use std::sync::Arc;

/// Paths without prefix, and what is done there.
pub(super) type Routes = Vec<(&'static str, MethodRouter<Arc<ApiState>>)>;

/// What every handler is given.
pub(super) type Api = State<Arc<ApiState>>;

/// The capture or ownership that the path names.
pub(super) struct PcapId(pub(super) CaptureId);

impl FromRequestParts<Arc<ApiState>> for PcapId {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Failure> {
        let path = RawPathParams::from_request_parts(parts, state).await.ok();
        let id =
            path.iter().flatten().find(|(name, _)| *name == "id").and_then(|(_, id)| CaptureId::parse(id));
        if let Some(id) = &id {
            trail::about(parts, id);
        }
        id.map(Self).ok_or_else(|| {
            let message = "Could not route to this object, perhaps your object identifier is invalid?";
            Failure::new(Code::BadIdentifier, message)
        })
    }
}
