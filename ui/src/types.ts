// The shapes of the API's answers, as docs/API.md and /openapi.json have them. Owns no behaviour.

import type { Filter } from "./logic/filter.ts";
import type { Ledger } from "./logic/ledger.ts";

export interface Session {
  accounts: { id: string; role: string }[];
  operator: boolean;
  expires: string | number;
  idle_seconds: number;
}

export interface Capture {
  id: string;
  type: "simple" | "full";
  status: string;
  submitted: string;
  time_limit: number;
  filter_v1: Filter;
  system: string;
  offset_time?: string;
  packets_remaining?: number;
  colo_name?: string;
  destination_conf?: string;
  packet_limit?: number;
  byte_limit?: number;
  error_message?: string;
  packets_captured?: number;
  stop_requested?: string;
}

export interface CaptureObject {
  name: string;
  bytes: number;
  packets: number;
  first_ns: number;
  last_ns: number;
  sha256: string;
}

export interface Progress {
  id: string;
  status: string;
  stop_reason?: string | null;
  ledger: Ledger;
  seconds_left: number;
  packet_limit?: number | null;
  byte_limit?: number | null;
  /** When it began to take packets and when it took no more; of a look back its window. */
  started?: string;
  ended?: string;
  /** Those of the page that was asked for. */
  objects: CaptureObject[];
  delivered: { objects: number; bytes: number; packets: number };
  warnings?: string[];
  sample_one_in?: number;
  clock_steps?: { count: number; moved_ns: number };
  spool?: { held_bytes: number; account_held_bytes: number; account_bytes_max: number };
}

/** One capture in a live answer. */
export interface LiveCapture {
  id: string;
  status: string;
  ledger: Ledger;
  seconds_left: number;
  objects: number;
  object_bytes: number;
  upload_waiting_bytes: number;
  warnings?: string[] | number;
}

export interface Live {
  revision: number;
  now_ns: number;
  captures: LiveCapture[];
}

export interface Capabilities {
  host: string;
  colo: string;
  version: string;
  role: string;
  simple: {
    time_limit_max: number;
    packet_limit_max: number;
    interval_seconds: number;
    seconds_until_next: number;
    sample_one_in: number;
    retention_seconds: number;
  };
  full: { time_limit_max: number; packet_limit_max?: number | null; byte_limit_max?: number | null; per_account: number; active: number };
  history?: { from: string | number; to: string | number; sample_one_in: number; active: number; active_max: number } | null;
  destinations: string[];
  require_validation: boolean;
  formats: string[];
  compressions: string[];
  prefixes: string[];
  view: { objects: boolean; deep: boolean };
  accepting: boolean;
}

export interface Series {
  from_ns: number;
  /** When the last step ended, which may be before its length had passed. */
  to_ns: number;
  step_ns: number;
  matched: (number | null)[];
  captured: (number | null)[];
  bytes: (number | null)[];
  dropped: Record<string, (number | null)[]>;
}

export interface SignedManifest {
  /** Its bytes, which the signature is over. */
  text: string;
  /** In base64; none where the host does not sign. */
  signature: string | null;
}

export interface Bucket {
  id: string;
  status: "pending" | "success" | "failed";
  submitted: string;
  validated: string;
  destination_conf: string;
  filename: string;
  expected_bucket_owner?: string;
}

export interface Report {
  ok: boolean;
  checks: { name: string; ok: boolean; reason?: string }[];
}

export interface HostState {
  now_ns: number;
  started_ns: number;
  version: string;
  dpdk: string;
  health: Report;
  ready: Report;
  ports: { device: string; link_up: boolean; link_mbps?: number | null; rx: number; rx_bytes: number; imissed: number; ierrors: number; rx_nombuf: number; discarded?: number; is_there?: boolean; quiet_seconds?: number; gaps?: number }[];
  queues: { port: string; queue: number; worker: number | string; rx: number; rx_bytes: number; matched: number; unmatched: number }[];
  stages: {
    name: string;
    stalled?: string | boolean | null;
    turns: number;
    queued: number;
    queued_max?: number | Record<string, number>;
    blocks: number;
    blocks_free: number;
    blocks_free_min?: number | Record<string, number>;
    in_flight: number;
    writes: number;
    written_bytes: number;
  }[];
  spool: { used: number; held: number; max: number; alarm: boolean; alarms: number; high_water_percent: number; disk_free: number };
  upload: {
    objects: number;
    bytes: number;
    retries: number;
    failures: number;
    waiting_bytes: number;
    oldest_seconds?: number | null;
    last_error?: string | null;
    next_try_seconds?: number | null;
  };
  captures: { id: string; account: string; kind: string; status: string; ledger: Ledger; waiting_bytes: number }[];
  /** Captures that ended in the last 15 minutes, with their final counts. */
  ended?: { id: string; account: string; ended_ns: number; ledger: Ledger }[];
  api: { connections: number; connections_max: number; streams: number };
}

export interface LogLine {
  seq?: number;
  id?: number;
  at?: string | number;
  at_ns?: number;
  kind?: string;
  level?: string;
  message?: string;
  account?: string;
  [other: string]: unknown;
}
