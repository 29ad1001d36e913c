//! The command line against the real server: a bucket is named, proven and used, and a simple capture is downloaded.

use crate::trawl::{ACCOUNT, Setup, TOKEN, Trawl};
use crate::weed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Weed};
use serde_json::Value;
use std::process::{Command, Output};

const BUCKET: &str = "s3://pcaps-bucket/own?region=us-east-1";

/// Runs `trawl ARGUMENTS` as a customer's shell would.
pub fn run(trawl: &Trawl, weed: Option<&Weed>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
    command
        .args(arguments)
        .env("TRAWL_URL", format!("{}/client/v4", trawl.url()))
        .env("TRAWL_ACCOUNT", ACCOUNT)
        .env("TRAWL_TOKEN", TOKEN)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("TRAWL_R2_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("TRAWL_R2_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    if let Some(weed) = weed {
        command.env("AWS_ENDPOINT_URL_S3", &weed.endpoint);
    }
    command.output().unwrap()
}

#[track_caller]
pub fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_proven_from_the_command_line_and_only_then_takes_captures() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps-bucket").await;
    let environment = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let endpoint = Some(weed.endpoint.clone());
    let trawl =
        Setup { endpoint, environment: environment.into(), require_validation: true, ..Setup::replay() }
            .start();
    let weed = Some(&weed);
    let capture = [
        "capture",
        "start",
        "--wait",
        "--json",
        "--colo-name",
        "ord02",
        "--destination-conf",
        BUCKET,
        "--time-limit",
        "60",
        "--packet-limit",
        "500",
    ];
    let refused = run(&trawl, weed, &capture);
    assert!(!refused.status.success());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("1019"), "not proven: {message}");

    let added = json_of(&run(&trawl, weed, &["bucket", "add", "--prove", "--json", BUCKET]));
    assert_eq!((&added["status"], &added["destination_conf"]), (&"success".into(), &BUCKET.into()));
    let listed = json_of(&run(&trawl, weed, &["bucket", "list", "--json"]));
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let captured = run(&trawl, weed, &capture);
    assert!(captured.status.success(), "{captured:?} {}", trawl.log());

    let removed = run(&trawl, weed, &["bucket", "remove", added["id"].as_str().unwrap()]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(!run(&trawl, weed, &capture).status.success(), "a bucket that was removed takes nothing");
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_keys_of_its_own_is_proven_from_the_command_line() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps-bucket").await;
    let r2_endpoint = Some(weed.endpoint.clone());
    let trawl = Setup { r2_endpoint, key_file: true, require_validation: true, ..Setup::replay() }.start();
    let uri = "r2://pcaps-bucket/own?account-id=0123456789abcdef0123456789abcdef";
    let output = run(&trawl, Some(&weed), &["bucket", "add", "--prove", "--json", uri]);
    let added = json_of(&output);
    assert_eq!((&added["status"], &added["destination_conf"]), (&"success".into(), &uri.into()));
    assert!(!format!("{output:?}").contains(SECRET_ACCESS_KEY), "{output:?}");
    let proven = json_of(&run(&trawl, Some(&weed), &["bucket", "prove", "--json", uri]));
    assert_eq!(proven["id"], added["id"], "the answer may be repeated");
    trawl.finish();
}

#[test]
fn a_simple_capture_is_downloaded_whole_and_cut_to_160_bytes() {
    let trawl = Setup::replay().start();
    let folder = tempfile::tempdir().unwrap();
    let start = [
        "capture",
        "start",
        "--wait",
        "--json",
        "--type",
        "simple",
        "--time-limit",
        "60",
        "--packet-limit",
        "1000",
    ];
    let started = run(&trawl, None, &start);
    assert!(started.status.success(), "{started:?} {}", trawl.log());
    let listed = json_of(&run(&trawl, None, &["capture", "list", "--json"]));
    let id = listed[0]["id"].as_str().unwrap();
    let file = folder.path().join("down.pcap");
    let downloaded = run(&trawl, None, &["capture", "download", id, "-o", file.to_str().unwrap()]);
    assert!(downloaded.status.success(), "{downloaded:?}");
    let mut reader = trawl::pcap::Reader::open(&file).unwrap();
    let (mut packets, mut cut) = (0, 0);
    while let Some(record) = reader.next_record().unwrap() {
        assert_eq!(record.data.len(), 160.min(record.wire_len as usize));
        packets += 1;
        cut += usize::from(record.wire_len > 160);
    }
    assert_eq!(packets, 1000);
    assert!(cut > 0, "longer frames are cut, not left out");
    // What has ended is shown, followed and stopped as often as somebody likes.
    for command in ["show", "watch", "stop"] {
        let output = run(&trawl, None, &["capture", command, "--json", id]);
        assert!(output.status.success(), "{command}: {output:?}");
        assert!(
            command == "stop" || String::from_utf8_lossy(&output.stdout).contains("success"),
            "{output:?}"
        );
    }
    trawl.finish();
}
