// The list of captures. Owns its pages, filters and rows.
//
// Invariant: a row never moves by itself. What is new is counted in a pill, and comes when it is asked for.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, paths, type Problem } from "../api.ts";
import { keysOn } from "../keys.ts";
import { useCaptures, type CapturesFeed } from "../live/captures.ts";
import { inWords } from "../logic/filter.ts";
import { lost, missing, type Ledger } from "../logic/ledger.ts";
import { ended, STATUS_GROUPS, stoppable } from "../logic/states.ts";
import { timeLeft } from "../logic/time.ts";
import { visible } from "../logic/text.ts";
import { Empty, ErrorBox, Foreign, Icon, Link, Notice, Skeleton, Tabs, Time } from "../parts/basic.tsx";
import { useConnection } from "../parts/connection.ts";
import { now, useKeys, useTitle } from "../parts/hooks.ts";
import { Lost, Status } from "../parts/status.tsx";
import { StopDialog } from "../parts/stop.tsx";
import { go, pages, place, setQuery } from "../router.ts";
import { mayWrite } from "../session.ts";
import type { Capture } from "../types.ts";
import { bytes, duration, type Key, number, t, taken, zoneName } from "../words/words.ts";

const PAGE = 50;

interface Rows {
  rows: Capture[];
  messages: Problem[];
  next?: string;
  total?: number;
}

async function page(account: string, status: string, type: string, before?: string, signal?: AbortSignal): Promise<Rows> {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (STATUS_GROUPS[status]) query.set("status", STATUS_GROUPS[status].join(","));
  if (type) query.set("type", type);
  if (before) query.set("before", before);
  const { result, info, messages } = await get<Capture[]>(`${paths(account).captures}?${query}`, signal);
  return { rows: result, messages, next: info?.next ?? undefined, total: info?.total_count };
}

export interface Row {
  capture: Capture;
  status: string;
  ledger?: Ledger;
  secondsLeft?: number;
  /** How long it took packets, once it ended. */
  seconds?: number;
}

function rowOf(capture: Capture, feed: CapturesFeed): Row {
  const live = feed.live.value.get(capture.id);
  const status = live?.status ?? capture.status;
  const ledger = live?.ledger ?? feed.counts.value.get(capture.id)?.ledger;
  const secondsLeft = live && stoppable(status) ? timeLeft(live.seconds_left, now.value - feed.at.value) : undefined;
  return { capture, status, ledger, secondsLeft, seconds: feed.counts.value.get(capture.id)?.seconds };
}

/** What keys do in the list. Those that are `idle` also do it where nothing has the focus; the others scroll the page then. */
export const ROW_KEYS: { keys: string; label: Key; idle?: boolean }[] = [
  { keys: "j", label: "keys.down", idle: true },
  { keys: "k", label: "keys.up", idle: true },
  { keys: "ArrowDown", label: "keys.down" },
  { keys: "ArrowUp", label: "keys.up" },
  { keys: "PageDown", label: "keys.page" },
  { keys: "PageUp", label: "keys.page" },
  { keys: "Home", label: "keys.ends" },
  { keys: "End", label: "keys.ends" },
  { keys: "Enter", label: "keys.open", idle: true },
  { keys: "s", label: "keys.row.stop", idle: true },
  { keys: "d", label: "keys.row.download", idle: true },
  { keys: "r", label: "keys.row.repeat", idle: true },
];

function Table({ rows, account, feed, stop }: { rows: Capture[]; account: string; feed: CapturesFeed; stop: (id: string) => void }) {
  const [at, setAt] = useState(-1);
  const body = useRef<HTMLTableSectionElement>(null);
  const write = mayWrite(account);
  const focus = (index: number) => {
    const next = Math.max(0, Math.min(rows.length - 1, index));
    setAt(next);
    (body.current?.children[next] as HTMLElement | undefined)?.focus();
  };
  /** Whether the key meant something for the row. */
  const act = (key: string, row: Row, index: number): boolean => {
    const moves: Record<string, number> = { ArrowDown: index + 1, j: index + 1, ArrowUp: index - 1, k: index - 1, PageDown: index + 10, PageUp: index - 10, Home: 0, End: rows.length - 1 };
    const id = row.capture.id;
    if (key in moves) focus(moves[key]!);
    else if (key === "Enter") go(pages.capture(account, id));
    else if (key === "s" && write && stoppable(row.status)) stop(id);
    else if (key === "d" && row.capture.type === "simple" && row.status === "success") location.assign(paths(account).download(id));
    else if (key === "r" && write) go(pages.start(account, id));
    else return false;
    return true;
  };
  const key = (event: KeyboardEvent, row: Row, index: number) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    // Single letters can be switched off.
    if (event.key.length === 1 && !keysOn.value) return;
    if (act(event.key, row, index)) event.preventDefault();
  };
  // Where nothing has the focus the keys mean the row that had it last, which is marked; before there is one, j and k go to the first.
  const idle = useRef<(key: string) => void>(() => undefined);
  idle.current = (pressed) => {
    const capture = rows[at];
    if (pressed === "j" || pressed === "k") focus(at);
    else if (capture) act(pressed, rowOf(capture, feed), at);
  };
  useKeys("rows", () => ROW_KEYS.filter((one) => one.idle).map((one) => ({ ...one, run: () => idle.current(one.keys) })), []);
  return (
    <table class="list" role="grid" aria-label={t("captures.title")} aria-rowcount={rows.length + 1}>
      <thead>
        <tr role="row" aria-rowindex={1}>
          <th scope="col" role="columnheader">{t("col.status")}</th>
          <th scope="col" role="columnheader">{t("col.what")}</th>
          <th scope="col" role="columnheader">{t("col.started")} <span class="unit">{zoneName()}</span></th>
          <th scope="col" role="columnheader" class="right">{t("col.time")}</th>
          <th scope="col" role="columnheader" class="right">{t("col.packets")}</th>
          <th scope="col" role="columnheader" class="right">{t("col.bytes")}</th>
          <th scope="col" role="columnheader" class="right">{t("col.lost")}</th>
          <th scope="col" role="columnheader">{t("col.destination")}</th>
          <th scope="col" role="columnheader"><span class="visually-hidden">{t("col.actions")}</span></th>
        </tr>
      </thead>
      <tbody ref={body}>
        {rows.map((capture, index) => {
          const row = rowOf(capture, feed);
          const { ledger, status } = row;
          const words = inWords(capture.filter_v1, t("filter.any")) ?? t("filter.all");
          const packets = ledger?.captured ?? capture.packets_captured;
          return (
            <tr key={capture.id} role="row" class={index === at ? "current" : undefined} aria-rowindex={index + 2} tabIndex={index === Math.max(0, at) ? 0 : -1} onFocus={() => setAt(index)} onKeyDown={(event) => key(event, row, index)}>
              <td role="gridcell" class="cell-status">
                <Status status={status} ledger={ledger} />
              </td>
              <td role="gridcell" class="cell-what">
                <Link to={pages.capture(account, capture.id)} tabIndex={-1} class="row-link">
                  <bdi>{visible(words)}</bdi>
                </Link>
                <span class="sub">
                  {t(`type.${capture.type}`)}
                  {capture.offset_time && `, ${t("type.back")}`} · <span class="mono">{capture.id.slice(0, 8)}</span>
                </span>
              </td>
              <td role="gridcell" class="cell-started">
                <Time at={Date.parse(capture.submitted)} zone={false} />
              </td>
              <td role="gridcell" class="cell-time right num nowrap">
                {row.secondsLeft !== undefined ? <span>{t("captures.left", { span: duration(row.secondsLeft) })}</span> : row.seconds !== undefined ? taken(row.seconds) : <span class="faint">–</span>}
              </td>
              <td role="gridcell" class="cell-packets right num" data-label={t("col.packets")}>
                {packets === undefined ? <span class="faint">–</span> : number(packets)}
              </td>
              <td role="gridcell" class="cell-bytes right num nowrap" data-label={t("col.bytes")}>
                {ledger ? bytes(ledger.captured_bytes) : <span class="faint">–</span>}
              </td>
              <td role="gridcell" class="cell-lost right" data-label={t("col.lost")} title={ledger && lost(ledger) !== missing(ledger) ? t("captures.ports") : undefined}>
                <Lost packets={ledger ? missing(ledger) : 0} known={ledger !== undefined} />
              </td>
              <td role="gridcell" class="cell-destination">
                {capture.destination_conf ? <bdi class="clip" title={visible(capture.destination_conf)}>{visible(capture.destination_conf)}</bdi> : <span class="faint">{t("captures.here")}</span>}
              </td>
              <td role="gridcell" class="cell-actions">
                <Actions row={row} account={account} stop={stop} write={write} />
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

function Actions({ row, account, stop, write }: { row: Row; account: string; stop: (id: string) => void; write: boolean }) {
  const { capture, status } = row;
  const id = capture.id;
  return (
    <span class="actions">
      {capture.type === "simple" && status === "success" && (
        <a class="button quiet small" href={paths(account).download(id)} download={`pcap_${id}.pcap`} aria-label={t("action.download")} title={t("action.download")}>
          <Icon name="down" />
        </a>
      )}
      {write && stoppable(status) && (
        <button type="button" class="button quiet small" aria-label={t("action.stop")} title={t("action.stop")} onClick={() => stop(id)}>
          <Icon name="stop" />
        </button>
      )}
      {write && (
        <Link to={pages.start(account, id)} class="button quiet small" aria-label={t("action.repeat")} title={t("action.repeat")}>
          <Icon name="repeat" />
        </Link>
      )}
    </span>
  );
}

export function CapturesPage({ account }: { account: string }) {
  useTitle(t("captures.title"));
  const feed = useCaptures(account);
  useConnection(feed.feed);
  const query = place.value.query;
  const status = query.get("status") ?? "";
  const type = query.get("type") ?? "";
  const text = query.get("q") ?? "";
  const [state, setState] = useState<Rows | undefined>(undefined);
  const [error, setError] = useState<unknown>(undefined);
  const [turn, setTurn] = useState(0);
  const [more, setMore] = useState(false);
  const [stopping, setStopping] = useState<string | undefined>(undefined);
  const search = useRef<HTMLInputElement>(null);
  const loadedAt = useRef(0);
  useEffect(() => {
    const abort = new AbortController();
    setError(undefined);
    page(account, status, type, undefined, abort.signal)
      .then((rows) => {
        loadedAt.current = performance.now();
        setState(rows);
      })
      .catch((failure: unknown) => {
        if (!abort.signal.aborted) setError(failure);
      });
    return () => abort.abort();
  }, [account, status, type, turn]);
  useKeys("list", () => [{ keys: "/", label: "keys.filter", run: () => search.current?.focus() }], []);

  const live = feed.live.value;
  const rows = state?.rows ?? [];
  const ids = useMemo(() => new Set(rows.map(({ id }) => id)), [rows]);
  const fresh = state && status !== "complete" && status !== "failure" && type === "" ? [...live.keys()].filter((id) => !ids.has(id) && (!ended(live.get(id)!.status) || (feed.firstSeen.get(id) ?? 0) > loadedAt.current)).length : 0;
  // A capture that ended while it is shown: its row gets its last state, in its place.
  const endedNow = rows.filter(({ id, status: before }) => !ended(before) && ended(live.get(id)?.status ?? "")).map(({ id }) => id).join(" ");
  useEffect(() => {
    for (const id of endedNow.split(" ").filter(Boolean))
      void get<Capture>(paths(account).capture(id)).then(({ result }) => setState((before) => before && { ...before, rows: before.rows.map((row) => (row.id === id ? result : row)) }), () => undefined);
  }, [endedNow]);
  useEffect(() => {
    for (const capture of rows) if (!live.has(capture.id) || ended(capture.status)) feed.want(capture.id);
  }, [rows, feed]);

  const needle = text.toLowerCase();
  const shown = needle === "" ? rows : rows.filter((capture) => JSON.stringify([capture.id, capture.destination_conf, inWords(capture.filter_v1, ""), capture.filter_v1]).toLowerCase().includes(needle));
  const loadMore = () => {
    if (!state?.next || more) return;
    setMore(true);
    page(account, status, type, state.next)
      .then((next) => setState((before) => {
        // The list may have changed meanwhile: another filter is another list, and a new capture may be in it already.
        if (before?.next !== state.next) return before;
        const had = new Set(before?.rows.map(({ id }) => id));
        return { ...next, rows: [...(before?.rows ?? []), ...next.rows.filter(({ id }) => !had.has(id))] };
      }))
      .catch(setError)
      .finally(() => setMore(false));
  };
  const write = mayWrite(account);
  return (
    <div class={feed.feed.connection.value === "away" ? "page stale" : "page"}>
      <div class="page-head">
        <h1>{t("captures.title")}</h1>
        {write ? (
          <Link to={pages.start(account)} class="button primary">
            <Icon name="plus" />
            {t("captures.new")}
          </Link>
        ) : (
          <span class="chip" title={t("role.read.text")}>{t("role.read")}</span>
        )}
      </div>
      <div class="toolbar">
        <Tabs
          label={t("captures.filter.status")}
          value={status}
          set={(value) => setQuery({ status: value })}
          tabs={[
            ["", t("captures.all")],
            ["progress", t("status.progress")],
            ["complete", t("status.complete")],
            ["failure", t("status.failure")],
          ]}
        />
        <label>
          <span class="visually-hidden">{t("captures.filter.type")}</span>
          <select value={type} onChange={(event) => setQuery({ type: event.currentTarget.value })}>
            <option value="">{t("captures.types")}</option>
            <option value="simple">{t("type.simple")}</option>
            <option value="full">{t("type.full")}</option>
          </select>
        </label>
        <label class="search">
          <Icon name="search" />
          <span class="visually-hidden">{t("captures.search")}</span>
          <input ref={search} type="search" placeholder={t("captures.search")} value={text} onInput={(event) => setQuery({ q: event.currentTarget.value })} />
        </label>
        {fresh > 0 && (
          <button type="button" class="pill" onClick={() => setTurn(turn + 1)}>
            {t("captures.fresh", { count: fresh })}
          </button>
        )}
      </div>
      {!write && <Notice tone="info">{t("role.read.text")}</Notice>}
      {error !== undefined && <ErrorBox error={error} retry={() => setTurn(turn + 1)} />}
      {(state?.messages ?? []).map(({ code, message }) => (
        <Notice key={message} tone="warn">
          <Foreign text={message} /> <span class="faint nowrap">({t("error.code", { code: String(code) })})</span>
        </Notice>
      ))}
      {!state && error === undefined && <Skeleton rows={8} />}
      {state && rows.length === 0 && (status || type ? (
        <Empty title={t("captures.none.filtered")} icon="search">
          <button type="button" class="button" onClick={() => setQuery({ status: undefined, type: undefined })}>{t("captures.clear")}</button>
        </Empty>
      ) : (
        <Empty title={t("captures.none")} icon="down">
          <p>{t("captures.none.text")}</p>
          {write && <Link to={pages.start(account)} class="button primary">{t("captures.new")}</Link>}
        </Empty>
      ))}
      {state && rows.length > 0 && shown.length === 0 && (
        <Empty title={t("captures.none.text.filtered")} icon="search">
          <button type="button" class="button" onClick={() => setQuery({ q: undefined })}>{t("captures.clear")}</button>
        </Empty>
      )}
      {shown.length > 0 && (
        <div class="card flush">
          <Table rows={shown} account={account} feed={feed} stop={setStopping} />
        </div>
      )}
      {state && rows.length > 0 && (
        <div class="list-foot">
          <span class="faint">{state.total === undefined ? t("captures.shown", { count: rows.length }) : t("captures.of", { count: rows.length, total: state.total })}</span>
          {state.next && (
            <button type="button" class="button" onClick={loadMore} aria-disabled={more}>
              {more ? t("loading") : t("captures.more", { count: PAGE })}
            </button>
          )}
        </div>
      )}
      {stopping && <StopDialog account={account} id={stopping} close={() => setStopping(undefined)} done={() => setTurn(turn + 1)} />}
    </div>
  );
}
