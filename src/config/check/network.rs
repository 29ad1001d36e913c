//! The addresses of the API and of health and metrics, and the API's certificate. Owns the attempt to listen and to read.
//!
//! Invariant: the sockets are closed before this returns.

use super::{Finding, Severity};
use crate::config::Plan;
use crate::http;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

pub(super) fn check(plan: &Plan, findings: &mut Vec<Finding>) {
    let listen = plan.api.listen;
    // Held while the other is tried: one address for both is in use as well.
    let _held = plan.serves().then(|| bind("api.listen", listen, findings));
    if let Some(observed) = plan.observe.listen {
        if plan.serves() && observed == listen && listen.port() != 0 {
            let text = format!("{observed} is api.listen too");
            let advice = "give health and metrics a port of their own";
            findings.push(Finding::error("observe.listen", text, advice));
        } else {
            let _closed = bind("observe.listen", observed, findings);
        }
    }
    match &plan.api.tls {
        Some((cert, key)) => {
            if let Err(error) = http::Tls::load(cert, key) {
                let advice = "write PEM files that trawl's user can read: the certificate chain, leaf first, and its key";
                findings.push(Finding::error("api.tls_cert", error.to_string(), advice));
            }
        }
        None if !listen.ip().is_loopback() => {
            let text = format!("{listen} can be reached from other hosts, and trawl speaks plain HTTP");
            let advice = "set api.tls_cert and api.tls_key, or let it listen on 127.0.0.1 behind a proxy that ends TLS, with api.trusted_proxies";
            findings.push(Finding::notice("api.listen", text, advice));
        }
        None => {}
    }
}

fn bind(key: &str, listen: SocketAddr, findings: &mut Vec<Finding>) -> Option<TcpListener> {
    let error = match TcpListener::bind(listen) {
        Ok(listener) => return Some(listener),
        Err(error) => error,
    };
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
    findings.push(Finding::new(Severity::Error, key, text, advice));
    None
}
