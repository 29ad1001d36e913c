//! The 64-byte match key of one frame: what a filter can ask about, at fixed places. Owns the layout; the parser that
//! fills it is `parse.rs`.
//!
//! | bytes  | what                                                                  | valid with flag |
//! |--------|-----------------------------------------------------------------------|-----------------|
//! | 0..16  | source address, IPv4 as `::ffff:a.b.c.d`                              | `IPV4`, `IPV6`  |
//! | 16..32 | destination address                                                   | `IPV4`, `IPV6`  |
//! | 32..34 | source port, big endian                                               | `PORTS`         |
//! | 34..36 | destination port, big endian                                          | `PORTS`         |
//! | 36     | protocol: IPv4's, or IPv6's upper-layer protocol                      | `PROTOCOL`      |
//! | 37     | [`flags`]                                                             |                 |
//! | 38..40 | zero                                                                  |                 |
//! | 40..44 | bytes of the frame on the wire, big endian                            | always          |
//! | 44..64 | zero                                                                  |                 |
//!
//! Ports, protocol and flags share one machine word because most filters ask about these; an address is two words. The
//! family is a flag and not only the mapped prefix, so that an IPv6 packet from a literal `::ffff:192.0.2.1` is not
//! taken for one from `192.0.2.1`.
//!
//! Invariant: bytes that a frame does not have are zero, and the flag that would vouch for them is not set.

/// Bits of [`Key`]'s flag byte.
pub mod flags {
    /// The frame has an IPv4 header; addresses and protocol are valid.
    pub const IPV4: u8 = 1;
    /// The frame has an IPv6 header; addresses are valid.
    pub const IPV6: u8 = 1 << 1;
    /// The protocol byte is valid.
    pub const PROTOCOL: u8 = 1 << 2;
    /// The ports are valid: a first or whole TCP, UDP or SCTP packet.
    pub const PORTS: u8 = 1 << 3;
    /// The frame is a fragment (first or later).
    pub const FRAGMENT: u8 = 1 << 4;
}

/// Where the members of a [`Key`] begin.
pub(crate) mod offset {
    pub const SOURCE: usize = 0;
    pub const DESTINATION: usize = 16;
    pub const SOURCE_PORT: usize = 32;
    pub const DESTINATION_PORT: usize = 34;
    pub const PROTOCOL: usize = 36;
    pub const FLAGS: usize = 37;
    /// One past the last byte that a filter can ask about.
    pub const END: usize = 38;
}

/// See the module. 64 bytes, so one cache line and one AVX-512 register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Key(pub [u8; 64]);

impl Key {
    /// The key of nothing: no flag is set. What arrays of keys are filled with before the first burst.
    pub const EMPTY: Self = Self([0; 64]);

    /// The key whose bytes are these words, in memory order. Whole words keep the parser's stores wide, so that the
    /// matcher's loads soon after are served from them.
    #[inline]
    pub(super) fn from_words(words: [u64; 8]) -> Self {
        let mut key = Self::EMPTY;
        for (bytes, word) in key.0.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        key
    }

    /// The flag byte; see [`flags`].
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.0[offset::FLAGS]
    }
}

const _: () = assert!(size_of::<Key>() == 64 && offset::END == offset::FLAGS + 1);
