// Counts over time as a plot shows them: rates, where each step begins, and where the last one ends. Owns that arithmetic.
//
// Invariant: each count is divided by the time in which it was counted. The last step may be shorter than the others.

import type { Series } from "../types.ts";
import { WANTED } from "./ledger.ts";

type Values = (number | null)[];

export interface Rates {
  /** When each step begins, in seconds since 1970, and behind them when the last one ends. */
  times: number[];
  /** By second; the last value stands for the last step and for its end. */
  matched: Values;
  captured: Values;
  bytes: Values;
  dropped: Values;
  sums: { matched: number; captured: number; bytes: number; dropped: number };
}

const sum = (values: Values) => values.reduce<number>((total, value) => total + (value ?? 0), 0);

export function rates(series: Series): Rates {
  const [from, to, step] = [series.from_ns / 1e9, series.to_ns / 1e9, series.step_ns / 1e9];
  const count = series.matched.length;
  const times = series.matched.map((_, index) => from + index * step);
  const end = Math.max(to, from + (count - 1) * step);
  const dropped = series.matched.map((_, index) => Object.entries(series.dropped).reduce((total, [cause, values]) => (WANTED.includes(cause) ? total : total + (values[index] ?? 0)), 0));
  const perSecond = (values: Values) => {
    const found = values.map((value, index) => {
      const seconds = Math.min(step, Math.max(end - times[index]!, 1e-6));
      return value === null ? null : value / seconds;
    });
    // Too short for a rate of its own: a step that has only begun shows the one before.
    if (count > 1 && end - times[count - 1]! < step / 20) found[count - 1] = found[count - 2]!;
    return count === 0 ? found : [...found, found[count - 1]!];
  };
  return {
    times: count === 0 ? [] : [...times, end],
    matched: perSecond(series.matched),
    captured: perSecond(series.captured),
    bytes: perSecond(series.bytes),
    dropped: perSecond(dropped),
    sums: { matched: sum(series.matched), captured: sum(series.captured), bytes: sum(series.bytes), dropped: sum(dropped) },
  };
}
