// What a status is called and how serious it is. Owns the mapping from the API's words to the pages' words; not their language.
//
// Invariant: a capture that lost packets is never shown as plain success.

import { type Ledger, missing } from "./ledger.ts";

export type ApiStatus =
  | "pending"
  | "running"
  | "conversion_pending"
  | "conversion_running"
  | "success"
  | "failed"
  | "complete"
  | "unknown";

export type Tone = "ok" | "warn" | "bad" | "busy" | "idle";

export interface Shown {
  /** Key of the word in the catalogue. */
  word: "complete" | "progress" | "failure";
  /** Key of the step, of one in progress. */
  step?: "waiting" | "capturing" | "writing" | "uploading";
  tone: Tone;
  /** Packets that are missing, where it is known. */
  lost: number;
}

const STEPS: Partial<Record<string, Shown["step"]>> = {
  pending: "waiting",
  running: "capturing",
  conversion_pending: "writing",
  conversion_running: "uploading",
};

export function shown(status: string, ledger?: Ledger): Shown {
  const lost = ledger ? missing(ledger) : 0;
  if (status === "success" || status === "complete") return { word: "complete", tone: lost > 0 ? "warn" : "ok", lost };
  if (status === "failed") return { word: "failure", tone: "bad", lost };
  return { word: "progress", step: STEPS[status], tone: lost > 0 ? "warn" : "busy", lost };
}

export function ended(status: string): boolean {
  return status === "success" || status === "failed" || status === "complete";
}

/** Whether it still takes packets, or is about to. */
export function stoppable(status: string): boolean {
  return status === "pending" || status === "running";
}

/** The words of the filter over the list, and the API's statuses that each stands for. */
export const STATUS_GROUPS: Record<string, ApiStatus[]> = {
  progress: ["pending", "running", "conversion_pending", "conversion_running"],
  complete: ["success"],
  failure: ["failed"],
};
