//! `trawl verify`. Owns its lines and progress bar; the check itself is in `upload`.
//!
//! Invariant: it ends well only if every object is what its manifest says.

use super::args::VerifyArgs;
use super::{Outcome, out, stores};
use crate::chain::printable;
use crate::deliver::{
    Bucket, Directory, Finding, Manifest, Place, PublicKey, Step, Verified, Wanted, WholeVerified,
    manifest_name, manifests, verify_at, verify_whole,
};
use crate::host::on_this_thread;
use crate::job::ObjectInfo;
use crate::stamp::{Anchors, Stamp};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

/// Captures below this are verified within a blink; a bar would only flicker.
const BAR_BYTES_MIN: u64 = 256 << 20;

/// Checks the objects of manifests, which stand beside them in a directory or a bucket, and prints a line for each object, then the
/// verdict on each manifest.
///
/// # Errors
/// When a manifest cannot be read, and when anything is not as it says.
pub fn run(args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let key = args.public_key.as_deref().map(PublicKey::load).transpose()?;
    let anchors = args.timestamp_ca.as_deref().map(Anchors::load).transpose()?;
    let wanted = Wanted { key: key.as_ref(), anchors: anchors.as_ref() };
    let (mut all, mut wholes) = (Vec::new(), Vec::new());
    let mut shown = |step: Step<'_>| {
        if let Step::Object(object, findings) = step {
            out::line(&object_line(object, findings));
        }
    };
    for manifest in &args.manifests {
        in_place(manifest, args, &mut |place, name| {
            if let Some(verified) = verify_whole(place, name, &wanted, &mut shown)? {
                out::line(&of_whole(&verified));
                wholes.push((manifest, of_account(args, &verified) + verified.faults()));
                return Ok(());
            }
            for name in manifests(place, name)? {
                all.push((manifest, check(args, place, &name, &wanted)?));
            }
            Ok(())
        })?;
    }
    if let Some(text) = together(all.iter().map(|(_, checked)| &checked.verified)) {
        out::line(&text);
    }
    let bad_whole = wholes.iter().find(|(_, faults)| *faults > 0);
    if let Some((manifest, faults)) = bad_whole {
        return Err(anyhow::anyhow!("{} is not verified: {faults} findings", manifest.to_string_lossy()));
    }
    let bad: Vec<_> = all.iter().filter(|(_, checked)| checked.findings > 0).collect();
    let count: usize = bad.iter().map(|(_, checked)| checked.findings).sum();
    match bad.first() {
        None => Ok(Outcome::silent()),
        Some((manifest, checked)) => {
            let of_many = all.len() > 1 && args.manifests.len() == 1;
            let name = if of_many {
                manifest_name(&checked.verified.manifest.part())
            } else {
                manifest.to_string_lossy().into_owned()
            };
            let others = if bad.len() > 1 { format!(" and {} others", bad.len() - 1) } else { String::new() };
            let is = if bad.len() > 1 { "are" } else { "is" };
            Err(anyhow::anyhow!("{name}{others} {is} not verified: {count} findings"))
        }
    }
}

/// The verdict on a capture of many hosts.
fn of_whole(verified: &WholeVerified) -> String {
    let whole = &verified.whole;
    let parts = verified.parts.iter().flat_map(|part| &part.findings);
    let findings = verified.findings.iter().chain(parts).map(|finding| format!("finding: {finding}"));
    let there = whole.hosts.iter().filter(|host| host.is_delivered()).count();
    let absent = whole.hosts.iter().filter(|host| !host.is_delivered()).map(|host| {
        format!(
            "{}/{} ({})",
            host.colo,
            host.host,
            host.verdict.as_deref().unwrap_or("no verdict").to_lowercase()
        )
    });
    let absent: Vec<_> = absent.collect();
    let absent = if absent.is_empty() { String::new() } else { format!("; missing: {}", absent.join(", ")) };
    let verdict = match verified.faults() {
        0 => format!(
            "verified: {} of {} hosts, {} packets{absent}",
            there,
            whole.hosts.len(),
            verified.packets
        ),
        _ => format!("not verified: {} of {} hosts{absent}", there, whole.hosts.len()),
    };
    let lost = match (whole.complete, absent.is_empty()) {
        (false, true) => {
            Some("not every packet of the window is in it: see the manifests of the hosts".to_owned())
        }
        _ => None,
    };
    let identity = format!("capture {} of account {}, fleet {}", whole.id, whole.account.0, whole.fleet);
    let lines: Vec<String> = findings.chain([verdict]).chain(lost).chain([identity]).collect();
    lines.iter().map(|line| printable(line).into_owned()).collect::<Vec<_>>().join("\n")
}

/// Whether it is of another account than is asked for.
fn of_account(args: &VerifyArgs, verified: &WholeVerified) -> usize {
    let found = &verified.whole.account.0;
    match args.account.as_ref().filter(|wanted| *wanted != found) {
        Some(wanted) => {
            let text = format!("finding: the capture is of account {found}, not of {wanted}");
            out::line(&printable(&text));
            1
        }
        None => 0,
    }
}

/// A manifest that was checked.
struct Checked {
    verified: Verified,
    findings: usize,
}

/// Checks one manifest and prints what came of it.
fn check(args: &VerifyArgs, place: &dyn Place, name: &str, wanted: &Wanted<'_>) -> anyhow::Result<Checked> {
    let bar = ProgressBar::hidden();
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
    )?);
    let verified = verify_at(place, name, wanted, &mut |step| match step {
        Step::Begin(bytes) => {
            bar.set_length(bytes);
            if bytes >= BAR_BYTES_MIN {
                bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            }
        }
        Step::Read(bytes) => bar.inc(bytes),
        Step::Object(object, findings) => bar.suspend(|| out::line(&object_line(object, findings))),
    })?;
    bar.finish_and_clear();
    let mut findings: Vec<String> = verified.findings.iter().map(Finding::to_string).collect();
    findings.extend(of_others(args, &verified.manifest));
    out::line(&verdict(&verified, &findings));
    Ok(Checked { verified, findings: findings.len() })
}

/// Hands on where a manifest is; one with a scheme is in a bucket.
fn in_place(
    manifest: &OsStr,
    args: &VerifyArgs,
    then: &mut dyn FnMut(&dyn Place, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // A name that is no text is a file's.
    let Some(manifest) = manifest.to_str().filter(|manifest| manifest.contains("://")) else {
        let (dir, name) = Directory::of(Path::new(manifest));
        return then(&dir, &name);
    };
    let (uri, name) = stores::split(manifest).with_context(|| {
        format!("{manifest}: write such as s3://BUCKET/DIRECTORY/pcap_ID.json?region=REGION")
    })?;
    let runtime = on_this_thread()?;
    let store = runtime.block_on(stores::open(&uri, &args.store))?;
    then(&Bucket { store: &*store, runtime: &runtime, uri }, &name)
}

/// What the parts of one capture are together; none if it is not several of one. Which hosts are missing no part says.
fn together<'a>(parts: impl Iterator<Item = &'a Verified> + Clone) -> Option<String> {
    let ids: BTreeSet<_> = parts.clone().map(|part| part.manifest.id.as_str()).collect();
    let hosts: BTreeSet<_> =
        parts.clone().map(|part| format!("{}/{}", part.manifest.colo, part.manifest.host)).collect();
    let id = ids.first().filter(|_| ids.len() == 1 && hosts.len() > 1)?;
    let packets: u64 = parts.map(|part| part.packets).sum();
    let named = hosts.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let text = format!("together: capture {id}, {} hosts, {packets} packets: {named}", hosts.len());
    Some(printable(&text).into_owned())
}

fn object_line(object: &ObjectInfo, findings: &[Finding]) -> String {
    let state = if findings.is_empty() { "ok" } else { "BAD" };
    format!("{}: {state}, {} packets, {} bytes", object.name, object.packets, object.bytes)
}

/// What the manifest says and the arguments do not.
fn of_others(args: &VerifyArgs, manifest: &Manifest) -> Vec<String> {
    let account = manifest.account.as_ref().map(|account| account.0.as_str());
    let pairs = [
        ("account", args.account.as_deref(), account),
        ("host", args.host.as_deref(), Some(&*manifest.host)),
    ];
    let differ = pairs.into_iter().filter_map(|(what, wanted, found)| {
        let wanted = wanted.filter(|wanted| found != Some(wanted))?;
        Some(match found {
            Some(found) => format!("the capture is of {what} {found}, not of {wanted}"),
            None => format!("the manifest names no {what}, and it must be {wanted}"),
        })
    });
    differ.collect()
}

/// Whose capture it is, of which host and when. A reader must compare that with what they expect.
fn identity(manifest: &Manifest) -> String {
    let account = manifest.account.as_ref().map_or("no account", |account| account.0.as_str());
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let text = format!(
        "capture {} of account {account}, host {}, {} to {}",
        manifest.id,
        manifest.host,
        time(manifest.started),
        time(manifest.ended)
    );
    printable(&text).into_owned()
}

fn verdict(verified: &Verified, findings: &[String]) -> String {
    let identity = identity(&verified.manifest);
    if !findings.is_empty() {
        let lines = findings.iter().map(|finding| format!("finding: {}", printable(finding)));
        return lines.chain([identity]).collect::<Vec<_>>().join("\n");
    }
    let text = format!("verified: {} objects, {} packets", verified.manifest.objects.len(), verified.packets);
    let Manifest { complete, ledger, .. } = &verified.manifest;
    let lost = match (complete, ledger.port.warning(), ledger.port.uncounted && ledger.lost() == 0) {
        (true, ..) => String::new(),
        (false, Some(gap), _) => format!("; {gap}"),
        (false, None, true) => {
            "; packets may be lost that no counter knows: a port does not count what it loses".to_owned()
        }
        (false, None, false) => "; packets were lost, see the ledger".to_owned(),
    };
    let clock = clock(&verified.manifest).map(|clock| format!("\n{clock}")).unwrap_or_default();
    let stamp = verified.stamp.as_ref().map(|stamp| format!("\n{}", stamped(stamp))).unwrap_or_default();
    format!("{text}{lost}\n{identity}{clock}{stamp}")
}

/// How far the capture's time stamps can be believed.
fn clock(manifest: &Manifest) -> Option<String> {
    let steps = manifest.clock_steps.map(|steps| {
        let seconds = steps.moved_ns as f64 / 1e9;
        format!("clock: it was set {} times while packets were taken, by {seconds} s together", steps.count)
    });
    let state = manifest.clock.map(|clock| {
        let both = [Some(clock.start), clock.end];
        match both.iter().flatten().all(|state| state.synchronised) {
            true => {
                let most = both.iter().flatten().map(|state| state.max_error_ns).max().unwrap_or(0);
                format!("clock: disciplined, off by {} ms at most", most as f64 / 1e6)
            }
            false => "clock: nothing disciplined it at the beginning, or at the end".to_owned(),
        }
    });
    let lines: Vec<_> = state.into_iter().chain(steps).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// When the manifest was there, and by whose word.
fn stamped(stamp: &Stamp) -> String {
    let Stamp { time, accuracy, serial, signer } = stamp;
    let accuracy = accuracy.map(|off| format!(", ± {} s", off.as_secs_f64())).unwrap_or_default();
    printable(&format!("time-stamped: {time}{accuracy} by {signer}, number {serial}")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::verify;
    use crate::job::CaptureId;

    #[test]
    fn the_end_is_an_error_exactly_if_there_are_findings() {
        let id = CaptureId::random();
        let json = format!(
            r#"{{"version":1,"id":"{id}","host":"cap1","colo":"ord02","kind":"full","filter_v1":{{}},
                "limits":{{"time_limit":1,"packet_limit":null,"byte_limit":null}},
                "submitted":"2026-11-24T06:00:00Z","started":null,"ended":null,"stop_reason":null,
                "complete":true,"snaplen":262144,"objects":[],"queues":1,"ledger":LEDGER}}"#
        );
        let mut manifest =
            Manifest::parse(json.replace("LEDGER", &ledger_json()).as_bytes()).expect("a manifest");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(manifest_name(&manifest.part()));
        std::fs::write(&path, manifest.to_json().unwrap()).unwrap();
        let args = VerifyArgs {
            manifests: vec![path.clone().into()],
            public_key: None,
            timestamp_ca: None,
            account: None,
            host: None,
            store: super::super::args::StoreArgs::default(),
        };
        run(&args).unwrap();
        manifest.ledger.captured = 1;
        std::fs::write(&path, manifest.to_json().unwrap()).unwrap();
        let error = run(&args).unwrap_err();
        assert!(error.to_string().ends_with("is not verified: 2 findings"), "{error}");
        let verified = verify(&path, &mut |_| ()).unwrap();
        let findings: Vec<_> = verified.findings.iter().map(Finding::to_string).collect();
        let text = verdict(&verified, &findings);
        assert!(
            text.starts_with("finding: the objects hold 0 packets, the ledger says 1\nfinding: "),
            "{text}"
        );
    }

    #[test]
    fn parts_of_one_capture_are_summed_up_with_their_hosts() {
        let id = CaptureId::random();
        let part = |id: &CaptureId, host: &str, packets| {
            let manifest = Manifest { host: host.to_owned(), ..crate::deliver::empty_manifest(id) };
            Verified { manifest, packets, findings: Vec::new(), stamp: None }
        };
        let parts = [part(&id, "cap2", 3), part(&id, "cap1", 4)];
        let text = format!("together: capture {id}, 2 hosts, 7 packets: ord02/cap1, ord02/cap2");
        assert_eq!(together(parts.iter()), Some(text));
        assert_eq!(together(parts[..1].iter()), None);
        assert_eq!(together([part(&id, "a", 1), part(&CaptureId::random(), "b", 1)].iter()), None);
    }

    fn ledger_json() -> String {
        serde_json::to_string(&crate::job::Ledger::default()).unwrap()
    }
}
