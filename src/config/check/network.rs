//! The API's address. Owns the attempt to listen there.
//!
//! Invariant: the socket is closed before this returns.

use super::Finding;
use crate::config::Plan;
use std::io::ErrorKind;
use std::net::TcpListener;

pub(super) fn check(plan: &Plan, findings: &mut Vec<Finding>) {
    let listen = plan.api.listen;
    if let Err(error) = TcpListener::bind(listen) {
        let (text, advice) = match error.kind() {
            ErrorKind::AddrInUse => (
                format!("{listen} is in use"),
                format!(
                    "stop what listens there (`ss -ltnp sport = :{}` names it; maybe trawl runs already), or choose another port",
                    listen.port()
                ),
            ),
            ErrorKind::AddrNotAvailable => (
                format!("this host has no address {}", listen.ip()),
                "choose one that `ip address` lists".to_owned(),
            ),
            ErrorKind::PermissionDenied => (
                format!("port {} is reserved", listen.port()),
                "choose a port above 1023 or grant CAP_NET_BIND_SERVICE".to_owned(),
            ),
            _ => (format!("cannot listen on {listen}: {error}"), "choose another address".to_owned()),
        };
        findings.push(Finding::error("api.listen", text, advice));
    }
    if !listen.ip().is_loopback() {
        let text = format!("{listen} can be reached from other hosts, and trawl speaks plain HTTP");
        let advice = "put a proxy that ends TLS in front, and let nothing else reach the port";
        findings.push(Finding::notice("api.listen", text, advice));
    }
}
