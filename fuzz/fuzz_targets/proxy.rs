//! Any bytes may come before a request: a header of PROXY protocol is taken or refused by what it says alone, never by what follows it,
//! and the address that it names stands in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use trawl::http::proxy_header;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn check(bytes: &[u8]) {
    let Ok((client, length)) = proxy_header(bytes) else { return };
    assert!((16..=bytes.len()).contains(&length) && bytes.starts_with(SIGNATURE));
    let header = &bytes[..length];
    match client {
        Some(IpAddr::V4(address)) => assert!(header.windows(4).any(|window| window == address.octets())),
        Some(IpAddr::V6(address)) => assert!(header.windows(16).any(|window| window == address.octets())),
        None => {}
    }
    let again = proxy_header(header).expect("what follows does not count");
    assert_eq!(again, (client, length));
    assert!(proxy_header(&bytes[..length - 1]).is_err(), "a part is no header");
}

fuzz_target!(|input: &[u8]| {
    check(input);
    check(&[SIGNATURE, input].concat());
});
