//! What the spool tells about one capture, and to whom. Owns what is kept for a merge that begins later, the listeners, and
//! what becomes of news that a listener has no room for; not what listeners do.
//!
//! Invariant: a merge that begins where the last complete object ended is told everything that is not in it. Telling never
//! waits for a listener.

use super::{Cut, Input, Segment};
use crate::pcap::Counts;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What becomes of news for a listener that does not keep up. In no case does the spool wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenSlow {
    /// They wait in memory, however many they are: a few hundred bytes for each segment. Nothing is lost. For listeners that
    /// must have every segment, such as the merge and the history.
    Keep,
    /// So many wait; what comes while they do is lost to this listener and counted. For listeners that only watch.
    DropNewest {
        /// How many may wait.
        room: usize,
    },
}

/// One listener's end.
#[derive(Debug)]
pub struct Listener {
    inputs: Receiver<Input>,
    dropped: Arc<AtomicU64>,
}

impl Listener {
    /// The news, in order. They end when the feed is gone.
    #[must_use]
    pub fn inputs(&self) -> &Receiver<Input> {
        &self.inputs
    }

    /// How many it was not told, because it was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The feed's end of a listener.
#[derive(Debug)]
struct ListenerEnd {
    inputs: Sender<Input>,
    dropped: Arc<AtomicU64>,
}

impl ListenerEnd {
    /// Passes news on. Whether somebody still listens.
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
    /// Whether a merge may begin later, which is to be told all again.
    is_kept: bool,
    /// Packets and frame bytes of all segments that were told.
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

/// See the module. The spool tells it, and it tells the merge that was started last and every other listener.
#[derive(Debug)]
pub struct Feed {
    state: Mutex<State>,
}

impl Feed {
    /// Nothing told yet, for a capture of so many queues.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        Self::with(queues, true)
    }

    /// A feed without a merge, for a capture whose segments are used as they come: nothing is kept for who listens later.
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

    /// Keeps the news and passes them on. Never waits for a listener.
    pub fn tell(&self, input: Input) {
        let mut state = self.state();
        state.note(&input);
        state.listeners.retain(|listener| listener.tell(&input));
        if let Some(merge) = &state.merge {
            // A merge that failed does not listen any more; the next one is told everything again.
            let _merge_ended = merge.send(input);
        }
    }

    /// What a new merge listens to, beginning with all that is kept. The merge before it is told nothing more.
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

    /// Another listener beside the merge, for what is told from now on.
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

    /// Ends the merge that listens, if one does. What is told from now on is kept for the next one.
    pub fn hang_up(&self) {
        self.state().merge = None;
    }

    /// Packets and frame bytes of all segments that were told.
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
