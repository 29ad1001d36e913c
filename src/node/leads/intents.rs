//! Captures that were accepted and have no record of their own yet: the node that accepted them has died, or its write got lost. Owns
//! making these records; what is accepted stands in the account's.
//!
//! Invariant: an intent is removed only once the capture's own record is there.

use crate::bus::{Bus, Entry, Table};
use crate::fleet::held::Answer;
use crate::fleet::wire::Wire;
use crate::job::CaptureId;
use crate::node::LOOK_SOON;
use crate::node::keys::job_key;
use crate::node::wire::{AccountRecord, JobRecord, to_bytes};
use std::sync::Arc;
use std::time::Duration;

/// The node that accepted a capture has this much time to make the record itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Finishes what others began, for as long as it runs.
pub(super) async fn finish(bus: Arc<dyn Bus>) {
    let has_intents = |entry: &Entry| {
        let record = entry.value.as_deref().and_then(|json| Wire::<AccountRecord>::read(json).ok());
        record.is_some_and(|record| !record.value().intents.is_empty())
    };
    loop {
        let entries = bus.list(Table::Accounts, "").await.unwrap_or_default();
        let begun: Vec<String> =
            entries.iter().filter(|entry| has_intents(entry)).map(|entry| entry.key.clone()).collect();
        if !begun.is_empty() {
            tokio::time::sleep(PATIENCE).await;
        }
        for account in begun {
            settle(&*bus, &account).await;
        }
        tokio::time::sleep(LOOK_SOON).await;
    }
}

/// Makes the records of an account's intents, and removes these. What does not succeed now is tried again by somebody.
pub(in crate::node) async fn settle(bus: &dyn Bus, account: &str) {
    let Answer::Read(revision, Some(json)) = bus.read(Table::Accounts, account).await else { return };
    let Ok(wire) = Wire::<AccountRecord>::read(&json) else { return };
    let mut there: Vec<CaptureId> = Vec::new();
    for (id, intent) in &wire.value().intents {
        if is_there(bus, intent).await {
            there.push(id.clone());
        }
    }
    if there.is_empty() {
        return;
    }
    let mut record = wire.value().clone();
    record.intents.retain(|id, _| !there.contains(id));
    if let Ok(json) = wire.with(record).to_json() {
        let _somebody_tries_again = bus.write(Table::Accounts, account, revision, json).await;
    }
}

/// Makes a capture's own record; whether it is there.
pub(in crate::node) async fn is_there(bus: &dyn Bus, intent: &JobRecord) -> bool {
    let key = job_key(&intent.capture.request.account, &intent.capture.id);
    let written = bus.write(Table::Jobs, &key, Default::default(), to_bytes(intent)).await;
    // Stale: it was made before.
    matches!(written, Answer::Wrote(_) | Answer::Stale)
}
