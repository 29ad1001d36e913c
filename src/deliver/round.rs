//! One attempt at all objects of a capture that are not journalled. Owns its loop: what begins, what is journalled, when it ends; the
//! order is `lineup`'s, and one object's way `object`'s.
//!
//! Invariant: it ends only when nothing that it began is at work any more, but for objects that nobody wants.

use super::lineup::{Left, LineUp, Want};
use super::object::{Asked, Fate, Work};
use super::relay::Leave;
use crate::job::ObjectInfo;
use crate::merge::{Consumed, Foreseen, Start, foresee};
use crate::pcap::Container;
use crate::upload::{Checkpoint, UploadError};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Between two looks for where an object ends that could not be told.
const FORESEE_PAUSE: Duration = Duration::from_millis(500);

/// The end of an object that is being looked for.
#[derive(Default)]
struct Foresight {
    search: Option<(Start, JoinHandle<Option<Foreseen>>)>,
    /// When it may be looked for again.
    not_before: Option<Instant>,
}

impl Foresight {
    /// Waits for the end of the search: what it found. Or for the end of the pause behind one that found nothing.
    async fn next(&mut self) -> Option<(Start, Foreseen)> {
        if let Some((_, search)) = &mut self.search {
            let end = search.await.ok().flatten();
            let (start, _) = self.search.take()?;
            self.not_before = end.is_none().then(|| Instant::now() + FORESEE_PAUSE);
            return Some((start, end?));
        }
        match self.not_before {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.not_before = None;
        None
    }
}

/// The objects of one attempt.
pub(super) struct Round<'a> {
    pub work: Work<'a>,
    pub line: LineUp,
    /// What the store holds of objects that are not complete.
    kept: BTreeMap<u32, Checkpoint>,
    at_work: Vec<AtWork<'a>>,
    foresight: Foresight,
    /// Why it ends before the last object.
    pub error: Option<Fate>,
}

/// The work at an object: its number, and what became of it.
type AtWork<'a> = Pin<Box<dyn Future<Output = (u32, Result<(ObjectInfo, Consumed), Fate>)> + Send + 'a>>;

/// The first work that ends.
async fn first_of<'a>(at_work: &mut Vec<AtWork<'a>>) -> (u32, Result<(ObjectInfo, Consumed), Fate>) {
    poll_fn(|context| {
        for place in 0..at_work.len() {
            if let Poll::Ready(ended) = at_work[place].as_mut().poll(context) {
                drop(at_work.swap_remove(place));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

impl<'a> Round<'a> {
    /// From `next` on, where the journal ends. `left`: by an attempt before; `kept`: what the store holds of others.
    pub fn new(work: Work<'a>, next: Start, left: Left, kept: BTreeMap<u32, Checkpoint>) -> Self {
        let (line, foresight) = (LineUp::new(next, left), Foresight::default());
        Self { work, line, kept, at_work: Vec::new(), foresight, error: None }
    }

    /// Works until the last object is journalled or, after an error, until all that was begun has ended.
    pub async fn run(
        &mut self,
        (mut asked, bell): (mpsc::UnboundedReceiver<Asked>, Arc<Notify>),
        leaving: &watch::Sender<bool>,
        leave: &mut Leave<'_>,
    ) {
        loop {
            self.journal().await;
            if self.line.is_over() {
                break;
            }
            self.begin();
            if self.error.is_none() && self.line.first_complete().is_some() {
                // An attempt before has completed it.
                continue;
            }
            if self.at_work.is_empty() && self.error.is_some() {
                break;
            }
            let is_leaving = *leaving.borrow();
            tokio::select! {
                biased;
                (number, ended) = first_of(&mut self.at_work) => self.ended(number, ended),
                Some(Asked { number, merged, reply }) = asked.recv() => self.line.asks(number, merged, reply),
                found = self.foresight.next() => {
                    if let Some((start, end)) = found {
                        self.line.foreseen(start, end);
                    }
                }
                () = bell.notified() => {}
                () = &mut *leave, if !is_leaving => {
                    leaving.send_replace(true);
                    self.fail(Fate::Upload(UploadError::Displaced));
                }
            }
        }
    }

    /// Journals what is complete, in order.
    async fn journal(&mut self) {
        while let Some((info, consumed)) = self.line.first_complete() {
            let (info, mut consumed) = (info.clone(), consumed.clone());
            // An object before it may lack what is damaged in a segment that this one has read.
            consumed.segments.retain(|segment| !self.work.damaged.contains(segment));
            match self.work.delivery.object(&self.work.journal, info, consumed).await {
                Ok(()) => self.line.journalled(),
                Err(error) => {
                    self.fail(Fate::Upload(error));
                    break;
                }
            }
        }
    }

    /// Begins what can be begun.
    fn begin(&mut self) {
        let delivery = self.work.delivery;
        // Where an object of pcapng ends is not known from places.
        let is_pcap = delivery.shape.format.container == Container::Pcap;
        let objects_max = if is_pcap { delivery.objects_max } else { 1 };
        while let Some(want) = self.line.want(objects_max) {
            match want {
                Want::Begin { start, is_first } => {
                    let room =
                        if is_first { None } else { delivery.route.stores.one_more_object(delivery.queues) };
                    if !is_first && room.is_none() {
                        break;
                    }
                    let number = start.object;
                    let until = self.line.end_of(number);
                    let stopped = self.line.begun(start.clone(), room);
                    let work = self.work.clone();
                    self.work.begun_below = self.work.begun_below.max(number.saturating_add(1));
                    self.at_work.push(Box::pin(work.object(
                        (start, until),
                        self.kept.remove(&number),
                        stopped,
                    )));
                }
                Want::Foresee(start) => {
                    self.foresee(start);
                    break;
                }
            }
        }
    }

    /// Looks for the end of an object, unless that is being done or was just done in vain.
    fn foresee(&mut self, start: Start) {
        let delivery = self.work.delivery;
        if self.foresight.search.is_some() || self.foresight.not_before.is_some() {
            return;
        }
        let shape = delivery.shape.clone();
        let ahead = delivery.feed.ahead(&start.cuts, shape.object_bytes_needed());
        let bytes: u64 = ahead.iter().flat_map(|ahead| &ahead.segments).map(|segment| segment.bytes).sum();
        if bytes <= shape.object_bytes_max && !ahead.iter().all(|ahead| ahead.is_all) {
            return;
        }
        let cuts = start.cuts.clone();
        let search = tokio::task::spawn_blocking(move || foresee(&cuts, ahead, &shape));
        self.foresight.search = Some((start, search));
    }

    fn ended(&mut self, number: u32, ended: Result<(ObjectInfo, Consumed), Fate>) {
        if matches!(ended, Err(Fate::Merge(_))) && self.error.is_none() && self.line.misled(number) {
            return self.work.forget(number);
        }
        let (complete, error) = match ended {
            Ok(complete) => (Some(complete), None),
            Err(error) => (None, Some(error)),
        };
        if self.line.ended(number, complete) {
            // It began where no object ends. The object of this number begins again from nothing.
            self.work.forget(number);
        } else if let Some(error) = error {
            self.fail(error);
        }
    }

    /// Ends with this error once all that was begun has ended.
    fn fail(&mut self, error: Fate) {
        self.error.get_or_insert(error);
        self.line.close();
        // A merge that waits for more packets would never end.
        self.work.delivery.feed.hang_up();
    }
}
