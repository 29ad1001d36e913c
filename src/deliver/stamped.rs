//! The time stamp beside a manifest, as it is checked. Owns what makes it one of this manifest and its time; not the token (`stamp`).
//!
//! Invariant: a time that the manifest itself contradicts is a finding.

use super::manifest::{Manifest, stamp_name};
use super::verify::{Finding, Place};
use crate::stamp::{Anchors, Stamp, TOKEN_BYTES_MAX, check};
use jiff::SignedDuration;
use std::io::{self, Read as _};
use std::time::Duration;

/// By which two clocks that say that they are right may differ.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// What the time stamp says.
pub(super) fn stamped(
    place: &dyn Place,
    manifest: &Manifest,
    json: &[u8],
    anchors: &Anchors,
) -> Result<Stamp, Finding> {
    let name = stamp_name(&manifest.part());
    let mut answer = Vec::new();
    let read = place.open(&name).and_then(|file| file.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut answer));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Finding::Unstamped { name }),
        Err(source) => Err(Finding::Unreadable { name, source }),
        Ok(_) => {
            let stamp = check(&answer, json, None, Some(anchors));
            let stamp = stamp.map_err(|source| Finding::Stamp { name: name.clone(), source })?;
            is_after(&stamp, manifest, name).map(|()| stamp)
        }
    }
}

/// Holds a time stamp against the end that the manifest under it tells of, as far as both clocks say that they are right.
fn is_after(stamp: &Stamp, manifest: &Manifest, name: String) -> Result<(), Finding> {
    let clock = manifest.clock.map(|clock| clock.end.unwrap_or(clock.start));
    let off = clock.filter(|clock| clock.synchronised).map_or(0, |clock| clock.max_error_ns);
    let tolerance = CLOCK_TOLERANCE + stamp.accuracy.unwrap_or_default() + Duration::from_nanos(off);
    let Some(ended) = manifest.ended else { return Ok(()) };
    if ended.duration_since(stamp.time) <= SignedDuration::try_from(tolerance).unwrap_or(SignedDuration::MAX)
    {
        return Ok(());
    }
    Err(Finding::Early { name, time: stamp.time, ended })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn a_time_stamp_of_before_the_capture_ended_is_a_finding() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let id = crate::job::CaptureId::random();
        let manifest = Manifest { ended: Some(at(1000)), ..crate::deliver::empty_manifest(&id) };
        let stamp =
            |time, accuracy| Stamp { time: at(time), accuracy, serial: String::new(), signer: String::new() };
        let held = |stamp: &Stamp| is_after(stamp, &manifest, "m.json.tsr".to_owned());
        assert!(
            held(&stamp(1000, None)).is_ok()
                && held(&stamp(999, None)).is_ok()
                && held(&stamp(5000, None)).is_ok()
        );
        assert!(held(&stamp(990, Some(Duration::from_secs(9)))).is_ok());
        assert!(matches!(held(&stamp(990, None)), Err(Finding::Early { .. })));
    }
}
