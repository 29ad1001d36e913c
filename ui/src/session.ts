// Who is logged in. Owns the session that the host told of, its end, and the login and logout requests; not the cookie, which no
// script can read.
//
// Invariant: a credential lives in the form's fields and in one request. When a session ends, in whatever tab, every tab knows.

import { signal } from "@preact/signals";
import { call, onAnswer, SESSION } from "./api.ts";
import { instant } from "./logic/time.ts";
import type { Session } from "./types.ts";

export type Credential =
  | { account: string; token: string }
  | { account: string; email: string; key: string }
  | { operator_token: string };

export const session = signal<Session | undefined>(undefined);
/** The session ended while a page was open: the page stays, a dialog asks to log in again. */
export const over = signal(false);
/** While somebody works, the host is told so this often at most: it counts no request that a timer could send. */
const TOLD_MS = 60_000;
/** Milliseconds on the monotonic clock at which the session was last used. */
const used = signal(performance.now());

const channel = new BroadcastChannel("trawl-session");
channel.onmessage = (event: MessageEvent<string>) => {
  if (event.data === "logout") ended();
  if (event.data === "login") void load();
  if (event.data === "used") used.value = performance.now();
};

onAnswer((event) => {
  if (event === "active") {
    used.value = performance.now();
    channel.postMessage("used");
  } else if (session.value) over.value = true;
});

for (const touch of ["pointerdown", "keydown", "wheel"]) addEventListener(touch, works, { capture: true, passive: true });

/** Somebody works with the page. */
function works(): void {
  if (!session.value || over.value || performance.now() - used.value < TOLD_MS) return;
  used.value = performance.now();
  call<Session>(SESSION).then((answer) => answer && accept(answer.result), () => undefined);
}

function ended(): void {
  if (session.value) over.value = true;
}

function accept(next: Session): void {
  session.value = next;
  over.value = false;
  used.value = performance.now();
}

/** Asks the host who is logged in. */
export async function load(): Promise<Session | undefined> {
  try {
    const answer = await call<Session>(SESSION, { login: true });
    if (answer) accept(answer.result);
  } catch (error) {
    if (!(error instanceof Error && "status" in error && error.status === 401)) throw error;
    session.value = undefined;
  }
  return session.value;
}

export async function login(credential: Credential): Promise<Session> {
  const answer = await call<Session>(SESSION, { method: "POST", body: credential, login: true });
  if (!answer) throw new Error("login answered without a body");
  accept(answer.result);
  channel.postMessage("login");
  return answer.result;
}

export async function logout(): Promise<void> {
  await call(SESSION, { method: "DELETE", login: true }).catch(() => undefined);
  channel.postMessage("logout");
  session.value = undefined;
  over.value = false;
}

export function roleIn(account: string): string | undefined {
  return session.value?.accounts.find(({ id }) => id === account)?.role;
}

export const mayWrite = (account: string) => roleIn(account) === "write";

/** Seconds until the session ends: by idleness, which using it prolongs, and at all. */
export function remaining(now = performance.now(), wall = Date.now()): { idle: number; absolute: number } {
  const current = session.value;
  if (!current) return { idle: 0, absolute: 0 };
  const end = instant(current.expires);
  return {
    idle: current.idle_seconds - (now - used.value) / 1000,
    absolute: Number.isFinite(end) ? (end - wall) / 1000 : Number.POSITIVE_INFINITY,
  };
}
