// When to read a stream and when to poll. Owns that decision alone: no timer, no request.
//
// Invariant: two failures in a row, or one refusal because there are too many streams, lead to polling; a stream is tried again
// after a minute, and a failed poll never stops the polling.

export type Mode = "stream" | "poll";

export interface State {
  mode: Mode;
  failures: number;
  /** Milliseconds on the monotonic clock at which a stream is tried again. */
  streamAgainAt: number;
}

export type Happening = { kind: "message" } | { kind: "failure"; refused: boolean; now: number } | { kind: "tick"; now: number };

export const FAILURES_MAX = 2;
export const STREAM_AGAIN_MS = 60_000;
export const POLL_MS = 2_000;

export const INITIAL: State = { mode: "stream", failures: 0, streamAgainAt: 0 };

export function next(state: State, happening: Happening): State {
  if (happening.kind === "message") return state.mode === "stream" && state.failures > 0 ? { ...state, failures: 0 } : state;
  if (happening.kind === "failure") {
    if (state.mode === "poll") return state;
    const failures = state.failures + 1;
    if (failures < FAILURES_MAX && !happening.refused) return { ...state, failures };
    return { mode: "poll", failures: 0, streamAgainAt: happening.now + STREAM_AGAIN_MS };
  }
  if (state.mode === "poll" && happening.now >= state.streamAgainAt) return { mode: "stream", failures: 0, streamAgainAt: 0 };
  return state;
}
