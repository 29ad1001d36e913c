//! The curl commands of Cloudflare's page "Collect packet captures", as printed, with the base URL changed.

use crate::trawl::{ACCOUNT, EMAIL, KEY, Trawl};
use crate::weed::Weed;
use crate::{BUCKET, read_object, start};
use ::trawl::job::Status;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const FULL: &str = r#"
  curl -X POST https://api.cloudflare.com/client/v4/accounts/${account_id}/pcaps \
  -H 'Content-Type: application/json' \
  -H "X-Auth-Email: ${email}" \
  -H "X-Auth-Key: ${auth_key}" \
  --data '{
          "filter_v1": {},
          "time_limit": 300,
          "packet_limit": 10000,
          "byte_limit": 100000000,
          "type": "full",
          "colo": "ORD",
          "system": "magic-transit",
           "destination_conf": "${bucket}"
           }'
"#;

const SIMPLE: &str = r#"
  curl -X POST https://api.cloudflare.com/client/v4/accounts/${account_id}/pcaps \
  -H 'Content-Type: application/json' \
  -H 'X-Auth-Email: user@example.com' \
  -H 'X-Auth-Key: 00000000000' \
  --data '{
          "filter_v1": {
                  "source_address": "1.2.3.4",
                  "source_port": 123,
                  "destination_address": "5.6.7.8",
                  "destination_port": 80,
                  "protocol": 6
          },
          "time_limit": 300,
          "packet_limit": 10000,
          "type": "simple",
          "system": "magic-transit"
  }'
"#;

const STATUS: &str = r"
    curl -X GET https://api.cloudflare.com/client/v4/accounts/${account_id}/pcaps/${pcap_id} \
    -H 'Content-Type: application/json' \
    -H 'X-Auth-Email: user@example.com' \
    -H 'X-Auth-Key: 00000000000'
";

const DOWNLOAD: &str = r"
    curl -X GET https://api.cloudflare.com/client/v4/accounts/${account_id}/pcaps/${pcap_id}/download \
    -H 'Content-Type: application/json' \
    -H 'X-Auth-Email: user@example.com' \
    -H 'X-Auth-Key: 00000000000' \
    --output download.pcap
";

const LIST: &str = r"
    curl -X GET https://api.cloudflare.com/client/v4/accounts/${account_id}/pcaps \
    -H 'Content-Type: application/json' \
    -H 'X-Auth-Email: user@example.com' \
    -H 'X-Auth-Key: 00000000000'
";

/// Runs a command of the page in `folder`; what it prints.
fn shell(trawl: &Trawl, folder: &std::path::Path, command: &str, pcap_id: &str) -> String {
    let bucket = format!("s3://{BUCKET}/page?region=us-east-1");
    // The reader puts a bucket in here: no shell does it, between single quotes.
    let command = command.replace("https://api.cloudflare.com", &trawl.url()).replace("${bucket}", &bucket);
    let output = Command::new("bash")
        .args(["-euc", &command])
        .current_dir(folder)
        .envs([("account_id", ACCOUNT), ("email", EMAIL), ("auth_key", KEY), ("pcap_id", pcap_id)])
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn result(answer: &str) -> Value {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(
        (&answer["success"], &answer["errors"], &answer["messages"]),
        (&json!(true), &json!([]), &json!([]))
    );
    answer["result"].clone()
}

fn members(result: &Value) -> Vec<&str> {
    result.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn prove(trawl: &Trawl, weed: &Weed) {
    let mut body = json!({"destination_conf": format!("s3://{BUCKET}/page?region=us-east-1")});
    let added = trawl.ask("POST", "/ownership", body.to_string().as_bytes()).result();
    let key = format!("page/{}", added["filename"].as_str().unwrap());
    body["ownership_challenge"] = read_object(weed, &key).await.into();
    trawl.ask("POST", "/ownership/validate", body.to_string().as_bytes()).result();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_curl_command_of_the_page_works_as_printed() {
    let Some(weed) = Weed::start().await else { return };
    let trawl = start(&weed, 0).await;
    prove(&trawl, &weed).await;
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str, id: &str| shell(&trawl, folder.path(), command, id);

    let full = result(&run(FULL, ""));
    let printed = [
        "byte_limit",
        "colo",
        "destination_conf",
        "filter_v1",
        "id",
        "packet_limit",
        "status",
        "submitted",
        "system",
        "time_limit",
        "type",
    ];
    assert!(printed.iter().all(|member| members(&full).contains(member)), "{full}");
    assert_eq!((&full["status"], &full["colo"]), (&json!("pending"), &json!("ORD")));
    let simple = result(&run(SIMPLE, ""));
    assert_eq!(
        members(&simple),
        ["filter_v1", "id", "packets_remaining", "status", "submitted", "system", "time_limit", "type"]
    );
    assert_eq!(trawl.ended(full["id"].as_str().unwrap()).status, Status::Success, "{}", trawl.log());
    assert_eq!(result(&run(STATUS, full["id"].as_str().unwrap()))["status"], "success");

    // The page's filter matches nothing here, so what is downloaded is a capture of everything.
    let all = json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 50});
    let id = trawl.create(&all);
    let ended = trawl.until(&id, Duration::from_secs(60), |progress| progress.status.ended());
    assert_eq!(ended.status, Status::Success, "{}", trawl.log());
    run(DOWNLOAD, &id);
    assert_eq!(crate::frames::capinfos_packets(&folder.path().join("download.pcap")), 50);
    let listed = result(&run(LIST, ""));
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|pcap| &pcap["id"]).collect();
    assert_eq!(ids, [&json!(id), &simple["id"], &full["id"]]);
    trawl.ask("PUT", &format!("/{}/stop", simple["id"].as_str().unwrap()), &[]);
    trawl.finish();
}
