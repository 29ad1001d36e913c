//! `trawl check`: prints what `config::check` finds. Owns the lines.
//!
//! Invariant: exit code 0 means that no finding is an error.

use super::args::CheckArgs;
use super::{Error, Outcome};
use crate::config::check::{Finding, Host, ProbePorts, Severity, check};
use std::fmt::Write as _;

/// Checks the config and this host; `probe` asks DPDK for the ports, in builds that have it.
///
/// # Errors
/// Only when the findings cannot be printed; findings are a result.
pub fn run(args: &CheckArgs, probe: Option<ProbePorts<'_>>) -> Result<Outcome, Error> {
    let findings = check(&args.config.config, &Host::real(), probe);
    let mut outcome = Outcome::done(lines(&findings), &findings, args.json)?;
    outcome.is_success = findings.iter().all(|finding| finding.severity != Severity::Error);
    Ok(outcome)
}

fn lines(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { severity, subject, text: so, advice } in findings {
        let _infallible = writeln!(text, "{severity}: {subject}: {so}\n    {advice}");
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let verdict = match (errors, warnings) {
        (0, 0) => "the config and this host are ready".to_owned(),
        (0, warnings) => format!("ready, with {}", counted(warnings, "warning")),
        (errors, warnings) => {
            format!("not ready: {}, {}", counted(errors, "error"), counted(warnings, "warning"))
        }
    };
    text + &verdict + "\n"
}
