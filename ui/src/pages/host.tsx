// The operator's screen: are packets lost, where, since when, for whom. Owns its order and its plots.
//
// Invariant: the answer to the first question is the first thing on the page, in words.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, HOST } from "../api.ts";
import { type HostFeed, rateOf, useHost } from "../live/host.ts";
import { byTrouble, fullIn, greatest, isLoss, lastLoss, least, type Loss, losses } from "../logic/host.ts";
import { missing } from "../logic/ledger.ts";
import { visible } from "../logic/text.ts";
import { Bar, ErrorBox, Figure, Foreign, Icon, Link, Notice, Skeleton } from "../parts/basic.tsx";
import { useConnection } from "../parts/connection.ts";
import { useLoad, useTitle } from "../parts/hooks.ts";
import { Plot } from "../parts/plot.tsx";
import { Lost, Status } from "../parts/status.tsx";
import { pages, place, route } from "../router.ts";
import { session } from "../session.ts";
import type { HostState, Report } from "../types.ts";
import { bits, bytes, duration, type Key, known, number, percent, perSecond, t } from "../words/words.ts";

/** A port is told of that has a link and no frame for so long, as in the log. */
const QUIET_SECONDS = 60;

/** Numbers by name at equal steps; the host decides which names there are. */
interface HostSeries {
  from_ns: number;
  step_ns: number;
  [name: string]: unknown;
}

const causeWord = (cause: string) => {
  const key = ["imissed", "rx_nombuf", "ierrors", "discarded"].includes(cause) ? `ledger.port.${cause}` : `ledger.dropped.${cause}`;
  return known(key) ? t(key) : cause;
};

export function HostNav() {
  const at = route(place.value.path).name;
  const bar = useRef<HTMLElement>(null);
  // On a narrow screen the page that is shown may be beyond the edge.
  useEffect(() => bar.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" }), [at]);
  return (
    <nav ref={bar} class="subnav" aria-label={t("nav.host")}>
      <Link to={pages.host} aria-current={at === "host" ? "page" : undefined}>{t("host.overview")}</Link>
      <Link to={pages.hostCaptures} aria-current={at === "hostCaptures" ? "page" : undefined}>{t("host.captures")}</Link>
      <Link to={pages.hostLog} aria-current={at === "hostLog" ? "page" : undefined}>{t("host.log")}</Link>
    </nav>
  );
}

export function NotOperator() {
  return (
    <div class="page narrow">
      <h1>{t("nav.host")}</h1>
      <Notice tone="info">
        <p>{t("host.forbidden")}</p>
        <Link class="button" to={pages.login(place.value.path)}>{t("login.submit")}</Link>
      </Notice>
    </div>
  );
}

function Verdict({ state, list, recent }: { state: HostState; list: Loss[]; recent: number | undefined }) {
  const total = list.reduce((sum, loss) => sum + loss.packets, 0);
  const up = duration((state.now_ns - state.started_ns) / 1e9);
  const tone = total === 0 ? "ok" : recent !== undefined && recent < 60 ? "bad" : "warn";
  return (
    <div class={`verdict ${tone}`}>
      <Icon name={total === 0 ? "check" : "warn"} />
      <div class="grow">
        <p class="verdict-word">{total === 0 ? t("host.noloss") : t(recent !== undefined && recent < 60 ? "host.loss.active" : "host.loss", { count: total })}</p>
        <p>{total === 0 ? t("host.noloss.text", { span: up }) : recent === undefined ? t("host.loss.before", { span: up }) : recent < 5 ? t("host.loss.now") : t("host.loss.since", { span: duration(recent) })}</p>
      </div>
      <div class="verdict-side">
        <Health name={t("host.health")} report={state.health} />
        <Health name={t("host.ready")} report={state.ready} />
      </div>
    </div>
  );
}

function Health({ name, report }: { name: string; report: Report }) {
  return (
    <span class={`status ${report.ok ? "ok" : "bad"}`}>
      <Icon name={report.ok ? "check" : "cross"} />
      <span>{name}</span>
    </span>
  );
}

function Checks({ state }: { state: HostState }) {
  const bad = [...state.health.checks, ...state.ready.checks].filter(({ ok }) => !ok);
  const seen = new Set<string>();
  return (
    <>
      {bad.filter(({ name }) => !seen.has(name) && seen.add(name)).map((check) => (
        <Notice key={check.name} tone="bad"><b><Foreign text={check.name} /></b>: <Foreign text={check.reason ?? ""} /></Notice>
      ))}
    </>
  );
}

function Losses({ list }: { list: Loss[] }) {
  if (list.length === 0) return null;
  return (
    <section class="card">
      <h2>{t("host.where")}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("host.where")}>
        <table class="plain">
          <thead><tr><th scope="col" class="right">{t("col.lost")}</th><th scope="col">{t("host.cause")}</th><th scope="col">{t("host.place")}</th><th scope="col">{t("host.do")}</th></tr></thead>
          <tbody>
            {list.slice(0, 12).map((loss) => (
              <tr key={`${loss.name}${loss.cause}`}>
                <td class="num right lost">{number(loss.packets)}</td>
                <th scope="row"><span title={loss.cause}>{causeWord(loss.cause)}</span></th>
                <td>{loss.where === "port" ? <Foreign text={loss.name} mono /> : <>{loss.account && <><Foreign text={loss.account} /> · </>}<CaptureLink account={loss.account} id={loss.name} /></>}</td>
                <td class="wrap-text">{known(`do.${loss.cause}`) ? t(`do.${loss.cause}` as Key) : ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Ports({ host, state }: { host: HostFeed; state: HostState }) {
  return (
    <section class="card">
      <h2>{t("host.ports")}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("host.ports")}>
        <table class="plain">
          <thead><tr><th scope="col">{t("host.port")}</th><th scope="col">{t("host.link")}</th><th scope="col" class="right">{t("host.packets")}</th><th scope="col" class="right">{t("host.rate")}</th><th scope="col" class="right">{t("host.line")}</th><th scope="col" class="right">imissed</th><th scope="col" class="right">nombuf</th><th scope="col" class="right">ierrors</th></tr></thead>
          <tbody>
            {state.ports.map((port) => {
              const find = (other: HostState) => other.ports.find(({ device }) => device === port.device);
              const packets = rateOf(host, (other) => find(other)?.rx);
              const octets = rateOf(host, (other) => find(other)?.rx_bytes);
              const line = port.link_mbps && octets !== undefined ? (octets * 8) / (port.link_mbps * 1e6) : undefined;
              return (
                <tr key={port.device}>
                  <th scope="row"><Foreign text={port.device} mono max={40} /></th>
                  <td>
                    <span class={`status ${port.link_up ? "ok" : "bad"}`}><Icon name={port.link_up ? "check" : "cross"} />{port.is_there === false ? t("host.away") : port.link_up ? t("host.up") : t("host.down")}</span>
                    {port.link_mbps ? <span class="faint num"> {bits(port.link_mbps * 1e6)}</span> : null}
                    {port.gaps ? <span class="lost"> {t("host.gaps", { count: port.gaps })}</span> : null}
                    {(port.quiet_seconds ?? 0) >= QUIET_SECONDS ? <span class="lost"> {t("host.quiet", { span: duration(port.quiet_seconds ?? 0) })}</span> : null}
                  </td>
                  <td class="num right nowrap">{packets === undefined ? "–" : perSecond(packets)}</td>
                  <td class="num right nowrap">{octets === undefined ? "–" : bits(octets * 8)}</td>
                  <td class="num right">{line === undefined ? "–" : percent(line)}</td>
                  <td class="right"><Lost packets={port.imissed} known /></td>
                  <td class="right"><Lost packets={port.rx_nombuf} known /></td>
                  <td class="right"><Lost packets={port.ierrors} known /></td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Queues({ host, state }: { host: HostFeed; state: HostState }) {
  const rates = state.queues.map((queue) => rateOf(host, (other) => other.queues.find((each) => each.port === queue.port && each.queue === queue.queue)?.rx) ?? 0);
  const most = Math.max(1, ...rates);
  const total = Math.max(1, rates.reduce((sum, value) => sum + value, 0));
  return (
    <section class="card">
      <h2>{t("host.queues")}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("host.queues")}>
        <table class="plain">
          <thead><tr><th scope="col">{t("host.queue")}</th><th scope="col">{t("host.worker")}</th><th scope="col" class="right">{t("host.packets")}</th><th scope="col" class="heat-col">{t("host.share")}</th><th scope="col" class="right">{t("ledger.matched")}</th></tr></thead>
          <tbody>
            {state.queues.map((queue, index) => (
              <tr key={`${queue.port}/${queue.queue}`}>
                <th scope="row"><Foreign text={queue.port} mono max={24} /> <span class="num">#{queue.queue}</span></th>
                <td class="num">{visible(String(queue.worker))}</td>
                <td class="num right nowrap">{perSecond(rates[index]!)}</td>
                <td class="heat-col"><Bar share={rates[index]! / most} label={percent(rates[index]! / total)} /></td>
                <td class="num right">{queue.rx > 0 ? percent(queue.matched / queue.rx) : "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Stages({ host, state }: { host: HostFeed; state: HostState }) {
  return (
    <section class="card">
      <h2>{t("host.stages")}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("host.stages")}>
        <table class="plain">
          <thead><tr><th scope="col">{t("host.thread")}</th><th scope="col" class="right">{t("host.blocks")}</th><th scope="col" class="right">{t("host.lowest")}</th><th scope="col" class="right">{t("host.queued")}</th><th scope="col" class="right">{t("host.highest")}</th><th scope="col" class="right">{t("host.inflight")}</th><th scope="col" class="right">{t("host.written")}</th></tr></thead>
          <tbody>
            {state.stages.map((stage) => {
              const lowest = least(stage.blocks_free_min);
              const written = rateOf(host, (other) => other.stages.find(({ name }) => name === stage.name)?.written_bytes);
              return (
                <tr key={stage.name}>
                  <th scope="row">
                    <Foreign text={stage.name} mono />
                    {stage.stalled ? <span class="status bad"><Icon name="warn" /><Foreign text={typeof stage.stalled === "string" ? stage.stalled : t("host.stalled")} /></span> : null}
                  </th>
                  <td class="num right nowrap">{stage.blocks > 0 ? `${number(stage.blocks_free)} / ${number(stage.blocks)}` : "–"}</td>
                  <td class={lowest === 0 && stage.blocks > 0 ? "num right lost" : "num right"}>{stage.blocks > 0 && lowest !== undefined ? number(lowest) : "–"}</td>
                  <td class="num right">{number(stage.queued)}</td>
                  <td class="num right">{greatest(stage.queued_max) === undefined ? "–" : number(greatest(stage.queued_max)!)}</td>
                  <td class="num right">{number(stage.in_flight)}</td>
                  <td class="num right nowrap">{written === undefined || stage.writes === 0 ? "–" : `${bytes(written)}/s`}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Storage({ host, state }: { host: HostFeed; state: HostState }) {
  const { spool, upload } = state;
  const used = spool.used / Math.max(1, spool.max);
  const left = fullIn(spool.max - spool.used, rateOf(host, (other) => other.spool.used));
  const sent = rateOf(host, (other) => other.upload.bytes);
  return (
    <div class="grid-half">
      <section class="card">
        <h2>{t("host.spool")}</h2>
        <div class="row between"><b class="num">{bytes(spool.used)}</b><span class="faint num">{t("limit.of", { limit: bytes(spool.max) })} · {percent(used)}</span></div>
        <Bar share={used} tone={spool.alarm || used * 100 >= spool.high_water_percent ? "bad" : "accent"} label={`${t("host.spool")}: ${percent(used)}`} />
        <dl class="details">
          <div><dt>{t("host.highwater")}</dt><dd class="num">{spool.high_water_percent} %</dd></div>
          <div><dt>{t("host.full")}</dt><dd class="num">{left === undefined ? t("host.notfilling") : duration(left)}</dd></div>
          <div><dt>{t("host.held")}</dt><dd class="num">{bytes(spool.held)}</dd></div>
          <div><dt>{t("host.diskfree")}</dt><dd class="num">{bytes(spool.disk_free)}</dd></div>
        </dl>
      </section>
      <section class="card">
        <h2>{t("host.upload")}</h2>
        <dl class="figures">
          <Figure label={t("host.sending")} sub={t("host.objects", { count: upload.objects })}>{sent === undefined ? "–" : `${bytes(sent)}/s`}</Figure>
          <Figure label={t("host.waiting")} tone={upload.failures > 0 && upload.waiting_bytes > 0 ? "warn" : undefined} sub={upload.waiting_bytes === 0 ? t("host.nothing.waits") : upload.oldest_seconds ? t("host.oldest", { span: duration(upload.oldest_seconds) }) : t("host.oldest.runs")}>{bytes(upload.waiting_bytes)}</Figure>
          <Figure label={t("host.retries")} sub={t("host.failures", { count: upload.failures })}>{number(upload.retries)}</Figure>
        </dl>
        {upload.last_error && <Notice tone="warn"><Foreign text={upload.last_error} />{upload.next_try_seconds !== undefined && upload.next_try_seconds !== null && <p class="faint">{t("host.nexttry", { span: duration(upload.next_try_seconds) })}</p>}</Notice>}
      </section>
    </div>
  );
}

/** Arrays of numbers in the answer, by a name that may be nested: "dropped.no_block". */
function arrays(value: unknown, prefix = ""): Map<string, (number | null)[]> {
  const found = new Map<string, (number | null)[]>();
  if (value === null || typeof value !== "object") return found;
  for (const [name, inner] of Object.entries(value)) {
    const full = prefix === "" ? name : `${prefix}.${name}`;
    if (Array.isArray(inner) && inner.every((item) => item === null || typeof item === "number")) found.set(full, inner as (number | null)[]);
    else if (!Array.isArray(inner)) for (const [key, values] of arrays(inner, full)) found.set(key, values);
  }
  return found;
}

function added(lines: (number | null)[][], length: number): (number | null)[] {
  return Array.from({ length }, (_, index) => {
    const values = lines.map((line) => line[index] ?? null).filter((value): value is number => value !== null);
    return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0);
  });
}

export function lossSeries(series: HostSeries | undefined): { values: (number | null)[]; step: number } {
  if (!series) return { values: [], step: 1 };
  const all = [...arrays(series)].filter(([name]) => isLoss(name)).map(([, values]) => values);
  return { values: added(all, Math.max(0, ...all.map(({ length }) => length))), step: series.step_ns / 1e9 };
}

function lowest(lines: (number | null)[][], length: number): (number | null)[] {
  return Array.from({ length }, (_, index) => {
    const values = lines.map((line) => line[index] ?? null).filter((value): value is number => value !== null);
    return values.length === 0 ? null : Math.min(...values);
  });
}

function HostPlots({ series, state, log, setLog, paused, setPaused }: { series: HostSeries; state: HostState | undefined; log: boolean; setLog: (log: boolean) => void; paused: boolean; setPaused: (paused: boolean) => void }) {
  const all = arrays(series);
  const seconds = series.step_ns / 1e9;
  const length = Math.max(0, ...[...all.values()].map((values) => values.length));
  const times = Array.from({ length }, (_, index) => series.from_ns / 1e9 + index * seconds);
  const rate = (values: (number | null)[]) => values.map((value) => (value === null ? null : value / seconds));
  const find = (pattern: RegExp) => [...all].filter(([name]) => pattern.test(name)).map(([, values]) => values);
  const lost = lossSeries(series).values;
  const sum = (values: (number | null)[]) => values.reduce<number>((total, value) => total + (value ?? 0), 0);
  const rx = added(find(/^ports\..*\.rx$/), length);
  const matched = added(find(/^queues\..*\.matched$/), length);
  const octets = added(find(/^ports\..*\.rx_bytes$/), length);
  // Writers have no blocks of their own.
  const workers = (state?.stages ?? []).filter((stage) => stage.blocks > 0).flatMap(({ name }) => [`stages.${name}.blocks_free_min`, `stages.${name}.blocks_free`]);
  const free = [...all].filter(([name]) => workers.includes(name)).map(([, values]) => values);
  const blocks = lowest(free, length);
  return (
    <section class="card">
      <div class="row between wrap">
        <h2>{t("host.last15")}</h2>
        <div class="row">
          <label class="check"><input type="checkbox" checked={log} onChange={(event) => setLog(event.currentTarget.checked)} /><span>{t("plot.log")}</span></label>
          <button type="button" class="button small" aria-pressed={paused} onClick={() => setPaused(!paused)}><Icon name={paused ? "play" : "pause"} />{paused ? t("plot.resume") : t("plot.pause")}</button>
        </div>
      </div>
      <div class="two">
        <Plot title={t("plot.packets")} sentence={t("plot.host.sentence", { rx: sum(rx), lost: sum(lost) })} times={times} log={log} lines={[{ name: t("ledger.rx"), values: rate(rx), colour: "muted" }, { name: t("ledger.matched"), values: rate(matched), colour: "accent", fill: true }]} />
        <Plot title={t("plot.losses")} sentence={t("plot.losses.sentence", { lost: sum(lost) })} times={times} lines={[{ name: t("col.lost"), values: rate(lost), colour: "bad", fill: true }]} />
        <Plot title={t("plot.bytes")} sentence={t("plot.bytes.sentence", { bytes: bytes(sum(octets)) })} times={times} log={log} format={(value) => bits(value * 8)} lines={[{ name: t("host.rate"), values: rate(octets), colour: "ok", fill: true }]} />
        {free.length > 0 && <Plot title={t("plot.blocks")} sentence={t("plot.blocks.sentence", { least: Math.min(...blocks.map((value) => value ?? Number.POSITIVE_INFINITY)) })} times={times} lines={[{ name: t("host.blocks"), values: blocks, colour: "warn", fill: true }]} />}
      </div>
    </section>
  );
}

/** Asks the host for nothing unless the session is an operator's. */
export const HostPage = () => (session.value?.operator ? <Overview /> : <NotOperator />);

function Overview() {
  useTitle(t("nav.host"));
  const host = useHost();
  useConnection(host.feed);
  const [log, setLog] = useState(false);
  const [paused, setPaused] = useState(false);
  const series = useLoad<HostSeries>(async (signal) => (await get<HostSeries>(`${HOST.series}?seconds=900`, signal)).result, []);
  useEffect(() => {
    if (paused) return undefined;
    const timer = setInterval(() => document.visibilityState !== "hidden" && series.reload(), 5000);
    return () => clearInterval(timer);
  }, [paused]);
  const state = host.state.value;
  const { values, step } = lossSeries(series.data);
  const list = state ? losses(state, arrays(series.data)) : [];
  return (
    <div class={host.feed.connection.value === "away" ? "page stale" : "page"}>
      <div class="page-head">
        <h1>{t("nav.host")}</h1>
        {state && <span class="faint num">trawl {visible(state.version)} {/\d/.test(String(state.dpdk)) ? `· DPDK ${visible(String(state.dpdk).replace(/^DPDK\s*/i, ""))} ·` : "·"} {t("host.up.for", { span: duration((state.now_ns - state.started_ns) / 1e9) })}</span>}
      </div>
      <HostNav />
      {!state && <Skeleton rows={8} />}
      {state && (
        <>
          <Verdict state={state} list={list} recent={lastLoss(values, step)} />
          <Checks state={state} />
          <Losses list={list} />
        </>
      )}
      {series.error !== undefined && !series.data && <ErrorBox error={series.error} retry={series.reload} />}
      {series.data && <HostPlots series={series.data} state={state} log={log} setLog={setLog} paused={paused} setPaused={setPaused} />}
      {state && (
        <>
          <Ports host={host} state={state} />
          <Storage host={host} state={state} />
          <Queues host={host} state={state} />
          <Stages host={host} state={state} />
          <section class="card"><h2>{t("host.captures")}</h2><HostCaptures state={state} limit={8} /></section>
          <p class="faint num small">{t("host.api", { connections: state.api.connections, max: state.api.connections_max })}, {t("host.streams", { count: state.api.streams })}</p>
        </>
      )}
    </div>
  );
}

/** A capture's id: a link where this session has its account, for only an account's own session sees a capture. */
export function CaptureLink({ account, id }: { account: string | undefined; id: string }) {
  const mine = account !== undefined && session.value?.accounts.some((one) => one.id === account);
  const short = <span class="mono" title={visible(id)}>{visible(id.slice(0, 8))}</span>;
  return mine ? <Link to={pages.capture(account, id)}>{short}</Link> : short;
}

export function HostCaptures({ state, limit, only }: { state: HostState; limit?: number; only?: (capture: { id: string; account: string }) => boolean }) {
  const list = byTrouble(state.captures ?? []).filter((capture) => only?.(capture) ?? true);
  const shown = limit ? list.slice(0, limit) : list;
  if (list.length === 0) return <p class="faint">{t("host.nocaptures")}</p>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={t("host.captures")}>
      <table class="plain">
        <thead><tr><th scope="col">{t("col.status")}</th><th scope="col">{t("nav.account")}</th><th scope="col">{t("detail.id")}</th><th scope="col">{t("detail.type")}</th><th scope="col" class="right">{t("col.packets")}</th><th scope="col" class="right">{t("col.bytes")}</th><th scope="col" class="right">{t("col.lost")}</th><th scope="col" class="right">{t("host.lag")}</th></tr></thead>
        <tbody>
          {shown.map((capture) => (
            <tr key={capture.id}>
              <td><Status status={capture.status} ledger={capture.ledger} /></td>
              <th scope="row"><Foreign text={capture.account} max={64} /></th>
              <td><CaptureLink account={capture.account} id={capture.id} /></td>
              <td>{known(`type.${capture.kind}`) ? t(`type.${capture.kind}` as Key) : visible(capture.kind)}</td>
              <td class="num right">{number(capture.ledger.captured)}</td>
              <td class="num right nowrap">{bytes(capture.ledger.captured_bytes)}</td>
              <td class="right"><Lost packets={missing(capture.ledger)} known /></td>
              <td class={capture.waiting_bytes > 0 ? "num right nowrap" : "num right nowrap faint"}>{bytes(capture.waiting_bytes)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {limit && list.length > limit && <p class="list-foot"><Link to={pages.hostCaptures}>{t("host.all", { count: list.length })}</Link></p>}
    </div>
  );
}
