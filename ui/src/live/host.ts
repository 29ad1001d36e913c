// The host's state as it changes, and rates from the last two answers. Owns the operator's feed.

import { signal, type Signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { HOST } from "../api.ts";
import { rate } from "../logic/host.ts";
import type { HostState } from "../types.ts";
import { type Feed, follow } from "./live.ts";

type Body = HostState & { revision?: number };

export interface HostFeed {
  feed: Feed<Body>;
  state: Signal<HostState | undefined>;
  before: Signal<HostState | undefined>;
}

let shared: (HostFeed & { users: number; close: () => void }) | undefined;

function open(): HostFeed & { users: number; close: () => void } {
  const feed = follow<Body>({ topic: "\u0000host", events: HOST.events, poll: HOST.state, revisions: false, merge: (_whole, change) => change });
  const state = signal<HostState | undefined>(undefined);
  const before = signal<HostState | undefined>(undefined);
  const unsubscribe = feed.last.subscribe((last) => {
    if (!last?.body.ports) return;
    before.value = state.peek();
    state.value = last.body;
  });
  return { feed, state, before, users: 0, close: () => (unsubscribe(), feed.close()) };
}

export function useHost(): HostFeed {
  const [host] = useState(() => (shared ??= open()));
  useEffect(() => {
    host.users += 1;
    return () => {
      host.users -= 1;
      setTimeout(() => {
        if (host.users === 0 && shared === host) {
          host.close();
          shared = undefined;
        }
      }, 1000);
    };
  }, [host]);
  return host;
}

/** What a counter grows by per second, between the last two answers. */
export function rateOf(host: HostFeed, read: (state: HostState) => number | undefined): number | undefined {
  const after = host.state.value;
  const before = host.before.value;
  if (!after || !before) return undefined;
  const value = read(after);
  return value === undefined ? undefined : rate(read(before), value, (after.now_ns - before.now_ns) / 1e9);
}
