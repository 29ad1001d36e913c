// Which page is shown. Owns the address bar: reading it, changing it, and the paths of pages.
//
// Invariant: a page's state that a colleague should see is in its address; a `next` leads only to a page of this dashboard.

import { signal } from "@preact/signals";
import { isId } from "./api.ts";
import { recall, recallTab, remember, rememberTab } from "./words/words.ts";

export interface Place {
  path: string;
  query: URLSearchParams;
}

const here = (): Place => ({ path: location.pathname, query: new URLSearchParams(location.search) });

export const place = signal<Place>(here());
addEventListener("popstate", () => {
  place.value = here();
});

export function go(path: string, replace = false): void {
  if (replace) history.replaceState(null, "", path);
  else history.pushState(null, "", path);
  place.value = here();
  if (!replace) scrollTo(0, 0);
}

/** Changes the query alone, without a step in the history. */
export function setQuery(values: Record<string, string | undefined>): void {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined || value === "") query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  go(text === "" ? location.pathname : `${location.pathname}?${text}`, true);
}

/** The account that this tab showed last, or the browser: pages without one of their own belong to it. */
export const lastAccount = signal(recallTab("trawl.account") ?? recall("trawl.account") ?? undefined);

export function choose(account: string): void {
  if (lastAccount.value === account) return;
  lastAccount.value = account;
  rememberTab("trawl.account", account);
  remember("trawl.account", account);
}

const a = (account: string) => `/ui/a/${encodeURIComponent(account)}`;
export const pages = {
  login: (next?: string) => (next ? `/ui/login?next=${encodeURIComponent(next)}` : "/ui/login"),
  captures: (account: string) => `${a(account)}/captures`,
  start: (account: string, from?: string) => `${a(account)}/captures/new${from && isId(from) ? `?from=${from}` : ""}`,
  capture: (account: string, id: string) => `${a(account)}/captures/${isId(id) ? id : ""}`,
  buckets: (account: string) => `${a(account)}/buckets`,
  host: "/ui/host",
  hostCaptures: "/ui/host/captures",
  /** The captures of all accounts, only those with this in their id or account. */
  hostCapturesOf: (text: string) => `/ui/host/captures?q=${encodeURIComponent(text)}`,
  hostLog: "/ui/host/log",
  help: "/ui/help",
};

/** Where to go after the login: a page of this dashboard, or nowhere. */
export function safeNext(next: string | null): string | undefined {
  if (!next || !/^\/ui\/(a|host|help)(\/|$|\?)/.test(next)) return undefined;
  const url = new URL(next, location.origin);
  return url.origin === location.origin && url.pathname.startsWith("/ui/") ? url.pathname + url.search : undefined;
}

export type Route =
  | { name: "root" | "login" | "host" | "hostCaptures" | "hostLog" | "help" | "nowhere" }
  | { name: "captures" | "start" | "buckets"; account: string }
  | { name: "capture"; account: string; id: string };

export function route(path: string): Route {
  const parts = path.replace(/\/+$/, "").split("/").slice(2);
  const [head, second, third, fourth, ...more] = parts;
  if (head === undefined) return { name: "root" };
  if (more.length > 0) return { name: "nowhere" };
  if (parts.length === 1 && head === "login") return { name: "login" };
  if (parts.length === 1 && head === "help") return { name: "help" };
  if (head === "host") {
    if (parts.length === 1) return { name: "host" };
    if (parts.length === 2 && second === "captures") return { name: "hostCaptures" };
    if (parts.length === 2 && second === "log") return { name: "hostLog" };
  }
  if (head === "a" && second) {
    const account = decoded(second);
    if (account === undefined) return { name: "nowhere" };
    if (third === "captures" && fourth === undefined) return { name: "captures", account };
    if (third === "captures" && fourth === "new") return { name: "start", account };
    if (third === "captures" && fourth && isId(fourth)) return { name: "capture", account, id: fourth };
    if (third === "buckets" && fourth === undefined) return { name: "buckets", account };
    if (third === undefined) return { name: "captures", account };
  }
  return { name: "nowhere" };
}

function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
