//! The spool's messages about one capture, and their listeners. Owns the backlog for a merge that starts later, and the policy
//! for a listener that is slow; not what listeners do.
//!
//! Invariant: a merge that starts where the last complete object ended receives every message about later packets. Sending
//! never waits for a listener.

use super::{Cut, Input, Segment};
use crate::pcap::Counts;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens to messages when a listener is too slow. The spool never waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenSlow {
    /// Keep all in memory: a few hundred bytes for each segment. Nothing is lost. For listeners that need every segment: the
    /// merge, the history.
    Keep,
    /// Keep so many; drop and count the newer ones. For listeners that only watch.
    DropNewest {
        /// Messages kept.
        room: usize,
    },
}

/// A listener's receiving end.
#[derive(Debug)]
pub struct Listener {
    inputs: Receiver<Input>,
    dropped: Arc<AtomicU64>,
}

impl Listener {
    /// The messages, in order. The channel closes with the feed.
    #[must_use]
    pub fn inputs(&self) -> &Receiver<Input> {
        &self.inputs
    }

    /// Messages dropped because the listener was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The feed's sending end for one listener.
#[derive(Debug)]
struct ListenerEnd {
    inputs: Sender<Input>,
    dropped: Arc<AtomicU64>,
}

impl ListenerEnd {
    /// Sends a message. Whether the listener still exists.
    fn tell(&self, input: &Input) -> bool {
        match self.inputs.try_send(input.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

#[derive(Debug, Default)]
struct Backlog {
    /// Segments and holes, each with its place in the stream.
    segments: VecDeque<(u64, Input)>,
    watermark_ns: u64,
    ended: bool,
}

#[derive(Debug)]
struct State {
    backlogs: Vec<Backlog>,
    counts: Option<Option<Counts>>,
    merge: Option<Sender<Input>>,
    listeners: Vec<ListenerEnd>,
    /// Whether messages are kept for a merge that starts later.
    is_kept: bool,
    /// Packets and frame bytes of all segments so far.
    told: (u64, u64),
}

impl State {
    fn note(&mut self, input: &Input) {
        if !self.is_kept {
            return;
        }
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
        if let Input::Segment(_, segment) = input {
            self.told.0 += segment.packets;
            self.told.1 += segment.frame_bytes();
        }
        let Some(backlog) = self.backlogs.get_mut(queue) else { return };
        match input {
            Input::Segment(_, Segment { sequence, .. }) | Input::Hole { sequence, .. } => {
                backlog.segments.push_back((*sequence, input.clone()));
            }
            Input::Watermark(_, ns) => backlog.watermark_ns = backlog.watermark_ns.max(*ns),
            Input::End(_) => backlog.ended = true,
            Input::Counts(_) => {}
        }
    }
}

/// See the module. It passes each message from the spool to the newest merge and to every other listener.
#[derive(Debug)]
pub struct Feed {
    state: Mutex<State>,
}

impl Feed {
    /// A feed for a capture of so many queues.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        Self::with(queues, true)
    }

    /// A feed without a merge: later listeners do not receive earlier messages.
    #[must_use]
    pub fn without_merge() -> Self {
        Self::with(0, false)
    }

    fn with(queues: usize, is_kept: bool) -> Self {
        let backlogs = (0..queues).map(|_| Backlog::default()).collect();
        let (merge, listeners) = (None, Vec::new());
        Self { state: Mutex::new(State { backlogs, counts: None, merge, listeners, is_kept, told: (0, 0) }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the message and passes it on. Never waits for a listener.
    pub fn tell(&self, input: Input) {
        let mut state = self.state();
        state.note(&input);
        state.listeners.retain(|listener| listener.tell(&input));
        if let Some(merge) = &state.merge {
            // A failed merge does not listen any more; the next one receives the backlog.
            let _merge_ended = merge.send(input);
        }
    }

    /// The messages for a new merge, beginning with the backlog. The previous merge receives no more.
    #[must_use]
    pub fn listen(&self) -> Receiver<Input> {
        let (sender, receiver) = unbounded();
        let mut state = self.state();
        for (queue, backlog) in state.backlogs.iter().enumerate() {
            let segments = backlog.segments.iter().map(|(_, input)| input.clone());
            let rest = [
                (backlog.watermark_ns > 0).then_some(Input::Watermark(queue, backlog.watermark_ns)),
                backlog.ended.then_some(Input::End(queue)),
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

    /// Another listener beside the merge, for messages from now on.
    #[must_use]
    pub fn listen_with(&self, when_slow: WhenSlow) -> Listener {
        let (sender, inputs) = match when_slow {
            WhenSlow::Keep => unbounded(),
            WhenSlow::DropNewest { room } => bounded(room),
        };
        let dropped = Arc::new(AtomicU64::new(0));
        self.state().listeners.push(ListenerEnd { inputs: sender, dropped: Arc::clone(&dropped) });
        Listener { inputs, dropped }
    }

    /// Disconnects the merge, if there is one. Messages are then kept for the next one.
    pub fn hang_up(&self) {
        self.state().merge = None;
    }

    /// Packets and frame bytes of all segments so far.
    #[must_use]
    pub fn told(&self) -> (u64, u64) {
        self.state().told
    }

    /// Forgets the segments and holes before these places, one for each queue.
    pub fn done(&self, cuts: &[Cut]) {
        let mut state = self.state();
        for (backlog, cut) in state.backlogs.iter_mut().zip(cuts) {
            while backlog.segments.front().is_some_and(|(sequence, _)| *sequence < cut.sequence) {
                backlog.segments.pop_front();
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

    #[test]
    fn a_slow_listener_loses_what_it_has_no_room_for_is_told_how_much_and_costs_the_others_nothing() {
        let feed = Feed::new(1);
        let merge = feed.listen();
        let (slow, every) =
            (feed.listen_with(WhenSlow::DropNewest { room: 2 }), feed.listen_with(WhenSlow::Keep));
        for sequence in 0..5 {
            feed.tell(Input::Segment(0, segment(sequence)));
        }
        let told = |inputs: &Receiver<Input>| inputs.try_iter().collect::<Vec<_>>();
        let all: Vec<_> = (0..5).map(|sequence| Input::Segment(0, segment(sequence))).collect();
        assert_eq!((told(slow.inputs()), slow.dropped()), (all[..2].to_vec(), 3));
        assert_eq!((told(every.inputs()), every.dropped()), (all.clone(), 0));
        assert_eq!(told(&merge), all);
        drop(slow);
        feed.tell(Input::End(0));
        assert_eq!(told(every.inputs()), [Input::End(0)]);
        assert_eq!(feed.state().listeners.len(), 1, "who does not listen any more is forgotten");
    }

    #[test]
    fn a_feed_without_a_merge_keeps_nothing() {
        let feed = Feed::without_merge();
        let listener = feed.listen_with(WhenSlow::Keep);
        feed.tell(Input::Segment(7, segment(0)));
        assert_eq!(listener.inputs().try_iter().count(), 1);
        assert_eq!(feed.listen().try_iter().count(), 0);
    }
}
