//! What was typed. Owns the commands, their options and help; values are checked where they are used.
//!
//! Invariant: no option takes a secret, because arguments are seen by every user of the host; secrets come from the
//! environment or from files.

pub use super::fleet_args::*;
use crate::limits::{ZSTD_LEVEL_DEFAULT, ZSTD_LEVEL_MAX};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// DPDK packet-capture appliance: every packet counted exactly once, from the NIC queue to the customer's bucket.
#[derive(Debug, Parser)]
#[command(name = "trawl", version, propagate_version = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Capture, and serve the API, until a signal ends it
    Serve(ServeArgs),
    /// Check a config file and this host against what a capture needs, with advice
    Check(CheckArgs),
    /// Start, list, show, follow, stop and download captures on a server
    Capture(CaptureArgs),
    /// Add, prove, list and forget the buckets that full captures may go to
    Bucket(BucketArgs),
    /// Try filters on capture files
    Filter(FilterArgs),
    /// Join pcap and pcapng files by time
    Merge(MergeArgs),
    /// Recover captures from the spool of a host process that died, without the job store
    Recover(RecoverArgs),
    /// Copy the job store while it is used
    Store(StoreCommandArgs),
    /// Check files against their manifest
    Verify(VerifyArgs),
    /// Look at the log of who did what
    Audit(AuditArgs),
    /// Make the key that signs manifests, and print the public key that checks them
    ManifestKey(ManifestKeyArgs),
    /// Set up the NATS servers that the nodes of a fleet share their records by
    Fleet(FleetArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Write the man pages, one for each command
    Man(ManArgs),
}

/// Where the config file is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The config file
    #[arg(long, value_name = "FILE", env = "TRAWL_CONFIG", default_value = "/etc/trawl/trawl.toml")]
    pub config: PathBuf,
}

/// `trawl check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The config file
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Also measure what this host sustains, with synthetic frames on the config's cores, blocks and spool; the ports are not
    /// opened. Not while `trawl serve` works here
    #[arg(long)]
    pub measure: bool,
    /// Only read the config file; this host is not looked at, so also beside a `trawl serve` that works here
    #[arg(long, conflicts_with = "measure")]
    pub config_only: bool,
    /// How long each of the nine measurements lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=600), requires = "measure")]
    pub seconds: u64,
    /// Print JSON: an array of findings, with --measure an object of these and of what was measured
    #[arg(long)]
    pub json: bool,
}

/// `trawl audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What to do
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// The commands of `trawl audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line was changed, removed, added or moved, and say in which one it was
    Verify(AuditVerifyArgs),
}

/// `trawl audit verify`
#[derive(Debug, Args)]
pub struct AuditVerifyArgs {
    /// Files of one log, or its directory
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// File with a public key that must have signed the log, as `trawl manifest-key` prints it; each one that the host has had
    #[arg(long, alias = "key", value_name = "FILE")]
    pub public_key: Vec<PathBuf>,
    /// A head that this command printed before: its line must be there as it was, so that nothing was cut off before it
    #[arg(long, value_name = "NUMBER:SHA256")]
    pub expect: Vec<crate::audit::Head>,
}

/// `trawl capture`
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// What to do
    #[command(subcommand)]
    pub command: CaptureCommand,
    /// The server
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `trawl serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Its config
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Take the spool at spool.dir though the job store knows another one: its disk is gone for good. Captures that were not
    /// delivered end as failed
    #[arg(long)]
    pub new_spool: bool,
}

/// Which server, and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Base URL of the API
    #[arg(long, global = true, env = "TRAWL_URL", default_value = "http://127.0.0.1:8080/client/v4")]
    pub url: String,
    /// Account id
    #[arg(long, global = true, value_name = "ID", env = "TRAWL_ACCOUNT")]
    pub account: Option<String>,
    /// File with the API token, instead of TRAWL_TOKEN in the environment
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// E-mail address that goes with a key
    #[arg(long, global = true, value_name = "ADDRESS", env = "TRAWL_EMAIL")]
    pub email: Option<String>,
    /// File with the key, instead of TRAWL_KEY in the environment
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands of `trawl capture`.
#[derive(Debug, Subcommand)]
pub enum CaptureCommand {
    /// Start a capture
    Start(Box<StartArgs>),
    /// List the account's captures, newest first
    List(ListArgs),
    /// Show one capture, its counts and its objects
    Show(IdArgs),
    /// Follow a capture to its end; Ctrl-C detaches; the capture keeps running
    Watch(IdArgs),
    /// End a capture and keep what it has
    Stop(IdArgs),
    /// Drop what of a capture is on the host and not delivered: of one that waits for its upload, or failed
    Drop(IdArgs),
    /// Fetch the file of a simple capture
    Download(DownloadArgs),
    /// Fetch a capture that has ended as one file: its objects are read from their bucket, held against the manifest and its
    /// signature, and joined by time; a simple capture's file comes from the server
    Fetch(FetchArgs),
}

/// A capture's id.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The capture: 32 hexadecimal digits
    pub id: String,
}

/// `trawl capture download`
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// The capture: 32 hexadecimal digits
    pub id: String,
    /// The file to write, - for standard output; pcap_ID.pcap by default
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}

/// `trawl capture list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only captures in these states: pending, running, conversion_pending, conversion_running, success, failed
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub status: Vec<String>,
    /// Only captures of this type
    #[arg(long = "type", value_enum)]
    pub kind: Option<CaptureType>,
    /// Only captures that were submitted since then: a time (RFC 3339), or how long ago, such as 36h or 7d
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// At most so many; without it and other options the newest 50, with other options all
    #[arg(long, value_name = "COUNT", conflicts_with = "all",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: Option<usize>,
    /// All captures, page by page
    #[arg(long)]
    pub all: bool,
}

/// `trawl capture fetch`
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The capture: 32 hexadecimal digits
    pub id: String,
    /// The file to write, - for standard output (`| wireshark -k -i -`); pcap_ID.pcap by default
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
    /// File with the public key that the manifest must be signed by, as `trawl manifest-key` prints it
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// What to write; by OUT's name if it tells, otherwise pcap
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// What to compress it by; by OUT's name if it tells, otherwise none
    #[arg(long, value_enum, value_name = "METHOD")]
    pub compression: Option<CompressionArg>,
    /// Where the bucket is
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `trawl bucket`
#[derive(Debug, Args)]
pub struct BucketArgs {
    /// What to do
    #[command(subcommand)]
    pub command: BucketCommand,
    /// The server
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The commands of `trawl bucket`.
#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Name a bucket; the server writes a challenge into it
    Add(BucketAddArgs),
    /// Prove that a bucket is yours by what its challenge says
    Prove(BucketProveArgs),
    /// List the account's buckets
    List,
    /// Forget a bucket; the bucket itself stays as it is
    Remove(BucketRemoveArgs),
}

/// `trawl bucket add`
#[derive(Debug, Args)]
pub struct BucketAddArgs {
    /// The bucket: s3://BUCKET[/DIRECTORY]?region=REGION, gs://BUCKET[/DIRECTORY] or
    /// r2://BUCKET[/DIRECTORY]?account-id=ID
    #[arg(value_name = "URI")]
    pub destination_conf: String,
    /// File with the access key id and the secret access key of an r2:// bucket, one a line, instead of
    /// TRAWL_R2_ACCESS_KEY_ID and TRAWL_R2_SECRET_ACCESS_KEY in the environment
    #[arg(long, value_name = "FILE")]
    pub r2_key_file: Option<PathBuf>,
    /// Also read the challenge from the bucket, with the credentials of this host, and prove it
    #[arg(long)]
    pub prove: bool,
    /// Where the bucket is
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `trawl bucket prove`
#[derive(Debug, Args)]
pub struct BucketProveArgs {
    /// The bucket, as it was added
    #[arg(value_name = "URI")]
    pub destination_conf: String,
    /// File with what the challenge says, - for standard input; without it the challenge is read from the bucket
    #[arg(long, value_name = "FILE")]
    pub challenge_file: Option<PathBuf>,
    /// Where the bucket is
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `trawl bucket remove`
#[derive(Debug, Args)]
pub struct BucketRemoveArgs {
    /// The entry's id as `trawl bucket list` shows it
    pub id: String,
}

/// How this host itself reaches a bucket. Credentials come from the standard AWS chain; those of an R2 bucket from
/// TRAWL_R2_ACCESS_KEY_ID and TRAWL_R2_SECRET_ACCESS_KEY.
#[derive(Clone, Debug, Default, Args)]
pub struct StoreArgs {
    /// Address of a store that speaks S3, instead of AWS
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_S3")]
    pub endpoint: Option<String>,
}

/// `type` of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureType {
    /// Whole packets, into a bucket
    Full,
    /// The first 160 bytes of each packet, kept on the host
    Simple,
}

/// `trawl capture start`
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Follow the capture to its end; Ctrl-C asks the server to stop it, a second Ctrl-C detaches at once
    #[arg(long)]
    pub wait: bool,
    /// What is kept of the packets, and where
    #[arg(long = "type", value_enum, default_value = "full")]
    pub kind: CaptureType,
    /// Seconds after which the capture ends
    #[arg(long, value_name = "SECONDS")]
    pub time_limit: f64,
    /// Packets after which the capture ends; a simple one needs it
    #[arg(long, value_name = "PACKETS")]
    pub packet_limit: Option<u64>,
    /// Captured bytes after which the capture ends: a number, or such as 100MB
    #[arg(long, value_name = "BYTES")]
    pub byte_limit: Option<String>,
    /// Data centre, such as ord02, or ORD for every one that begins so; a full capture needs it
    #[arg(long, value_name = "COLO")]
    pub colo_name: Option<String>,
    /// Look back from this time (RFC 3339) into what the host keeps of the past, --time-limit seconds; simple captures only
    #[arg(long, value_name = "TIME")]
    pub offset_time: Option<jiff::Timestamp>,
    /// Where the objects go: s3://BUCKET[/DIRECTORY]?region=REGION, gs://BUCKET, r2://BUCKET?account-id=ID or file:///DIRECTORY;
    /// a full capture needs it
    #[arg(long, value_name = "URI")]
    pub destination_conf: Option<String>,
    /// What the objects are; without, what the host's configuration says
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// What they are compressed by; without, what the host's configuration says
    #[arg(long, value_enum, value_name = "METHOD")]
    pub compression: Option<CompressionArg>,
    /// The filter
    #[command(flatten)]
    pub filter: FilterV1Args,
}

/// A filter, as JSON or member by member; none takes every packet.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filter")]
pub struct FilterV1Args {
    /// The filter as the API takes it: {"protocol":6,"destination_port":443}
    #[arg(long, value_name = "JSON", conflicts_with_all = ["source_address", "destination_address", "source_port", "destination_port", "protocol"])]
    pub filter_v1: Option<String>,
    /// IPv4 or IPv6 address, also with a prefix length
    #[arg(long, value_name = "ADDRESS")]
    pub source_address: Option<String>,
    /// IPv4 or IPv6 address, also with a prefix length
    #[arg(long, value_name = "ADDRESS")]
    pub destination_address: Option<String>,
    /// TCP, UDP or SCTP port
    #[arg(long, value_name = "PORT")]
    pub source_port: Option<u16>,
    /// TCP, UDP or SCTP port
    #[arg(long, value_name = "PORT")]
    pub destination_port: Option<u16>,
    /// IP protocol number, or tcp, udp, icmp, icmpv6, sctp, gre, esp
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
}

/// `trawl filter`
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// What to do
    #[command(subcommand)]
    pub command: FilterCommand,
}

/// The commands of `trawl filter`.
#[derive(Debug, Subcommand)]
pub enum FilterCommand {
    /// Count the packets of a file that a filter takes, with the matcher that captures use
    Test(FilterTestArgs),
}

/// `trawl filter test`
#[derive(Debug, Args)]
pub struct FilterTestArgs {
    /// A pcap or pcapng file, also compressed by zstd; - is standard input
    pub file: PathBuf,
    /// Write the packets that the filter takes to this file; - is standard output
    #[arg(short, long, visible_short_alias = 'w', visible_alias = "write", value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// What is written
    #[command(flatten)]
    pub write: WriteArgs,
    /// The filter
    #[command(flatten)]
    pub filter: FilterV1Args,
}

/// How a file is written, and what is done about inputs that are damaged.
#[derive(Clone, Debug, Args)]
pub struct WriteArgs {
    /// What to write; by OUT's name if it tells, otherwise pcap
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// What to compress it by; by OUT's name if it tells, otherwise none
    #[arg(long, value_enum, value_name = "METHOD")]
    pub compression: Option<CompressionArg>,
    /// Level of zstd, 1 to 19
    #[arg(long, value_name = "LEVEL", default_value_t = ZSTD_LEVEL_DEFAULT, value_parser = clap::value_parser!(i32).range(1..=i64::from(ZSTD_LEVEL_MAX)))]
    pub level: i32,
    /// Skip an input that cannot be read, and the rest of a damaged one; the exit code is then 3
    #[arg(long)]
    pub keep_going: bool,
}

/// `trawl merge`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all packets are in OUT; 3 OUT is written, but an input was cut off, or \
    --keep-going left something out; 1 nothing was written; 2 wrong usage."
)]
pub struct MergeArgs {
    /// The file to write; - is standard output
    #[arg(short, long, visible_short_alias = 'w', value_name = "OUT", default_value = "-")]
    pub output: PathBuf,
    /// What is written
    #[command(flatten)]
    pub write: WriteArgs,
    /// Threads, where OUT is a plain pcap file and each IN a file as trawl writes them; otherwise there is one. By default the
    /// CPUs that trawl may use, at most 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Files or objects to join, pcap or pcapng, also compressed by zstd: paths, - for standard input, or such as
    /// s3://BUCKET/DIRECTORY/pcap_ID.pcap?region=REGION. The name of a manifest, pcap_ID.json, stands for its objects, of all hosts
    /// if hosts of a fleet wrote the capture
    #[arg(required = true, value_name = "IN")]
    pub inputs: Vec<OsString>,
    /// Where buckets are
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `--format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Classic pcap with nanosecond time stamps
    Pcap,
    /// Interfaces with names and counts, comments, several link types
    Pcapng,
}

/// `--compression`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// Not at all
    None,
    /// By zstd
    Zstd,
}

/// `trawl recover`
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// The spool's directory, as spool.dir names it, or all of them, as spool.dirs does; no process may use them
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// Where the files go: a directory, or such as s3://BUCKET/DIRECTORY?region=REGION. Where a capture's earlier objects
    /// are, it goes on with their numbers
    #[arg(long, value_name = "DIR|URI", default_value = "recovered")]
    pub out: OsString,
    /// Only say what is there
    #[arg(long)]
    pub dry_run: bool,
    /// Remove from the spool what was delivered; without this it stays as it is
    #[arg(long, conflicts_with = "dry_run")]
    pub remove: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the bucket is
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `trawl store`
#[derive(Debug, Args)]
pub struct StoreCommandArgs {
    /// What to do
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// The commands of `trawl store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Write a copy of the job store, as it is at one moment, to a new file; `trawl serve` may work or not. Run it as trawl's user or
    /// root
    Backup(BackupArgs),
}

/// `trawl store backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The new file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The config that names the store
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `trawl verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The manifest, a file or such as s3://BUCKET/DIRECTORY/pcap_ID.json?region=REGION; its objects stand beside it. Where hosts of
    /// a fleet wrote the capture, this name stands for the manifests of all of them, pcap_ID_COLO_HOST.json
    #[arg(required = true, value_name = "MANIFEST")]
    pub manifests: Vec<OsString>,
    /// File with the public key that the manifest must be signed by, as `trawl manifest-key` prints it
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// File with certificates in PEM, of which one must vouch for the authority that time-stamped the manifest
    #[arg(long, value_name = "FILE")]
    pub timestamp_ca: Option<PathBuf>,
    /// The account that the capture must be of
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// The host that must have captured it
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Where the bucket is
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `trawl manifest-key`
#[derive(Debug, Args)]
pub struct ManifestKeyArgs {
    /// The file for the secret key; made unless it is there, readable by its owner alone
    pub file: PathBuf,
}

/// `trawl completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `trawl man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory for the pages
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
