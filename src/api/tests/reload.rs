//! Terms that are replaced while sessions and streams are open.

use super::browser::token_of;
use super::streams::{snapshot, view};
use super::*;
use futures_util::StreamExt as _;

fn terms(accounts: &[(&str, &str)]) -> Terms {
    let accounts =
        accounts.iter().map(|(id, secret)| (AccountId((*id).to_owned()), vec![token(secret, Role::Write)]));
    Terms::new(Accounts::new(accounts, FAILURES_MAX), ord02(), Offers::default())
}

impl Host {
    fn replace(&self, terms: Terms) {
        self.terms.replace(terms);
        self.terms.end_sessions(&self.sessions);
    }
}

const BOTH: [(&str, &str); 2] = [(A, "a-token"), (B, "b-token")];

#[tokio::test]
async fn a_session_of_a_credential_that_is_removed_ends_and_does_not_come_back_with_it() {
    let host = Host::start();
    let (a, b) =
        (host.login("", &token_of(A, "a-token")).await, host.login("", &token_of(B, "b-token")).await);
    let status = async |cookie: &str, account: &str| {
        let path = format!("{PREFIX}/accounts/{account}/pcaps");
        host.page("GET", &path, cookie, "").await.status.as_u16()
    };
    assert_eq!((status(&a, A).await, status(&b, B).await), (200, 200));
    host.replace(terms(&BOTH[1..]));
    assert_eq!((status(&a, A).await, status(&b, B).await), (401, 200));
    assert_eq!(host.ask_as((A, "a-token"), "GET", "", "").await.status, StatusCode::UNAUTHORIZED);
    host.replace(terms(&BOTH));
    assert_eq!((status(&a, A).await, status(&b, B).await), (401, 200), "nobody logged in again");
    assert_eq!(host.ask_as((A, "a-token"), "GET", "", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stream_that_a_header_opened_ends_with_its_credential_and_others_go_on() {
    let host = Host::start();
    let open = async |account: &str, token: &str| {
        let request = request::Builder::new()
            .uri(format!("{PREFIX}/accounts/{account}/pcaps/events"))
            .header("authorization", format!("Bearer {token}"));
        let answer = host.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().into_data_stream()
    };
    let (mut a, mut b) = (open(A, "a-token").await, open(B, "b-token").await);
    assert!(a.next().await.is_some() && b.next().await.is_some());
    host.replace(terms(&BOTH[1..]));
    let mut of_b = view(2, 1);
    of_b.account = AccountId(B.to_owned());
    host.live.take(snapshot(1, vec![view(1, 5), of_b]));
    assert!(a.next().await.is_none());
    assert!(b.next().await.is_some());
}

#[tokio::test]
async fn the_document_and_what_is_refused_follow_the_new_rules_and_failures_stay_counted() {
    let host = Host::start();
    let rules = Rules { simple_packet_limit_max: 7, ..ord02() };
    let before = terms(&BOTH);
    host.replace(Terms::new(before.accounts, rules, Offers::default()));
    let document = host.browser("GET", "/openapi.json", &[], "").await.json();
    let pointer = "/components/schemas/NewCapture/oneOf/0/properties/packet_limit/maximum";
    assert_eq!(document.pointer(pointer), Some(&7.into()));
    let asked = r#"{"type":"simple","time_limit":1,"packet_limit":8,"system":"magic-transit"}"#;
    let answer = host.create(asked).await;
    assert!(answer.status == StatusCode::BAD_REQUEST && answer.body.contains('7'), "{}", answer.body);
}
