//! What an account with a right credential does with captures, challenges and look backs. Owns the requests and their rates.

use super::host::{Account, Host};
use super::siege::{GoesOn, Tally};
use crate::bucket::BUCKET;
use crate::http::Answer;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two requests, over all accounts.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks as one of the attackers until it is refused, and then as the next one.
fn in_turn(
    host: &Host,
    goes_on: &GoesOn,
    mut ask: impl FnMut(&Account, &mut Tally) -> Option<Answer>,
) -> Tally {
    let mut tally = Tally::default();
    let mut attackers = host.attackers.iter().cycle();
    let mut account = attackers.next();
    while let Some(attacker) = account {
        let answer = ask(attacker, &mut tally);
        tally.answer(answer.as_ref());
        // Its last capture still takes packets (1009): it may go on at once.
        if answer.is_some_and(|answer| answer.status != 200 && answer.body["errors"][0]["code"] != 1009) {
            account = attackers.next();
        }
        if !goes_on.pause(PAUSE) {
            break;
        }
    }
    tally
}

fn capture(filter: Value, packets: u64) -> Value {
    json!({
        "system": "magic-transit", "type": "full", "time_limit": 60, "colo_name": "ord02", "filter_v1": filter,
        "packet_limit": packets, "destination_conf": format!("s3://{BUCKET}/his?region=us-east-1"),
    })
}

/// Captures that cannot be delivered, as many as may wait and more.
pub fn waiting_captures(host: &Host, goes_on: &GoesOn) -> Tally {
    in_turn(host, goes_on, |account, _| host.ask_as(account, "POST", "", &capture(json!({}), 1000)))
}

/// The same of one packet each.
pub fn one_packet_captures(host: &Host, goes_on: &GoesOn) -> Tally {
    in_turn(host, goes_on, |account, _| host.ask_as(account, "POST", "", &capture(json!({}), 1)))
}

/// The same without a limit: each takes all that the account's share has, and more than the disk can write.
pub fn large_captures(host: &Host, goes_on: &GoesOn) -> Tally {
    in_turn(host, goes_on, |account, _| host.ask_as(account, "POST", "", &capture(json!({}), 1 << 40)))
}

/// A capture, and its stop at once.
pub fn begin_and_stop(host: &Host, goes_on: &GoesOn) -> Tally {
    in_turn(host, goes_on, |account, tally| {
        let created = host.ask_as(account, "POST", "", &capture(json!({"protocol": 17}), 1 << 40))?;
        tally.answer(Some(&created));
        let list = host.ask_as(account, "GET", "", &Value::Null)?;
        let id = list.body["result"][0]["id"].as_str()?;
        host.ask_as(account, "PUT", &format!("/{id}/stop"), &Value::Null)
    })
}

/// Challenges in ever other directories.
pub fn challenges(host: &Host, goes_on: &GoesOn) -> Tally {
    let mut directory = 0;
    in_turn(host, goes_on, |account, _| {
        directory += 1;
        let body = json!({"destination_conf": format!("s3://{BUCKET}/{directory}?region=us-east-1")});
        host.ask_as(account, "POST", "/ownership", &body)
    })
}

/// Look backs into the last second.
pub fn look_backs(host: &Host, goes_on: &GoesOn) -> Tally {
    in_turn(host, goes_on, |account, _| {
        let at = jiff::Timestamp::now().to_string();
        let request = json!({
            "system": "magic-transit", "type": "simple", "time_limit": 1, "packet_limit": 100, "offset_time": at,
        });
        host.ask_as(account, "POST", "", &request)
    })
}
