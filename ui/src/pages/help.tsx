// Help: keys from the registry, what a filter means, what each loss means. The words are the catalogue's.

import { useTitle } from "../parts/hooks.ts";
import { DROP_CAUSES, PORT_CAUSES } from "../logic/ledger.ts";
import { termName } from "../parts/ledger.tsx";
import { KeysTable } from "../parts/shell.tsx";
import { type Key, t } from "../words/words.ts";

export function HelpPage() {
  useTitle(t("nav.help"));
  return (
    <div class="page">
      <h1>{t("nav.help")}</h1>
      <div class="grid-half">
        <section class="card"><h2>{t("keys.title")}</h2><KeysTable /><p class="faint small">{t("keys.rowkeys")}</p></section>
        <section class="card">
          <h2>{t("help.filter")}</h2>
          <ul class="prose">{(["a", "b", "c", "d", "e"] as const).map((part) => <li key={part}>{t(`help.filter.${part}`)}</li>)}</ul>
        </section>
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
                  <td class="wrap-text">{t(`do.${cause}` as Key)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </div>
  );
}
