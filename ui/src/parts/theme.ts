// Light, dark, or as the computer has it. Owns the choice and the attribute that the style sheet looks at.

import { signal } from "@preact/signals";
import { recall, remember } from "../words/words.ts";

export type Theme = "auto" | "light" | "dark";
export const THEMES: readonly Theme[] = ["auto", "light", "dark"];

const before = recall("trawl.theme");
export const theme = signal<Theme>(THEMES.find((known) => known === before) ?? "auto");

export function setTheme(next: Theme): void {
  theme.value = next;
  remember("trawl.theme", next);
  apply();
}

export function apply(): void {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}
