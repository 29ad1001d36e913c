//! Objects of full captures as their owner looks at them: how many at once, how fast, and what is said when one cannot be read.

use super::*;
use crate::dashboard::StreamPlaces;
use crate::job::{Destination, ObjectInfo, Status};
use axum::response::Response;
use futures_util::StreamExt as _;

/// A second of it are four pieces, and an object is half a second.
const RATE: u64 = 4 << 20;
pub(super) const OBJECT: u64 = RATE / 2;

/// A host with a full capture of each account that ended, whose bucket is a directory with these objects. Each is said to have
/// half a second of the rate.
pub(super) async fn host(dir: &Path, names: &[&str]) -> Host {
    let ui = Ui { views: StreamPlaces::new(3, 2), view_bytes_per_second: RATE, ..ui() };
    let rules = Rules { allow_file: true, require_file_validation: false, ..ord02() };
    let host = Host::shown(rules, ui, REQUEST_TIME_MAX);
    for who in [(A, "a-token"), (B, "b-token")] {
        assert_eq!(host.ask_as(who, "POST", "", FULL).await.status, StatusCode::OK);
    }
    let objects: Vec<_> = names
        .iter()
        .map(|name| ObjectInfo {
            name: (*name).to_owned(),
            bytes: OBJECT,
            sha256: "e".repeat(64),
            ..ObjectInfo::default()
        })
        .collect();
    for job in host.engine.jobs.lock().unwrap().iter_mut() {
        (job.status, job.objects) = (Status::Success, objects.clone());
        job.request.destination = Some(Destination::File { dir: dir.to_owned() });
    }
    host
}

impl Host {
    async fn view(&self, (account, token): (&str, &str), capture: u64, n: usize) -> Response {
        let request = request::Builder::new()
            .uri(format!("/accounts/{account}/pcaps/{}/objects/{n}", id(capture)))
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty());
        self.router.clone().oneshot(request.unwrap()).await.unwrap()
    }
}

async fn text(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn an_account_reads_so_many_objects_at_once_and_the_host_too_and_an_end_gives_the_place_back() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("one.pcap"), vec![7; OBJECT as usize]).unwrap();
    let host = host(dir.path(), &["one.pcap"]).await;
    let of_a = || host.view((A, "a-token"), 0, 0);
    let (first, second) = (of_a().await, of_a().await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let third = of_a().await;
    assert_eq!(third.headers()["retry-after"], "1");
    let (status, said) = text(third).await;
    assert!(status == 429 && said.contains("1066"), "{said}");
    // Another account has its own, and three are all that the host has.
    let others = host.view((B, "b-token"), 1, 0).await;
    assert_eq!(others.status(), StatusCode::OK);
    assert_eq!(host.view((B, "b-token"), 1, 0).await.status().as_u16(), 429);
    drop((first, others));
    let again = of_a().await;
    assert_eq!(again.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_object_comes_no_faster_than_uploads_leave_room_for() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("one.pcap"), vec![7; OBJECT as usize]).unwrap();
    let host = host(dir.path(), &["one.pcap"]).await;
    let mut body = host.view((A, "a-reader"), 0, 0).await.into_body().into_data_stream();
    let begun = std::time::Instant::now();
    let mut sent = 0;
    while let Some(piece) = body.next().await {
        sent += piece.unwrap().len() as u64;
        // A piece comes once its time is over.
        let earliest = Duration::from_secs_f64(sent as f64 / RATE as f64);
        assert!(begun.elapsed() >= earliest, "{sent} bytes after {:?}", begun.elapsed());
    }
    assert_eq!(sent, OBJECT);
}

#[tokio::test]
async fn a_bucket_that_cannot_be_read_is_told_from_an_object_that_is_gone() {
    let dir = TempDir::new().unwrap();
    // Stands for a bucket that refuses to read what it holds.
    std::fs::create_dir(dir.path().join("refused.pcap")).unwrap();
    let host = host(dir.path(), &["refused.pcap", "gone.pcap"]).await;
    let refused = host.view((A, "a-token"), 0, 0).await;
    assert_eq!(refused.headers()["x-should-retry"], "false");
    let (status, said) = text(refused).await;
    assert!(status == 409 && said.contains("1065") && said.contains("grant s3:GetObject"), "{status} {said}");
    let (status, said) = text(host.view((A, "a-token"), 0, 1).await).await;
    assert!(status == 410 && said.contains("1025"), "{said}");
    let (status, said) = text(host.view((A, "a-token"), 0, 2).await).await;
    assert!(status == 404 && said.contains("1064") && said.contains("has 2 complete objects"), "{said}");
    // Neither of them kept a place.
    for _ in 0..5 {
        assert_eq!(host.view((A, "a-token"), 0, 0).await.status().as_u16(), 409);
    }
}

#[tokio::test]
async fn a_tag_is_of_the_bytes_that_are_there_now_and_strangers_get_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("one.pcap");
    std::fs::write(&path, vec![7; OBJECT as usize]).unwrap();
    let host = host(dir.path(), &["one.pcap"]).await;
    let tag = async || {
        let answer = host.view((A, "a-token"), 0, 0).await;
        answer.headers()["etag"].to_str().unwrap().to_owned()
    };
    let first = tag().await;
    assert_eq!(tag().await, first, "nothing has changed");
    let part = async |tag: &str| {
        let request = request::Builder::new()
            .uri(format!("/accounts/{A}/pcaps/{}/objects/0", id(0)))
            .header("authorization", "Bearer a-token")
            .header("range", "bytes=0-3")
            .header("if-range", tag);
        host.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    assert_eq!(part(&first).await, 206);
    // Its owner puts other bytes there, as many as before; once in place and once as another file.
    std::fs::write(&path, vec![8; OBJECT as usize]).unwrap();
    let second = tag().await;
    std::fs::write(dir.path().join("other"), vec![9; OBJECT as usize]).unwrap();
    std::fs::rename(dir.path().join("other"), &path).unwrap();
    let third = tag().await;
    assert!(first != second && second != third && first != third, "{first} {second} {third}");
    assert_eq!((part(&first).await, part(&third).await), (200, 206));
    for (who, capture) in [((A, "wrong"), 0), ((B, "b-token"), 0), ((B, "a-token"), 0)] {
        let answer = host.view(who, capture, 0).await;
        assert!(!answer.headers().contains_key("etag") && !answer.status().is_success(), "{who:?}");
    }
    // What changes while it is answered has none.
    for path in ["", "/live", &format!("/{}", id(0)), &format!("/{}/progress", id(0))] {
        assert!(!host.ask("GET", path, "").await.headers.contains_key("etag"), "{path}");
    }
}

#[tokio::test]
async fn a_manifest_keeps_its_place_until_its_reader_has_taken_it() {
    let dir = TempDir::new().unwrap();
    let host = host(dir.path(), &[]).await;
    let capture = host.engine.jobs.lock().unwrap()[0].id.clone();
    let fill = "x".repeat(1 << 20);
    let manifest = serde_json::json!({ "id": capture.as_str(), "fill": fill }).to_string();
    std::fs::write(
        dir.path().join(crate::deliver::manifest_name(&crate::job::PartId::alone(&capture))),
        manifest,
    )
    .unwrap();
    let ask = || async {
        let request = request::Builder::new()
            .uri(format!("/accounts/{A}/pcaps/{capture}/manifest"))
            .header("authorization", "Bearer a-token")
            .body(Body::empty());
        host.router.clone().oneshot(request.unwrap()).await.unwrap()
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(ask().await.status(), StatusCode::TOO_MANY_REQUESTS, "nothing of the two has been read");
    let bytes: usize = first.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let (_, read) = text(first).await;
    assert!(read.len() == bytes && read.matches(&fill).count() == 2);
    assert_eq!(ask().await.status(), StatusCode::OK, "the first has been read");
    let mut pieces = second.into_body().into_data_stream();
    while let Some(piece) = pieces.next().await {
        assert!(piece.unwrap().len() <= 64 << 10, "a connection is handed a little at a time");
    }
}
