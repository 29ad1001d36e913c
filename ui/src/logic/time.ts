// Times and durations: reading what the API sends, counting down between two answers, and words for spans. Owns arithmetic and
// units; not the language of sentences.
//
// Invariant: time left is the host's number minus the time that passed since it came, and never below zero or above it.

/** Milliseconds since 1970 of an RFC 3339 text, of nanoseconds or of seconds since 1970; NaN of anything else. */
export function instant(value: unknown): number {
  if (typeof value === "string") return Date.parse(value);
  if (typeof value !== "number" || !Number.isFinite(value)) return Number.NaN;
  if (value > 1e17) return value / 1e6;
  if (value > 1e11) return value;
  return value * 1000;
}

/** Seconds left now, of `secondsLeft` that were left `elapsedMs` ago. A clock that went back changes nothing. */
export function timeLeft(secondsLeft: number, elapsedMs: number): number {
  return Math.max(0, secondsLeft - Math.max(0, elapsedMs) / 1000);
}

/** 3 725 s → "1 h 2 min". At most two units, whole numbers, the last one rounded down so that it never promises too much. */
export function span(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 1 && seconds > 0) return "< 1 s";
  const whole = Math.floor(seconds);
  const units: [number, string][] = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([size]) => whole >= size);
  if (first < 0) return "0 s";
  const [size, name] = units[first]!;
  const next = units[first + 1];
  const head = `${Math.floor(whole / size)} ${name}`;
  const rest = next ? Math.floor((whole % size) / next[0]) : 0;
  return next && rest > 0 ? `${head} ${rest} ${next[1]}` : head;
}

/** Seconds from the beginning to the end of a capture, where both are known. */
export function lasted(of: { started?: string; ended?: string }): number | undefined {
  const seconds = (instant(of.ended) - instant(of.started)) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

/** What something took: "76 ms", "3.2 s", then as `span`. */
export function took(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${Math.floor(seconds * 10) / 10} s` : span(seconds);
}

/** Share of a limit that is used, between 0 and 1. */
export function share(used: number, limit: number | null | undefined): number {
  if (!limit || limit <= 0) return 0;
  return Math.min(1, Math.max(0, used / limit));
}
