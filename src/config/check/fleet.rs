//! The way to a fleet's bus: its key and certificates. Owns what is looked at in files; no server is asked, `trawl fleet init` does that.

use super::Finding;
use crate::bus::nats::key::Key;
use crate::config::Plan;
use crate::deliver::SigningKey;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;

pub(super) fn check(plan: &Plan, findings: &mut Vec<Finding>) {
    let Some(fleet) = &plan.fleet else { return };
    let Some(nats) = &fleet.nats else { return };
    match Key::load(&nats.nkey_file) {
        Ok(key) => {
            let text = format!("this node's key is {}, and it asks {}", key.public(), nats.servers.join(" "));
            let advice = "the servers must know it: trawl fleet nats-config";
            findings.push(Finding::notice("fleet.nats.nkey_file", text, advice));
        }
        Err(error) => {
            findings.push(Finding::error("fleet.nats.nkey_file", error.to_string(), error.advice()))
        }
    }
    if let Some(path) = &fleet.signing_key_file
        && let Err(error) = SigningKey::load(path)
    {
        let advice = format!(
            "`trawl fleet signing-key {}` makes one; it must be readable to trawl's user",
            path.display()
        );
        findings.push(Finding::error("fleet.signing_key_file", error.to_string(), advice));
    }
    let certificate = nats.certificate.as_ref();
    let files = [
        ("fleet.nats.ca_file", nats.ca_file.as_ref(), 0),
        ("fleet.nats.cert_file", certificate.map(|(cert, _)| cert), 0),
        ("fleet.nats.key_file", certificate.map(|(_, key)| key), 0o077),
        ("fleet.signing_key_file", fleet.signing_key_file.as_ref(), 0o077),
    ];
    for (subject, path, closed_to) in files {
        let Some(path) = path else { continue };
        let mode = File::open(path)
            .and_then(|file| file.metadata())
            .map(|found| found.permissions().mode() & 0o7777);
        match mode {
            Err(error) => {
                let text = format!("{}: {error}", path.display());
                findings.push(Finding::error(subject, text, "name a file that trawl's user can read"));
            }
            Ok(mode) if mode & closed_to != 0 => {
                let text = format!("{} has mode {mode:04o}: others can read a private key", path.display());
                findings.push(Finding::error(subject, text, format!("chmod 600 {}", path.display())));
            }
            Ok(_) => {}
        }
    }
    if nats.replicas == 1 {
        let advice = "3 servers, and fleet.nats.replicas = 3, survive the loss of one";
        findings.push(Finding::warning("fleet.nats.replicas", "each record is on one server alone", advice));
    }
}
