//! `/accounts/{account}/capabilities`: what an account may ask for here and now. Owns the form of the answer.
//!
//! Invariant: it says nothing of other accounts, not even how much of the host they use.

use super::auth::Member;
use super::auth::role_name;
use super::envelope::{Failure, success};
use super::route::{Api, Routes};
use crate::limits::LOOK_BACKS_PER_ACCOUNT_MAX;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![("/accounts/{account}/capabilities", get(capabilities))]
}

async fn capabilities(Member(account, role): Member, State(api): Api) -> Result<Response, Failure> {
    let standing = api.captures.standing(account.clone()).await?;
    let terms = api.terms.now();
    let (rules, offers) = (&terms.rules, &terms.offers);
    let mut full = Map::from_iter([
        ("time_limit_max".to_owned(), Value::from(rules.time_limit_seconds_max)),
        ("per_account".to_owned(), offers.full_per_account.into()),
        ("active".to_owned(), standing.full_active.into()),
    ]);
    for (name, max) in
        [("packet_limit_max", rules.packet_limit_max), ("byte_limit_max", rules.byte_limit_max)]
    {
        full.extend(max.map(|max| (name.to_owned(), max.into())));
    }
    let mut answer = json!({
        "host": offers.host, "colo": rules.colo, "version": env!("CARGO_PKG_VERSION"), "role": role_name(role),
        "simple": {
            "time_limit_max": rules.simple_time_limit_seconds_max,
            "packet_limit_max": rules.simple_packet_limit_max,
            "interval_seconds": offers.simple_interval_seconds,
            "seconds_until_next": standing.simple_seconds_left.ceil() as u64,
            "sample_one_in": offers.simple_one_in,
            "retention_seconds": offers.simple_retention_seconds,
        },
        "full": full,
        "destinations": offers.destinations,
        "require_validation": rules.require_validation,
        "formats": ["pcap", "pcapng"],
        "compressions": ["none", "zstd"],
        "prefixes": offers.prefixes.get(&account).cloned().unwrap_or_default(),
        "view": {"objects": true, "deep": false},
        "accepting": standing.is_accepting,
    });
    if let (Some(keep), Some(one_in), Some(answer)) =
        (rules.history, offers.history_one_in, answer.as_object_mut())
    {
        let now = Timestamp::now();
        let bound = now.checked_sub(keep).unwrap_or(Timestamp::UNIX_EPOCH);
        let oldest = offers.history_oldest_ns.as_ref().and_then(|oldest| oldest());
        let oldest = oldest.and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok());
        let history = json!({
            "from": super::result::date_time(oldest.unwrap_or(now).max(bound)), "to": super::result::date_time(now),
            "sample_one_in": one_in, "active": standing.look_backs_active, "active_max": LOOK_BACKS_PER_ACCOUNT_MAX,
        });
        answer.insert("history".to_owned(), history);
    }
    Ok(success(answer))
}
