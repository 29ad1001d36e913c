//! What a session opened, for as long as the session is there. Owns the end of an answer that is under way when its session ends; not
//! which sessions there are.
//!
//! Invariant: an answer that a cookie opened and that is made piece by piece, whatever its route, has no piece more once the session,
//! or what it held of that account, has ended.

use super::ApiState;
use super::route::Api;
use crate::job::AccountId;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// Cuts an answer whose length was announced, so that its reader does not take it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the session ended while it was answered")]
struct Over;

/// Goes with each request; its extractor says what opened it.
#[derive(Clone, Default)]
pub(super) struct Opened(Arc<OnceLock<Pass>>);

impl Opened {
    /// A session opened it: for an account, or as an operator's.
    pub(super) fn by_session(&self, id: String, account: Option<AccountId>) {
        // A request has one extractor that lets it in.
        let _first_counts = self.0.set(Pass { id, account });
    }
}

struct Pass {
    id: String,
    account: Option<AccountId>,
}

impl Pass {
    fn holds(&self, api: &ApiState) -> bool {
        let Some(session) = api.ui.sessions.find(&self.id, api.ui.now(), false) else { return false };
        let mut grants = session.grants.iter().filter(|grant| grant.account == self.account);
        grants.any(|grant| api.accounts.role_of(grant).is_some() || api.accounts.is_operator(grant))
    }
}

/// Around every route.
pub(super) async fn watch(State(api): Api, mut request: Request, next: Next) -> Response {
    let opened = Opened::default();
    request.extensions_mut().insert(opened.clone());
    let response = next.run(request).await;
    // What is whole already is sent.
    if opened.0.get().is_none() || response.body().size_hint().exact().is_some() {
        return response;
    }
    let is_measured = response.headers().contains_key(header::CONTENT_LENGTH);
    response.map(|body| Body::new(WhileOpen { body, api, opened, is_measured }))
}

/// A body that ends with its session.
struct WhileOpen {
    body: Body,
    api: Arc<ApiState>,
    opened: Opened,
    is_measured: bool,
}

impl HttpBody for WhileOpen {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.opened.0.get().is_some_and(|pass| !pass.holds(&self.api)) {
            return Poll::Ready(self.is_measured.then(|| Err(axum::Error::new(Over))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
