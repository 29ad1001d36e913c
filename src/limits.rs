//! Every bound of the program, with its reason. Owns no behaviour.
//!
//! Invariant: what one bound needs from another is asserted at compile time at the end of this file.

use std::time::Duration;

/// Frames that one receive call returns at most. 32 to 64 amortise the call and the counters' publication while a
/// burst's frame heads still fit the L1 cache; 64 also makes a burst one machine word of match bits.
pub const BURST: usize = 64;

/// Bursts that a worker counts before it publishes its counters, if its queue does not run empty before. Where 64 captures
/// share a burst, publishing after each one stores nine words for every frame; after 16 it is hidden, and readers are at most
/// 1024 frames behind, which is microseconds at any rate that fills bursts.
pub const PUBLISH_BURSTS: u32 = 16;

/// Frames that a worker receives from a queue at most before its first work, to throw them away: they came before anybody could
/// ask for them. More than any device holds; a queue that never runs empty is left after some ms.
pub const STALE_FRAMES_MAX: usize = 1 << 16;

/// Captures that can be attached at once: one bit of a machine word each.
pub const CAPTURES_MAX: usize = 64;

/// Unit of every direct write: the largest logical block size of the disks that we know.
pub const PAGE_BYTES: usize = 4096;

/// Size of a block. 1 MiB keeps the hand-over cost per byte negligible and is a whole number of disk stripes.
pub const BLOCK_BYTES: usize = 1 << 20;

/// Memory of the process beside DPDK's and the blocks: code, stacks, the job database's cache.
pub const OTHER_MEMORY_BYTES_MAX: u64 = 100 << 20;

/// The largest frame that a port can deliver: IPv4's and IPv6's 65535-byte payload with link headers (RFC 791, RFC 8200).
pub const FRAME_BYTES_MAX: usize = 65535 + 64;

/// Bytes of the classic pcap file header (draft-ietf-opsawg-pcap, section 4).
pub const PCAP_FILE_HEADER_BYTES: usize = 24;

/// Bytes of a classic pcap record header (draft-ietf-opsawg-pcap, section 5).
pub const PCAP_RECORD_HEADER_BYTES: usize = 16;

/// Bytes that a `simple` capture keeps of each packet (Cloudflare's PCAPs documentation).
pub const SIMPLE_SNAPLEN: u32 = 160;

/// The most that `capture.simple_packet_limit_max` may be: a look back holds its packets in memory.
pub const SIMPLE_PACKETS_MAX: u64 = 100_000;

/// Memory of a packet of a look back: its record while it is looked for, and again in the file that is made of them.
const LOOK_BACK_PACKET_BYTES: u64 = 2 * (PCAP_RECORD_HEADER_BYTES as u64 + SIMPLE_SNAPLEN as u64) + 64;

/// Look backs that read the disk at once.
pub const LOOK_BACKS_MAX: usize = 2;

/// Look backs of one account that are not ended. More could only wait behind each other and behind those of other accounts;
/// each is a job in memory and on disk that somebody waits for.
pub const LOOK_BACKS_PER_ACCOUNT_MAX: usize = 8;

/// When an account that has as many may ask for another one: most look backs take less.
pub const LOOK_BACK_RETRY_SECONDS: u64 = 10;

/// Snap length written into the pcap header of `full` captures; no frame is longer.
pub const FULL_SNAPLEN: u32 = 262_144;

/// Captures in one page of a list that was asked for by page.
pub const PAGE_CAPTURES_MAX: usize = 100;

/// Objects in one page of a progress that was asked for by page.
pub const PAGE_OBJECTS_MAX: usize = 1000;

/// Objects that stand in a capture's record. The record of one that has more has their sums, and they stand beside it: a list of captures
/// reads the records of all of them.
pub const RECORD_OBJECTS_MAX: usize = 1000;

/// Streams of live answers of all accounts: a person's browser has one, and each is a connection beside `api.connections_max`.
pub const STREAMS_MAX: usize = 64;

/// Connections that accounts never keep, so that operators get in. A browser opens six at a time, and works with fewer.
pub const CONNECTIONS_OF_OPERATORS: usize = 4;

/// Streams of one account, and of operators together, which come beside those of accounts.
pub const STREAMS_PER_ACCOUNT_MAX: usize = 4;

/// Reads of the store for askers at once. A page with a filter may look at thousands of records.
pub const READS_MAX: usize = 4;
/// Of one account: one slow page must not hold up what else its dashboard asks for.
pub const READS_PER_ACCOUNT_MAX: usize = 2;

/// Captures in one list answer (Cloudflare's PCAPs documentation).
pub const LIST_CAPTURES_MAX: usize = 50;

/// Buckets that an account can have: the list is one answer, and all of it is looked through for one destination.
pub const BUCKETS_PER_ACCOUNT_MAX: usize = 64;

/// How long an ownership challenge can be answered: a week, as for Cloudflare's Logpush.
pub const CHALLENGE_SECONDS_MAX: i64 = 7 * 86_400;

/// How long a bucket's challenge that was seen in it counts as seen. One small request in that time for each bucket in use is
/// nothing, and a bucket does not change hands within it unless its owner means to.
pub const CHALLENGE_LOOK_SECONDS: u64 = 10;

/// Challenges whose last look is remembered. One that is forgotten is looked at again.
pub const CHALLENGES_SEEN_MAX: usize = 1024;

/// Where objects are cut that are recovered of a capture without a record: the default of `spool.segment_bytes`.
pub const RECOVERED_OBJECT_BYTES: u64 = 256 << 20;

/// Smallest file that a segment may be rotated at; below it the file system's work outweighs the data's.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// What the spool allocates at a time for a segment: the quota is charged in this unit while the segment is open.
pub const EXTENT_BYTES: u64 = 4 << 20;

/// Chunks between merge and store that one delivery holds in memory: eight of about a MiB.
pub const DELIVERY_CHUNK_BYTES: u64 = 8 << 20;

/// Objects of one capture that are on their way at once, and so may be complete in their store beyond the journal. The next
/// process looks whether as many are there.
pub const OBJECTS_IN_FLIGHT_MAX: usize = 64;

/// Ownership challenges of one account in an hour: somebody who sets buckets up by hand makes a few, and each is an object in
/// a bucket that may be another's.
pub const CHALLENGES_PER_HOUR_MAX: usize = 30;

/// Parts of a multipart upload: S3 refuses smaller ones (except the last) and more than 10 000 of them.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// See [`PART_BYTES_MIN`].
pub const PARTS_MAX: u64 = 10_000;

/// Share of the spool's quota, in percent, at which the largest capture ends: what is left is for what is under way.
pub const SPOOL_END_PERCENT: u64 = 95;
/// Share of the spool's quota, in percent, to which tenants beyond their part may fill it. What is left is for those within
/// theirs, until the others have made room.
pub const SPOOL_COMMON_PERCENT: u64 = 97;
/// The pause between two times that somebody makes room while the spool is beyond that.
pub const SPOOL_RELIEF_PAUSE: Duration = Duration::from_millis(100);

/// How long a segment that cannot be published is tried again before its stream goes on without it: long enough for what
/// passes (a descriptor or page that is missing, a controller that resets), short enough to end in a shutdown's time.
pub const PUBLISH_RETRY: Duration = Duration::from_secs(10);
/// The pause after its first failure; each one after it is twice as long.
pub const PUBLISH_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest such pause.
pub const PUBLISH_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a writer keeps a piece for which it cannot open or allocate a segment. Its block is missing to the worker for as
/// long, so this is short.
pub const WRITE_RETRY: Duration = Duration::from_millis(500);
/// The same on a full disk or at the quota: room that an upload frees just now is worth waiting for, and the capture that
/// fills the disk is not to take the others' blocks.
pub const FULL_RETRY: Duration = Duration::from_millis(50);
/// The same for a tenant within its part of a full spool: others have to make room for it.
pub const OWED_RETRY: Duration = Duration::from_secs(5);
/// Times that a write which fails is made again at once.
pub const WRITE_TRIES: u32 = 3;

/// Directory below the spool that holds the history; not part of the spool's quota.
pub const HISTORY_DIR: &str = "history";
/// Directory below the spool that holds the files of simple captures.
pub const SIMPLE_DIR: &str = "simple";

/// How far a simple capture may look back (Cloudflare's OpenAPI: `offset_time` within the last 24 hours).
pub const HISTORY_HOURS_MAX: u64 = 24;

/// What one estimate reads of the history at most: two seconds of a slow disk. A minute of 1 in 10 000 packets at 100 Mpps has 120 MB.
pub const ESTIMATE_BYTES_MAX: u64 = 256 << 20;
/// The longest time that one estimate is of.
pub const ESTIMATE_SECONDS_MAX: u64 = 300;
/// Estimates that read the disk at once: look backs, for which a customer waits too, go on beside them.
pub const ESTIMATES_MAX: usize = 2;
/// Between two estimates of one account in the long run.
pub const ESTIMATE_INTERVAL: Duration = Duration::from_secs(2);
/// Estimates that an account may ask for at once, one after the other: somebody who tries filters out.
pub const ESTIMATES_PER_ACCOUNT_MAX: u32 = 5;

/// Level of zstd unless the config says otherwise: zstd's own choice.
pub const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// Levels of zstd: above 19 a compressor takes hundreds of MiB and one percent is gained.
pub const ZSTD_LEVEL_MAX: i32 = 19;

/// RX queues of one port.
pub const QUEUES_MAX: u16 = 64;

/// Workers: a capture's budget tells apart what so many of them have reserved, and DPDK knows 128 threads unless it is built
/// for more.
pub const WORKERS_MAX: usize = 256;

const _: () = assert!(CAPTURES_MAX <= u64::BITS as usize && BURST <= u64::BITS as usize);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(PAGE_BYTES));
const _: () =
    assert!(BLOCK_BYTES >= PAGE_BYTES + PCAP_FILE_HEADER_BYTES + PCAP_RECORD_HEADER_BYTES + FRAME_BYTES_MAX);
const _: () =
    assert!(SEGMENT_BYTES_MIN >= 2 * BLOCK_BYTES as u64 && SEGMENT_BYTES_MIN.is_multiple_of(EXTENT_BYTES));
const _: () =
    assert!(LOOK_BACKS_MAX as u64 * SIMPLE_PACKETS_MAX * LOOK_BACK_PACKET_BYTES < OTHER_MEMORY_BYTES_MAX);
const _: () = assert!(LOOK_BACKS_PER_ACCOUNT_MAX > LOOK_BACKS_MAX);
const _: () = assert!(FULL_SNAPLEN as usize >= FRAME_BYTES_MAX);

/// A port whose link is up is told of when no frame has come for so long: a mirror that carries anything is never so quiet, since
/// switches send their own protocols every half minute or so.
pub const PORT_QUIET: Duration = Duration::from_secs(60);

/// Counters of a port's driver that metrics show: with 64 queues the drivers that count most of all have about 800.
pub const PORT_XSTATS_MAX: usize = 1024;

/// Files of the audit log: smaller ones would be many.
pub const AUDIT_FILE_BYTES_MIN: u64 = 1 << 20;

/// The newest file of the audit log is checked at the start, at some 300 MB/s.
pub const AUDIT_FILE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a socket's path: `sun_path` of unix(7) has 108, one of them for the zero behind it.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
