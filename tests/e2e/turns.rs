//! Deliveries that share places and parts: one that hangs makes way, goes on where it was, and leaves others what they need.

use crate::bucket::{BUCKET, credentials, download, uploads_under_way};
use crate::outcome::Outcome;
use crate::proxy::{Fault, Proxy};
use crate::trawl::{Setup, Trawl};
use crate::weed::Weed;
use serde_json::json;
use std::time::{Duration, Instant};
use trawl::job::Status;

/// Four parts of 5 MiB and a rest.
const PACKETS: u64 = 45_000;

struct Line {
    trawl: Trawl,
    proxy: Proxy,
    weed: Weed,
}

impl Line {
    async fn start(words: &'static [&'static str], setup: Setup) -> Option<Self> {
        let weed = Weed::start().await?;
        weed.create_bucket(BUCKET).await;
        let proxy = Proxy::start(&weed.endpoint, words, Fault::Stall, u32::MAX).await;
        let setup = Setup { endpoint: Some(proxy.endpoint.clone()), environment: credentials(), ..setup };
        Some(Self { trawl: setup.start(), proxy, weed })
    }

    /// The other account's capture, whose parts the proxy spoils.
    fn create_his(&self) -> String {
        let mut request = self.trawl.request(json!({}));
        request["packet_limit"] = json!(PACKETS);
        request["destination_conf"] = json!(format!("s3://{BUCKET}/his?region=us-east-1"));
        let created = self.trawl.ask_as_other("POST", "", request.to_string().as_bytes());
        created.result()["id"].as_str().unwrap().to_owned()
    }

    /// Ours, delivered.
    async fn deliver_ours(&self) {
        let mut request = self.trawl.request(json!({}));
        request["packet_limit"] = json!(PACKETS);
        request["destination_conf"] = json!(format!("s3://{BUCKET}/ours?region=us-east-1"));
        let id = self.trawl.create(&request);
        assert_eq!(self.trawl.ended(&id).status, Status::Success);
        self.assert_whole("ours", &id).await;
    }

    async fn assert_whole(&self, directory: &str, id: &str) {
        let folder = tempfile::tempdir().unwrap();
        download(&self.weed, &format!("{directory}/pcap_{id}"), folder.path()).await;
        // Its bytes are those that the manifest has the checksums of.
        assert_eq!(Outcome::read(folder.path(), id).frames.len() as u64, PACKETS);
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "not yet {what}: {}", self.trawl.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn sent(&self, part: &str) -> usize {
        self.proxy.seen(part).iter().filter(|head| head.contains("/his/pcap_")).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_made_way_goes_on_behind_its_last_part_and_its_object_is_whole() {
    let upload = "part_bytes = \"5MiB\"\nparts_in_flight = 1\nretry_seconds_max = 2\nretry_pause_ms_max = 100\nattempt_seconds_max = 1\nturn_seconds = 1\ndeliveries_max = 1\ndeliveries_per_account = 1";
    let setup = Setup { upload, segment_bytes: "64MiB", ..Setup::replay() };
    let Some(line) = Line::start(&["/pcaps-bucket/his/pcap_", "partNumber=3"], setup).await else { return };
    let his = line.create_his();
    line.until("its third part", || line.sent("partNumber=3") > 0);
    // One part at a time: the two before it are confirmed by now, if not at the first try.
    let confirmed = (line.sent("partNumber=1&"), line.sent("partNumber=2&"));
    line.deliver_ours().await;
    line.trawl.until_log("others wait for their turn", Duration::from_secs(60));
    line.proxy.spoil(&[], Fault::Reset, 0);
    line.until("delivered", || line.trawl.progress_of_other(&his).status == Status::Success);
    line.assert_whole("his", &his).await;
    assert_eq!(
        (line.sent("partNumber=1&"), line.sent("partNumber=2&")),
        confirmed,
        "what was confirmed is not sent again"
    );
    assert!(uploads_under_way(&line.weed).await.is_empty());
    line.trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_parts_hang_leaves_the_other_the_parts_that_it_needs() {
    // No more than what 4 captures and 2 deliveries need: 8 MiB and two parts each.
    let upload = "part_bytes = \"5MiB\"\nparts_in_flight = 4\nmemory_bytes_max = \"108MiB\"\ndeliveries_max = 2\ndeliveries_per_account = 1\nattempt_seconds_max = 1\nretry_pause_ms_max = 100";
    let setup = Setup { upload, capture: "captures_max = 4", segment_bytes: "64MiB", ..Setup::replay() };
    let Some(line) = Line::start(&["/pcaps-bucket/his/pcap_", "partNumber="], setup).await else { return };
    let his = line.create_his();
    line.until("its first part", || line.sent("partNumber=") > 0);
    line.deliver_ours().await;
    line.proxy.spoil(&[], Fault::Reset, 0);
    line.until("delivered", || line.trawl.progress_of_other(&his).status == Status::Success);
    line.assert_whole("his", &his).await;
    line.trawl.finish();
}
