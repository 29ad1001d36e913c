//! What the servers let each node do. Owns the permissions by role, and their form in a server's config.
//!
//! | role | may |
//! |---|---|
//! | capture | write its own parts and its own entry of the registry, read those and its data center's assignments, tell the leads and hear what it is told |
//! | api | read and write all records, say and hear everything of its fleet |
//! | operator | make and look at the streams, see hosts and who leads, write what operators say of hosts |
//!
//! Invariant: nobody may make consumers, change, purge or delete a stream; a capture host reaches nothing of another one.

use super::super::Table;
use super::key::is_user;
use super::layout::{Names, RESULTS};
use crate::job::{Site, is_label};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A node of the list.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Of its config's `host.id`, or the operator's.
    pub name: String,
    /// `api`, `capture`, both, or `operator`.
    pub roles: Vec<String>,
    /// Of its config's `host.colo`; capture hosts alone need it.
    #[serde(default)]
    pub colo: String,
    /// The public half of its key.
    pub nkey: String,
}

/// All nodes, as their list is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// Of the fleet.
    pub fleet: String,
    /// The nodes.
    #[serde(default)]
    pub node: Vec<Node>,
}

impl Nodes {
    /// What is wrong with the list, a line each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_label(&self.fleet) {
            problems.push(format!("fleet = {:?}: write 1 to 32 of a-z, 0-9 and -", self.fleet));
        }
        if self.node.is_empty() {
            problems.push("there is no [[node]]".to_owned());
        }
        let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for node in &self.node {
            let name = &node.name;
            let mut wrong = |what: &str| problems.push(format!("node {name:?}: {what}"));
            // `all` stands for a data center's hosts together in keys of parts.
            if !is_label(name) || !Site::can_name_host(name) || name == "all" {
                wrong("write 1 to 32 of a-z, 0-9 and -, with a letter, and not \"all\"");
            }
            if !names.insert(name) {
                wrong("another node has this name");
            }
            if !is_user(&node.nkey) {
                wrong("nkey is not the public half of a user's nkey: `trawl fleet key` prints it");
            } else if !keys.insert(&node.nkey) {
                wrong("another node has this key");
            }
            match node.roles.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["capture"] if is_label(&node.colo) => {}
                ["capture"] => wrong("colo: write 1 to 32 of a-z, 0-9 and -"),
                ["api"] | ["operator"] | ["api", "capture"] | ["capture", "api"] => {}
                _ => wrong("roles: write [\"api\"], [\"capture\"], both, or [\"operator\"]"),
            }
        }
        problems
    }

    /// Accounts of the servers' config: one, with all nodes.
    #[must_use]
    pub fn accounts(&self) -> Value {
        let names = Names::new(&self.fleet);
        let users: Vec<Value> = self.node.iter().map(|node| node.user(&names)).collect();
        json!({format!("trawl-{}", self.fleet): {"jetstream": "enabled", "users": users}})
    }

    /// The same as a file that a server's config includes.
    #[must_use]
    pub fn config(&self) -> String {
        let accounts = serde_json::to_string_pretty(&self.accounts()).unwrap_or_default();
        format!(
            "# Users of the trawl fleet {0:?}: include this in the config of each NATS server, which also needs\n\
             #   server_name, listen with tls {{ }}, cluster {{ }} with the other servers, and\n\
             #   jetstream {{ store_dir: \"...\", sync_interval: always }}\n\
             # Without `sync_interval: always` a power failure loses writes that were acknowledged.\n\
             accounts: {accounts}\n",
            self.fleet
        )
    }
}

impl Node {
    fn user(&self, names: &Names) -> Value {
        let has = |role: &str| self.roles.iter().any(|one| one == role);
        let inbox = format!("_INBOX_{}.>", self.name);
        let (publish, subscribe) = match (has("operator"), has("api")) {
            (true, _) => (operator(names), vec![names.message("hb.>")]),
            (_, true) => (api(names), vec![names.message(">")]),
            _ => self.capture(names),
        };
        let subscribe: Vec<String> = subscribe.into_iter().chain([inbox]).collect();
        json!({
            "nkey": self.nkey,
            "permissions": {
                // What is told of writes comes from the servers alone.
                "publish": {"allow": publish, "deny": [names.message("table.>")]},
                "subscribe": {"allow": subscribe},
                // To whom asked, once.
                "allow_responses": true,
            },
        })
    }

    fn capture(&self, names: &Names) -> (Vec<String>, Vec<String>) {
        let (colo, host) = (&self.colo, &self.name);
        let direct = |short: &str, key: &str| {
            format!("$JS.API.DIRECT.GET.{}.{}", names.stream(short), names.any(short, key))
        };
        let own = [
            ("parts", format!("*.{host}")),
            ("parts", format!("*.{host}.*")),
            ("hosts", format!("{colo}.{host}")),
        ];
        let mut publish: Vec<String> = own.iter().map(|(short, key)| names.any(short, key)).collect();
        publish.extend(own.iter().map(|(short, key)| direct(short, key)));
        publish.push(direct("hosts", &format!("{colo}.{host}.ops")));
        publish.push(direct("assignments", &format!("{colo}.*")));
        publish.push(format!("$JS.API.DIRECT.GET.{}", names.stream("assignments")));
        publish.extend(["assignments", "hosts", "parts"].map(|short| info(names, short)));
        publish.push(names.message(&format!("hb.{colo}.{host}")));
        publish.push(names.message(&format!("lead.*.{host}")));
        let assigned = names.told("assignments", colo);
        let told = names.message(&format!("host.{host}"));
        (publish, vec![format!("{assigned}.>"), assigned, format!("{told}.>"), told])
    }
}

fn info(names: &Names, short: &str) -> String {
    format!("$JS.API.STREAM.INFO.{}", names.stream(short))
}

fn api(names: &Names) -> Vec<String> {
    let shorts = || Table::ALL.into_iter().map(Table::name).chain([RESULTS]);
    let records = shorts().map(|short| names.any(short, ">"));
    let reads = shorts().map(|short| format!("$JS.API.STREAM.MSG.GET.{}", names.stream(short)));
    records.chain(reads).chain(shorts().map(|short| info(names, short))).chain([names.message(">")]).collect()
}

fn operator(names: &Names) -> Vec<String> {
    let make = |short| format!("$JS.API.STREAM.CREATE.{}", names.stream(short));
    let reads = ["hosts", "claims"].map(|short| format!("$JS.API.STREAM.MSG.GET.{}", names.stream(short)));
    Names::shorts()
        .map(make)
        .chain(Names::shorts().map(|short| info(names, short)))
        .chain(reads)
        .chain([names.any("hosts", "*.*.ops")])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::is_of;

    fn nodes(roles: &str) -> Nodes {
        let key = nkeys::KeyPair::new_user().public_key();
        let text = format!(
            "fleet = \"prod\"\n[[node]]\nname = \"cap1\"\ncolo = \"ord02\"\nroles = {roles}\nnkey = \"{key}\"\n"
        );
        toml::from_str(&text).unwrap()
    }

    fn may(nodes: &Nodes, what: &str, subject: &str) -> bool {
        let accounts = nodes.accounts();
        let permissions = &accounts["trawl-prod"]["users"][0]["permissions"][what];
        let has = |list: &str| {
            permissions[list]
                .as_array()
                .is_some_and(|list| list.iter().any(|one| is_of(subject, one.as_str().unwrap())))
        };
        has("allow") && !has("deny")
    }

    #[test]
    fn a_capture_host_reaches_its_own_records_and_no_others() {
        let nodes = nodes("[\"capture\"]");
        assert_eq!(nodes.problems(), [""; 0]);
        for own in [
            "$KV.prod_parts.17.0a.cap1",
            "$KV.prod_parts.17.0a.cap1.3",
            "$KV.prod_hosts.17.ord02.cap1",
            "$JS.API.DIRECT.GET.KV_prod_assignments.$KV.prod_assignments.17.ord02.0a",
            "prod.v1.hb.ord02.cap1",
            "prod.v1.lead.p03.cap1",
        ] {
            assert!(may(&nodes, "publish", own), "{own}");
        }
        for other in [
            "$KV.prod_parts.17.0a.cap2",
            "$KV.prod_parts.17.0a.all.ord02",
            "$KV.prod_hosts.17.ord02.cap1.ops",
            "$KV.prod_assignments.17.ord02.0a",
            "$KV.prod_accounts.17.a",
            "$KV.other_parts.17.0a.cap1",
            "$JS.API.STREAM.MSG.GET.KV_prod_parts",
            "$JS.API.DIRECT.GET.KV_prod_parts",
            "$JS.API.DIRECT.GET.KV_prod_assignments.$KV.prod_assignments.17.fra01.0a",
            "$JS.API.DIRECT.GET.KV_prod_parts.$KV.prod_parts.17.0a.cap2",
            "$JS.API.CONSUMER.CREATE.KV_prod_assignments",
            "$JS.API.CONSUMER.CREATE.KV_prod_assignments.x.y",
            "$JS.API.STREAM.DELETE.KV_prod_parts",
            "prod.v1.table.assignments.ord02.0a",
            "prod.v1.hb.ord02.cap2",
            "prod.v1.lead.p03.cap2",
            "prod.v1.host.cap2",
        ] {
            assert!(!may(&nodes, "publish", other), "{other}");
        }
        for heard in ["prod.v1.table.assignments.ord02.0a", "prod.v1.host.cap1", "_INBOX_cap1.x.1"] {
            assert!(may(&nodes, "subscribe", heard), "{heard}");
        }
        for other in
            ["prod.v1.table.parts.0a.cap2", "prod.v1.host.cap2", "_INBOX_cap2.x.1", "prod.v1.hb.ord02.cap2"]
        {
            assert!(!may(&nodes, "subscribe", other), "{other}");
        }
    }

    #[test]
    fn an_api_node_reaches_all_records_and_changes_no_stream() {
        let nodes = nodes("[\"api\"]");
        for own in ["$KV.prod_accounts.17.a", "$KV.prod_results.17.file.a.pcap", "prod.v1.host.cap1"] {
            assert!(may(&nodes, "publish", own), "{own}");
        }
        for verb in ["CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE"] {
            assert!(!may(&nodes, "publish", &format!("$JS.API.STREAM.{verb}.KV_prod_jobs")), "{verb}");
        }
        assert!(
            !may(&nodes, "publish", "prod.v1.table.jobs.a.0a") && !may(&nodes, "publish", "other.v1.host.a")
        );
        assert!(!may(&nodes, "publish", "$JS.API.CONSUMER.CREATE.KV_prod_jobs"));
    }

    #[test]
    fn a_list_with_a_name_a_key_or_a_role_that_does_not_fit_is_refused() {
        let node = nodes("[\"capture\"]").node.remove(0);
        let problems = |node: Vec<Node>| Nodes { fleet: "prod".to_owned(), node }.problems().join("\n");
        assert!(problems(Vec::new()).contains("no [[node]]"));
        let twice = problems(vec![node.clone(), node.clone()]);
        assert!(twice.contains("this name") && twice.contains("this key"), "{twice}");
        for (wrong, said) in [
            (Node { name: "all".to_owned(), ..node.clone() }, "not \"all\""),
            (Node { nkey: "UABC".to_owned(), ..node.clone() }, "nkey is not"),
            (Node { colo: String::new(), ..node.clone() }, "colo:"),
            (Node { roles: Vec::new(), ..node.clone() }, "roles:"),
            (Node { roles: vec!["operator".to_owned(), "api".to_owned()], ..node }, "roles:"),
        ] {
            let problems = problems(vec![wrong]);
            assert!(problems.contains(said), "{problems}");
        }
    }
}
