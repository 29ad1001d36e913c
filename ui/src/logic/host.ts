// What the host's counters mean: rates between two answers, losses and since when, forecasts. Owns that arithmetic.
//
// Invariant: a counter that went back was reset, and gives no rate rather than a spike.

import { missing } from "./ledger.ts";
import type { HostState } from "../types.ts";

/** What a counter grew by per second, or nothing where it was reset or no time passed. */
export function rate(before: number | undefined, after: number, seconds: number): number | undefined {
  if (before === undefined || seconds <= 0 || after < before) return undefined;
  return (after - before) / seconds;
}

export interface Loss {
  where: "port" | "capture";
  name: string;
  cause: string;
  packets: number;
  account?: string;
}

const DROPS = ["no_block", "spool", "io", "interrupted"];

/** Whether a series counts lost packets, of a port or of a capture. */
export function isLoss(name: string): boolean {
  return /^ports\..*\.(imissed|ierrors|rx_nombuf|discarded)$/.test(name) || lossOfCapture(name) !== undefined;
}

function lossOfCapture(name: string): { id: string; cause: string } | undefined {
  const [group, id, cause] = name.split(".");
  return group === "captures" && id && cause && DROPS.includes(cause) ? { id, cause } : undefined;
}

/**
 * Every loss that the host knows of, largest first: in ports since the start, in captures that are at work, and in those that
 * ended lately: by their ledgers, or where the host no longer has one by `series`.
 */
export function losses(state: HostState, series: ReadonlyMap<string, (number | null)[]> = new Map()): Loss[] {
  const list: Loss[] = [];
  for (const port of state.ports)
    for (const cause of ["imissed", "rx_nombuf", "ierrors", "discarded"] as const) {
      const packets = port[cause] ?? 0;
      if (packets > 0) list.push({ where: "port", name: port.device, cause, packets });
    }
  const counted = new Set<string>();
  for (const { id, account, ledger } of [...state.captures, ...(state.ended ?? [])]) {
    if (counted.has(id)) continue;
    counted.add(id);
    for (const cause of DROPS) {
      const packets = (ledger.dropped as Record<string, number> | undefined)?.[cause] ?? 0;
      if (packets > 0) list.push({ where: "capture", name: id, cause, packets, account });
    }
  }
  for (const [name, values] of series) {
    const of = lossOfCapture(name);
    const packets = values.reduce<number>((sum, value) => sum + Math.max(0, value ?? 0), 0);
    if (of && packets > 0 && !counted.has(of.id)) list.push({ where: "capture", name: of.id, cause: of.cause, packets });
  }
  return list.sort((a, b) => b.packets - a.packets);
}

/** Seconds until `free` bytes are used up at this rate; nothing where it does not grow. */
export function fullIn(free: number, bytesPerSecond: number | undefined): number | undefined {
  if (!bytesPerSecond || bytesPerSecond <= 0) return undefined;
  return free / bytesPerSecond;
}

/** The lowest of a number, or of the numbers for spans of time. */
export function least(value: number | Record<string, number> | null | undefined): number | undefined {
  if (typeof value === "number") return value;
  const all = Object.values(value ?? {}).filter((item) => typeof item === "number");
  return all.length > 0 ? Math.min(...all) : undefined;
}

export function greatest(value: number | Record<string, number> | null | undefined): number | undefined {
  if (typeof value === "number") return value;
  const all = Object.values(value ?? {}).filter((item) => typeof item === "number");
  return all.length > 0 ? Math.max(...all) : undefined;
}

/** Seconds since the last step in which a series of losses grew; nothing if it never did. */
export function lastLoss(values: (number | null)[], stepSeconds: number): number | undefined {
  for (let index = values.length - 1; index >= 0; index -= 1) if ((values[index] ?? 0) > 0) return (values.length - 1 - index) * stepSeconds;
  return undefined;
}

/** Captures by what they miss, then by what waits for its upload. */
export function byTrouble(captures: HostState["captures"]): HostState["captures"] {
  return [...captures].sort((a, b) => missing(b.ledger) - missing(a.ledger) || b.waiting_bytes - a.waiting_bytes);
}
