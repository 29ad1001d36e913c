//! The complete objects of a capture while it is at work. Owns which of them are in memory; the others are in the store, beside the
//! capture's record, and all of them are in the journal.
//!
//! Invariant: in memory are the last ones, never more than a record holds, and the sums of all.

use super::Effect;
use super::capture::Capture;
use crate::job::{ObjectInfo, ObjectRange, ObjectSums};
use crate::limits::RECORD_OBJECTS_MAX;
use std::sync::Arc;

impl Capture {
    /// One more object is complete.
    pub(super) fn complete(&mut self, object: ObjectInfo, out: &mut Vec<Effect>) {
        if self.job.objects.len() == RECORD_OBJECTS_MAX {
            let (id, first) = (self.job.id.clone(), self.objects_away());
            let objects = Arc::new(std::mem::take(&mut self.job.objects));
            out.push(Effect::RecordObjects { id, first, objects });
        }
        self.delivered_sums.add(&object);
        self.job.objects.push(object);
    }

    /// These objects are complete, and no others.
    pub(super) fn complete_are(&mut self, objects: Vec<ObjectInfo>, out: &mut Vec<Effect>) {
        self.job.objects.clear();
        self.delivered_sums = ObjectSums::default();
        objects.into_iter().for_each(|object| self.complete(object, out));
    }

    /// How many are not in memory.
    fn objects_away(&self) -> u64 {
        self.delivered_sums.objects.saturating_sub(self.job.objects.len() as u64)
    }

    /// The sums of all, if some are not in memory.
    pub(super) fn objects_beside(&self) -> Option<ObjectSums> {
        (self.objects_away() > 0).then_some(self.delivered_sums)
    }

    /// Of those in the range: which the store has, and the others.
    pub fn objects(&self, range: ObjectRange) -> (ObjectRange, Vec<ObjectInfo>) {
        let away = usize::try_from(self.objects_away()).unwrap_or(usize::MAX);
        let in_store = away.saturating_sub(range.from).min(range.count_max);
        let here =
            ObjectRange { from: range.from.saturating_sub(away), count_max: range.count_max - in_store };
        (ObjectRange { from: range.from, count_max: in_store }, here.of(&self.job.objects).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Serial;
    use super::super::capture::Phase;
    use super::*;
    use crate::job::{Job, Status};

    fn object(number: u64) -> ObjectInfo {
        ObjectInfo { name: number.to_string(), bytes: 10, packets: 2, ..ObjectInfo::default() }
    }

    /// A capture with so many complete objects, and those that were handed to the store.
    fn capture(objects: u64) -> (Capture, Vec<ObjectInfo>) {
        let mut capture = Capture::new(Serial::default(), Job::sample("a", 1), Phase::Draining);
        let (mut out, mut stored) = (Vec::new(), Vec::new());
        for number in 0..objects {
            capture.complete(object(number), &mut out);
            for effect in out.drain(..) {
                let Effect::RecordObjects { first, objects, .. } = effect else { panic!("{effect:?}") };
                assert_eq!((first as usize, objects.len()), (stored.len(), RECORD_OBJECTS_MAX));
                stored.extend(objects.iter().cloned());
            }
        }
        (capture, stored)
    }

    #[test]
    fn what_a_capture_has_in_memory_and_hands_on_does_not_grow_with_its_objects() {
        for objects in [0, 1_000, 1_001, 4_000, 40_500] {
            let (mut capture, stored) = capture(objects);
            assert!(capture.job.objects.len() <= RECORD_OBJECTS_MAX);
            let sums = ObjectSums { objects, bytes: objects * 10, packets: objects * 2 };
            assert_eq!(capture.object_sums(), sums);
            for (from, count_max) in
                [(0, 7), (995, 10), (objects as usize, 3), (3_990, usize::MAX), (500, 2_000)]
            {
                let range = ObjectRange { from, count_max };
                let (in_store, here) = capture.objects(range);
                let page = [in_store.of(&stored), &here].concat();
                let all: Vec<_> = (0..objects).map(object).collect();
                assert_eq!(page, range.of(&all), "{objects} {range:?}");
            }
            // What is recorded at its end, whatever came before.
            capture.job.status = Status::Success;
            let mut out = Vec::new();
            capture.record(&mut out);
            let Some(Effect::Record { job, .. }) = out.pop() else { panic!("nothing is recorded") };
            assert_eq!((job.objects.len() + stored.len(), job.object_sums()), (objects as usize, sums));
            assert!(serde_json::to_vec(&*job).unwrap().len() < 200_000);
        }
    }
}
