// The captures of an account as they change. Owns the live answers by capture, and the counts of those that ended, which are asked
// for once; not the list's order or its pages.
//
// Invariant: what ended does not change any more, so it is asked for once. At most four such requests are on the way.

import { signal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { get, paths } from "../api.ts";
import type { Ledger } from "../logic/ledger.ts";
import { ended } from "../logic/states.ts";
import { lasted } from "../logic/time.ts";
import type { Live, LiveCapture, Progress } from "../types.ts";
import { t } from "../words/words.ts";
import { statusText } from "../parts/status.tsx";
import { live as announce } from "../parts/announce.tsx";
import { type Feed, follow } from "./live.ts";

export interface Counts {
  ledger: Ledger;
  objects: number;
  /** How long it took packets, in seconds; not known of one that has not ended. */
  seconds?: number;
}

export interface CapturesFeed {
  account: string;
  live: Signal<ReadonlyMap<string, LiveCapture>>;
  /** When `live` came, on the monotonic clock. */
  at: Signal<number>;
  counts: Signal<ReadonlyMap<string, Counts>>;
  /** When a capture was first seen here, on the monotonic clock; 0 of those in the first answer. */
  firstSeen: ReadonlyMap<string, number>;
  feed: Feed<Live>;
  want(id: string): void;
  close(): void;
}

const AT_ONCE_MAX = 4;

function merge(whole: Live, change: Live): Live {
  const captures = new Map([...whole.captures, ...change.captures].map((capture) => [capture.id, capture]));
  return { ...change, captures: [...captures.values()] };
}

function open(account: string): CapturesFeed {
  const routes = paths(account);
  const feed = follow<Live>({ topic: account, events: routes.events, poll: routes.live, revisions: true, merge });
  const live = signal<ReadonlyMap<string, LiveCapture>>(new Map());
  const at = signal(performance.now());
  const counts = signal<ReadonlyMap<string, Counts>>(new Map());
  const firstSeen = new Map<string, number>();
  const asked = new Set<string>();
  const queue: string[] = [];
  let running = 0;

  const work = () => {
    while (running < AT_ONCE_MAX && queue.length > 0) {
      const id = queue.shift()!;
      running += 1;
      get<Progress>(routes.progress(id, 0))
        .then(({ result }) => {
          counts.value = new Map(counts.value).set(id, { ledger: result.ledger, objects: result.delivered.objects, seconds: lasted(result) });
          if (!ended(result.status)) asked.delete(id);
        })
        .catch(() => asked.delete(id))
        .finally(() => {
          running -= 1;
          work();
        });
    }
  };
  const want = (id: string) => {
    if (asked.has(id)) return;
    asked.add(id);
    queue.push(id);
    work();
  };
  const unsubscribe = feed.last.subscribe((last) => {
    if (!last) return;
    const before = live.peek();
    const next = new Map(last.whole ? [] : before);
    for (const capture of last.body.captures) {
      const old = before.get(capture.id);
      if (old && old.status !== capture.status && ended(capture.status)) announce(t("announce.ended", { status: statusText(capture.status, capture.ledger) }));
      if (!firstSeen.has(capture.id)) firstSeen.set(capture.id, before.size === 0 ? 0 : performance.now());
      next.set(capture.id, capture);
    }
    live.value = next;
    at.value = performance.now();
  });
  return {
    account,
    live,
    at,
    counts,
    firstSeen,
    feed,
    want,
    close() {
      unsubscribe();
      feed.close();
    },
  };
}

let current: { feed: CapturesFeed; users: number } | undefined;

/** The account's feed, shared by all parts of this tab. */
export function capturesOf(account: string): CapturesFeed {
  if (current && current.feed.account !== account) {
    current.feed.close();
    current = undefined;
  }
  current ??= { feed: open(account), users: 0 };
  return current.feed;
}

export function useCaptures(account: string): CapturesFeed {
  const feed = capturesOf(account);
  useEffect(() => {
    const mine = current;
    if (mine) mine.users += 1;
    return () => {
      if (!mine) return;
      mine.users -= 1;
      // The next page of the same account comes at once and keeps the stream.
      setTimeout(() => {
        if (mine.users === 0 && current === mine) {
          mine.feed.close();
          current = undefined;
        }
      }, 1000);
    };
  }, [feed]);
  return feed;
}
