// The operator's other two pages: captures of all accounts, and the last warnings with the audit trail.

import { useEffect, useState } from "preact/hooks";
import { get, HOST } from "../api.ts";
import { useHost } from "../live/host.ts";
import { missing } from "../logic/ledger.ts";
import { visible } from "../logic/text.ts";
import { instant } from "../logic/time.ts";
import { Empty, ErrorBox, Foreign, Icon, Link, Skeleton, Tabs, Time } from "../parts/basic.tsx";
import { useConnection } from "../parts/connection.ts";
import { useLoad, useTitle } from "../parts/hooks.ts";
import { Lost } from "../parts/status.tsx";
import { pages, place, setQuery } from "../router.ts";
import { session } from "../session.ts";
import type { HostState, LogLine } from "../types.ts";
import { bytes, type Key, known, number, t } from "../words/words.ts";
import { CaptureLink, HostCaptures, HostNav, NotOperator } from "./host.tsx";

export const HostCapturesPage = () => (session.value?.operator ? <AllCaptures /> : <NotOperator />);
export const HostLogPage = () => (session.value?.operator ? <Log /> : <NotOperator />);

function Ended({ list }: { list: NonNullable<HostState["ended"]> }) {
  if (list.length === 0) return null;
  return (
    <section class="card">
      <h2>{t("host.ended")}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("host.ended")}>
        <table class="plain">
          <thead><tr><th scope="col">{t("detail.ended")}</th><th scope="col">{t("nav.account")}</th><th scope="col">{t("detail.id")}</th><th scope="col" class="right">{t("col.packets")}</th><th scope="col" class="right">{t("col.bytes")}</th><th scope="col" class="right">{t("col.lost")}</th></tr></thead>
          <tbody>
            {list.map(({ id, account, ended_ns, ledger }) => (
              <tr key={id}>
                <td><Time at={ended_ns / 1e6} /></td>
                <th scope="row"><Foreign text={account} max={64} /></th>
                <td><CaptureLink account={account} id={id} /></td>
                <td class="num right">{number(ledger.captured)}</td>
                <td class="num right nowrap">{bytes(ledger.captured_bytes)}</td>
                <td class="right"><Lost packets={missing(ledger)} known /></td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function AllCaptures() {
  useTitle(t("host.captures"));
  const host = useHost();
  useConnection(host.feed);
  const state = host.state.value;
  const text = place.value.query.get("q") ?? "";
  const needle = text.trim().toLowerCase();
  const only = ({ id, account }: { id: string; account: string }) => needle === "" || id.includes(needle) || account.toLowerCase().includes(needle);
  const ended = [...(state?.ended ?? [])].filter(only).reverse();
  const nothing = state && needle !== "" && ended.length === 0 && !(state.captures ?? []).some(only);
  return (
    <div class={host.feed.connection.value === "away" ? "page stale" : "page"}>
      <div class="page-head"><h1>{t("host.captures")}</h1></div>
      <HostNav />
      <div class="toolbar">
        <label class="search"><Icon name="search" /><span class="visually-hidden">{t("host.search")}</span><input type="search" placeholder={t("host.search")} value={text} onInput={(event) => setQuery({ q: event.currentTarget.value })} /></label>
      </div>
      {!state && <Skeleton rows={6} />}
      {nothing && <Empty title={t("host.nofound")} icon="search"><button type="button" class="button" onClick={() => setQuery({ q: undefined })}>{t("captures.clear")}</button></Empty>}
      {state && !nothing && <section class="card"><HostCaptures state={state} only={only} /></section>}
      <Ended list={ended} />
    </div>
  );
}

type Lines = { lines?: LogLine[] } | LogLine[];

const WARNING = /warn|error/i;

function isWarning(line: LogLine): boolean {
  return WARNING.test(`${line.level ?? ""} ${line.kind ?? ""}`);
}

const HIDDEN = new Set(["seq", "id", "at", "at_ns", "kind", "level", "message", "account"]);

/** A line of the log. The ids of captures in it lead to them. */
function Message({ text }: { text: string }) {
  return <>{text.split(/\b([0-9a-f]{32})\b/).map((part, index) => (index % 2 === 1 ? <Link key={index} to={pages.hostCapturesOf(part)} class="mono">{part}</Link> : part !== "" && <Foreign key={index} text={part} />))}</>;
}

function LogRow({ line }: { line: LogLine }) {
  const rest = Object.entries(line).filter(([name, value]) => !HIDDEN.has(name) && value !== null && value !== "");
  return (
    <tr>
      <td class="nowrap log-at"><Time at={instant(line.at ?? line.at_ns)} /></td>
      <td class="nowrap log-kind">
        <span class={`status ${isWarning(line) ? "warn" : "idle"}`}><Icon name={isWarning(line) ? "warn" : "info"} />{known(`log.kind.${line.kind}`) ? t(`log.kind.${line.kind}` as Key) : <Foreign text={String(line.kind ?? line.level ?? "")} />}</span>
      </td>
      <td class="log-account">{line.account ? <Foreign text={String(line.account)} max={64} /> : <span class="faint">–</span>}</td>
      <td class="wrap-text log-what">
        {line.message && <Message text={String(line.message)} />}
        {rest.length > 0 && <span class="faint mono small"> {rest.map(([name, value]) => visible(`${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)).join(" ")}</span>}
      </td>
    </tr>
  );
}

function Log() {
  useTitle(t("host.log"));
  const [show, setShow] = useState<"all" | "warnings" | "audit">("all");
  const [text, setText] = useState("");
  const log = useLoad<LogLine[]>(async (signal) => {
    const { result } = await get<Lines>(HOST.log, signal);
    return Array.isArray(result) ? result : (result.lines ?? []);
  }, []);
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState !== "hidden" && log.reload(), 10_000);
    return () => clearInterval(timer);
  }, []);
  const when = (line: LogLine) => instant(line.at ?? line.at_ns);
  const lines = [...(log.data ?? [])]
    .sort((a, b) => when(b) - when(a))
    .filter((line) => show === "all" || isWarning(line) === (show === "warnings"))
    .filter((line) => text === "" || JSON.stringify(line).toLowerCase().includes(text.toLowerCase()));
  return (
    <div class="page">
      <div class="page-head"><h1>{t("host.log")}</h1></div>
      <HostNav />
      <div class="toolbar">
        <Tabs label={t("log.show")} value={show} set={setShow} tabs={[["all", t("captures.all")], ["warnings", t("log.warnings")], ["audit", t("log.audit")]]} />
        <label class="search"><Icon name="search" /><span class="visually-hidden">{t("log.search")}</span><input type="search" placeholder={t("log.search")} value={text} onInput={(event) => setText(event.currentTarget.value)} /></label>
      </div>
      {log.error !== undefined && <ErrorBox error={log.error} retry={log.reload} />}
      {!log.data && log.error === undefined && <Skeleton rows={8} />}
      {log.data && lines.length === 0 && <Empty title={t("log.none")} />}
      {lines.length > 0 && (
        <div class="card flush scroll" tabIndex={0} role="region" aria-label={t("host.log")}>
          <table class="plain log">
            <thead><tr><th scope="col">{t("plot.time")}</th><th scope="col">{t("log.kind")}</th><th scope="col">{t("nav.account")}</th><th scope="col">{t("log.what")}</th></tr></thead>
            <tbody>{lines.slice(0, 1000).map((line, index) => <LogRow key={line.seq ?? line.id ?? index} line={line} />)}</tbody>
          </table>
        </div>
      )}
    </div>
  );
}
