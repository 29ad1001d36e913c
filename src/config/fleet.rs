//! `[fleet]`: whether this host is one of many that write one capture. Owns the rules of its keys.
//!
//! Invariant: without the section nothing of a host that stands alone changes.

use super::file::{self, File};
use super::plan::{FleetPlan, HostPlan, NatsPlan, Plan};
use super::rules::Rules;
use crate::bus::nats::Way;
use crate::deliver::PublicKey;
use crate::job::{Site, is_label};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn resolve(rules: &mut Rules, file: &File, host: &HostPlan) -> Option<FleetPlan> {
    let file::Fleet { name, roles, assignment_keys, signing_key_file, late_seconds, nats } =
        file.fleet.as_ref()?;
    if !is_label(name) {
        rules.wrong(
            "fleet.name",
            format!("{name:?}"),
            "write 1 to 32 of a-z, 0-9 and -, the same on all its hosts",
        );
    }
    if !Site::can_name_host(&host.id) {
        let advice = "write a name with a letter, as no other host of the fleet has: without one, the names of objects in buckets \
                      could not be told from their numbers";
        rules.wrong("host.id", format!("{:?}", host.id), advice);
    }
    let (serves, captures) = self::roles(rules, roles, nats.is_some());
    if !captures && !file.port.is_empty() {
        rules.wrong(
            "port",
            "(here)",
            "remove the ports, or add \"capture\" to fleet.roles: only that role opens ports",
        );
    }
    let assignment_keys = keys(rules, assignment_keys);
    let signing_key_file = signing_key_file.as_deref().map(|path| rules.path("fleet.signing_key_file", path));
    if nats.is_some() && captures && assignment_keys.is_empty() {
        let advice =
            "write the public key of each API node, 64 hexadecimal digits: only these start captures here";
        rules.wrong("fleet.assignment_keys", "[]", advice);
    }
    if nats.is_some() && serves && signing_key_file.is_none() {
        let advice = "name this node's key: `trawl manifest-key FILE` makes one, whose public half hosts have in fleet.assignment_keys";
        rules.wrong("fleet.signing_key_file", "(missing)", advice);
    }
    let why =
        "a host that was restarted is back within a minute, and a customer waits no hour for one that is not";
    let late = Duration::from_secs(rules.range("fleet.late_seconds", *late_seconds, (1, 3600), why));
    let nats = nats.as_ref().map(|nats| self::nats(rules, nats));
    let name = name.clone();
    Some(FleetPlan { name, serves, captures, assignment_keys, signing_key_file, late, nats })
}

/// Public keys of API nodes.
fn keys(rules: &mut Rules, keys: &[String]) -> Vec<PublicKey> {
    let mut known = Vec::with_capacity(keys.len());
    for (key, number) in keys.iter().zip(0..) {
        match PublicKey::from_hex(key) {
            Some(key) => known.push(key),
            None => {
                let advice = "write 64 hexadecimal digits, as `trawl fleet signing-key FILE` prints them";
                rules.wrong(format!("fleet.assignment_keys[{number}]"), format!("{key:?}"), advice);
            }
        }
    }
    known
}

/// The servers of the bus.
fn nats(rules: &mut Rules, nats: &file::FleetNats) -> NatsPlan {
    if nats.servers.is_empty() {
        let advice = "write the servers of the fleet: [\"tls://nats1.example:4222\", …]";
        rules.wrong("fleet.nats.servers", "[]", advice);
    }
    for (server, number) in nats.servers.iter().zip(0..) {
        if !is_server(server) {
            let advice = "write tls://HOST:PORT; nats://, without TLS, only with an address of this host such as 127.0.0.1";
            rules.wrong(format!("fleet.nats.servers[{number}]"), format!("{server:?}"), advice);
        }
    }
    let mut path = |name: &str, path: &Path| rules.path(&format!("fleet.nats.{name}"), path);
    let nkey_file = nats.nkey_file.as_deref().map(|file| path("nkey_file", file));
    let ca_file = nats.ca_file.as_deref().map(|file| path("ca_file", file));
    let certificate = nats.cert_file.as_deref().zip(nats.key_file.as_deref());
    let certificate = certificate.map(|(cert, key)| (path("cert_file", cert), path("key_file", key)));
    if nkey_file.is_none() {
        rules.wrong(
            "fleet.nats.nkey_file",
            "(missing)",
            "name this node's key: `trawl fleet key FILE` makes one",
        );
    }
    if nats.cert_file.is_some() != nats.key_file.is_some() {
        rules.wrong(
            "fleet.nats.cert_file",
            "(alone)",
            "set fleet.nats.cert_file and fleet.nats.key_file, or neither",
        );
    }
    if ![1, 3, 5].contains(&nats.replicas) {
        rules.wrong("fleet.nats.replicas", nats.replicas, "write 3 or 5; 1 survives the loss of no server");
    }
    let why = "milliseconds: a quorum of servers answers within some, and elects a leader within thousands";
    let timeout = rules.range("fleet.nats.request_timeout_ms", nats.request_timeout_ms, (100, 30_000), why);
    NatsPlan {
        servers: nats.servers.clone(),
        nkey_file: nkey_file.unwrap_or_default(),
        ca_file,
        certificate,
        replicas: u8::try_from(nats.replicas).unwrap_or(3),
        request_timeout: Duration::from_millis(timeout),
    }
}

/// Whether a server can be reached by this: in the clear only one that is on this host.
fn is_server(server: &str) -> bool {
    let Some((scheme, place)) = server.split_once("://") else { return false };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let address: Option<IpAddr> = literal.unwrap_or(host).parse().ok();
    let is_host = address.is_some() || (literal.is_none() && is_name(host));
    let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    let has_port = port.is_none_or(|port| port.parse().is_ok_and(|port: u16| port > 0));
    is_host && has_port && (scheme == "tls" || (scheme == "nats" && is_here))
}

/// Whether the process serves the API, and whether it captures.
fn roles(rules: &mut Rules, roles: &[String], has_bus: bool) -> (bool, bool) {
    let has = |role: &str| roles.iter().any(|one| one == role);
    let is_known = roles.iter().all(|role| ["api", "capture"].contains(&role.as_str()));
    let shown = format!("{roles:?}");
    match (has("api"), has("capture")) {
        _ if !is_known => rules.wrong("fleet.roles", shown, "write \"api\", \"capture\" or both"),
        (true, true) => return (true, true),
        (serves, captures) if (serves || captures) && has_bus => return (serves, captures),
        (true, false) => {
            let advice = "an API without captures of its own needs the bus of a fleet: write [fleet.nats], or add \"capture\"";
            rules.wrong("fleet.roles", shown, advice);
            return (true, false);
        }
        (false, true) => {
            let advice = "captures without an API need the bus of a fleet to be started by: write [fleet.nats], or add \"api\"";
            rules.wrong("fleet.roles", shown, advice);
        }
        (false, false) => rules.wrong("fleet.roles", shown, "write \"api\", \"capture\" or both"),
    }
    (true, true)
}

/// Where a host keeps what it knows of its parts of a fleet's captures: beside the job store, which has the captures.
pub(super) fn parts_dir(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".fleet");
    path.into()
}

impl Plan {
    /// Where a host keeps what it knows of its parts of a fleet's captures.
    #[must_use]
    pub fn parts_dir(&self) -> PathBuf {
        parts_dir(&self.store.path)
    }

    /// Whether it captures: only then it has ports, cores, blocks and a spool.
    #[must_use]
    pub fn captures(&self) -> bool {
        self.fleet.as_ref().is_none_or(|fleet| fleet.captures)
    }

    /// Whether it serves the API to customers.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.fleet.as_ref().is_none_or(|fleet| fleet.serves)
    }

    /// The host as names of objects have it; none of a host that stands alone.
    #[must_use]
    pub fn site(&self) -> Option<Site> {
        self.fleet.as_ref().and_then(|_| Site::new(&self.host.colo, &self.host.id))
    }

    /// How this node reaches its fleet's bus, if it has one.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        let fleet = self.fleet.as_ref()?;
        let nats = fleet.nats.as_ref()?;
        Some(Way {
            fleet: fleet.name.clone(),
            node: self.host.id.clone(),
            servers: nats.servers.clone(),
            nkey_file: Some(nats.nkey_file.clone()),
            ca_file: nats.ca_file.clone(),
            certificate: nats.certificate.clone(),
            request_timeout: nats.request_timeout,
            is_capture: !fleet.serves,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        let port = "[[port]]\ndevice = \"net_null0\"\n";
        Plan::parse(&format!("{text}\n{port}")).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_host_of_a_fleet_is_named_in_objects_and_one_that_stands_alone_is_not() {
        let host = "[host]\nid = \"cap1\"\ncolo = \"ORD02\"\n";
        assert_eq!(plan(host).unwrap().site(), None);
        let plan = plan(&format!("{host}[fleet]\nname = \"prod\"\n")).unwrap();
        assert_eq!(plan.site(), Site::new("ord02", "cap1"));
    }

    #[test]
    fn a_role_alone_without_a_bus_is_refused_as_the_only_problem() {
        let fleet = |roles: &str, port: &str| {
            let text = format!("[host]\nid = \"cap1\"\n[fleet]\nname = \"prod\"\nroles = {roles}\n{port}");
            Plan::parse(&text).map_err(|problems| problems.to_string())
        };
        let port = "[[port]]\ndevice = \"net_null0\"\n";
        let both = fleet("[\"capture\", \"api\"]", port).unwrap().fleet.unwrap();
        assert!(both.serves && both.captures);
        for (roles, port, said) in [
            ("[\"api\"]", "", "needs the bus"),
            ("[\"capture\"]", port, "need the bus"),
            ("[]", port, "or both"),
            ("[\"api\", \"lead\"]", port, "or both"),
        ] {
            let problems = fleet(roles, port).unwrap_err();
            assert!(problems.contains(said) && problems.contains("has 1 problem:"), "{problems}");
        }
        let problems = fleet("[\"api\"]", port).unwrap_err();
        assert!(problems.contains("port = (here): remove the ports"), "{problems}");
    }

    #[test]
    fn a_role_alone_has_a_bus_whose_servers_speak_tls_unless_they_are_here() {
        let fleet = |nats: &str| {
            let text = format!(
                "[host]\nid = \"api1\"\n[fleet]\nname = \"prod\"\nroles = [\"api\"]\nsigning_key_file = \"/a.pem\"\n[fleet.nats]\n{nats}"
            );
            Plan::parse(&text).map_err(|problems| problems.to_string())
        };
        let plan = fleet("servers = [\"tls://n1:4222\", \"nats://127.0.0.1:4222\"]\nnkey_file = \"/a.nk\"\n")
            .unwrap();
        assert!(plan.serves() && !plan.captures() && plan.rules.colo.is_none());
        let way = plan.way().unwrap();
        assert_eq!((way.fleet.as_str(), way.node.as_str(), way.is_capture), ("prod", "api1", false));
        let servers = "servers = [\"tls://n1\"]\nnkey_file = \"/a.nk\"\n";
        for (nats, said) in [
            ("", "fleet.nats.servers = []"),
            ("", "fleet.nats.nkey_file = (missing)"),
            ("servers = [\"nats://n1:4222\"]", "fleet.nats.servers[0]"),
            ("servers = [\"n1:4222\"]", "write tls://"),
            (&format!("{servers}cert_file = \"/c\"\n"), "or neither"),
            (&format!("{servers}replicas = 2\n"), "fleet.nats.replicas = 2"),
            (&format!("{servers}request_timeout_ms = 1\n"), "use 100 to 30000"),
        ] {
            let problems = fleet(nats).unwrap_err();
            assert!(problems.contains(said), "{problems}");
        }
        for good in ["tls://10.0.0.1:4222", "tls://[fe80::1]:4222", "nats://[::1]:4222", "nats://localhost"] {
            assert!(is_server(good), "{good}");
        }
        for bad in
            ["nats://10.0.0.1", "tls://", "tls://a:0", "tls://a:x", "tls://u:p@a:1", "ws://a", "tls://a b"]
        {
            assert!(!is_server(bad), "{bad}");
        }
    }

    #[test]
    fn who_captures_for_a_fleet_knows_who_may_ask_and_who_serves_it_has_a_key() {
        let bus = "[fleet.nats]\nservers = [\"tls://n1\"]\nnkey_file = \"/a.nk\"\n";
        let fleet =
            |keys: &str| plan(&format!("[host]\nid = \"cap1\"\n[fleet]\nname = \"prod\"\n{keys}{bus}"));
        let key = "a5".repeat(32);
        let good = format!("assignment_keys = [{key:?}]\nsigning_key_file = \"/a.pem\"\nlate_seconds = 5\n");
        let both = fleet(&good).unwrap().fleet.unwrap();
        assert_eq!((both.assignment_keys[0].to_hex(), both.late), (key, Duration::from_secs(5)));
        let problems = fleet("assignment_keys = [\"a5\"]\nlate_seconds = 0\n").unwrap_err();
        for said in ["fleet.assignment_keys[0]", "fleet.signing_key_file = (missing)", "fleet.late_seconds"] {
            assert!(problems.contains(said), "{problems}");
        }
        assert!(fleet("").unwrap_err().contains("fleet.assignment_keys = []"));
        // Without a bus nobody asks from outside.
        plan("[host]\nid = \"cap1\"\n[fleet]\nname = \"prod\"\n").unwrap();
    }

    #[test]
    fn a_host_of_a_fleet_needs_a_letter_and_the_fleet_a_name() {
        assert_eq!(plan("[host]\nid = \"0001\"\n").unwrap().site(), None);
        let problems = plan("[host]\nid = \"0001\"\n[fleet]\n").unwrap_err();
        assert!(problems.contains("host.id = \"0001\"") && problems.contains("letter"), "{problems}");
        assert!(problems.contains("fleet.name"), "{problems}");
    }
}
