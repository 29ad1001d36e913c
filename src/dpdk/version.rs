//! Which DPDK this is. Owns the text.
//!
//! Invariant: it is the version of the library that is loaded, not of the headers.
#![allow(unsafe_code)]

use super::sys;
use std::ffi::CStr;

/// DPDK's name and version, for instance `DPDK 24.11.2`.
#[must_use]
pub fn version() -> String {
    // SAFETY: it takes nothing, needs no EAL, and returns a text that ends with a zero byte, never changes and is never freed.
    let text = unsafe { CStr::from_ptr(sys::trawl_version()) };
    text.to_string_lossy().into_owned()
}
