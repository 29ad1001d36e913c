// The counts of a capture: their sums, what was lost and where. Owns the arithmetic; not how it looks.
//
// Invariant: a sum is never taken from a share or a rounded number. What does not add up is said, never hidden.

export interface Ledger {
  offered: number;
  rx: number;
  unmatched: number;
  matched: number;
  captured: number;
  captured_bytes: number;
  port?: Partial<Record<PortCause | "unclear", number>> & { uncounted?: boolean; gaps?: number; gap_ms?: number };
  dropped?: Partial<Record<DropCause, number>>;
  complete?: boolean;
}

export const PORT_CAUSES = ["imissed", "rx_nombuf", "ierrors", "discarded"] as const;
export type PortCause = (typeof PORT_CAUSES)[number];

export const DROP_CAUSES = ["no_block", "spool", "io", "interrupted", "share", "sampled", "limit"] as const;
export type DropCause = (typeof DROP_CAUSES)[number];

/** Packets that the capture asked not to have: they are missing from the file and nothing went wrong. */
export const WANTED: readonly string[] = ["sampled", "limit"];

export type Cause = PortCause | DropCause;

const count = (value: number | undefined): number => value ?? 0;

export function portLost(ledger: Ledger): number {
  return PORT_CAUSES.reduce((sum, cause) => sum + count(ledger.port?.[cause]), 0);
}

export function dropped(ledger: Ledger): number {
  return DROP_CAUSES.reduce((sum, cause) => sum + count(ledger.dropped?.[cause]), 0);
}

/**
 * Matching packets that should be in the files and are not. What the ports lost belongs to nobody in particular, so it is told
 * apart: it may or may not have matched.
 */
export function lost(ledger: Ledger): number {
  return DROP_CAUSES.filter((cause) => !WANTED.includes(cause)).reduce(
    (sum, cause) => sum + count(ledger.dropped?.[cause]),
    0,
  );
}

/** Everything that may be missing: lost here, and lost in the ports while the capture was attached. */
export function missing(ledger: Ledger): number {
  return lost(ledger) + portLost(ledger);
}

/** The causes that are not zero, largest first. */
export function causes(ledger: Ledger): { cause: Cause; packets: number; wanted: boolean }[] {
  const all = [
    ...PORT_CAUSES.map((cause) => ({ cause: cause as Cause, packets: count(ledger.port?.[cause]), wanted: false })),
    ...DROP_CAUSES.map((cause) => ({
      cause: cause as Cause,
      packets: count(ledger.dropped?.[cause]),
      wanted: WANTED.includes(cause),
    })),
  ];
  return all.filter(({ packets }) => packets > 0).sort((a, b) => b.packets - a.packets);
}

export interface Equation {
  whole: { name: string; packets: number };
  parts: { name: string; packets: number }[];
  holds: boolean;
}

/** The three sums of docs/OPERATIONS.md, with every part that is not zero and those that always stand there. */
export function equations(ledger: Ledger): Equation[] {
  const some = (prefix: string, of: Partial<Record<string, number>> | undefined, names: readonly string[]) =>
    names.map((name) => ({ name: `${prefix}.${name}`, packets: count(of?.[name]) })).filter((part) => part.packets > 0);
  const equation = (name: string, whole: number, parts: Equation["parts"]): Equation => ({
    whole: { name, packets: whole },
    parts,
    holds: parts.reduce((sum, part) => sum + part.packets, 0) === whole,
  });
  const ports = ledger.port as Partial<Record<string, number>> | undefined;
  return [
    equation("offered", ledger.offered, [{ name: "rx", packets: ledger.rx }, ...some("port", ports, PORT_CAUSES)]),
    equation("rx", ledger.rx, [
      { name: "matched", packets: ledger.matched },
      { name: "unmatched", packets: ledger.unmatched },
    ]),
    equation("matched", ledger.matched, [
      { name: "captured", packets: ledger.captured },
      ...some("dropped", ledger.dropped, DROP_CAUSES),
    ]),
  ];
}

export interface Step {
  name: string;
  /** Where the bar begins and ends, as shares of all that was offered. */
  from: number;
  to: number;
  packets: number;
  kind: "total" | "lost" | "apart";
}

/**
 * The way from what was offered to what was captured, one bar a step. With far more unmatched packets than matched ones the
 * second half would be invisible, so what comes after `matched` has a scale of its own.
 */
export function waterfall(ledger: Ledger): { upper: Step[]; lower: Step[] } {
  const build = (start: string, whole: number, steps: [string, number, Step["kind"]][], end: string): Step[] => {
    const scale = whole > 0 ? whole : 1;
    const out: Step[] = [{ name: start, from: 0, to: whole > 0 ? 1 : 0, packets: whole, kind: "total" }];
    let left = whole;
    for (const [name, packets, kind] of steps) {
      if (packets === 0) continue;
      out.push({ name, from: (left - packets) / scale, to: left / scale, packets, kind });
      left -= packets;
    }
    out.push({ name: end, from: 0, to: left / scale, packets: left, kind: "total" });
    return out;
  };
  const ports: [string, number, Step["kind"]][] = PORT_CAUSES.map((cause) => [
    `port.${cause}`,
    count(ledger.port?.[cause]),
    "lost",
  ]);
  const drops: [string, number, Step["kind"]][] = DROP_CAUSES.map((cause) => [
    `dropped.${cause}`,
    count(ledger.dropped?.[cause]),
    WANTED.includes(cause) ? "apart" : "lost",
  ]);
  return {
    upper: build("offered", ledger.offered, [...ports, ["unmatched", ledger.unmatched, "apart"]], "matched"),
    lower: build("matched", ledger.matched, drops, "captured"),
  };
}
