// What the estimate of the history says about a capture that is about to start. Owns the arithmetic from "in the last N seconds"
// to "in T seconds"; not the request.
//
// Invariant: an estimate always has its bounds, and is never more exact than the history it comes from.

export interface Estimate {
  from: string | number;
  to: string | number;
  packets: number;
  packets_low: number;
  packets_high: number;
  bytes: number;
  sample_one_in: number;
}

export interface Outlook {
  packets: number;
  low: number;
  high: number;
  bytes: number;
  /** Seconds after which the packet limit would end it, if it would end it before the time does. */
  packetLimitAfter?: number;
  byteLimitAfter?: number;
}

/** What a capture of `seconds` would get if traffic stayed as it was during `observed` seconds. */
export function outlook(
  estimate: Estimate,
  observed: number,
  seconds: number,
  packetLimit?: number,
  byteLimit?: number,
): Outlook {
  const factor = observed > 0 ? seconds / observed : 0;
  const after = (limit: number | undefined, amount: number) => {
    if (!limit || amount <= 0 || observed <= 0) return undefined;
    const needed = limit / (amount / observed);
    return needed < seconds ? needed : undefined;
  };
  return {
    packets: Math.round(estimate.packets * factor),
    low: Math.floor(estimate.packets_low * factor),
    high: Math.ceil(estimate.packets_high * factor),
    bytes: Math.round(estimate.bytes * factor),
    packetLimitAfter: after(packetLimit, estimate.packets),
    byteLimitAfter: after(byteLimit, estimate.bytes),
  };
}

/** Two significant digits more than the error has, so that "41 000 ± 400" is not "41 027 ± 400". */
export function rounded(value: number, error: number): number {
  if (!(error > 0)) return Math.round(value);
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(error)));
  return Math.round(value / unit) * unit;
}
