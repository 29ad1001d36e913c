//! Copying past the cache. Owns the instructions; not when such a copy pays.
//!
//! An ordinary store first reads the line that it overwrites, and leaves it in the cache. Where the target is larger than the
//! cache and nobody reads it soon, stores that go past the cache save that read and leave the cache to the frames. Those of
//! 16 bytes belong to every x86_64, so nothing is chosen at run time: 32 bytes at a time (AVX2) were no faster.
//!
//! Invariant: [`copy_past_cache`] does what `copy_from_slice` does, whatever the lengths and alignments; what it stored is visible
//! to every thread that a later release store or lock tells of it.
#![allow(unsafe_code)]

/// Copies `from` over `to`, which are of one length; by ordinary stores where there are no others.
///
/// # Panics
/// When they are not of one length.
#[inline]
pub fn copy_past_cache(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy between slices of two lengths");
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    stream(to, from);
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    to.copy_from_slice(from);
}

/// Copies with non-temporal stores what of `to` is aligned to them, and the few bytes before and behind as usual.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn stream(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const LANE: usize = size_of::<__m128i>();

    let before = to.as_ptr().align_offset(LANE).min(to.len());
    let (to_before, to) = to.split_at_mut(before);
    let (from_before, from) = from.split_at(before);
    let (to_lanes, to_after) = to.as_chunks_mut::<LANE>();
    let (from_lanes, from_after) = from.as_chunks::<LANE>();
    to_before.copy_from_slice(from_before);
    for (to, from) in to_lanes.iter_mut().zip(from_lanes) {
        // SAFETY: every x86_64 has SSE2. `from` is LANE bytes that may be read, at any alignment; `to` is LANE bytes that may be
        // written, and aligned to LANE, because the first lane begins at `align_offset` and the others follow it.
        unsafe { _mm_stream_si128(to.as_mut_ptr().cast(), _mm_loadu_si128(from.as_ptr().cast())) };
    }
    to_after.copy_from_slice(from_after);
    // SAFETY: every x86_64 has SSE. Non-temporal stores are ordered by a fence alone: behind it a release store publishes them
    // like any other, and Rust's memory model need not know of them.
    unsafe { _mm_sfence() };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 500 }))]

        #[test]
        fn the_same_bytes_arrive_as_by_an_ordinary_copy_and_none_beside_them(
            from in prop::collection::vec(any::<u8>(), 0..3000),
            skip in 0_usize..70,
            at in 0_usize..70,
        ) {
            let from = &from[skip.min(from.len())..];
            let mut ordinary = vec![0xa5; from.len() + 140];
            let mut streamed = ordinary.clone();
            ordinary[at..at + from.len()].copy_from_slice(from);
            copy_past_cache(&mut streamed[at..at + from.len()], from);
            prop_assert!(streamed == ordinary, "{} bytes to {at}", from.len());
        }
    }

    #[test]
    #[should_panic(expected = "two lengths")]
    fn slices_of_two_lengths_are_refused() {
        copy_past_cache(&mut [0; 64], &[1; 63]);
    }
}
