// Status as a word with a shape and a colour. Owns how it looks; `logic/states.ts` decides what it says.
//
// Invariant: colour is never the only sign, and a capture that lost packets never looks like one that did not.

import type { Ledger } from "../logic/ledger.ts";
import { shown } from "../logic/states.ts";
import { number, t } from "../words/words.ts";
import { Icon, type IconName } from "./basic.tsx";

const ICONS: Record<string, IconName> = { ok: "check", warn: "warn", bad: "cross", busy: "busy", idle: "clock" };

export function statusText(status: string, ledger?: Ledger): string {
  const state = shown(status, ledger);
  const word = state.step ? `${t(`status.${state.word}`)}: ${t(`step.${state.step}`)}` : t(`status.${state.word}`);
  return state.lost > 0 ? `${word}, ${t("status.lost", { count: state.lost })}` : word;
}

export function Status({ status, ledger, large }: { status: string; ledger?: Ledger; large?: boolean }) {
  const state = shown(status, ledger);
  const icon = state.word === "progress" ? (status === "pending" ? "clock" : "busy") : ICONS[state.tone]!;
  return (
    <span class={`status ${state.tone}${large ? " large" : ""}`} title={`status: ${status}`}>
      <Icon name={icon} spin={icon === "busy"} />
      <span>
        {state.step ? t(`step.${state.step}.now`) : t(`status.${state.word}`)}
        {state.lost > 0 && <span class="status-lost">, {t("status.lost", { count: state.lost })}</span>}
      </span>
    </span>
  );
}

export function Lost({ packets, known }: { packets: number; known: boolean }) {
  if (!known) return <span class="faint">–</span>;
  return packets > 0 ? <span class="num lost">{number(packets)}</span> : <span class="num faint">0</span>;
}
