//! What one capture's merge is told, kept until the objects that hold it are complete. Owns the way from the spool to
//! the merge that is running now; not the merge.
//!
//! Invariant: a merge that begins where the last complete object ended is told everything that is not in it.

use super::{Cut, Input, Segment};
use crate::pcap::Counts;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Lane {
    /// Segments and holes, each with its place in the stream.
    segments: VecDeque<(u64, Input)>,
    watermark_ns: u64,
    ended: bool,
}

#[derive(Debug)]
struct State {
    lanes: Vec<Lane>,
    counts: Option<Option<Counts>>,
    merge: Option<Sender<Input>>,
}

impl State {
    fn note(&mut self, input: &Input) {
        let queue = match input {
            Input::Segment(queue, _)
            | Input::Hole { queue, .. }
            | Input::Watermark(queue, _)
            | Input::End(queue) => *queue,
            Input::Counts(counts) => {
                self.counts.get_or_insert(*counts);
                return;
            }
        };
        let Some(lane) = self.lanes.get_mut(queue) else { return };
        match input {
            Input::Segment(_, Segment { sequence, .. }) | Input::Hole { sequence, .. } => {
                lane.segments.push_back((*sequence, input.clone()));
            }
            Input::Watermark(_, ns) => lane.watermark_ns = lane.watermark_ns.max(*ns),
            Input::End(_) => lane.ended = true,
            Input::Counts(_) => {}
        }
    }
}

/// See the module. The spool tells it, and it tells whichever merge was started last.
#[derive(Debug)]
pub struct Feed {
    state: Mutex<State>,
}

impl Feed {
    /// Nothing told yet, for a capture of so many queues.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        let lanes = (0..queues).map(|_| Lane::default()).collect();
        Self { state: Mutex::new(State { lanes, counts: None, merge: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the news and passes them on. Never waits for a merge.
    pub fn tell(&self, input: Input) {
        let mut state = self.state();
        state.note(&input);
        if let Some(merge) = &state.merge {
            // A merge that failed listens no more; the next one is told anew.
            let _merge_ended = merge.send(input);
        }
    }

    /// What a new merge listens to, beginning with all that is kept. The merge before it is told nothing more.
    #[must_use]
    pub fn listen(&self) -> Receiver<Input> {
        let (sender, receiver) = unbounded();
        let mut state = self.state();
        for (queue, lane) in state.lanes.iter().enumerate() {
            let segments = lane.segments.iter().map(|(_, input)| input.clone());
            let rest = [
                (lane.watermark_ns > 0).then_some(Input::Watermark(queue, lane.watermark_ns)),
                lane.ended.then_some(Input::End(queue)),
            ];
            for input in segments.chain(rest.into_iter().flatten()) {
                let _receiver_is_here = sender.send(input);
            }
        }
        if let Some(counts) = state.counts {
            let _receiver_is_here = sender.send(Input::Counts(counts));
        }
        state.merge = Some(sender);
        receiver
    }

    /// Forgets the segments and holes before these places, one for each queue.
    pub fn done(&self, cuts: &[Cut]) {
        let mut state = self.state();
        for (lane, cut) in state.lanes.iter_mut().zip(cuts) {
            while lane.segments.front().is_some_and(|(sequence, _)| *sequence < cut.sequence) {
                lane.segments.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u64) -> Segment {
        let path = format!("{sequence}").into();
        Segment { path, sequence, bytes: 24, packets: 0, first_ns: 0, last_ns: 0 }
    }

    #[test]
    fn a_second_merge_is_told_all_that_is_not_in_complete_objects() {
        let feed = Feed::new(2);
        for sequence in 0..3 {
            feed.tell(Input::Segment(0, segment(sequence)));
        }
        let first = feed.listen();
        feed.tell(Input::Watermark(1, 7));
        feed.tell(Input::End(1));
        assert_eq!(first.try_iter().count(), 5);
        feed.done(&[Cut { sequence: 2, offset: 30 }, Cut::default()]);
        let second = feed.listen();
        feed.tell(Input::End(0));
        let told: Vec<_> = second.try_iter().collect();
        assert_eq!(
            told,
            [Input::Segment(0, segment(2)), Input::Watermark(1, 7), Input::End(1), Input::End(0)]
        );
        assert!(first.try_recv().is_err(), "the merge before is told nothing more");
    }

    #[test]
    fn a_hole_keeps_its_place_between_segments_and_is_forgotten_with_those_before_it() {
        let feed = Feed::new(1);
        let hole = |sequence| Input::Hole { queue: 0, sequence };
        feed.tell(hole(0));
        feed.tell(Input::Segment(0, segment(1)));
        feed.tell(hole(2));
        feed.tell(Input::Segment(0, segment(3)));
        let told: Vec<_> = feed.listen().try_iter().collect();
        assert_eq!(told, [hole(0), Input::Segment(0, segment(1)), hole(2), Input::Segment(0, segment(3))]);
        feed.done(&[Cut { sequence: 2, offset: 0 }]);
        let told: Vec<_> = feed.listen().try_iter().collect();
        assert_eq!(told, [hole(2), Input::Segment(0, segment(3))]);
    }
}
