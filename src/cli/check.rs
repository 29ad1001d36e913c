//! `trawl check`: prints what `config::check` finds. Owns the lines.
//!
//! Invariant: exit code 0 means that no finding is an error.

use super::args::CheckArgs;
use super::{Error, Outcome};
use crate::config::Plan;
use crate::config::check::{Finding, Host, ProbePorts, Severity, check, lines};
#[cfg(feature = "dpdk")]
use std::time::Duration;

/// Checks the config and this host; `probe` asks DPDK for the ports, in builds that have it.
///
/// # Errors
/// Only when the findings cannot be printed; findings are a result.
pub fn run(args: &CheckArgs, probe: Option<ProbePorts<'_>>) -> Result<Outcome, Error> {
    if args.config_only {
        let path = &args.config.config;
        Plan::load(path).map_err(|problems| Error::Config { path: path.clone(), problems })?;
        return Outcome::done("the config can be used\n".to_owned(), &[(); 0], args.json);
    }
    let findings = check(&args.config.config, &Host::real(), probe);
    let mut outcome = Outcome::done(verdict(&findings), &findings, args.json)?;
    outcome.is_success = findings.iter().all(|finding| finding.severity != Severity::Error);
    Ok(outcome)
}

/// Checks the config and this host without opening its ports, then measures; not where a finding is an error.
///
/// # Errors
/// When nothing could be measured.
#[cfg(feature = "dpdk")]
pub fn measure(args: &CheckArgs) -> Result<Outcome, Error> {
    let path = &args.config.config;
    let findings = check(path, &Host::real(), None);
    let text = verdict(&findings);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        let mut outcome = Outcome::done(text, &findings, args.json)?;
        outcome.is_success = false;
        return Ok(outcome);
    }
    let plan = Plan::load(path).map_err(|problems| Error::Config { path: path.clone(), problems })?;
    if !plan.captures() {
        return Outcome::done(text, &findings, args.json);
    }
    let measured =
        crate::host::measure(&plan, Duration::from_secs(args.seconds), &mut |what| super::out::note(what))
            .map_err(|error| Error::Measure(Box::new(error)))?;
    let all = serde_json::json!({ "findings": findings, "workers": plan.cores.workers, "writers": plan.cores.writers,
        "seconds": args.seconds, "measured": measured });
    Outcome::done(
        format!("{text}\n{}", super::measure::text(&measured, &plan.cores, &plan.spool.dir)),
        &all,
        args.json,
    )
}

fn verdict(findings: &[Finding]) -> String {
    let text = lines(findings);
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
