// Live answers for the pages: one stream a browser and topic, read by the leading tab and passed on to the others; polling by
// revision where a stream cannot be had. Owns the connection and how old the last answer is; not what it means.
//
// Invariant: however many pages and tabs look, the host sees one reader of a topic. A revision that is older than the last one
// changes nothing. A tab that cannot be seen asks for nothing.

import { signal, type Signal } from "@preact/signals";
import { ApiError, call } from "../api.ts";
import { type Locks, stand } from "./leader.ts";
import { INITIAL, next, POLL_MS, type State } from "./policy.ts";

export type Connection = "connecting" | "stream" | "poll" | "away";

export interface Feed<T> {
  /** The last answer, whole or of changes alone, and whether it is whole. */
  last: Signal<{ body: T; whole: boolean } | undefined>;
  connection: Signal<Connection>;
  /** Milliseconds on the monotonic clock at which the connection was last known to be good. */
  goodAt: Signal<number>;
  close(): void;
}

interface Passed {
  kind: "event" | "connection" | "hello";
  body?: unknown;
  whole?: boolean;
  connection?: Connection;
}

interface Source {
  topic: string;
  events: string;
  poll: string;
  /** Whether answers have a revision that a poll can ask from. */
  revisions: boolean;
}

/** No request: without locks (an old browser, plain HTTP on a network) every tab leads itself. */
const alone: Locks = { request: (_name, _options, held) => held() };

export function follow<T extends { revision?: number }>(source: Source & { merge: (whole: T, change: T) => T }): Feed<T> {
  const last = signal<{ body: T; whole: boolean } | undefined>(undefined);
  const connection = signal<Connection>("connecting");
  const goodAt = signal(performance.now());
  const locks = (navigator.locks as unknown as Locks | undefined) ?? alone;
  const channel = locks === alone ? undefined : new BroadcastChannel(`trawl-live:${source.topic}`);
  let revision = -1;
  let whole: T | undefined;

  const set = (value: Connection) => {
    connection.value = value;
    if (value === "stream" || value === "poll") goodAt.value = performance.now();
  };
  const take = (body: T, isWhole: boolean) => {
    const given = body.revision ?? revision + 1;
    // A host that started again counts from the beginning: a whole answer is always believed.
    if (!isWhole && given < revision) return;
    revision = given;
    whole = isWhole || !whole ? body : source.merge(whole, body);
    goodAt.value = performance.now();
    last.value = { body, whole: isWhole };
  };
  if (channel)
    channel.onmessage = ({ data }: MessageEvent<Passed>) => {
      if (data.kind === "hello") {
        if (leading && whole) channel.postMessage({ kind: "event", body: whole, whole: true } satisfies Passed);
        if (leading) channel.postMessage({ kind: "connection", connection: connection.value } satisfies Passed);
      } else if (!leading && data.kind === "connection") set(data.connection ?? "connecting");
      else if (!leading && data.kind === "event") take(data.body as T, data.whole ?? false);
    };
  let leading = false;
  const tell = (value: Connection) => {
    set(value);
    channel?.postMessage({ kind: "connection", connection: value } satisfies Passed);
  };
  const pass = (body: T, isWhole: boolean) => {
    take(body, isWhole);
    channel?.postMessage({ kind: "event", body, whole: isWhole } satisfies Passed);
  };
  const lead = (until: AbortSignal) => {
    leading = true;
    until.addEventListener("abort", () => {
      leading = false;
    });
    void read(source, until, () => revision, pass, tell);
  };

  let stop: (() => void) | undefined;
  const look = () => {
    if (document.visibilityState === "hidden") {
      stop?.();
      stop = undefined;
    } else if (!stop) {
      stop = stand(source.topic, locks, lead);
      channel?.postMessage({ kind: "hello" } satisfies Passed);
    }
  };
  document.addEventListener("visibilitychange", look);
  look();
  return {
    last,
    connection,
    goodAt,
    close() {
      document.removeEventListener("visibilitychange", look);
      stop?.();
      channel?.close();
    },
  };
}

type Pass<T> = (body: T, whole: boolean) => void;

/** The leader's work until it leads no more. */
async function read<T extends { revision?: number }>(
  source: Source,
  until: AbortSignal,
  revision: () => number,
  pass: Pass<T>,
  tell: (connection: Connection) => void,
): Promise<void> {
  let state: State = INITIAL;
  while (!until.aborted) {
    if (state.mode === "stream") {
      const how = await stream<T>(source.events, until, pass, tell);
      if (until.aborted) return;
      if (how === "resync") {
        await poll<T>(source, -1, until, pass, tell);
        continue;
      }
      if (how.opened) state = next(state, { kind: "message" });
      state = next(state, { kind: "failure", refused: how.refused, now: performance.now() });
      tell("away");
      await pause(how.opened ? 500 : 1500, until);
    } else {
      await poll<T>(source, revision(), until, pass, tell);
      await pause(POLL_MS, until);
      state = next(state, { kind: "tick", now: performance.now() });
    }
  }
}

function pause(ms: number, until: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    until.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    });
  });
}

/** Reads one stream to its end. */
function stream<T>(
  url: string,
  until: AbortSignal,
  pass: Pass<T>,
  tell: (connection: Connection) => void,
): Promise<"resync" | { opened: boolean; refused: boolean }> {
  return new Promise((done) => {
    const events = new EventSource(url);
    let opened = false;
    const end = (how: "resync" | { opened: boolean; refused: boolean }) => {
      events.close();
      done(how);
    };
    until.addEventListener("abort", () => end({ opened, refused: false }));
    events.onopen = () => {
      opened = true;
      tell("stream");
    };
    const on = (name: string, isWhole: boolean) =>
      events.addEventListener(name, (event: MessageEvent<string>) => {
        try {
          pass(JSON.parse(event.data) as T, isWhole);
        } catch {
          end("resync");
        }
      });
    on("snapshot", true);
    on("change", false);
    // After it a snapshot follows; where none comes, all is asked for.
    let resync: ReturnType<typeof setTimeout> | undefined;
    events.addEventListener("snapshot", () => clearTimeout(resync));
    events.addEventListener("resync", () => {
      resync = setTimeout(() => end("resync"), 3000);
    });
    // CLOSED without ever having been open is a refusal (429 and the like): the browser would not try again by itself.
    events.onerror = () => end({ opened, refused: !opened && events.readyState === EventSource.CLOSED });
  });
}

async function poll<T extends { revision?: number }>(
  source: Source,
  since: number,
  until: AbortSignal,
  pass: Pass<T>,
  tell: (connection: Connection) => void,
): Promise<void> {
  try {
    const query = source.revisions && since >= 0 ? `?since=${since}` : "";
    const answer = await call<T>(`${source.poll}${query}`, { signal: until });
    tell("poll");
    if (answer) pass(answer.result, true);
  } catch (error) {
    if (until.aborted) return;
    if (error instanceof ApiError && !error.offline && error.status !== 401 && error.status < 500) tell("poll");
    else tell("away");
  }
}
