//! Estimates as clients see them; what they say is the history's.

use super::*;

const PATH: &str = "/estimate";

#[tokio::test]
async fn an_estimate_has_its_window_its_bounds_and_its_rate() {
    let host = Host::start();
    let body = r#"{"filter_v1":{"destination_port":53},"seconds":60}"#;
    for who in [(A, "a-token"), (A, "a-reader")] {
        let answer = host.ask_as(who, "POST", PATH, body).await;
        let expected = serde_json::json!({
            "from": "2026-11-24T04:00:00Z", "to": "2026-11-24T04:01:00Z", "packets": 1000, "packets_low": 900,
            "packets_high": 1100, "bytes": 60_000, "sample_one_in": 100});
        let (mut found, wanted) = (answer.json()["result"].clone(), expected);
        // How many digits a time has is not what this is about.
        for name in ["from", "to"] {
            let time: jiff::Timestamp = found[name].as_str().unwrap().parse().unwrap();
            found[name] = time.to_string().into();
        }
        let span = |value: &serde_json::Value| {
            let at = |name: &str| value[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            at("to").duration_since(at("from")).as_secs()
        };
        assert_eq!((answer.status, span(&found)), (StatusCode::OK, span(&wanted)));
        for name in ["packets", "packets_low", "packets_high", "bytes", "sample_one_in"] {
            assert_eq!(found[name], wanted[name], "{name}");
        }
    }
    // Without a filter it is of every packet.
    assert_eq!(host.ask("POST", PATH, r#"{"seconds":1.5}"#).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_no_estimate_is_refused_by_its_code() {
    let host = Host::start();
    for (body, status, code) in [
        ("{}", 400, 1004),
        (r#"{"seconds":0}"#, 400, 1005),
        (r#"{"seconds":301}"#, 400, 1005),
        (r#"{"seconds":"60"}"#, 400, 1005),
        (r#"{"seconds":60,"minutes":1}"#, 400, 1003),
        (r#"{"seconds":60,"filter_v1":{"port":1}}"#, 400, 1003),
        (r#"{"seconds":60,"filter_v1":{"source_address":"x"}}"#, 400, 1005),
        ("[]", 400, 1002),
        // The host's engine says so.
        (r#"{"seconds":60,"filter_v1":{"destination_port":2}}"#, 400, 1007),
        (r#"{"seconds":60,"filter_v1":{"destination_port":1}}"#, 429, 1067),
    ] {
        let answer = host.ask("POST", PATH, body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
        assert_eq!(answer.json()["errors"][0]["code"], code, "{body}");
        assert_eq!(answer.headers.get("retry-after").is_some_and(|wait| wait == "3"), code == 1067, "{body}");
    }
}
