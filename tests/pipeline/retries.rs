//! Uploads that cannot be made: tried again, taken up by the next process, given up in the end, and got out by hand.

use crate::rig::{Options, Rig, Traffic, request, verify};
use std::path::Path;
use std::time::Duration;
use trawl::deliver::orphan::{Orphan, captures};
use trawl::deliver::{Manifest, manifest_name};
use trawl::job::{Job, Status, StopReason};
use trawl::upload::FileStore;

/// Takes a capture's folder away: a file stands in its place, and whatever is written there fails.
pub fn block(folder: &Path) {
    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
    // A capture that begins may make the folder again in between.
    while std::fs::write(folder, "").is_err() {
        let _in_use = std::fs::remove_dir_all(folder);
    }
}

/// Undoes [`block`]. No delivery makes the folder: it may lie on a disk that is not mounted.
pub fn unblock(folder: &Path) {
    std::fs::remove_file(folder).unwrap();
    std::fs::create_dir(folder).unwrap();
}

/// A capture that has taken all its packets and cannot be delivered.
async fn undelivered(rig: &Rig, folder: &Path) -> Job {
    let mut request = request(folder.to_owned(), 60.0);
    request.packet_limit = Some(5_000);
    let started = rig.handle().create(request).await.unwrap();
    block(folder);
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_is_tried_again_and_says_so_until_it_succeeds() {
    let rig = Rig::with(Options::default(), vec![Traffic::paced(300, 20_000)]);
    let started = undelivered(&rig, &rig.bucket()).await;
    let tried = rig.until(&started, |job| job.error_message.is_some()).await;
    let (account, id) = (tried.request.account, tried.id);
    let warnings = rig.handle().progress(account, id).await.unwrap().warnings;
    assert_eq!(warnings.first(), tried.error_message.as_ref());
    unblock(&rig.bucket());
    let job = rig.wait(&started).await;
    assert_eq!((job.status, job.error_message.as_deref()), (Status::Success, None));
    assert_eq!(rig.verify(&job).packets, 5_000);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_with_an_upload_that_was_pending() {
    let rig = Rig::with(Options::default(), vec![Traffic::paced(300, 20_000)]);
    let started = undelivered(&rig, &rig.bucket()).await;
    rig.until(&started, |job| job.error_message.is_some() && job.stop_reason.is_some()).await;
    let rig = rig.restart(Options::default(), vec![Traffic::finite(60, 0)]).await;
    let left = rig.until(&started, |job| job.error_message.is_some()).await;
    assert_eq!(left.status, Status::ConversionRunning, "{left:?}");
    unblock(&rig.bucket());
    let job = rig.wait(&started).await;
    assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::PacketLimit)));
    assert_eq!(rig.verify(&job).packets, 5_000);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_keeps_its_packets_and_can_be_recovered_without_the_host() {
    let options = Options { upload_retention: Duration::from_secs(1), ..Options::default() };
    let rig = Rig::with(options, vec![Traffic::paced(300, 20_000)]);
    let started = undelivered(&rig, &rig.bucket()).await;
    let job = rig.wait(&started).await;
    assert_eq!(job.status, Status::Failed);
    let message = job.error_message.clone().unwrap();
    assert!(message.contains("given up after") && message.contains("are kept"), "{message}");
    job.ledger.check().unwrap();

    let out = rig.simple_dir().join("out");
    let found = captures(&[rig.spool()]).unwrap();
    assert_eq!(found.len(), 1);
    let left = Orphan::look(found[0].0.clone(), found[0].1.clone()).unwrap();
    assert_eq!((left.summary.packets, left.summary.notes.as_slice()), (5_000, &[][..]));
    let manifest = left.deliver(&FileStore::new(out.clone())).await.unwrap().unwrap();
    assert!(manifest.recovered && manifest.complete, "{manifest:?}");
    let again = left.deliver(&FileStore::new(out.clone())).await.unwrap().unwrap();
    assert_eq!(again, manifest, "a second time nothing changes");
    let kept = std::fs::read(out.join(manifest_name(&job.part()))).unwrap();
    assert_eq!(Manifest::parse(&kept).unwrap(), manifest);
    let delivered = Job { objects: manifest.objects.clone(), ledger: manifest.ledger, ..job };
    assert_eq!(verify(&out, &delivered).packets, 5_000);
    assert!(left.remove().unwrap() && captures(&[rig.spool()]).unwrap().is_empty());
    rig.stop().await;
}
