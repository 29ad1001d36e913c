//! Which faults a sweep has. Owns the choice: all of them, or so many that every kind of call is hit.

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
pub fn some(calls: &[Call]) -> Vec<Fault> {
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
