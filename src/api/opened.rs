//! What a session or a credential opened, for as long as it is there. Owns the end of an answer that is under way when its session
//! ends or its credential is removed; not which there are.
//!
//! Invariant: an answer that is made piece by piece, whatever its route, has no piece more once the session, or what it held of that
//! account, has ended, or the credential in its request's headers is none any more.

use super::ApiState;
use super::Terms;
use super::route::Api;
use crate::dashboard::Grant;
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
#[error("the session or the credential ended while it was answered")]
struct Over;

/// Goes with each request; its extractor says what opened it.
#[derive(Clone, Default)]
pub(super) struct Opened(Arc<OnceLock<Pass>>);

impl Opened {
    /// A session opened it: for an account, or as an operator's.
    pub(super) fn by_session(&self, id: String, account: Option<AccountId>) {
        // A request has one extractor that lets it in.
        let _first_counts = self.0.set(Pass::Session { id, account });
    }

    /// A credential in the request's headers opened it.
    pub(super) fn by_credential(&self, grant: Grant) {
        let _first_counts = self.0.set(Pass::Credential(grant));
    }
}

enum Pass {
    Session { id: String, account: Option<AccountId> },
    Credential(Grant),
}

impl Pass {
    fn holds(&self, api: &ApiState) -> bool {
        let terms = api.terms.now();
        match self {
            Self::Session { id, account } => {
                let session = api.ui.sessions.find(id, api.ui.now(), false);
                let grants = session.into_iter().flat_map(|session| session.grants);
                grants.filter(|grant| grant.account == *account).any(|grant| terms.accounts.opens(&grant))
            }
            Self::Credential(grant) => terms.accounts.opens(grant),
        }
    }
}

/// Around every route.
pub(super) async fn watch(State(api): Api, mut request: Request, next: Next) -> Response {
    let (opened, terms) = (Opened::default(), api.terms.now());
    request.extensions_mut().insert(opened.clone());
    let response = next.run(request).await;
    // What is whole already is sent.
    if opened.0.get().is_none() || response.body().size_hint().exact().is_some() {
        return response;
    }
    let is_measured = response.headers().contains_key(header::CONTENT_LENGTH);
    response.map(|body| Body::new(WhileOpen { body, api, opened, is_measured, terms }))
}

/// A body that ends with its session.
struct WhileOpen {
    body: Body,
    api: Arc<ApiState>,
    opened: Opened,
    is_measured: bool,
    /// The terms by which it was let in, or held last.
    terms: Arc<Terms>,
}

impl WhileOpen {
    /// A session may end at any time, a credential only with the terms.
    fn is_over(&mut self) -> bool {
        let Some(pass) = self.opened.0.get() else { return false };
        let terms = self.api.terms.now();
        if matches!(pass, Pass::Credential(_)) && Arc::ptr_eq(&terms, &self.terms) {
            return false;
        }
        let is_over = !pass.holds(&self.api);
        self.terms = terms;
        is_over
    }
}

impl HttpBody for WhileOpen {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over() {
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
