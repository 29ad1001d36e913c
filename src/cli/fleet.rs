//! `trawl fleet`: a fleet's NATS servers. Owns what is printed of them; what streams and users must be like is `bus`'s.

use super::args::{FleetArgs, FleetCommand, FleetInitArgs, FleetKeyArgs, FleetNatsConfigArgs, FleetWayArgs};
use super::{Error, Outcome, block_on, fleet_view, until_ended};
use crate::bus::Away;
use crate::bus::nats::LinkError;
use crate::bus::nats::Way;
use crate::bus::nats::key::{Key, KeyError};
use crate::bus::nats::setup::{self, Found, Report, SetupError};
use crate::bus::nats::users::Nodes;
use crate::config::Plan;
use crate::deliver::SigningKey;
use crate::node::OpsError;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For the first connection.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// A list of nodes is some hundred bytes a node.
const NODES_BYTES_MAX: u64 = 16 << 20;

/// What did not work.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A key.
    #[error("{0}; {advice}", advice = .0.advice())]
    Key(#[from] KeyError),
    /// The way to the servers.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What is shared there.
    #[error("{0}")]
    Away(#[from] Away),
    /// What is said of a host.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// The servers.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A config without them.
    #[error("{} has no [fleet.nats]: write the fleet's servers there", .0.display())]
    NoBus(PathBuf),
    /// A list of nodes.
    #[error("{}: {why}", path.display())]
    Nodes {
        /// Its file.
        path: PathBuf,
        /// What is wrong, a line each.
        why: String,
    },
}

/// Runs one of its commands.
///
/// # Errors
/// What did not work. Streams that differ are a result.
pub fn run(args: FleetArgs) -> Result<Outcome, Error> {
    match args.command {
        FleetCommand::Init(args) => block_on(until_ended(init(args))),
        FleetCommand::NatsConfig(args) => nats_config(&args),
        FleetCommand::Key(args) => key(&args),
        FleetCommand::SigningKey(args) => signing_key(&args),
        FleetCommand::Status(args) => block_on(until_ended(fleet_view::status(args))),
        FleetCommand::Hosts(args) => block_on(until_ended(fleet_view::hosts(args))),
        FleetCommand::Drain(args) => block_on(until_ended(fleet_view::drain(args, true))),
        FleetCommand::Undrain(args) => block_on(until_ended(fleet_view::drain(args, false))),
    }
}

/// How the fleet is reached, and how many servers have each record.
pub(super) fn way(args: FleetWayArgs) -> Result<(Way, u8), Error> {
    let path = args.config.config;
    let plan = Plan::load(&path).map_err(|problems| Error::Config { path: path.clone(), problems })?;
    let nats = plan.fleet.as_ref().and_then(|fleet| fleet.nats.as_ref());
    let (Some(mut way), Some(nats)) = (plan.way(), nats) else { return Err(FleetError::NoBus(path).into()) };
    if let (Some(file), Some(name)) = (args.nkey_file, args.name) {
        (way.nkey_file, way.node, way.is_capture) = (Some(file), name, false);
    }
    Ok((way, nats.replicas))
}

async fn init(args: FleetInitArgs) -> Result<Outcome, Error> {
    let FleetInitArgs { config, nkey_file, name, check, json } = args;
    let (way, replicas) = way(FleetWayArgs { config, nkey_file, name })?;
    let report = setup::init(&way, replicas, !check, CONNECT).await.map_err(FleetError::from)?;
    let mut outcome = Outcome::done(text(&report), &value(&report), json)?;
    outcome.is_success = report.is_right();
    Ok(outcome)
}

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for (stream, found) in &report.streams {
        let _ = match found {
            Found::Made => writeln!(text, "{stream}: made"),
            Found::Right => writeln!(text, "{stream}: is there"),
            Found::Missing => writeln!(text, "{stream}: is missing"),
            Found::Differs(differences) => differences.iter().try_for_each(|(setting, wanted, is)| {
                writeln!(text, "{stream}: {setting} is {is}, and it must be {wanted}")
            }),
        };
    }
    if !report.is_server_new_enough() {
        let _ = writeln!(
            text,
            "nats-server {:?} is too old: before 2.12.3 replacing a server loses acknowledged writes",
            report.server
        );
    }
    let advice = "nothing of a stream that is there was changed: set it right by `nats stream edit`, or ask whose it is";
    if report.streams.iter().any(|(_, found)| matches!(found, Found::Differs(_))) {
        let _ = writeln!(text, "{advice}");
    }
    text
}

pub(super) fn value(report: &Report) -> Value {
    let streams = report.streams.iter().map(|(stream, found)| {
        let (state, differences) = match found {
            Found::Made => ("made", &[][..]),
            Found::Right => ("right", &[][..]),
            Found::Missing => ("missing", &[][..]),
            Found::Differs(differences) => ("differs", &differences[..]),
        };
        let differences: Vec<Value> = differences
            .iter()
            .map(|(setting, wanted, is)| json!({"setting": setting, "wanted": wanted, "is": is}))
            .collect();
        json!({"stream": stream, "state": state, "differences": differences})
    });
    json!({
        "server": report.server,
        "is_server_new_enough": report.is_server_new_enough(),
        "is_right": report.is_right(),
        "streams": streams.collect::<Vec<_>>(),
    })
}

fn nats_config(args: &FleetNatsConfigArgs) -> Result<Outcome, Error> {
    let wrong = |why: String| FleetError::Nodes { path: args.nodes.clone(), why };
    let text = read(&args.nodes).map_err(|error| wrong(error.to_string()))?;
    let nodes: Nodes = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let problems = nodes.problems();
    if !problems.is_empty() {
        return Err(wrong(problems.join("\n  ")).into());
    }
    Outcome::done(nodes.config(), &json!({"accounts": nodes.accounts()}), args.json)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(std::fs::File::open(path)?),
    };
    source.take(NODES_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn key(args: &FleetKeyArgs) -> Result<Outcome, Error> {
    let key = match args.file.try_exists() {
        Ok(true) => Key::load(&args.file),
        _ => Key::make(&args.file),
    };
    let key = key.map_err(FleetError::from)?;
    Outcome::done(format!("{}\n", key.public()), &json!({"public": key.public()}), args.json)
}

/// As `trawl manifest-key`, with the public half in the form of fleet.assignment_keys.
fn signing_key(args: &FleetKeyArgs) -> Result<Outcome, Error> {
    let key = match args.file.try_exists() {
        Ok(true) => SigningKey::load(&args.file)?,
        _ => SigningKey::create(&args.file)?,
    };
    let public = key.public().to_hex();
    Outcome::done(format!("{public}\n"), &json!({"public": public}), args.json)
}
