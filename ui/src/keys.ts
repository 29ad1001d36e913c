// The keyboard. Owns one registry of keys by scope, one listener, and the switch that turns single keys off; the help page and
// the `?` dialog are made from the registry.
//
// Invariant: a key never fires in a field, in a dialog, or with a modifier; what it does can also be done without it.

import { signal } from "@preact/signals";
import { type Key, recall, remember } from "./words/words.ts";

export interface Binding {
  keys: string;
  label: Key;
  /** Only where nothing has the focus: elsewhere the key is the focused element's own. */
  idle?: boolean;
  run: () => void;
}

export const keysOn = signal(recall("trawl.keys") !== "off");
export const bindings = signal<ReadonlyMap<string, readonly Binding[]>>(new Map());

export function setKeys(on: boolean): void {
  keysOn.value = on;
  remember("trawl.keys", on ? "on" : "off");
}

/** Adds the keys of a scope and gives back what removes them. */
export function bind(scope: string, list: Binding[]): () => void {
  bindings.value = new Map(bindings.value).set(scope, list);
  return () => {
    const next = new Map(bindings.value);
    if (next.get(scope) === list) next.delete(scope);
    bindings.value = next;
  };
}

let prefix = "";
let prefixAt = 0;

function typing(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || document.querySelector("dialog[open]") !== null;
}

/** Whether nothing has the focus: a page's body and its main part are what holds it then. */
function isIdle(target: EventTarget | null): boolean {
  return target === document.body || target === document.documentElement || (target instanceof HTMLElement && target.id === "main");
}

export function listen(): void {
  addEventListener("keydown", (event) => {
    if (!keysOn.value || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const sequence = performance.now() - prefixAt < 1500 && prefix !== "" ? `${prefix} ${event.key}` : event.key;
    prefix = "";
    for (const list of bindings.value.values())
      for (const binding of list)
        if (binding.keys === sequence && (!binding.idle || isIdle(event.target))) {
          event.preventDefault();
          binding.run();
          return;
        }
    if (event.key === "g") {
      prefix = "g";
      prefixAt = performance.now();
    }
  });
}
