//! What a fleet of many hosts costs and how long it takes, measured on the core in simulated time. Owns the table; the figures are those
//! of one seed each.
//!
//! Invariant: every figure comes from a run in which all of `check` held.

use super::network::Network;
use super::plan::{ACCEPTED, Plan, SECOND, Time};
use super::world::World;
use crate::fleet::Kind;
use crate::fleet::record::{Key, Record};
use crate::fleet::shares::Amount;

/// One measured run.
struct Measured {
    hosts: usize,
    what: String,
    world: World,
}

fn measure(plan: Plan, what: &str) -> Measured {
    let hosts = plan.hosts.len();
    let mut world = World::new(plan);
    world.run().unwrap_or_else(|wrong| panic!("{hosts} hosts, {what}: {}", &wrong[..wrong.len().min(2000)]));
    Measured { hosts, what: what.to_owned(), world }
}

fn seconds(time: Time) -> String {
    format!("{:.2}", time as f64 / SECOND as f64)
}

impl Measured {
    /// Time from acceptance until this many in a hundred of the hosts that ever attached had.
    fn attached(&self, percent: usize) -> String {
        let mut times: Vec<Time> = self.world.hosts.iter().filter_map(|host| host.attached_at).collect();
        times.sort_unstable();
        let at = (times.len() * percent).div_ceil(100).max(1) - 1;
        times.get(at).map_or("–".to_owned(), |at| seconds(at - ACCEPTED))
    }

    fn writes(&self) -> String {
        let kinds = &self.world.store.writes;
        let of = |names: &[&str]| names.iter().filter_map(|name| kinds.get(name)).sum::<u64>();
        format!(
            "{} = {} job, {} limit, {} shares, {} assignment, {} part",
            of(&[
                "job",
                "limit",
                "shares of a data center",
                "assignment",
                "part",
                "parts of a data center",
                "chunk of a sample",
            ]),
            of(&["job"]),
            of(&["limit"]),
            of(&["shares of a data center"]),
            of(&["assignment"]),
            of(&["part", "parts of a data center", "chunk of a sample"]),
        )
    }

    fn row(&self) -> String {
        let plan = &self.world.plan;
        let Some(Record::Job(job)) = self.world.store.newest(Key::Job) else { return String::new() };
        let Some(outcome) = &job.outcome else { return String::new() };
        let tally = outcome.tally;
        let (share, under) = match plan.limit() {
            Some(limit) => {
                // Only what was matched before the end of the limit could have been captured by it.
                let missed = self.world.check.missed_before_end;
                let offered = missed + tally.captured.packets;
                let under = limit.packets.saturating_sub(tally.captured.packets);
                let left = outcome.limit.iter().flat_map(|left| &left.held);
                let held: u64 = left.map(|(_, held, _)| held.packets).sum();
                let reached = if outcome.reached.is_some() { "" } else { " (time)" };
                (
                    format!("{:.2} %", 100.0 * missed as f64 / offered.max(1) as f64),
                    format!("{under} of {}{reached}, {held} held", limit.packets),
                )
            }
            None => ("–".to_owned(), format!("{} packets", tally.captured.packets)),
        };
        let over = self.world.check.over_at.unwrap_or(ACCEPTED + plan.window);
        let to_file = self.world.published_at.map_or("–".to_owned(), |at| seconds(at.saturating_sub(over)));
        format!(
            "| {} | {} | {} / {} / {} | {} | {share} | {under} | {to_file} | {} |",
            self.hosts,
            self.what,
            self.attached(50),
            self.attached(99),
            self.attached(100),
            self.writes(),
            self.world.store.largest / 1000,
        )
    }

    fn subjects(&self) -> String {
        let span = (self.world.now - ACCEPTED) / SECOND;
        let mut lines = format!("\n{} hosts, {}, over {span} s:\n", self.hosts, self.what);
        lines += "\n| subject | messages | kB | largest share of a second |\n|---|---|---|---|\n";
        for (subject, (count, bytes)) in &self.world.subjects {
            let busiest = self.world.busiest.get(subject).copied().unwrap_or(0);
            lines += &format!("| {subject} | {count} | {} | {busiest} |\n", bytes / 1000);
        }
        lines
    }
}

/// Fleets of so many hosts in 100 data centers, or as many as there are hosts.
fn fleets(hosts: usize) -> Vec<Measured> {
    let colos = hosts.min(100);
    let limit = Amount::limit(Some(1000 * hosts as u64), None);
    let full = Kind::Full { limit: Some(limit) };
    let plan = |kind| Plan::large(hosts, colos, kind, 1);
    let traffic = 20.0 * plan(full).rates.iter().sum::<f64>();
    let long = Kind::Full { limit: Some(Amount::limit(Some(traffic as u64), None)) };
    let mut found = vec![
        measure(plan(full), "full, limit of 1000 packets a host"),
        measure(plan(full).losing(1), "the same, 1 % of the hosts lost"),
        measure(plan(full).losing(10), "the same, 10 % lost"),
        measure(plan(long), "full, limit of 20 s of the fleet's traffic"),
        measure(plan(Kind::Full { limit: None }), "full, time only"),
        measure(plan(Kind::Simple { packets: 10_000, one_in: 1 }), "simple, 10,000 packets"),
    ];
    if hosts > 256 && hosts <= 1000 {
        let mut flat = plan(full);
        flat.settings.branch_beyond = usize::MAX;
        found.push(measure(flat, "full with the limit, and no branches"));
    }
    found
}

/// `TRAWL_FLEET_REPORT=10,100,1000,10000` prints the table.
#[test]
#[cfg_attr(miri, ignore)]
fn a_large_fleet_attaches_captures_and_ends_in_time() {
    let sizes = std::env::var("TRAWL_FLEET_REPORT").unwrap_or("10,100".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.trim().parse().unwrap()).collect();
    println!(
        "| hosts | capture | attached 50 / 99 / 100 %, s | writes of the store | `dropped.share` | short of the limit | end to file, s | largest record, kB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut subjects = String::new();
    for hosts in sizes {
        for one in fleets(hosts) {
            println!("{}", one.row());
            subjects += &one.subjects();
            let is_early = one
                .world
                .hosts
                .iter()
                .all(|host| host.attached_at.is_none_or(|at| at < ACCEPTED + 40 * SECOND));
            assert!(is_early, "a host attached later than the second look at its assignment");
        }
    }
    println!("{subjects}");
}

#[test]
fn api_nodes_stand_in_different_data_centers() {
    let plan = Plan::large(10, 10, Kind::Full { limit: None }, 1);
    let colos: Vec<_> = (0..3).map(|api| Network::colo(&plan, super::network::Place::Api(api))).collect();
    assert_eq!(colos, [0, 1, 2]);
}
