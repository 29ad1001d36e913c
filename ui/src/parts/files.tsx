// A capture's files: their sum, and a page of them at a time, which the host cuts. Owns which page is shown.
//
// Invariant: however many files there are, the browser asks for one page and has its rows. The page is in the address.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, paths } from "../api.ts";
import { ended } from "../logic/states.ts";
import { visible } from "../logic/text.ts";
import { place, setQuery } from "../router.ts";
import type { Capture, CaptureObject, Progress } from "../types.ts";
import { bytes, number, t } from "../words/words.ts";
import { Copy, ErrorBox, Foreign, Icon, Skeleton, Time } from "./basic.tsx";

export const FILES_PER_PAGE = 50;

interface Page {
  from: number;
  objects: CaptureObject[];
}

function Rows({ page, account, capture, busy }: { page: Page; account: string; capture: Capture; busy: boolean }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={t("objects.title")} aria-busy={busy}>
      <table class="plain files">
        <thead>
          <tr>
            <th scope="col">{t("objects.name")}</th>
            <th scope="col" class="right">{t("col.bytes")}</th>
            <th scope="col" class="right">{t("col.packets")}</th>
            <th scope="col">{t("objects.from")}</th>
            <th scope="col">{t("objects.to")}</th>
            <th scope="col">SHA-256</th>
            <th scope="col"><span class="visually-hidden">{t("col.actions")}</span></th>
          </tr>
        </thead>
        <tbody>
          {page.objects.map((object, index) => (
            <tr key={object.name}>
              <th scope="row"><Foreign text={object.name} mono max={80} /></th>
              <td class="num right nowrap">{bytes(object.bytes)}</td>
              <td class="num right">{number(object.packets)}</td>
              <td><Time at={object.first_ns / 1e6} zone={false} exact /></td>
              <td><Time at={object.last_ns / 1e6} exact /></td>
              <td class="nowrap">
                <span class="mono" title={visible(object.sha256)}>{visible(object.sha256.slice(0, 12))}…</span>
                <Copy text={object.sha256} />
              </td>
              <td>
                <a class="button quiet small" href={paths(account).object(capture.id, page.from + index)} download="" aria-label={t("action.download")} title={t("action.download")}>
                  <Icon name="down" />
                </a>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Which page the address names, from 0. */
function wanted(pages: number): number {
  const asked = Math.trunc(Number(place.value.query.get("files") ?? 1)) - 1;
  return Number.isFinite(asked) ? Math.max(0, Math.min(pages - 1, asked)) : 0;
}

function Pager({ page, pages, total }: { page: number; pages: number; total: number }) {
  const to = (next: number) => setQuery({ files: next === 0 ? undefined : String(next + 1) });
  const steps = [
    ["first", 0],
    ["before", page - 1],
    ["next", page + 1],
    ["last", pages - 1],
  ] as const;
  return (
    <nav class="pager" aria-label={t("objects.pages")}>
      <span class="faint num" role="status">{t("objects.range", { from: page * FILES_PER_PAGE + 1, to: Math.min(total, (page + 1) * FILES_PER_PAGE), total })}</span>
      <span class="row">
        {steps.map(([name, target]) => {
          const off = target === page || target < 0 || target >= pages;
          return <button key={name} type="button" class="button small" aria-disabled={off} onClick={() => !off && to(target)}>{t(`objects.page.${name}`)}</button>;
        })}
      </span>
    </nav>
  );
}

export function FilesCard({ account, capture, delivered, notYet }: { account: string; capture: Capture; delivered: Progress["delivered"] | undefined; notYet: number }) {
  const [shown, setShown] = useState<Page | undefined>(undefined);
  const [error, setError] = useState<unknown>(undefined);
  const [turn, setTurn] = useState(0);
  const total = delivered?.objects ?? 0;
  const pages = Math.max(1, Math.ceil(total / FILES_PER_PAGE));
  const page = wanted(pages);
  // More files change the last page alone.
  const rows = Math.min(FILES_PER_PAGE, total - page * FILES_PER_PAGE);
  const asked = useRef("");
  useEffect(() => {
    const key = `${capture.id} ${page} ${rows} ${turn}`;
    if (rows <= 0 || asked.current === key) return undefined;
    asked.current = key;
    const abort = new AbortController();
    const from = page * FILES_PER_PAGE;
    get<Progress>(paths(account).progress(capture.id, FILES_PER_PAGE, from), abort.signal).then(
      ({ result }) => {
        setShown({ from, objects: result.objects });
        setError(undefined);
      },
      (failure: unknown) => {
        if (!abort.signal.aborted) setError(failure);
      },
    );
    return () => abort.abort();
  }, [account, capture.id, page, rows, turn]);
  const isOf = shown?.from === page * FILES_PER_PAGE;
  return (
    <section class="card">
      <div class="row between">
        <h2>{t("objects.title")}</h2>
        {delivered && total > 0 && (
          <span class="faint num">{t("objects.count", { count: total })} · {bytes(delivered.bytes)} · {t("packets.count", { count: delivered.packets })}</span>
        )}
      </div>
      {notYet > 0 && <p class="faint num">{t("objects.notyet", { bytes: bytes(notYet) })}</p>}
      {error !== undefined && <ErrorBox error={error} retry={() => setTurn(turn + 1)} />}
      {total === 0 && <p class="faint">{ended(capture.status) ? t("objects.none") : t("objects.none.yet")}</p>}
      {total > 0 && !shown && error === undefined && <Skeleton rows={3} />}
      {total > 0 && shown && <Rows page={shown} account={account} capture={capture} busy={!isOf} />}
      {pages > 1 && <Pager page={page} pages={pages} total={total} />}
    </section>
  );
}
