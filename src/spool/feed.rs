//! The spool's messages about one capture, and their listeners. Owns the backlog for a merge that starts later, and the policy
//! for a listener that is slow; not what listeners do.
//!
//! Invariant: a merge that starts where the last complete object ended, or behind it, receives every message about later packets.
//! Sending never waits for a listener.

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

/// See [`Feed::call`].
struct Bell(Box<dyn Fn() + Send>);

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bell")
    }
}

/// What is known of a queue's stream behind a place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Its published segments in order, from the one that has that place.
    pub segments: Vec<Segment>,
    /// What is not among them, and not published yet, is not older.
    pub floor_ns: u64,
    /// The number behind the last segment or hole of them.
    pub next: u64,
    /// Whether that is all that will ever come.
    pub is_all: bool,
}

impl Backlog {
    /// Segments and holes from this place in the stream on, until they have more than so many bytes behind it; and whether these are
    /// all that there are.
    fn behind(&self, cut: Cut, bytes_max: u64) -> (impl Iterator<Item = &(u64, Input)>, bool) {
        let from = self.segments.partition_point(|(number, _)| *number < cut.sequence);
        let (mut bytes, mut end) = (0, from);
        for (_, input) in self.segments.range(from..) {
            if bytes > bytes_max.saturating_add(cut.offset) {
                break;
            }
            if let Input::Segment(_, segment) = input {
                bytes += segment.bytes;
            }
            end += 1;
        }
        (self.segments.range(from..end), end == self.segments.len())
    }
}

/// A merge that listens.
#[derive(Debug)]
struct Merge {
    inputs: Sender<Input>,
    /// Whether it hears more of each stream.
    is_open: Vec<bool>,
}

impl Merge {
    /// Sends a message, if it is of a stream that it hears more of. Whether the merge still listens.
    fn tell(&self, input: &Input) -> bool {
        let queue = match input {
            Input::Segment(queue, _)
            | Input::Hole { queue, .. }
            | Input::Watermark(queue, _)
            | Input::End(queue) => Some(*queue),
            Input::Counts(_) => None,
        };
        let is_open = queue.and_then(|queue| self.is_open.get(queue)).is_none_or(|is_open| *is_open);
        !is_open || self.inputs.send(input.clone()).is_ok()
    }
}

#[derive(Debug)]
struct State {
    backlogs: Vec<Backlog>,
    counts: Option<Option<Counts>>,
    /// Of the merges that are told more.
    merges: Vec<Merge>,
    listeners: Vec<ListenerEnd>,
    /// Called after each message.
    bell: Option<Bell>,
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
        let (merges, listeners) = (Vec::new(), Vec::new());
        let (counts, bell, told) = (None, None, (0, 0));
        Self { state: Mutex::new(State { backlogs, counts, merges, listeners, bell, is_kept, told }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the message and passes it on. Never waits for a listener.
    pub fn tell(&self, input: Input) {
        let mut state = self.state();
        state.note(&input);
        state.listeners.retain(|listener| listener.tell(&input));
        // A merge that has ended does not listen any more; the next one receives the backlog.
        state.merges.retain(|merge| merge.tell(&input));
        if let Some(Bell(ring)) = &state.bell {
            ring();
        }
    }

    /// The messages for a new merge, beginning with the backlog. The merges before receive no more.
    #[must_use]
    pub fn listen(&self) -> Receiver<Input> {
        self.hang_up();
        self.listen_from(&[], u64::MAX)
    }

    /// The messages for a merge that starts at these places, beside those that listen already. Of a stream that has more than so many
    /// bytes there it hears of these segments alone, and nothing of the time behind them: it would take that for a floor
    /// under those that it does not hear of. The channel closes once nothing more is to come.
    #[must_use]
    pub fn listen_from(&self, cuts: &[Cut], bytes_max: u64) -> Receiver<Input> {
        let (sender, receiver) = unbounded();
        let mut state = self.state();
        let (mut is_open, mut are_all) = (Vec::with_capacity(state.backlogs.len()), true);
        for (queue, backlog) in state.backlogs.iter().enumerate() {
            let cut = cuts.get(queue).copied().unwrap_or_default();
            let (inputs, is_all) = backlog.behind(cut, bytes_max);
            for (_, input) in inputs {
                let _receiver_is_here = sender.send(input.clone());
            }
            is_open.push(is_all && !backlog.ended);
            are_all &= is_all;
            if is_all && backlog.watermark_ns > 0 {
                let _receiver_is_here = sender.send(Input::Watermark(queue, backlog.watermark_ns));
            }
            if is_all && backlog.ended {
                let _receiver_is_here = sender.send(Input::End(queue));
            }
        }
        if let Some(counts) = state.counts {
            let _receiver_is_here = sender.send(Input::Counts(counts));
        }
        if is_open.contains(&true) || are_all && state.counts.is_none() {
            state.merges.push(Merge { inputs: sender, is_open });
        }
        receiver
    }

    /// What is known of each stream behind these places, of each no more segments than [`Feed::listen_from`] tells.
    #[must_use]
    pub fn ahead(&self, cuts: &[Cut], bytes_max: u64) -> Vec<Ahead> {
        let state = self.state();
        let ahead = |(queue, cut): (usize, &Cut)| {
            let mut ahead = Ahead { next: cut.sequence, ..Ahead::default() };
            let Some(backlog) = state.backlogs.get(queue) else { return ahead };
            let (inputs, is_all) = backlog.behind(*cut, bytes_max);
            for (sequence, input) in inputs {
                ahead.next = sequence + 1;
                if let Input::Segment(_, segment) = input {
                    ahead.floor_ns = segment.last_ns;
                    ahead.segments.push(segment.clone());
                }
            }
            if is_all {
                ahead.floor_ns = ahead.floor_ns.max(backlog.watermark_ns);
                ahead.is_all = backlog.ended;
            }
            ahead
        };
        cuts.iter().enumerate().map(ahead).collect()
    }

    /// Calls `ring` after each message from now on. It must not wait, and not ask the feed.
    pub fn call(&self, ring: impl Fn() + Send + 'static) {
        self.state().bell = Some(Bell(Box::new(ring)));
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

    /// Disconnects the merges that listen. Messages are then kept for the next ones.
    pub fn hang_up(&self) {
        self.state().merges.clear();
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
    fn merges_side_by_side_are_told_what_stands_behind_their_places() {
        let feed = Feed::new(2);
        for sequence in 0..4 {
            feed.tell(Input::Segment(0, segment(sequence)));
        }
        feed.tell(Input::Watermark(0, 9));
        feed.tell(Input::Segment(1, segment(0)));
        feed.tell(Input::End(1));
        let cuts = [2, 1].map(|sequence| Cut { sequence, offset: 0 });
        let all = feed.listen_from(&cuts, u64::MAX);
        let few = feed.listen_from(&[], 30);
        let (hole, counts) = (Input::Hole { queue: 0, sequence: 4 }, Input::Counts(None));
        feed.tell(hole.clone());
        feed.tell(counts.clone());
        let two = |sequence| Input::Segment(0, segment(sequence));
        let told: Vec<_> = all.try_iter().collect();
        assert_eq!(told, [two(2), two(3), Input::Watermark(0, 9), Input::End(1), hole, counts.clone()]);
        // Neither a floor nor more of a stream that has enough.
        let told: Vec<_> = few.iter().collect();
        assert_eq!(told, [two(0), two(1), Input::Segment(1, segment(0)), Input::End(1)]);
        feed.hang_up();
        assert!(all.recv().is_err());
    }

    #[test]
    fn what_is_known_ahead_is_no_more_than_was_asked_for_and_says_whether_it_is_all() {
        let feed = Feed::new(2);
        (0..4).for_each(|sequence| feed.tell(Input::Segment(0, Segment { last_ns: 5, ..segment(sequence) })));
        feed.tell(Input::Hole { queue: 0, sequence: 4 });
        feed.tell(Input::Watermark(0, 9));
        feed.tell(Input::Watermark(1, 7));
        feed.tell(Input::End(1));
        let cuts = [Cut { sequence: 1, offset: 0 }, Cut::default()];
        let ahead = |bytes_max| {
            let ahead = feed.ahead(&cuts, bytes_max);
            ahead
                .into_iter()
                .map(|Ahead { segments, floor_ns, next, is_all }| (segments.len(), floor_ns, next, is_all))
        };
        assert!(ahead(30).eq([(2, 5, 3, false), (0, 7, 0, true)]));
        assert!(ahead(1000).eq([(3, 9, 5, false), (0, 7, 0, true)]));
    }

    #[test]
    fn the_bell_rings_after_each_message() {
        let (feed, rung) = (Feed::new(1), Arc::new(AtomicU64::new(0)));
        let ring = Arc::clone(&rung);
        feed.call(move || {
            ring.fetch_add(1, Ordering::Relaxed);
        });
        feed.tell(Input::Segment(0, segment(0)));
        feed.tell(Input::End(0));
        assert_eq!(rung.load(Ordering::Relaxed), 2);
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
