// What a screen reader is told without being asked. Owns the live region and its pace.
//
// Invariant: it says changes alone, at most one in five seconds; of several that wait only the last is said.

import { signal } from "@preact/signals";

const PACE_MS = 5_000;
const said = signal("");
let saidAt = -PACE_MS;
let waiting: string | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;

export function live(text: string): void {
  waiting = text;
  if (timer !== undefined) return;
  const wait = Math.max(0, saidAt + PACE_MS - performance.now());
  timer = setTimeout(() => {
    timer = undefined;
    saidAt = performance.now();
    said.value = waiting ?? "";
  }, wait);
}

export function LiveRegion() {
  return (
    <div class="visually-hidden" aria-live="polite" role="status">
      {said.value}
    </div>
  );
}
