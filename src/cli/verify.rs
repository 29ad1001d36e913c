//! `trawl verify`. Owns its lines and progress bar; the check itself is in `upload`.
//!
//! Invariant: it ends well only if every object is what its manifest says.

use super::args::VerifyArgs;
use super::{Outcome, out, stores};
use crate::deliver::{Bucket, Finding, PublicKey, Step, Verified, VerifyError, verify_at, verify_file};
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
    out::line(&verdict(&verified));
    match verified.findings.len() {
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = runtime.block_on(stores::open(&uri, &args.store))?;
    let bucket = Bucket { store: &*store, runtime: &runtime, uri };
    let verified: Result<Verified, VerifyError> = verify_at(&bucket, &name, key, watch);
    Ok(verified?)
}

fn object_line(object: &ObjectInfo, findings: &[Finding]) -> String {
    let state = if findings.is_empty() { "ok" } else { "BAD" };
    format!("{}: {state}, {} packets, {} bytes", object.name, object.packets, object.bytes)
}

fn verdict(verified: &Verified) -> String {
    if !verified.findings.is_empty() {
        let lines: Vec<_> = verified.findings.iter().map(|finding| format!("finding: {finding}")).collect();
        return lines.join("\n");
    }
    let text = format!("verified: {} objects, {} packets", verified.manifest.objects.len(), verified.packets);
    if verified.manifest.complete { text } else { format!("{text}; packets were lost, see the ledger") }
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
            store: super::super::args::StoreArgs::default(),
        };
        run(&args).unwrap();
        manifest.ledger.captured = 1;
        std::fs::write(&path, manifest.to_json().unwrap()).unwrap();
        let error = run(&args).unwrap_err();
        assert!(error.to_string().ends_with("is not verified: 2 findings"), "{error}");
        let verified = verify(&path, &mut |_| ()).unwrap();
        let text = verdict(&verified);
        assert!(
            text.starts_with("finding: the objects hold 0 packets, the ledger says 1\nfinding: "),
            "{text}"
        );
    }

    fn ledger_json() -> String {
        serde_json::to_string(&crate::job::Ledger::default()).unwrap()
    }
}
