//! `[fleet]`: whether this host is one of many that write one capture. Owns the rules of its keys.
//!
//! Invariant: without the section nothing of a host that stands alone changes.

use super::file::{self, File};
use super::plan::{FleetPlan, HostPlan, Plan};
use super::rules::Rules;
use crate::job::{Site, is_label};

pub(super) fn resolve(rules: &mut Rules, file: &File, host: &HostPlan) -> Option<FleetPlan> {
    let file::Fleet { name, roles } = file.fleet.as_ref()?;
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
    let (serves, captures) = self::roles(rules, roles);
    if !captures && !file.port.is_empty() {
        rules.wrong(
            "port",
            "(here)",
            "remove the ports, or add \"capture\" to fleet.roles: only that role opens ports",
        );
    }
    Some(FleetPlan { name: name.clone(), serves, captures })
}

/// Whether the process serves the API, and whether it captures.
fn roles(rules: &mut Rules, roles: &[String]) -> (bool, bool) {
    let has = |role: &str| roles.iter().any(|one| one == role);
    let is_known = roles.iter().all(|role| ["api", "capture"].contains(&role.as_str()));
    let shown = format!("{roles:?}");
    match (has("api"), has("capture")) {
        _ if !is_known => rules.wrong("fleet.roles", shown, "write \"api\", \"capture\" or both"),
        (true, true) => return (true, true),
        (true, false) => {
            let advice = "an API without captures of its own needs the bus of a fleet, which this trawl does not have; add \"capture\"";
            rules.wrong("fleet.roles", shown, advice);
            return (true, false);
        }
        (false, true) => {
            let advice = "captures without an API need the bus of a fleet to be started by, which this trawl does not have; add \"api\"";
            rules.wrong("fleet.roles", shown, advice);
        }
        (false, false) => rules.wrong("fleet.roles", shown, "write \"api\", \"capture\" or both"),
    }
    (true, true)
}

impl Plan {
    /// The host as names of objects have it; none of a host that stands alone.
    #[must_use]
    pub fn site(&self) -> Option<Site> {
        self.fleet.as_ref().and_then(|_| Site::new(&self.host.colo, &self.host.id))
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
    fn what_a_role_needs_and_this_program_does_not_have_is_refused_as_the_only_problem() {
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
    fn a_host_of_a_fleet_needs_a_letter_and_the_fleet_a_name() {
        assert_eq!(plan("[host]\nid = \"0001\"\n").unwrap().site(), None);
        let problems = plan("[host]\nid = \"0001\"\n[fleet]\n").unwrap_err();
        assert!(problems.contains("host.id = \"0001\"") && problems.contains("letter"), "{problems}");
        assert!(problems.contains("fleet.name"), "{problems}");
    }
}
