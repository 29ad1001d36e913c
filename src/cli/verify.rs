//! `trawl verify`. Owns its lines and progress bar; the check itself is in `upload`.
//!
//! Invariant: it ends well only if every object is what its manifest says.

use super::args::VerifyArgs;
use super::{Outcome, out, stores};
use crate::chain::printable;
use crate::deliver::{
    Bucket, Finding, Manifest, PublicKey, Step, Verified, VerifyError, verify_at, verify_file,
};
use crate::host::on_this_thread;
use crate::job::ObjectInfo;
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;

/// Captures below this are verified within a blink; a bar would only flicker.
const BAR_BYTES_MIN: u64 = 256 << 20;

/// Checks a manifest's objects, which stand beside it in a directory or a bucket, and prints a line for each, then the verdict.
///
/// # Errors
/// When the manifest cannot be read, and when anything is not as it says.
pub fn run(args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let key = args.public_key.as_deref().map(PublicKey::load).transpose()?;
    let bar = ProgressBar::hidden();
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
    )?);
    let verified = check(args, key.as_ref(), &mut |step| match step {
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
    match findings.len() {
        0 => Ok(Outcome::silent()),
        count => {
            let manifest = args.manifest.to_string_lossy();
            Err(anyhow::anyhow!("{manifest} is not verified: {count} findings"))
        }
    }
}

/// A manifest with a scheme is in a bucket.
fn check(
    args: &VerifyArgs,
    key: Option<&PublicKey>,
    watch: &mut dyn FnMut(Step<'_>),
) -> anyhow::Result<Verified> {
    // A name that is no text is a file's.
    let Some(manifest) = args.manifest.to_str().filter(|manifest| manifest.contains("://")) else {
        return Ok(verify_file(Path::new(&args.manifest), key, watch)?);
    };
    let (uri, name) = stores::split(manifest).with_context(|| {
        format!("{manifest}: write such as s3://BUCKET/DIRECTORY/pcap_ID.json?region=REGION")
    })?;
    let runtime = on_this_thread()?;
    let store = runtime.block_on(stores::open(&uri, &args.store))?;
    let bucket = Bucket { store: &*store, runtime: &runtime, uri };
    let verified: Result<Verified, VerifyError> = verify_at(&bucket, &name, key, watch);
    Ok(verified?)
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
    format!("{text}{lost}\n{identity}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::{Manifest, manifest_name, verify};
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
        let path = dir.path().join(manifest_name(&id));
        std::fs::write(&path, manifest.to_json().unwrap()).unwrap();
        let args = VerifyArgs {
            manifest: path.clone().into(),
            public_key: None,
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

    fn ledger_json() -> String {
        serde_json::to_string(&crate::job::Ledger::default()).unwrap()
    }
}
