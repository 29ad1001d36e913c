//! `trawl audit verify`. Owns its lines; the check itself is in `audit`.
//!
//! Invariant: it ends well only if every line is what was written, as far as hashes, signatures and noted heads tell.

use super::Outcome;
use super::args::AuditVerifyArgs;
use crate::audit::{Checked, VerifyError, check_files, check_some, files_of};
use crate::chain::printable;
use crate::deliver::PublicKey;

/// Checks the files of one log, and says what vouches for what.
///
/// # Errors
/// The first line that is not as it was written, or what is missing.
pub fn verify(args: &AuditVerifyArgs) -> anyhow::Result<Outcome> {
    let keys = args.public_key.iter().map(|path| PublicKey::load(path)).collect::<Result<Vec<_>, _>>()?;
    let (mut files, mut is_whole) = (Vec::new(), false);
    for path in &args.files {
        let found = files_of(path)?;
        // A directory has all that is left of the log; single files may be some of it.
        is_whole |= found.as_slice() != std::slice::from_ref(path);
        files.extend(found);
    }
    if files.is_empty() {
        let shown: Vec<_> = args.files.iter().map(|path| path.display().to_string()).collect();
        return Err(VerifyError::Empty(shown.join(", ")).into());
    }
    let check = if is_whole { check_files } else { check_some };
    let checked = check(&files, &keys, &args.expect)?;
    Ok(Outcome::said(words(&checked, !keys.is_empty())))
}

fn words(checked: &Checked, with_keys: bool) -> String {
    let Checked { host, first, head, signed, last_action } = checked;
    let mut lines = vec![format!("verified: lines {first} to {} of host {}", head.seq, printable(host))];
    if *first > 1 {
        lines.push(format!("lines 1 to {} are not here: older files were removed or not given", first - 1));
    }
    match signed {
        Some((until, count)) if *until + 1 < head.seq => lines.push(format!(
            "{count} signatures are right, the last of lines up to {until}: lines {} to {} have none yet",
            until + 2,
            head.seq
        )),
        Some((_, count)) => lines.push(format!("{count} signatures are right, the last of all lines")),
        None if !with_keys => lines.push(
            "no signature was looked at: with --public-key it shows whether the host wrote these lines"
                .to_owned(),
        ),
        None => {}
    }
    if !matches!(last_action.as_str(), "process.end" | "audit.sign") {
        lines.push(
            "the last line is no end of a process: it runs, was killed, or lines behind it were cut off"
                .to_owned(),
        );
    }
    lines.push(format!("head {head}"));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Head;

    #[test]
    fn what_no_signature_vouches_for_and_what_may_be_missing_is_said() {
        let head = Head { seq: 12, hash: "0".repeat(64) };
        let checked = |first, signed, last: &str| Checked {
            host: "cap1".to_owned(),
            first,
            head: head.clone(),
            signed,
            last_action: last.to_owned(),
        };
        let text = words(&checked(1, Some((11, 2)), "audit.sign"), true);
        assert!(text.starts_with(
            "verified: lines 1 to 12 of host cap1\n2 signatures are right, the last of all lines\n"
        ));
        assert!(text.ends_with(&format!("head 12:{}\n", "0".repeat(64))), "{text}");
        let text = words(&checked(5, Some((8, 1)), "capture.create"), true);
        for part in
            ["lines 1 to 4 are not here", "lines 10 to 12 have none yet", "was killed, or lines behind it"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(words(&checked(1, None, "process.end"), false).contains("no signature was looked at"));
    }
}
