// Languages: which one is shown, the words by key, numbers, bytes, rates and times in it. Owns everything that a locale decides.
// The catalogues are `en.ts` and `de.ts`; `en-XA` is made from English and shows in tests what was not taken from a catalogue.
//
// Invariant: a key that a language lacks does not compile. Every time that is shown says its zone.

import { signal } from "@preact/signals";
import { span, took } from "../logic/time.ts";
import { en } from "./en.ts";

export type Entry = string | { one: string; other: string };
export type Key = keyof typeof en;
export type Catalogue = Record<Key, Entry>;

export const LOCALES = ["en", "de", "en-XA"] as const;
export type Locale = (typeof LOCALES)[number];

export const locale = signal<Locale>("en");
/** Whether times are those of this computer; otherwise UTC. */
export const localTime = signal(recall("trawl.clock") === "local");
const catalogue = signal<Catalogue>(en);

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing asks again the next time.
  }
}

/** The same for this tab alone. */
export function recallTab(key: string): string | null {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

export function rememberTab(key: string, value: string): void {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // As above.
  }
}

const ACCENTS: Record<string, string> = { a: "á", e: "é", i: "í", o: "ó", u: "ú", A: "Á", E: "É", I: "Í", O: "Ó", U: "Ú", n: "ñ", c: "ç", s: "š", y: "ý" };

/** English with accents and a third longer, in brackets: what has none of these was not translated. */
export function pseudo(text: string): string {
  const accented = text.replace(/\{[a-z]+\}|[a-zA-Z]/g, (part) => (part.length > 1 ? part : (ACCENTS[part] ?? part)));
  return `[${accented}${"·".repeat(Math.ceil(text.length / 3))}]`;
}

function pseudoCatalogue(): Catalogue {
  const entries = Object.entries(en as Catalogue).map(([key, entry]) => [
    key,
    typeof entry === "string" ? pseudo(entry) : { one: pseudo(entry.one), other: pseudo(entry.other) },
  ]);
  return Object.fromEntries(entries) as Catalogue;
}

export async function setLocale(next: Locale): Promise<void> {
  if (next === "de") catalogue.value = (await import("./de.ts")).de;
  else catalogue.value = next === "en-XA" ? pseudoCatalogue() : en;
  locale.value = next;
  document.documentElement.lang = next;
  remember("trawl.locale", next);
}

/** The language that was chosen, or the browser's, or English. */
export function preferredLocale(): Locale {
  const asked = new URLSearchParams(location.search).get("lang") ?? recall("trawl.locale") ?? navigator.language;
  return LOCALES.find((known) => known === asked) ?? LOCALES.find((known) => known === asked.slice(0, 2)) ?? "en";
}

const tag = () => (locale.value === "en-XA" ? "en" : locale.value);

export function t(key: Key, values: Record<string, string | number> = {}): string {
  const entry = catalogue.value[key];
  let text: string;
  if (typeof entry === "string") text = entry;
  else text = new Intl.PluralRules(tag()).select(Number(values.count ?? 0)) === "one" ? entry.one : entry.other;
  return text.replace(/\{([a-z]+)\}/g, (whole, name: string) => {
    const value = values[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? number(value) : value;
  });
}

/** Whether the catalogue has `key`: for words that the host names, such as reasons and causes. */
export function known(key: string): key is Key {
  return Object.hasOwn(en, key);
}

const formats = new Map<string, Intl.NumberFormat>();

function grouped(value: number, options: Intl.NumberFormatOptions): string {
  const key = `${tag()}${JSON.stringify(options)}`;
  let format = formats.get(key);
  if (!format) {
    format = new Intl.NumberFormat(tag(), options);
    formats.set(key, format);
  }
  // A narrow space groups digits in every language that is offered, and is never taken for a decimal sign.
  return format
    .formatToParts(value)
    .map((part) => (part.type === "group" ? "\u202f" : part.value))
    .join("");
}

export function number(value: number): string {
  return grouped(value, { maximumFractionDigits: 2 });
}

const scaled = (value: number, units: string[], step = 1000): [number, string] => {
  let unit = 0;
  while (Math.abs(value) >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  return [value, units[unit]!];
};

function quantity(value: number, units: string[]): string {
  const [small, unit] = scaled(value, units);
  const digits = unit === units[0] || Math.abs(small) >= 100 ? 0 : Math.abs(small) >= 10 ? 1 : 2;
  return `${grouped(small, { maximumFractionDigits: digits })}\u00a0${unit}`;
}

export const bytes = (value: number) => quantity(value, ["B", "kB", "MB", "GB", "TB", "PB"]);
export const bits = (perSecond: number) => quantity(perSecond, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
export const perSecond = (value: number) => {
  const [small, unit] = scaled(value, ["", "k", "M", "G"]);
  return `${grouped(small, { maximumFractionDigits: unit === "" || small >= 100 ? 0 : 1 })}${unit === "" ? "" : `\u00a0${unit}`}/s`;
};
export const percent = (share: number) => {
  const digits = share > 0 && share < 0.001 ? 3 : share < 0.1 ? 2 : 1;
  return grouped(share, { style: "percent", maximumFractionDigits: digits, roundingMode: share > 0.5 ? "floor" : "halfExpand" });
};

/** A number short enough for an axis. */
export function short(value: number): string {
  const [small, unit] = scaled(value, ["", "k", "M", "G", "T"]);
  return `${grouped(small, { maximumFractionDigits: 1 })}${unit}`;
}

const zone = () => (localTime.value ? undefined : "UTC");

/** `exact`: to the millisecond, for what is shorter than a second. */
export function dateTime(milliseconds: number, exact = false): string {
  if (!Number.isFinite(milliseconds)) return "–";
  const format = new Intl.DateTimeFormat(tag(), {
    timeZone: zone(),
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    fractionalSecondDigits: exact ? 3 : undefined,
    hourCycle: "h23",
    year: new Date(milliseconds).getFullYear() === new Date().getFullYear() ? undefined : "numeric",
  });
  return format.format(milliseconds);
}

export function clock(milliseconds: number, digits: 0 | 1 | 2 | 3 = 0): string {
  if (!Number.isFinite(milliseconds)) return "–";
  return new Intl.DateTimeFormat(tag(), { timeZone: zone(), hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: digits || undefined, hourCycle: "h23" }).format(milliseconds);
}

export function zoneName(): string {
  if (!localTime.value) return "UTC";
  const parts = new Intl.DateTimeFormat(tag(), { timeZoneName: "short" }).formatToParts(Date.now());
  return parts.find((part) => part.type === "timeZoneName")?.value ?? "";
}

export const duration = (seconds: number) => span(seconds);
/** What something took, to a part of a second where it was short. */
export const taken = (seconds: number) => took(seconds).replace(".", tag() === "de" ? "," : ".");
