// The ledger of a capture as equations and as a waterfall. Owns how the counts are drawn; the sums are `logic/ledger.ts`.
//
// Invariant: every number that is drawn also stands there as a number.

import { causes, equations, type Ledger, missing, PORT_CAUSES, type Step, waterfall } from "../logic/ledger.ts";
import { duration, type Key, known, number, percent, t } from "../words/words.ts";
import { Notice } from "./basic.tsx";

export function termName(name: string): string {
  const key = `ledger.${name}`;
  return known(key) ? t(key) : name;
}

function Equations({ ledger }: { ledger: Ledger }) {
  return (
    <div class="equations">
      {equations(ledger).map(({ whole, parts, holds }) => (
        <p key={whole.name} class="equation">
          <span class="term whole">
            <b class="num">{number(whole.packets)}</b>
            <span title={whole.name}>{termName(whole.name)}</span>
          </span>
          {parts.map((part, index) => (
            <span key={part.name} class={`term${/^(port|dropped)\.(?!limit|sampled)/.test(part.name) ? " is-lost" : ""}`}>
              <i aria-hidden="true">{index === 0 ? (holds ? "=" : "≠") : "+"}</i>
              <b class="num">{number(part.packets)}</b>
              <span title={part.name}>{termName(part.name)}</span>
            </span>
          ))}
          {!holds && <strong class="lost">{t("ledger.wrong")}</strong>}
        </p>
      ))}
    </div>
  );
}

function Steps({ steps, title }: { steps: Step[]; title: string }) {
  const whole = steps[0]?.packets ?? 0;
  return (
    <table class="waterfall">
      <caption class="visually-hidden">{title}</caption>
      <tbody>
        {steps.map((step) => (
          <tr key={step.name}>
            <th scope="row" title={step.name}>
              {termName(step.name)}
            </th>
            <td class="waterfall-bar">
              <svg width="100%" height="14" aria-hidden="true">
                <rect class="bar-back" width="100%" height="14" rx="2" />
                <rect
                  class={`fall ${step.kind}`}
                  x={`${step.from * 100}%`}
                  width={`${Math.max((step.to - step.from) * 100, step.packets > 0 ? 0.4 : 0)}%`}
                  height="14"
                  rx="2"
                />
              </svg>
            </td>
            <td class="num right">
              {step.kind === "total" ? "" : "−"}
              {number(step.packets)}
            </td>
            <td class="num right faint">{whole > 0 ? percent(step.packets / whole) : ""}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Each loss with where it happens and what a customer can do about it; an operator reads `do.` on the host's page. */
function Causes({ ledger }: { ledger: Ledger }) {
  const list = causes(ledger).filter((cause) => !cause.wanted);
  if (list.length === 0) return null;
  return (
    <dl class="causes">
      {list.map(({ cause, packets }) => (
        <div key={cause}>
          <dt>
            <b class="num lost">{number(packets)}</b> {termName((PORT_CAUSES as readonly string[]).includes(cause) ? `port.${cause}` : `dropped.${cause}`)}
          </dt>
          <dd>
            {t(`where.${cause}` as Key)} <span class="faint">{t(`you.${cause}` as Key)}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}

export function LedgerView({ ledger }: { ledger: Ledger }) {
  const { upper, lower } = waterfall(ledger);
  return (
    <div class="stack">
      {ledger.port?.gaps || ledger.port?.gap_ms ? (
        <Notice tone="warn">{t("ledger.gaps", { span: duration((ledger.port.gap_ms ?? 0) / 1000) })}</Notice>
      ) : (
        ledger.port?.uncounted && <Notice tone="warn">{t("ledger.uncounted")}</Notice>
      )}
      <Equations ledger={ledger} />
      <div class="two">
        <Steps steps={upper} title={t("ledger.upper")} />
        <Steps steps={lower} title={t("ledger.lower")} />
      </div>
      {missing(ledger) > 0 && <Causes ledger={ledger} />}
    </div>
  );
}
