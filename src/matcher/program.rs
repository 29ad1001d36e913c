//! The filters of all attached captures, compiled together. Owns the tables and their evaluation over a burst.
//!
//! A *column* is one byte of the key with a table: for each value that the byte can have, the captures whose rule it
//! satisfies, one bit each. A packet matches the captures that are left when the columns' answers are ANDed. So the cost
//! follows the bytes that some filter asks about (at most 38), not the number of filters, and it does not matter how
//! alike the filters' masks are. Rejected: one masked compare per filter, which costs 64 filters 64 compares a packet;
//! hash tables per distinct mask, whose cost a tenant drives up by using many prefix lengths.
//!
//! The first [`PREFILTER_COLUMNS`] are looked up for the whole burst without a branch, which lets loads of different
//! packets overlap; they are chosen so that few packets that match nothing survive them.
//!
//! Slots of an account with prefixes see a packet only if these admit it, which is looked up for the packets that the
//! filters matched, once for all slots of the account.
//!
//! Invariant: evaluation depends on the keys alone, and never allocates; no slot with prefixes has a hit that they do not
//! admit.

use super::rule::Rule;
use super::{Bits, Filter, Hits, PrefixSet};
use crate::limits::{BURST, CAPTURES_MAX};
use crate::packet::{Key, offset};
use std::sync::Arc;

/// Columns that every packet is looked up in. Two reject most packets, but not when filters differ only in one of the
/// ports or addresses; their four tables are 8 KiB, which leaves the L1 cache to the frames.
const PREFILTER_COLUMNS: usize = 4;

/// How many of a key byte's bits tell real packets apart, as a share: traffic is mostly TCP and UDP over few networks,
/// so hosts and ports are told by the low bytes.
const DISCRIMINATION: [f32; offset::END] = {
    let mut share = [0.4; offset::END];
    let low = [
        offset::SOURCE + 14,
        offset::SOURCE + 15,
        offset::DESTINATION + 14,
        offset::DESTINATION + 15,
        offset::SOURCE_PORT,
        offset::SOURCE_PORT + 1,
        offset::DESTINATION_PORT,
        offset::DESTINATION_PORT + 1,
    ];
    let mut i = 0;
    while i < low.len() {
        share[low[i]] = 0.8;
        i += 1;
    }
    share[offset::PROTOCOL] = 0.2;
    share[offset::FLAGS] = 0.3;
    share
};

/// One byte of the key.
#[derive(Clone, Debug)]
struct Column {
    /// Its place in the key; below 64.
    at: usize,
    /// By the byte's value: the slots that it does not rule out, of those that have a rule.
    admits: [u64; 256],
}

impl Column {
    fn new(at: usize, rules: &[(usize, Rule)]) -> Self {
        let mut admits = [0; 256];
        for (byte, admitted) in (0_u8..=u8::MAX).zip(&mut admits) {
            let satisfied = rules.iter().filter(|(_, rule)| byte & rule.mask.0[at] == rule.value.0[at]);
            *admitted = satisfied.fold(0, |slots, (slot, _)| slots | 1 << slot);
        }
        Self { at, admits }
    }

    #[inline]
    fn admitted(&self, key: &Key) -> u64 {
        // The mask changes nothing but lets the compiler drop the bounds check.
        self.admits[usize::from(key.0[self.at % size_of::<Key>()])]
    }
}

/// What a worker evaluates over each burst: up to [`CAPTURES_MAX`] filters, each in its slot.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Slots whose filter is `{}`.
    everything: u64,
    /// For the whole burst. None if no filter asks about anything.
    prefilter: Option<Box<[Column; PREFILTER_COLUMNS]>>,
    /// For what the prefilter lets through.
    columns: Box<[Column]>,
    /// Accounts that see their own prefixes only, each with its slots.
    scopes: Box<[(Arc<PrefixSet>, u64)]>,
}

impl Program {
    /// Compiles the filters of the attached captures, each with its slot and with what its account may see: none is every
    /// packet.
    ///
    /// # Panics
    /// If a slot is not below [`CAPTURES_MAX`] or is given twice: only a bug of the caller does that.
    #[must_use]
    pub fn compile(filters: &[(usize, &Filter, Option<&Arc<PrefixSet>>)]) -> Self {
        let mut program = Self::default();
        let (mut rules, mut attached) = (Vec::new(), 0_u64);
        let mut scopes: Vec<(Arc<PrefixSet>, u64)> = Vec::new();
        for &(slot, filter, scope) in filters {
            assert!(slot < CAPTURES_MAX, "slot {slot} of {CAPTURES_MAX}");
            assert!(attached & 1 << slot == 0, "slot {slot} has two filters");
            attached |= 1 << slot;
            if filter.takes_everything() {
                program.everything |= 1 << slot;
            } else {
                rules.push((slot, Rule::from(filter)));
            }
            if let Some(scope) = scope {
                match scopes.iter_mut().find(|(known, _)| Arc::ptr_eq(known, scope)) {
                    Some((_, slots)) => *slots |= 1 << slot,
                    None => scopes.push((Arc::clone(scope), 1 << slot)),
                }
            }
        }
        program.scopes = scopes.into();
        let mut columns: Vec<Column> = order(&rules).into_iter().map(|at| Column::new(at, &rules)).collect();
        if let Some(last) = columns.last().cloned() {
            // A column asked twice answers the same, so a program with fewer needs no code of its own.
            columns.resize(columns.len().max(PREFILTER_COLUMNS), last);
            program.columns = columns.split_off(PREFILTER_COLUMNS).into();
            program.prefilter = columns.into_boxed_slice().try_into().ok();
        }
        program
    }

    /// Whether [`Program::evaluate`] looks at the keys. If not, their number is all that it takes from them, so the
    /// caller need not parse.
    #[must_use]
    pub fn needs_keys(&self) -> bool {
        self.prefilter.is_some() || !self.scopes.is_empty()
    }

    /// Matches a burst: `hits` is then of this burst alone.
    ///
    /// # Panics
    /// If there are more keys than [`BURST`].
    #[inline]
    pub fn evaluate(&self, keys: &[Key], hits: &mut Hits) {
        assert!(keys.len() <= BURST, "a burst has at most {BURST} packets");
        hits.clear();
        let all = u64::MAX.checked_shr((BURST - keys.len()) as u32).unwrap_or(0);
        if all != 0 {
            for slot in Bits(self.everything) {
                hits.add(slot, all);
            }
        }
        if let Some(prefilter) = &self.prefilter {
            self.evaluate_rules(prefilter, keys, hits);
        }
        if !self.scopes.is_empty() {
            self.restrict(keys, hits);
        }
    }

    /// Takes from each account the hits that its prefixes do not admit.
    fn restrict(&self, keys: &[Key], hits: &mut Hits) {
        for (scope, slots) in &self.scopes {
            let slots = slots & hits.slots;
            let wanted = Bits(slots).fold(0, |wanted, slot| wanted | hits.of(slot));
            let admitted =
                Bits(wanted).fold(0, |admitted, i| admitted | u64::from(scope.admits(&keys[i])) << i);
            for slot in Bits(slots) {
                hits.keep(slot, admitted);
            }
        }
    }

    #[inline]
    fn evaluate_rules(&self, [a, b, c, d]: &[Column; PREFILTER_COLUMNS], keys: &[Key], hits: &mut Hits) {
        let mut admitted = [0_u64; BURST];
        let mut survivors = 0_u64;
        for (i, (key, admitted)) in keys.iter().zip(&mut admitted).enumerate() {
            *admitted = a.admitted(key) & b.admitted(key) & c.admitted(key) & d.admitted(key);
            survivors |= u64::from(*admitted != 0) << i;
        }
        for i in Bits(survivors) {
            let slots = self.columns.iter().try_fold(admitted[i], |slots, column| {
                let slots = slots & column.admitted(&keys[i]);
                (slots != 0).then_some(slots)
            });
            for slot in Bits(slots.unwrap_or(0)) {
                hits.add(slot, 1 << i);
            }
        }
    }
}

/// The key bytes that some rule asks about, those first that together leave the fewest rules to a packet that matches
/// none.
fn order(rules: &[(usize, Rule)]) -> Vec<usize> {
    let mut open: Vec<usize> =
        (0..offset::END).filter(|&at| rules.iter().any(|(_, rule)| rule.mask.0[at] != 0)).collect();
    let passes = |at: usize, rule: &Rule| (-DISCRIMINATION[at] * rule.mask.0[at].count_ones() as f32).exp2();
    // By rule, how likely a packet has passed the columns chosen so far.
    let mut passed = vec![1.0_f32; rules.len()];
    let mut ordered = Vec::with_capacity(open.len());
    while !open.is_empty() {
        let left =
            |at: usize| -> f32 { rules.iter().zip(&passed).map(|((_, rule), p)| p * passes(at, rule)).sum() };
        let best = (0..open.len()).min_by(|&x, &y| left(open[x]).total_cmp(&left(open[y]))).unwrap_or(0);
        let at = open.remove(best);
        for ((_, rule), passed) in rules.iter().zip(&mut passed) {
            *passed *= passes(at, rule);
        }
        ordered.push(at);
    }
    ordered
}
