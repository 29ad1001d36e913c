//! What a time-stamping authority answers, or somebody put into a bucket: no answer makes the check panic, and none that is random is one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(trawl::stamp::check(bytes, b"manifest", None, None).is_err());
});
