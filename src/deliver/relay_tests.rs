//! Delivery against a directory and against a store that remembers parts. Owns both's expectations.

use super::*;
use crate::job::CaptureId;
use crate::upload::FileStore;
use crate::upload::crc32c;
use crate::upload::{Kept, KeptPart};
use crate::upload::{Resumed, Stored, Sweep};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

fn end(bytes: u64) -> Output {
    let summary = Summary {
        bytes,
        packets: 1,
        frame_bytes: 0,
        first_ns: 1,
        last_ns: 2,
        sha256: "0".repeat(64),
        content: None,
    };
    Output::End(summary, Consumed { segments: vec!["segment".into()], ..Consumed::default() })
}

async fn deliver_all(outputs: Vec<Output>) -> (Result<Vec<ObjectInfo>, UploadError>, Vec<String>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path().to_owned());
    let (sender, receiver) = mpsc::channel(1);
    let feed = tokio::spawn(async move {
        for output in outputs {
            if sender.send(output).await.is_err() {
                break;
            }
        }
    });
    let (id, mut reported) = (CaptureId::random(), 0);
    let mut record = |_, consumed: Consumed| {
        reported += consumed.segments.len();
        Ok(())
    };
    let result =
        deliver(&store, &PartId::alone(&id), ObjectFormat::default(), 0, receiver, &mut record).await;
    feed.await.unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    (result, names, reported)
}

fn chunk(text: &'static str) -> Output {
    Output::Chunk(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn every_complete_object_is_reported_with_its_segments() {
    let outputs =
        vec![Output::Begin(0), chunk("one"), chunk("two"), end(6), Output::Begin(1), chunk("x"), end(1)];
    let (result, names, reported) = deliver_all(outputs).await;
    assert_eq!(result.unwrap().iter().map(|o| o.bytes).collect::<Vec<_>>(), [6, 1]);
    assert_eq!((names.len(), reported), (2, 2));
}

#[tokio::test]
async fn a_merge_that_dies_inside_an_object_leaves_none_of_it() {
    let outputs = vec![Output::Begin(0), chunk("one"), end(3), Output::Begin(1), chunk("two")];
    let (result, names, reported) = deliver_all(outputs).await;
    assert!(matches!(result, Err(UploadError::Interrupted { object: 1 })));
    assert_eq!((names.len(), reported), (1, 1));
    let (result, names, _) = deliver_all(Vec::new()).await;
    assert!(matches!(result, Err(UploadError::Interrupted { object: 0 })));
    assert!(names.is_empty());
}

#[tokio::test]
async fn an_object_of_another_size_than_summed_up_never_appears() {
    let (result, names, reported) = deliver_all(vec![Output::Begin(0), chunk("one"), end(4)]).await;
    assert!(matches!(result, Err(UploadError::Mismatch { .. })));
    assert_eq!((names.len(), reported), (0, 0));
}

#[tokio::test]
async fn a_merge_out_of_order_is_an_error_and_no_panic() {
    for outputs in [
        vec![chunk("one")],
        vec![end(0)],
        vec![Output::Begin(1)],
        vec![Output::Begin(0), Output::Begin(0), chunk("a")],
    ] {
        let (result, names, _) = deliver_all(outputs).await;
        assert!(matches!(result, Err(UploadError::OutOfOrder { .. })));
        assert!(names.is_empty());
    }
}

/// A store of one object whose every write is a part.
#[derive(Clone, Debug, Default)]
struct Parts(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    parts: Vec<Bytes>,
    /// Writes that ever arrived.
    writes: usize,
    /// Writes that still arrive; then the store is gone.
    writes_left: usize,
    /// If writes stay in the air: those that do. They land when the object is settled; then the store is gone.
    air: Option<Vec<Bytes>>,
    complete: bool,
}

fn gone<T: Send + 'static>() -> Pending<'static, T> {
    Box::pin(async {
        Err(UploadError::Unreachable { place: "parts".to_owned(), seconds: 1, detail: String::new() })
    })
}

impl ObjectStore for Parts {
    fn probe(&self) -> Pending<'_, ()> {
        gone()
    }

    fn begin<'a>(&'a self, _name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>> {
        self.0.lock().unwrap().parts.clear();
        Box::pin(async { Ok(Box::new(self.clone()) as Box<dyn ObjectWriter>) })
    }

    fn resume<'a>(&'a self, _name: &'a str, _checkpoint: &'a Checkpoint) -> Pending<'a, Resumed> {
        let held = self.0.lock().unwrap().parts.iter().map(|part| part.len() as u64).sum();
        Box::pin(async move { Ok((Box::new(self.clone()) as Box<dyn ObjectWriter>, held)) })
    }

    fn sweep<'a>(&'a self, _sweep: Sweep<'a>) -> Pending<'a, u32> {
        gone()
    }

    fn remove<'a>(&'a self, _name: &'a str) -> Pending<'a, ()> {
        gone()
    }

    fn size<'a>(&'a self, _name: &'a str) -> Pending<'a, Option<u64>> {
        Box::pin(async { Ok(None) })
    }

    fn mark<'a>(&'a self, _name: &'a str) -> Pending<'a, Option<String>> {
        Box::pin(async { Ok(None) })
    }

    fn get<'a>(&'a self, _name: &'a str, _bytes_max: u64) -> Pending<'a, Bytes> {
        gone()
    }

    fn read<'a>(&'a self, _name: &'a str, _from: u64, _bytes: u64) -> Pending<'a, Bytes> {
        gone()
    }

    fn list<'a>(&'a self, _prefix: &'a str) -> Pending<'a, Vec<String>> {
        gone()
    }
}

impl ObjectWriter for Parts {
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        let mut held = self.0.lock().unwrap();
        if held.writes_left == 0 {
            return gone();
        }
        held.writes_left -= 1;
        held.writes += 1;
        match &mut held.air {
            Some(air) => air.push(bytes),
            None => held.parts.push(bytes),
        }
        Box::pin(async { Ok(()) })
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        let held = self.0.lock().unwrap();
        let part = |bytes: &Bytes| KeptPart {
            bytes: bytes.len() as u64,
            etag: String::new(),
            crc32c: crc32c(bytes),
            confirmed: true,
        };
        let parts: Vec<_> = held.parts.iter().map(part).collect();
        let bytes = parts.iter().map(|part| part.bytes).sum();
        Some(Checkpoint::new(bytes, Kept::S3 { upload_id: String::new(), part_bytes: 1, parts }))
    }

    fn settle(&mut self) -> Pending<'_, ()> {
        let mut held = self.0.lock().unwrap();
        let Some(mut parts) = held.air.take() else { return Box::pin(async { Ok(()) }) };
        held.parts.append(&mut parts);
        gone()
    }

    fn finish(self: Box<Self>) -> Pending<'static, Stored> {
        let mut held = self.0.lock().unwrap();
        held.complete = true;
        let bytes = held.parts.iter().map(|part| part.len() as u64).sum();
        Box::pin(async move { Ok(Stored { bytes }) })
    }

    fn abort(self: Box<Self>) -> Pending<'static, ()> {
        self.0.lock().unwrap().parts.clear();
        Box::pin(async { Ok(()) })
    }
}

/// What a journal keeps.
#[derive(Default)]
struct Journalled(Option<Checkpoint>);

impl DeliveryRecord for Journalled {
    fn complete(&mut self, _info: ObjectInfo, _consumed: Consumed) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn keeps(&self) -> bool {
        true
    }

    fn kept(&self, _number: u32) -> Option<Checkpoint> {
        self.0.clone()
    }

    fn keep(&mut self, _number: u32, checkpoint: Checkpoint) -> Noted<'_> {
        self.0 = Some(checkpoint);
        Box::pin(async {})
    }

    fn forget(&mut self, _number: u32) -> Noted<'_> {
        self.0 = None;
        Box::pin(async {})
    }
}

/// One try to deliver an object of these chunks while `writes` of them still arrive.
async fn try_once(
    store: &Parts,
    record: &mut Journalled,
    chunks: &[&'static str],
    writes: usize,
) -> Result<Vec<ObjectInfo>, UploadError> {
    store.0.lock().unwrap().writes_left = writes;
    let (sender, receiver) = mpsc::channel(16);
    sender.send(Output::Begin(0)).await.unwrap();
    for text in chunks {
        sender.send(chunk(text)).await.unwrap();
    }
    sender.send(end(chunks.iter().map(|text| text.len() as u64).sum())).await.unwrap();
    drop(sender);
    deliver(store, &PartId::alone(&CaptureId::random()), ObjectFormat::default(), 0, receiver, record).await
}

#[tokio::test]
async fn an_upload_goes_on_behind_what_the_store_holds_and_sends_nothing_twice() {
    let (store, mut record) = (Parts::default(), Journalled::default());
    for writes in [2, 0, 1] {
        let error =
            try_once(&store, &mut record, &["one", "two", "three", "four"], writes).await.unwrap_err();
        assert!(matches!(error, UploadError::Unreachable { .. }), "{error}");
    }
    // Cut elsewhere: where chunks end is not where parts end.
    let infos = try_once(&store, &mut record, &["onetwo", "threefo", "ur"], 9).await.unwrap();
    assert_eq!(infos[0].bytes, 15);
    let held = store.0.lock().unwrap();
    assert_eq!((held.parts.concat(), held.complete, held.writes), (b"onetwothreefour".to_vec(), true, 5));
}

#[tokio::test]
async fn what_lands_only_at_the_end_of_a_failed_upload_is_not_sent_again() {
    let (store, mut record) = (Parts::default(), Journalled::default());
    store.0.lock().unwrap().air = Some(Vec::new());
    try_once(&store, &mut record, &["one", "two"], 9).await.unwrap_err();
    try_once(&store, &mut record, &["one", "two"], 9).await.unwrap();
    let held = store.0.lock().unwrap();
    assert_eq!((held.parts.concat(), held.complete, held.writes), (b"onetwo".to_vec(), true, 2));
}

#[tokio::test]
async fn what_is_held_of_another_beginning_is_discarded_and_sent_anew() {
    let (store, mut record) = (Parts::default(), Journalled::default());
    try_once(&store, &mut record, &["one", "two", "three"], 2).await.unwrap_err();
    let error = try_once(&store, &mut record, &["one", "owt", "three"], 9).await.unwrap_err();
    assert!(matches!(error, UploadError::Diverged { .. }) && error.may_pass(), "{error}");
    assert!(record.0.is_none() && store.0.lock().unwrap().parts.is_empty());
    try_once(&store, &mut record, &["one", "owt", "three"], 9).await.unwrap();
    assert_eq!(store.0.lock().unwrap().parts.concat(), b"oneowtthree");
}
