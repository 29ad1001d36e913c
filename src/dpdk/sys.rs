//! DPDK's C functions as `build.rs` generates them. Owns nothing; only this folder names it.
//!
//! Invariant: every type here has the layout that the C compiler gave it in this build.
#![allow(unsafe_code, missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, unused)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/dpdk.rs"));

const _: () = assert!(TRAWL_BURST as usize == crate::limits::BURST);
