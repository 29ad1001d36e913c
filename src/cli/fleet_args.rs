//! What was typed behind `trawl fleet`. Owns these commands, their options and help.
//!
//! Invariant: no option takes a secret; keys are in files.

use super::args::ConfigArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `trawl fleet`
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// What to do
    #[command(subcommand)]
    pub command: FleetCommand,
}

/// The commands of `trawl fleet`.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Make the fleet's streams that are missing, and say what is not as it must be; what is there is never changed
    Init(FleetInitArgs),
    /// Print the users of a fleet's nodes, and what each may do, for the config of its NATS servers
    NatsConfig(FleetNatsConfigArgs),
    /// Make a node's key, and print its public half, which the servers know it by
    Key(FleetKeyArgs),
    /// Make the key by which an API node starts captures, and print its public half for fleet.assignment_keys
    SigningKey(FleetKeyArgs),
    /// Say how the fleet stands: its servers, streams, hosts, and who leads
    Status(FleetLookArgs),
    /// List the fleet's hosts
    Hosts(FleetLookArgs),
    /// Have a host take no new captures; what runs there ends as it would
    Drain(FleetHostArgs),
    /// Have a host take captures again
    Undrain(FleetHostArgs),
}

/// By whose key a fleet is spoken to.
#[derive(Debug, Args)]
pub struct FleetWayArgs {
    /// The config file
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Key of an operator, instead of the config's fleet.nats.nkey_file
    #[arg(long, value_name = "FILE", requires = "name")]
    pub nkey_file: Option<PathBuf>,
    /// The operator's name in the list that `trawl fleet nats-config` reads
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// `trawl fleet status`, `trawl fleet hosts`
#[derive(Debug, Args)]
#[command(
    after_help = "An API node's own key will do, or an operator's. A host is alive that is heard within 5 s.\n\nExit codes of `status`: 0 all is as it must be; 1 something is not."
)]
pub struct FleetLookArgs {
    /// By whose key
    #[command(flatten)]
    pub way: FleetWayArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `trawl fleet drain`, `trawl fleet undrain`
#[derive(Debug, Args)]
#[command(after_help = "An API node's own key will do, or an operator's.")]
pub struct FleetHostArgs {
    /// Its host.id
    pub host: String,
    /// By whose key
    #[command(flatten)]
    pub way: FleetWayArgs,
}

/// `trawl fleet init`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all streams are there as they must be; 1 something is missing or differs."
)]
pub struct FleetInitArgs {
    /// The config file
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Key of an operator, instead of the config's fleet.nats.nkey_file: nodes may not make streams
    #[arg(long, value_name = "FILE", requires = "name")]
    pub nkey_file: Option<PathBuf>,
    /// The operator's name in the list that `trawl fleet nats-config` reads
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Make nothing, only say what is missing or differs
    #[arg(long)]
    pub check: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `trawl fleet nats-config`
#[derive(Debug, Args)]
#[command(after_help = "NODES is TOML:

  fleet = \"prod\"
  [[node]]
  name = \"cap1\"           # its host.id
  colo = \"ord02\"          # its host.colo
  roles = [\"capture\"]     # its fleet.roles; [\"operator\"] for who runs `trawl fleet init`
  nkey = \"U…\"             # as `trawl fleet key` prints it")]
pub struct FleetNatsConfigArgs {
    /// List of the fleet's nodes; - is standard input
    #[arg(value_name = "NODES")]
    pub nodes: PathBuf,
    /// Print the accounts as JSON
    #[arg(long)]
    pub json: bool,
}

/// `trawl fleet key`
#[derive(Debug, Args)]
pub struct FleetKeyArgs {
    /// The file for the secret key; made unless it is there, readable by its owner alone
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
