//! Which faults a sweep has. Owns the choice: all of them, a share of all, or so many that every kind of call is hit.

use crate::errnos::{lasting, of};
use crate::injector::{Call, Fault, Mode};
use std::collections::BTreeMap;

/// How often each kind of call was made, in the order of their names.
pub fn kinds(calls: &[Call]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for call in calls {
        *kinds.entry(call.kind.clone()).or_insert(0) += 1;
    }
    kinds
}

/// How much of the whole is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many faults that every kind of call is hit.
    Brief,
    /// Of all faults every `of`-th one, beginning with number `nth`, which counts from 1. All of them: 1 of 1.
    Share { nth: usize, of: usize },
}

impl Size {
    /// Reads `TRAWL_SWEEP`: not set, `all`, or a share such as `3/20`. Anything else is a mistake that must not pass as a
    /// small sweep.
    pub fn parse(written: Option<&str>) -> Result<Self, String> {
        let Some(written) = written else { return Ok(Self::Brief) };
        if written == "all" {
            return Ok(Self::Share { nth: 1, of: 1 });
        }
        let share = written.split_once('/').and_then(|(nth, of)| Some((nth.parse().ok()?, of.parse().ok()?)));
        match share {
            Some((nth, of)) if (1..=of).contains(&nth) => Ok(Self::Share { nth, of }),
            _ => Err(format!("TRAWL_SWEEP is {written:?}, but can be `all` or a share such as `3/20`")),
        }
    }

    /// The faults of this size.
    pub fn faults(self, calls: &[Call]) -> Vec<Fault> {
        match self {
            Self::Brief => some(calls),
            Self::Share { nth, of } => all(calls).into_iter().skip(nth - 1).step_by(of).collect(),
        }
    }
}

fn call_of(kind: &str) -> &str {
    kind.split(' ').next().unwrap_or_default()
}

/// Every call of every kind with everything that it can fail with. What lasts begins at every call too, with one error each.
pub fn all(calls: &[Call]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (kind, count) in kinds(calls) {
        let (errnos, lasting) = (of(call_of(&kind)), lasting(call_of(&kind)));
        let Some(&any) = errnos.first() else { continue };
        let of_kind = |nth, mode, errno| Fault { kind: kind.clone(), nth, mode, errno };
        for nth in 1..=count {
            faults.extend(errnos.iter().map(|&errno| of_kind(nth, Mode::Once, errno)));
            let errno = lasting[nth as usize % lasting.len()];
            faults.extend([Mode::Kind, Mode::All].map(|mode| of_kind(nth, mode, errno)));
            faults.push(of_kind(nth, Mode::Kill, any));
            if ["read", "write"].contains(&call_of(&kind)) {
                faults.push(of_kind(nth, Mode::Short, any));
            }
        }
    }
    faults
}

/// For every kind one call that fails once, and for every second one that begins what lasts; which call and which error go
/// round.
fn some(calls: &[Call]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (i, (kind, count)) in kinds(calls).into_iter().enumerate() {
        let (errnos, lasting) = (of(call_of(&kind)), lasting(call_of(&kind)));
        let Some(&any) = errnos.first() else { continue };
        let nth = |factor: u64| 1 + (i as u64 * factor) % count;
        let once =
            Fault { kind: kind.clone(), nth: nth(7), mode: Mode::Once, errno: errnos[i % errnos.len()] };
        faults.push(once);
        let (mode, errno) = match i % 6 {
            0 => (Mode::Kind, lasting[i / 6 % lasting.len()]),
            2 => (Mode::All, lasting[i / 6 % lasting.len()]),
            4 => (Mode::Kill, any),
            _ => continue,
        };
        faults.push(Fault { kind, nth: nth(5), mode, errno });
    }
    faults
}

#[test]
fn the_shares_are_together_the_whole_without_a_fault_twice() {
    let call = |kind: &str| Call { kind: kind.to_owned(), thread: String::new(), done: String::new() };
    let calls: Vec<_> = ["write spool", "fsync spool", "write spool"].map(call).into();
    let words = |faults: Vec<Fault>| faults.iter().map(|fault| format!("{fault:?}")).collect::<Vec<_>>();
    let mut shared: Vec<_> = (1..=7)
        .flat_map(|nth| words(Size::parse(Some(&format!("{nth}/7"))).unwrap().faults(&calls)))
        .collect();
    let mut whole = words(Size::parse(Some("all")).unwrap().faults(&calls));
    shared.sort();
    whole.sort();
    assert!(whole.len() > 14 && shared == whole, "{} of {}", shared.len(), whole.len());
    for mistake in ["", "0/20", "21/20", "3", "3/0", "3/20/4", "ALL"] {
        assert!(Size::parse(Some(mistake)).is_err(), "{mistake}");
    }
    assert_eq!(Size::parse(None), Ok(Size::Brief));
}
