//! `trawl fleet status`, `hosts`, `drain` and `undrain`. Owns what is printed; what is seen is `node`'s.
//!
//! Invariant: `status` ends well only if every stream, host and partition is as it must be.

use super::args::{FleetHostArgs, FleetLookArgs};
use super::fleet::{self, CONNECT, FleetError};
use super::{Error, Outcome};
use crate::bus::Bus;
use crate::bus::nats::setup::{self, Report};
use crate::bus::nats::{Nats, Way};
use crate::node::{self, FleetView, HostState, HostView};
use serde_json::json;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Two heartbeats and a lost one.
const LISTENING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

async fn connected(way: &Way) -> Result<Nats, FleetError> {
    let (bus, began) = (Nats::connect(way).await?, Instant::now());
    loop {
        match bus.health() {
            Ok(()) => return Ok(bus),
            Err(away) if began.elapsed() >= CONNECT => return Err(away.into()),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// The hosts.
pub(super) async fn hosts(args: FleetLookArgs) -> Result<Outcome, Error> {
    let (way, _) = fleet::way(args.way)?;
    let bus = connected(&way).await?;
    let view = node::look(&bus, LISTENING).await.map_err(FleetError::from)?;
    Outcome::done(table(&view.hosts), &json!({"hosts": view.hosts}), args.json)
}

/// All of it.
pub(super) async fn status(args: FleetLookArgs) -> Result<Outcome, Error> {
    let (way, replicas) = fleet::way(args.way)?;
    let bus = connected(&way).await?;
    let report = setup::init(&way, replicas, false, CONNECT).await.map_err(FleetError::from)?;
    let view = node::look(&bus, LISTENING).await.map_err(FleetError::from)?;
    let is_well = report.is_right() && is_well(&view);
    let value = json!({
        "is_well": is_well, "servers": fleet::value(&report), "hosts": view.hosts,
        "led": view.led, "partitions": view.partitions,
    });
    let mut outcome = Outcome::done(words(&report, &view), &value, args.json)?;
    outcome.is_success = is_well;
    Ok(outcome)
}

/// A host that is drained may be silent: somebody works on it.
fn is_well(view: &FleetView) -> bool {
    let lives = |host: &HostView| host.state != HostState::Silent || host.is_draining;
    view.led.iter().sum::<usize>() == view.partitions && view.hosts.iter().all(lives)
}

fn words(report: &Report, view: &FleetView) -> String {
    let mut text = String::new();
    let streams = match report.is_right() {
        true => format!("{} streams as they must be", report.streams.len()),
        false => format!("streams are not as they must be:\n{}", fleet::text(report).trim_end()),
    };
    let _ = writeln!(text, "servers: nats-server {}, {streams}", report.server);
    let led: Vec<String> = view.led.iter().map(ToString::to_string).collect();
    let _ = match led.is_empty() {
        true => writeln!(text, "leads: no API node has led yet"),
        false => writeln!(
            text,
            "leads: {} of {} partitions were taken, by {} nodes: {}",
            view.led.iter().sum::<usize>(),
            view.partitions,
            led.len(),
            led.join(" + ")
        ),
    };
    let count = |state| view.hosts.iter().filter(|host| host.state == state).count();
    let draining = view.hosts.iter().filter(|host| host.is_draining).count();
    let (alive, silent) = (count(HostState::Alive), count(HostState::Silent));
    let _ = writeln!(
        text,
        "hosts: {} in the registry: {alive} alive, {silent} silent, {draining} draining",
        view.hosts.len()
    );
    text + &table(&view.hosts)
}

fn table(hosts: &[HostView]) -> String {
    let mut text = format!(
        "{:<16} {:<16} {:<10} {:>7} {:>6} {:>5}  {}\n",
        "COLO", "HOST", "STATE", "RUNNING", "PARTS", "LIFE", "VERSION"
    );
    for host in hosts {
        let state = match (host.state, host.is_draining) {
            (HostState::Alive, true) => "draining",
            (HostState::Alive, false) => "alive",
            (HostState::Silent, _) => "silent",
            (HostState::Retired, _) => "retired",
        };
        let version = crate::chain::printable(&host.version);
        let _ = writeln!(
            text,
            "{:<16} {:<16} {state:<10} {:>7} {:>6} {:>5}  {version}",
            host.colo, host.host, host.running, host.parts, host.life
        );
    }
    text
}

/// Says that a host takes no new captures, or takes them again.
pub(super) async fn drain(args: FleetHostArgs, is_draining: bool) -> Result<Outcome, Error> {
    let (way, _) = fleet::way(args.way)?;
    let bus = connected(&way).await?;
    node::drain(&bus, &args.host, is_draining).await.map_err(FleetError::from)?;
    let what = if is_draining { "takes no new captures" } else { "takes new captures" };
    Ok(Outcome::said(format!("{} {what}\n", args.host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, state: HostState, is_draining: bool) -> HostView {
        HostView {
            host: name.to_owned(),
            colo: "ord02".to_owned(),
            state,
            is_draining,
            version: "0.1.0".to_owned(),
            life: 2,
            running: 1,
            parts: 3,
        }
    }

    #[test]
    fn all_is_well_only_if_every_partition_is_led_and_no_host_is_silent_that_nobody_works_on() {
        let view =
            |led: &[usize], hosts: Vec<HostView>| FleetView { hosts, led: led.to_vec(), partitions: 64 };
        let hosts = || vec![host("a", HostState::Alive, false), host("b", HostState::Silent, true)];
        assert!(is_well(&view(&[40, 24], hosts())));
        assert!(
            !is_well(&view(&[40], hosts()))
                && !is_well(&view(&[64], vec![host("c", HostState::Silent, false)]))
        );
        let report = Report { server: "2.15.1".to_owned(), streams: Vec::new() };
        let text = words(&report, &view(&[40, 24], hosts()));
        assert!(text.contains("64 of 64 partitions were taken, by 2 nodes: 40 + 24"), "{text}");
        assert!(text.contains("2 in the registry: 1 alive, 1 silent, 1 draining"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("ord02") && line.contains("silent")), "{text}");
    }
}
