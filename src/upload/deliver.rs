//! From the live merge into the store. Owns the order of objects and the report of each complete one; not the manifest.
//!
//! Invariant: an object is reported only after the store confirmed its size, and an object that cannot be completed is
//! aborted. Memory is bounded by the channel and by the store's writer, which makes the merge wait.

use super::manifest::{Manifest, ManifestError, manifest_name, signature_name};
use super::store::{ObjectStore, ObjectWriter};
use super::{SigningKey, UploadError, object_name};
use crate::capture::{CaptureId, ObjectInfo};
use crate::merge::{Consumed, ObjectFormat, Output, Summary};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Receiver;

/// Streams a capture's objects, from number `first`, into a store until the merge ends. `on_object` is told of each object
/// that is complete there, with what it leaves behind; its error ends the delivery.
///
/// The first object may be there already, from a process that died before it could note so: if it is the same, it is kept
/// and not sent again.
///
/// The end of the channel between two objects is taken as the merge's good end; whether it was, its own result tells.
///
/// # Errors
/// The first failure. Then the channel is closed, so that the merge ends too, and the open object is aborted.
pub async fn deliver(
    store: &dyn ObjectStore,
    id: &CaptureId,
    format: ObjectFormat,
    first: u32,
    mut outputs: Receiver<Output>,
    mut on_object: impl FnMut(ObjectInfo, Consumed) -> Result<(), UploadError> + Send,
) -> Result<Vec<ObjectInfo>, UploadError> {
    let mut relay = Relay { store, id, format, first, open: None, done: Vec::new() };
    let result = relay.run(&mut outputs, &mut on_object).await;
    drop(outputs);
    if let Some(open) = relay.open.take()
        && let Some(writer) = open.writer
        && let Err(error) = writer.abort().await
    {
        tracing::warn!(object = open.name, %error, "an object could not be aborted");
    }
    result.map(|()| relay.done)
}

/// Why a manifest is not in its store.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It has no JSON form.
    #[error(transparent)]
    Form(#[from] ManifestError),
    /// The store.
    #[error(transparent)]
    Store(#[from] UploadError),
}

/// Writes the manifest, and before it its signature: a manifest that is there is signed, if this host signs.
///
/// # Errors
/// [`PublishError`]. A signature without a manifest may then be left.
pub async fn publish_manifest(
    store: &dyn ObjectStore,
    manifest: &Manifest,
    key: Option<&SigningKey>,
) -> Result<(), PublishError> {
    let json = manifest.to_json()?;
    if let Some(key) = key {
        store.put(&signature_name(&manifest.id), key.sign(&json).into()).await?;
    }
    store.put(&manifest_name(&manifest.id), json.into()).await?;
    Ok(())
}

struct Relay<'a> {
    store: &'a dyn ObjectStore,
    id: &'a CaptureId,
    format: ObjectFormat,
    first: u32,
    open: Option<Open>,
    done: Vec<ObjectInfo>,
}

/// The object under way.
struct Open {
    name: String,
    /// Written up to now.
    bytes: u64,
    /// None: an object of that name is there, and is held against what the merge makes.
    writer: Option<Box<dyn ObjectWriter>>,
}

fn wrong_size((place, held, sent): (String, u64, u64)) -> UploadError {
    UploadError::Mismatch { place, what: "size", held: held.to_string(), sent: sent.to_string() }
}

impl Relay<'_> {
    async fn run(
        &mut self,
        outputs: &mut Receiver<Output>,
        on_object: &mut (impl FnMut(ObjectInfo, Consumed) -> Result<(), UploadError> + Send),
    ) -> Result<(), UploadError> {
        while let Some(output) = outputs.recv().await {
            match output {
                Output::Begin(index) => self.begin(index).await?,
                Output::Chunk(bytes) => self.write(bytes).await?,
                Output::End(summary, consumed) => {
                    let info = self.end(summary).await?;
                    on_object(info, consumed)?;
                }
            }
        }
        match (&self.open, self.done.is_empty()) {
            (None, false) => Ok(()),
            _ => Err(UploadError::Interrupted { object: self.done.len() }),
        }
    }

    async fn begin(&mut self, index: u32) -> Result<(), UploadError> {
        if self.open.is_some() || index as usize != self.first as usize + self.done.len() {
            return Err(UploadError::OutOfOrder { what: "an object's beginning" });
        }
        let name = object_name(self.id, index, self.format);
        let is_there = index == self.first && self.store.size(&name).await?.is_some();
        let writer = if is_there { None } else { Some(self.store.begin(&name).await?) };
        self.open = Some(Open { name, bytes: 0, writer });
        Ok(())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let Some(open) = &mut self.open else { return Err(UploadError::OutOfOrder { what: "a chunk" }) };
        open.bytes += bytes.len() as u64;
        match &mut open.writer {
            Some(writer) => writer.write(bytes).await,
            None => Ok(()),
        }
    }

    /// Completes the open object, but only if it has the size that the merge counted: a wrong one never becomes visible.
    async fn end(&mut self, summary: Summary) -> Result<ObjectInfo, UploadError> {
        let Some(open) = self.open.take() else {
            return Err(UploadError::OutOfOrder { what: "an object's end" });
        };
        if open.bytes != summary.bytes {
            let sizes = (open.name.clone(), open.bytes, summary.bytes);
            self.open = Some(open);
            return Err(wrong_size(sizes));
        }
        let Open { name, writer, .. } = open;
        match writer {
            None => adopt(self.store, self.id, &name, &summary).await?,
            Some(writer) => {
                let stored = writer.finish().await?;
                if stored.bytes != summary.bytes {
                    return Err(wrong_size((name, stored.bytes, summary.bytes)));
                }
            }
        }
        let info = ObjectInfo {
            name,
            bytes: summary.bytes,
            packets: summary.packets,
            frame_bytes: (!self.format.is_plain()).then_some(summary.frame_bytes),
            first_ns: summary.first_ns,
            last_ns: summary.last_ns,
            sha256: summary.sha256,
            content: summary.content,
        };
        tracing::info!(capture = %self.id, object = info.name, bytes = info.bytes, "object is complete");
        self.done.push(info.clone());
        Ok(info)
    }
}

/// Holds the object that is there against what was merged. One that differs is somebody else's and stays.
async fn adopt(
    store: &dyn ObjectStore,
    id: &CaptureId,
    name: &str,
    summary: &Summary,
) -> Result<(), UploadError> {
    let exists = || UploadError::Exists { place: name.to_owned() };
    if store.size(name).await? != Some(summary.bytes) {
        return Err(exists());
    }
    let bytes = store.get(name, summary.bytes).await?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 != summary.sha256 {
        return Err(exists());
    }
    tracing::info!(capture = %id, object = name, "object was complete already");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::FileStore;
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
        let result = deliver(&store, &id, ObjectFormat::default(), 0, receiver, |_, consumed| {
            reported += consumed.segments.len();
            Ok(())
        })
        .await;
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
}
