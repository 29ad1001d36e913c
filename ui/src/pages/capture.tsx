// One capture: what it is doing or why it ended, what it holds, what is missing, and how to get it. Owns the page's order.
//
// Invariant: every number is the host's. Nothing is added up here that the host counts, and what is old is said to be old.

import { useEffect, useState } from "preact/hooks";
import { ApiError, get, isId, paths, type Problem } from "../api.ts";
import { useCaptures } from "../live/captures.ts";
import { inWords } from "../logic/filter.ts";
import { type Ledger, lost, missing, portLost } from "../logic/ledger.ts";
import { ended, shown, stoppable } from "../logic/states.ts";
import { objectAddress } from "../logic/destination.ts";
import { shellWord, visible } from "../logic/text.ts";
import { rates } from "../logic/series.ts";
import { instant, lasted, share, timeLeft } from "../logic/time.ts";
import { Bar, Code, Copy, Empty, ErrorBox, Figure, Foreign, Icon, Link, Notice, Skeleton, Time } from "../parts/basic.tsx";
import { useConnection } from "../parts/connection.ts";
import { now, useKeys, useLoad, useTitle } from "../parts/hooks.ts";
import { FilesCard } from "../parts/files.tsx";
import { LedgerView } from "../parts/ledger.tsx";
import { Plot } from "../parts/plot.tsx";
import { Status } from "../parts/status.tsx";
import { StopDialog } from "../parts/stop.tsx";
import { go, pages } from "../router.ts";
import { mayWrite } from "../session.ts";
import type { Capture, Progress, Series, SignedManifest } from "../types.ts";
import { bytes, duration, type Key, known, number, t, taken } from "../words/words.ts";

interface View {
  capture: Capture;
  messages: Problem[];
  progress?: Progress;
}

async function load(account: string, id: string, signal: AbortSignal): Promise<View> {
  const routes = paths(account);
  const [capture, progress] = await Promise.all([
    get<Capture>(routes.capture(id), signal),
    get<Progress>(routes.progress(id, 0), signal).catch((error: unknown) => {
      // Without the counts the page still says what the capture is.
      if (error instanceof ApiError && error.status !== 404) return undefined;
      throw error;
    }),
  ]);
  return { capture: capture.result, messages: capture.messages, progress: progress?.result };
}

function Reason({ view, status, ledger }: { view: View; status: string; ledger?: Ledger }) {
  const { capture, messages, progress } = view;
  const reason = progress?.stop_reason ?? undefined;
  const errors = [
    ...(capture.error_message ? [{ code: messages.find(({ message }) => message === capture.error_message)?.code ?? 0, message: capture.error_message }] : []),
    ...messages.filter(({ message }) => message !== capture.error_message),
  ];
  const state = shown(status, ledger);
  const key = `reason.${reason}`;
  const what = `reason.${reason}.do`;
  const zero = ended(status) && ledger && ledger.matched === 0;
  const tone = state.word === "failure" ? "bad" : state.tone === "warn" || (errors.length > 0 && !ended(status)) ? "warn" : state.tone === "ok" ? "ok" : "info";
  const word = state.step ? (`step.${state.step}.text` as Key) : state.word === "failure" ? "reason.failed" : "reason.success";
  return (
    <Notice tone={tone}>
      <p class="strong">{reason && known(key) ? t(key) : reason ? reason : t(word)}</p>
      {reason && known(what) && <p>{t(what)}</p>}
      {state.step && reason && <p>{t(`step.${state.step}.text`)}</p>}
      {errors.map(({ code, message }) => (
        <p key={message}>
          <Foreign text={message} />
          {code > 0 && <span class="faint nowrap"> ({t("error.code", { code: String(code) })})</span>}
        </p>
      ))}
      {errors.length > 0 && (state.step === "uploading" || state.step === "writing") && <p class="faint">{t("step.again")}</p>}
      {state.lost > 0 && ledger && (
        <p>
          {lost(ledger) > 0 && t("capture.lost", { count: lost(ledger) })} {portLost(ledger) > 0 && t("capture.lost.ports", { count: portLost(ledger) })}
        </p>
      )}
      {zero && <p>{t("capture.zero", { rx: ledger.rx, unmatched: ledger.unmatched })}</p>}
    </Notice>
  );
}

function Limit({ name, used, limit, format }: { name: string; used: number; limit: number | null | undefined; format: (value: number) => string }) {
  if (!limit) return null;
  const part = share(used, limit);
  return (
    <div class="limit">
      <div class="row between">
        <span>{name}</span>
        <span class="num">
          {format(used)} <span class="faint">{t("limit.of", { limit: format(limit) })}</span>
        </span>
      </div>
      <Bar share={part} tone={part >= 1 ? "muted" : "accent"} label={`${name}: ${format(used)} ${t("limit.of", { limit: format(limit) })}`} />
    </div>
  );
}

/** The API's code for counts over time that nobody kept. */
const SERIES_NOT_KEPT = 1068;

/** Why there is nothing to plot. */
function noSeries(capture: Capture): Key {
  if (!ended(capture.status)) return capture.offset_time ? "capture.noseries.back" : "capture.noseries";
  return "capture.noseries.ended";
}

function Plots({ account, capture }: { account: string; capture: Capture }) {
  const { id, status } = capture;
  const running = status === "running";
  const series = useLoad<Series>(async (signal) => (await get<Series>(paths(account).series(id), signal)).result, [account, id]);
  useEffect(() => {
    if (!running) {
      series.reload();
      return undefined;
    }
    const timer = setInterval(() => {
      if (document.visibilityState !== "hidden") series.reload();
    }, 5000);
    return () => clearInterval(timer);
  }, [status, id]);
  if (series.error !== undefined && !series.data) {
    if (series.error instanceof ApiError && series.error.code === SERIES_NOT_KEPT) return <p class="faint">{t("capture.series.notkept")}</p>;
    if (series.error instanceof ApiError && series.error.status === 404) return <p class="faint">{t(noSeries(capture))}</p>;
    return <ErrorBox error={series.error} retry={series.reload} />;
  }
  if (!series.data) return <Skeleton rows={3} />;
  const { times, matched, captured, bytes: octets, dropped, sums } = rates(series.data);
  if (times.length === 0) return <p class="faint">{t(noSeries(capture))}</p>;
  return (
    <div class="two">
      <Plot
        title={t("plot.packets")}
        sentence={t("plot.packets.sentence", { matched: sums.matched, captured: sums.captured, dropped: sums.dropped })}
        times={times}
        steps
        lines={[
          { name: t("ledger.matched"), values: matched, colour: "muted" },
          { name: t("ledger.captured"), values: captured, colour: "accent", fill: true },
          { name: t("plot.dropped"), values: dropped, colour: "bad", fill: true },
        ]}
      />
      <Plot
        title={t("plot.bytes")}
        sentence={t("plot.bytes.sentence", { bytes: bytes(sums.bytes) })}
        times={times}
        steps
        lines={[{ name: t("col.bytes"), values: octets, colour: "ok", fill: true }]}
        format={(value) => `${bytes(value)}/s`}
      />
    </div>
  );
}

function Details({ capture, progress }: { capture: Capture; progress?: Progress }) {
  const seconds = progress && lasted(progress);
  return (
    <dl class="details">
      <div><dt>{t("detail.id")}</dt><dd><span class="mono">{capture.id}</span> <Copy text={capture.id} /></dd></div>
      <div><dt>{t("detail.type")}</dt><dd>{t(`type.${capture.type}`)} · {t(`type.${capture.type}.text`)}</dd></div>
      <div><dt>{t("detail.submitted")}</dt><dd><Time at={Date.parse(capture.submitted)} exact /></dd></div>
      {progress?.started && <div><dt>{t(capture.offset_time ? "detail.window.from" : "detail.started")}</dt><dd><Time at={instant(progress.started)} exact /></dd></div>}
      {progress?.ended && <div><dt>{t(capture.offset_time ? "detail.window.to" : "detail.ended")}</dt><dd><Time at={instant(progress.ended)} exact /></dd></div>}
      {seconds !== undefined && <div><dt>{t("detail.duration")}</dt><dd class="num">{taken(seconds)}</dd></div>}
      {capture.offset_time && !progress?.ended && <div><dt>{t("detail.back")}</dt><dd><Time at={Date.parse(capture.offset_time)} /></dd></div>}
      {capture.stop_requested && <div><dt>{t("detail.stop")}</dt><dd><Time at={Date.parse(capture.stop_requested)} /></dd></div>}
      <div><dt>{t("detail.filter")}</dt><dd><Foreign text={JSON.stringify(capture.filter_v1)} mono /></dd></div>
      {capture.destination_conf && <div><dt>{t("detail.destination")}</dt><dd><Foreign text={capture.destination_conf} mono /> <Copy text={capture.destination_conf} /></dd></div>}
      {capture.colo_name && <div><dt>{t("detail.colo")}</dt><dd><Foreign text={capture.colo_name} /></dd></div>}
      <div><dt>{t("detail.status")}</dt><dd><span class="mono">{visible(capture.status)}</span></dd></div>
      {ended(capture.status) && progress?.spool && progress.spool.held_bytes > 0 && <div><dt>{t("detail.spool")}</dt><dd class="num">{bytes(progress.spool.held_bytes)}</dd></div>}
    </dl>
  );
}

/** The manifest and its signature as files: the API's answer has them inside, and `trawl verify` takes the files alone. */
function Manifest({ account, id }: { account: string; id: string }) {
  const [error, setError] = useState<unknown>(undefined);
  const save = (name: string, part: BlobPart) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([part], { type: "application/octet-stream" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };
  const fetchIt = () =>
    get<SignedManifest>(paths(account).manifest(id)).then(({ result }) => {
      setError(undefined);
      save(`pcap_${id}.json`, result.text);
      if (result.signature) save(`pcap_${id}.json.sig`, Uint8Array.from(atob(result.signature), (char) => char.charCodeAt(0)));
    }, setError);
  return (
    <>
      <button type="button" class="button" onClick={() => void fetchIt()}><Icon name="down" />{t("verify.manifest")}</button>
      {error !== undefined && <ErrorBox error={error} />}
    </>
  );
}

/** The command that holds the files to their manifest, in the bucket or beside the manifest that was downloaded. */
function verifyCommand(capture: Capture): string {
  const name = `pcap_${capture.id}.json`;
  const destination = capture.destination_conf;
  if (!destination) return `trawl verify ${name}`;
  const query = destination.includes("?") ? `?${destination.split("?")[1]}` : "";
  return `trawl verify ${shellWord(objectAddress(destination, name) + query)}`;
}

export function CapturePage({ account, id }: { account: string; id: string }) {
  const feed = useCaptures(account);
  useConnection(feed.feed);
  const view = useLoad((signal) => load(account, id, signal), [account, id]);
  const [stopping, setStopping] = useState(false);
  const live = feed.live.value.get(id);
  const data = view.data;
  // What has ended does not change any more: a look that is a second old must not stand over it.
  const settled = data !== undefined && ended(data.capture.status) && ended(data.progress?.status ?? data.capture.status);
  const status = (settled ? data.capture.status : live?.status) ?? data?.capture.status ?? "";
  useTitle(data ? (inWords(data.capture.filter_v1, t("filter.any")) ?? t("filter.all")) : t("captures.title"));
  // What the stream does not carry (objects, reason, messages) is asked for when something of it changed.
  const signs = live ? `${live.status} ${live.objects} ${JSON.stringify(live.warnings ?? 0)}` : "";
  useEffect(() => {
    if (signs !== "") view.reload();
  }, [signs]);
  const write = mayWrite(account);
  useKeys(
    "capture",
    () => [
      ...(write && stoppable(status) ? [{ keys: "s", label: "keys.stop" as const, run: () => setStopping(true) }] : []),
      ...(write ? [{ keys: "r", label: "keys.repeat" as const, run: () => go(pages.start(account, id)) }] : []),
    ],
    [status, write, id],
  );
  if (!data && view.error instanceof ApiError && (view.error.status === 404 || view.error.status === 410))
    return (
      <div class="page">
        <Empty title={t("capture.gone")} icon="search">
          <p>{t("capture.gone.text")}</p>
          <Link class="button" to={pages.captures(account)}>{t("captures.title")}</Link>
        </Empty>
      </div>
    );
  if (!data) return <div class="page">{view.error === undefined ? <Skeleton rows={10} /> : <ErrorBox error={view.error} retry={view.reload} />}</div>;
  const { capture, progress } = data;
  const ledger = (settled ? progress?.ledger : undefined) ?? live?.ledger ?? progress?.ledger;
  const came = live ? feed.at.value : view.at;
  const left = timeLeft(live?.seconds_left ?? progress?.seconds_left ?? 0, now.value - came);
  const running = !ended(status);
  const words = inWords(capture.filter_v1, t("filter.any")) ?? t("filter.all");
  const captured = ledger?.captured ?? capture.packets_captured ?? 0;
  const simple = capture.type === "simple";
  const seconds = progress && lasted(progress);
  return (
    <div class={feed.feed.connection.value === "away" && running ? "page stale" : "page"}>
      <nav class="crumbs" aria-label={t("nav.crumbs")}>
        <Link to={pages.captures(account)}>{t("captures.title")}</Link>
        <Icon name="right" />
        <span class="mono">{capture.id.slice(0, 8)}</span>
      </nav>
      <div class="page-head">
        <div class="grow">
          <h1><bdi>{visible(words)}</bdi></h1>
          <p class="sub-line"><Status status={status} ledger={ledger} large /> <span class="faint num">{t(capture.offset_time ? "kind.back" : `type.${capture.type}`)}{capture.colo_name && <> · <Foreign text={capture.colo_name} /></>} · <Time at={instant(progress?.started ?? capture.submitted)} />{seconds !== undefined && <> · {taken(seconds)}</>}</span></p>
        </div>
        <div class="row">
          {simple && status === "success" && <a class="button primary" href={paths(account).download(id)} download={`pcap_${id}.pcap`}><Icon name="down" />{t("action.download")}</a>}
          {write && stoppable(status) && <button type="button" class="button danger" onClick={() => setStopping(true)}><Icon name="stop" />{t("action.stop")}</button>}
          {write && <Link class="button" to={pages.start(account, id)}><Icon name="repeat" />{t("action.repeat")}</Link>}
        </div>
      </div>
      {view.error !== undefined && <ErrorBox error={view.error} retry={view.reload} />}
      <Reason view={data} status={status} ledger={ledger} />
      {progress?.sample_one_in && <Notice tone="info">{t("capture.sampled", { n: progress.sample_one_in })}</Notice>}
      {progress?.clock_steps && <Notice tone="warn">{t("capture.clock", { count: progress.clock_steps.count })}</Notice>}
      <div class="grid-main">
        <section class="card">
          <h2>{t("capture.now")}</h2>
          {ledger ? (
            <dl class="figures">
              <Figure label={t("ledger.captured")} sub={bytes(ledger.captured_bytes)}>{number(ledger.captured)}</Figure>
              <Figure label={t("ledger.matched")} sub={t("capture.of.rx", { rx: number(ledger.rx) })}>{number(ledger.matched)}</Figure>
              <Figure label={t("col.lost")} tone={missing(ledger) > 0 ? "warn" : undefined} sub={missing(ledger) > 0 ? t("capture.seebelow") : t("capture.nothing.lost")}>{number(missing(ledger))}</Figure>
            </dl>
          ) : <p class="faint">{t("capture.nocounts")}</p>}
        </section>
        <section class="card">
          <h2>{t("capture.limits")}</h2>
          <div class="limits">
            <Limit name={t("limit.time")} used={status === "running" || status === "pending" ? Math.max(0, capture.time_limit - left) : Math.min(seconds ?? capture.time_limit, capture.time_limit)} limit={capture.time_limit} format={status === "running" ? duration : taken} />
            <Limit name={t("limit.packets")} used={captured} limit={progress?.packet_limit ?? capture.packet_limit} format={number} />
            <Limit name={t("limit.bytes")} used={ledger?.captured_bytes ?? 0} limit={progress?.byte_limit ?? capture.byte_limit} format={bytes} />
          </div>
          {status === "running" && <p class="left num">{t("capture.left", { span: duration(left) })}</p>}
        </section>
      </div>
      <section class="card">
        <h2>{t("capture.overtime")}</h2>
        <Plots account={account} capture={{ ...capture, status }} />
      </section>
      {ledger && <section class="card"><h2>{t("ledger.title")}</h2><LedgerView ledger={ledger} /></section>}
      <FilesCard account={account} capture={{ ...capture, status }} delivered={progress?.delivered} notYet={live && !ended(status) ? live.upload_waiting_bytes : 0} />
      <div class="grid-half">
        <section class="card">
          <h2>{t("capture.details")}</h2>
          <Details capture={{ ...capture, status }} progress={progress} />
        </section>
        <section class="card">
          <h2>{t("verify.title")}</h2>
          <p>{t("verify.text")}</p>
          {isId(id) && <Code text={verifyCommand(capture)} />}
          {ended(status) && <p><Manifest account={account} id={id} /></p>}
        </section>
      </div>
      {stopping && <StopDialog account={account} id={id} close={() => setStopping(false)} done={view.reload} />}
    </div>
  );
}
