//! Ports whose device goes away and comes back, and ports that the host does not require.

use crate::http;
use crate::netns::{PAIR, alone_in_netns};
use crate::odd::odd_frames;
use crate::openmetrics;
use crate::outcome::Outcome;
use crate::trawl::{Setup, Trawl, free_address};
use serde_json::json;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use trawl::job::Status;

const PATIENCE: Duration = Duration::from_secs(60);

fn run(line: &str) {
    assert!(Command::new("sh").args(["-ec", line]).status().unwrap().success(), "{line}");
}

fn send(interface: &str, frames: &[Vec<u8>]) {
    let mut socket = pcap::Capture::from_device(interface).unwrap().immediate_mode(true).open().unwrap();
    frames.iter().for_each(|frame| socket.sendpacket(frame.as_slice()).unwrap());
}

/// A host with these ports, and where it shows itself.
fn start(device: &str, more: &str) -> (Trawl, SocketAddr) {
    let listen = free_address();
    let more = format!("[observe]\nlisten = \"{listen}\"\n{more}");
    let setup = Setup { device: device.to_owned(), queues: 1, more, ..Setup::replay() };
    (setup.start(), listen)
}

fn running(trawl: &Trawl) -> String {
    let id = trawl.create(&trawl.request(json!({})));
    trawl.until(&id, PATIENCE, |progress| progress.status == Status::Running);
    id
}

/// Waits until readiness has this status and says these words of the ports.
#[track_caller]
fn until_ready(from: SocketAddr, status: u16, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = http::ask(from, "GET", "/readyz", &[], &[]).unwrap();
        let checks = answer.body["checks"].as_array().unwrap();
        let ports = checks.iter().find(|check| check["name"] == "ports").unwrap();
        if answer.status == status && ports["reason"].as_str().unwrap_or_default().contains(words) {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn metric(from: SocketAddr, name: &str, labels: &[(&str, &str)]) -> u64 {
    let text = http::get_text(from, "/metrics").unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    openmetrics::parse(body).unwrap().sum(name, labels)
}

/// Waits until a metric is not below this value, and then it is equal: what ports count is read a few times a second.
#[track_caller]
fn until_metric(from: SocketAddr, name: &str, labels: &[(&str, &str)], value: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = metric(from, name, labels);
        if found >= value {
            return assert_eq!(found, value);
        }
        assert!(Instant::now() < deadline, "{}", http::get_text(from, "/metrics").unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The interface below a port is deleted, as containers and VPNs do it, and made again: a gap that is told everywhere, and then the
/// same capture goes on.
fn is_deleted_and_made_again(device: &str) {
    alone_in_netns(PAIR, || {
        let (trawl, observe) = start(device, "");
        let name = device.split(',').next().unwrap();
        let (id, frames) = (running(&trawl), odd_frames(1));
        let sent = frames.len() as u64;
        send("peer0", &frames);
        trawl.until(&id, PATIENCE, |progress| progress.ledger.rx == sent);
        run("ip link del trawl0");
        until_ready(observe, 503, &format!("away: {name}"));
        let port = [("port", name)];
        assert_eq!(metric(observe, "trawl_port_present", &port), 0);
        assert_eq!(metric(observe, "trawl_port_gaps", &port), 1);
        let progress = trawl.until(&id, PATIENCE, |progress| progress.ledger.port.gap_ms > 0);
        assert!(progress.ledger.port.uncounted && progress.warnings[0].contains("was away"), "{progress:?}");
        PAIR[2..].iter().for_each(|line| run(line));
        until_ready(observe, 200, "");
        assert_eq!(metric(observe, "trawl_port_present", &port), 1);
        send("peer0", &frames);
        trawl.until(&id, PATIENCE, |progress| progress.ledger.rx == 2 * sent);
        until_metric(observe, "trawl_port_rx_packets", &port, 2 * sent);
        assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
        trawl.ended(&id);
        let outcome = Outcome::read(&trawl.bucket(), &id);
        let (manifest, ledger) = (&outcome.manifest, outcome.manifest.ledger.port);
        assert!(!manifest.complete && ledger.gaps == 1 && ledger.gap_ms > 0, "{ledger:?}");
        assert_eq!(ledger.total(), 0, "a poll of what is gone loses no frame: {ledger:?}");
        assert!(outcome.frames().eq(frames.iter().chain(&frames).map(Vec::as_slice)));
        // A capture that begins now has no gap.
        let id = running(&trawl);
        let progress = trawl.progress(&id);
        assert_eq!((progress.ledger.port.gaps, progress.ledger.port.uncounted), (0, false));
        let log = trawl.log();
        assert_eq!(log.matches("a port is away").count(), 1, "{log}");
        assert_eq!(log.matches("a port is back").count(), 1, "{log}");
        trawl.finish();
    });
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_a_gap_that_is_told_and_goes_on() {
    is_deleted_and_made_again("interface:trawl0");
}

#[test]
fn a_dpdk_device_whose_interface_is_deleted_and_made_again_is_a_gap_that_is_told_and_goes_on() {
    is_deleted_and_made_again("net_pcap0,rx_iface_in=trawl0");
}

#[test]
fn a_link_that_goes_down_and_up_is_told_once_each_and_is_no_gap() {
    alone_in_netns(PAIR, || {
        for device in ["interface:trawl0", "net_pcap0,rx_iface_in=trawl0"] {
            let (trawl, observe) = start(device, "");
            let name = device.split(',').next().unwrap();
            trawl.until_log("a port's link is up", PATIENCE);
            run("ip link set peer0 down");
            until_ready(observe, 503, &format!("no link: {name}"));
            run("ip link set peer0 up");
            until_ready(observe, 200, "");
            let port = [("port", name)];
            assert_eq!(metric(observe, "trawl_port_link_changes", &port), 2);
            assert_eq!(metric(observe, "trawl_port_gaps", &port), 0);
            let log = trawl.log();
            assert_eq!(log.matches("a port's link is down").count(), 1, "{log}");
            assert_eq!(log.matches("a port's link is up").count(), 2, "{log}");
            trawl.finish();
        }
    });
}

#[test]
fn what_a_ports_driver_counts_is_in_the_metrics_by_its_names() {
    alone_in_netns(PAIR, || {
        let (trawl, observe) = start("interface:trawl0", "");
        let frames = odd_frames(1);
        send("peer0", &frames);
        let labels = [("port", "interface:trawl0"), ("counter", "rx_packets")];
        until_metric(observe, "trawl_port_driver_value", &labels, frames.len() as u64);
        trawl.finish();
    });
}

const LATE: &str = "[[port]]\ndevice = \"interface:late0\"\nrequired = false\n";

#[test]
fn a_port_that_is_not_required_may_be_missing_at_the_start_and_come_later() {
    alone_in_netns(PAIR, || {
        let (trawl, observe) = start("interface:trawl0", LATE);
        until_ready(observe, 200, "away: interface:late0");
        let (id, frames) = (running(&trawl), odd_frames(1));
        send("peer0", &frames);
        trawl.until(&id, PATIENCE, |progress| progress.ledger.rx == frames.len() as u64);
        run("ip link add late0 mtu 9000 type veth peer name late1 mtu 9000");
        run("ip link set late0 up && ip link set late1 up");
        trawl.until_log("a port is back", PATIENCE);
        send("late1", &frames);
        let progress = trawl.until(&id, PATIENCE, |progress| progress.ledger.rx == 2 * frames.len() as u64);
        assert!(progress.ledger.port.uncounted, "it was away at first");
        assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
        trawl.ended(&id);
        assert!(!Outcome::read(&trawl.bucket(), &id).manifest.complete);
        trawl.finish();
    });
}

#[test]
fn a_missing_port_keeps_a_host_from_serving_only_if_it_is_required() {
    alone_in_netns(PAIR, || {
        for (required, is_fine) in [("", false), ("required = true", false), ("required = false", true)] {
            let more = format!("[[port]]\ndevice = \"interface:late0\"\n{required}\n");
            let setup = Setup { device: "interface:trawl0".into(), queues: 1, more, ..Setup::replay() };
            let (checks, serves, said) = setup.judged(|config, _| config);
            assert_eq!((checks, serves), (is_fine, is_fine), "{required}: {said}");
            assert!(said.contains("no network interface late0"), "{said}");
            assert_eq!(said.contains("which is not required, and tries it again"), is_fine, "{said}");
        }
    });
}
