//! The way to a fleet's bus: its key and certificates. Owns what is looked at in files; no server is asked, `trawl fleet init` does that.

use super::Finding;
use crate::bus::nats::key::Key;
use crate::config::Plan;
use crate::deliver::SigningKey;
use crate::named;
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
        let mode = named::open(path)
            .and_then(|file| file.metadata())
            .map(|found| found.permissions().mode() & 0o7777);
        match mode {
            // Who reads it has said so.
            Err(_) if subject == "fleet.signing_key_file" => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::{Host, Severity, check_host};
    use std::path::Path;

    fn plan(dir: &Path) -> Plan {
        let dir = dir.display();
        Plan::parse(&format!(
            "[host]\nid = \"api1\"\n[api]\nlisten = \"127.0.0.1:0\"\n[fleet]\nname = \"prod\"\nroles = [\"api\"]\n\
             signing_key_file = \"{dir}/fleet.pem\"\n[fleet.nats]\nservers = [\"tls://n1\"]\nnkey_file = \"{dir}/nats.nk\"\n"
        ))
        .unwrap()
    }

    fn errors(dir: &Path) -> Vec<(String, String)> {
        let findings = check_host(&plan(dir), &Host::below(dir), None).into_iter();
        let errors = findings.filter(|finding| finding.severity == Severity::Error);
        errors.map(|finding| (finding.subject, finding.text)).collect()
    }

    #[test]
    fn an_api_node_needs_its_keys_closed_to_others_and_no_ports_cores_or_spool() {
        let dir = tempfile::tempdir().unwrap();
        let missing: Vec<_> = errors(dir.path()).into_iter().map(|(subject, _)| subject).collect();
        assert_eq!(missing, ["fleet.nats.nkey_file", "fleet.signing_key_file"], "{missing:?}");
        SigningKey::create(&dir.path().join("fleet.pem")).unwrap();
        Key::make(&dir.path().join("nats.nk")).unwrap();
        assert_eq!(errors(dir.path()), []);
        let open = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(dir.path().join("fleet.pem"), open.clone()).unwrap();
        std::fs::set_permissions(dir.path().join("nats.nk"), open).unwrap();
        let (subjects, texts): (Vec<_>, Vec<_>) = errors(dir.path()).into_iter().unzip();
        assert_eq!(subjects, ["fleet.nats.nkey_file", "fleet.signing_key_file"], "{texts:?}");
        assert!(texts[1].contains("has mode 0640"), "{texts:?}");
    }
}
