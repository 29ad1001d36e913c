// Help: keys from the registry, filters, look back, buckets, verification, what each loss means. The words are the catalogue's.

import { useTitle } from "../parts/hooks.ts";
import { DROP_CAUSES, PORT_CAUSES } from "../logic/ledger.ts";
import { termName } from "../parts/ledger.tsx";
import { KeyRows, KeysTable } from "../parts/shell.tsx";
import { session } from "../session.ts";
import { type Key, t } from "../words/words.ts";
import { ROW_KEYS } from "./captures.tsx";

function Words({ title, keys }: { title: Key; keys: readonly Key[] }) {
  return (
    <section class="card">
      <h2>{t(title)}</h2>
      <ul class="prose">{keys.map((key) => <li key={key}>{t(key)}</li>)}</ul>
    </section>
  );
}

export function HelpPage() {
  useTitle(t("nav.help"));
  // An operator turns the host's keys; a customer has other means.
  const advice = session.value?.operator ? "do" : "you";
  return (
    <div class="page">
      <h1>{t("nav.help")}</h1>
      <div class="grid-half">
        <section class="card">
          <h2>{t("keys.title")}</h2>
          <KeysTable />
          <h3>{t("keys.list")}</h3>
          <KeyRows list={ROW_KEYS} />
        </section>
        <div class="stack">
          <Words title="help.filter" keys={["help.filter.a", "help.filter.b", "help.filter.c", "help.filter.d", "help.filter.e"]} />
          <Words title="help.verify" keys={["help.verify.a", "help.verify.b"]} />
        </div>
        <Words title="help.buckets" keys={["help.buckets.a", "help.buckets.b", "help.buckets.c"]} />
        <Words title="help.back" keys={["help.back.a", "help.back.b", "help.back.c"]} />
      </div>
      <section class="card">
        <h2>{t("help.losses")}</h2>
        <p class="mono equation-text">offered = rx + port.imissed + port.rx_nombuf + port.ierrors + port.discarded<br />rx = unmatched + matched<br />matched = captured + dropped.no_block + … + dropped.interrupted</p>
        <div class="scroll" tabIndex={0} role="region" aria-label={t("help.losses")}>
          <table class="plain">
            <thead><tr><th scope="col">{t("host.cause")}</th><th scope="col">{t("help.where")}</th><th scope="col">{t("host.do")}</th></tr></thead>
            <tbody>
              {[...PORT_CAUSES.map((cause) => ["port", cause] as const), ...DROP_CAUSES.map((cause) => ["dropped", cause] as const)].map(([kind, cause]) => (
                <tr key={cause}>
                  <th scope="row">{termName(`${kind}.${cause}`)} <span class="mono faint small">{kind}.{cause}</span></th>
                  <td class="wrap-text">{t(`where.${cause}` as Key)}</td>
                  <td class="wrap-text">{t(`${advice}.${cause}` as Key)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </div>
  );
}
