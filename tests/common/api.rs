//! The API over a host that a test started: one account for each name, whose token is its name, without limits that a test
//! would meet.

use axum::Router;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use trawl::api::{
    Accounts, ApiState, Credential, CurrentTerms, Offers, OwnResults, Role, Rules, Secret, Terms, Ui, router,
};
use trawl::engine::Handle;
use trawl::job::AccountId;
use trawl::ownership::Ownership;

/// The routes; `validates`: whether a destination must be proven first.
pub fn api(
    captures: Handle,
    ownership: Ownership,
    simple_dir: PathBuf,
    accounts: &[&str],
    validates: bool,
    request_time_max: Duration,
) -> Router {
    let accounts = accounts.iter().map(|name| {
        let secret = Secret::Token { token_sha256: Sha256::digest(name).into() };
        (AccountId((*name).to_owned()), vec![Credential { secret, role: Role::Write }])
    });
    let accounts = Accounts::new(accounts, 10);
    router(ApiState {
        captures: Arc::new(captures),
        ownership,
        results: Arc::new(OwnResults(simple_dir)),
        terms: CurrentTerms::new(Terms::new(accounts, rules(validates), Offers::default())),
        ui: Ui::at(([127, 0, 0, 1], 8080).into()),
        audit: None,
        request_bytes_max: 1 << 16,
        request_time_max,
    })
}

fn rules(validates: bool) -> Rules {
    Rules {
        colo: Some("tst01".to_owned()),
        simple_time_limit_seconds_max: 300,
        simple_packet_limit_max: 10_000,
        time_limit_seconds_max: 86_400,
        packet_limit_max: None,
        byte_limit_max: None,
        allow_file: true,
        require_validation: validates,
        require_file_validation: validates,
        history: None,
    }
}
