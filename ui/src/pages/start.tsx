// Starting a capture, in two steps: what is kept, then of what and for how long. Owns the form, its checks and its estimate.
//
// Invariant: why Start would be refused stands there before it is pressed, as far as it can be known; limits are the host's.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks";
import { ApiError, call, get, paths } from "../api.ts";
import { asCli, asCurl, asPython, type Request } from "../logic/commands.ts";
import { type Estimate, outlook, rounded } from "../logic/estimate.ts";
import { EMPTY, type Fault, fromTyped, inWords, PROTOCOLS, toTyped, type Typed } from "../logic/filter.ts";
import { visible } from "../logic/text.ts";
import { instant, timeLeft } from "../logic/time.ts";
import { Code, ErrorBox, Foreign, Icon, Link, Notice, Skeleton, Tabs, Time } from "../parts/basic.tsx";
import { now, useLoad, useTitle } from "../parts/hooks.ts";
import { live } from "../parts/announce.tsx";
import { go, pages, place, setQuery } from "../router.ts";
import { mayWrite } from "../session.ts";
import type { Bucket, Capabilities, Capture, Progress } from "../types.ts";
import { bytes, duration, number, t } from "../words/words.ts";

type Kind = "simple" | "back" | "full";

interface Form {
  filter: Typed;
  seconds: string;
  packets: string;
  bytes: string;
  destination: string;
  format: string;
  compression: string;
  /** Seconds before now at which a look back ends. */
  ago: number;
}

/** Changes some of the form's fields. What else was typed meanwhile stays. */
type Change = (fields: Partial<Form>) => void;

/** What another kind begins with; the rest of a form stays. */
const firstOf = (kind: Kind | undefined) => (kind === "full" ? { seconds: "300", packets: "" } : { seconds: "60", packets: "1000" });
const BLANK: Form = { ...firstOf(undefined), filter: EMPTY, bytes: "", destination: "", format: "", compression: "", ago: 0 };
const OBSERVED_SECONDS = 60;

function whole(text: string): number | undefined {
  return /^\d+$/.test(text.trim()) && Number(text) > 0 ? Number(text) : undefined;
}

/** "100 MB" or "1.5GB" or a number. */
function size(text: string): number | undefined {
  const found = /^(\d+(?:\.\d+)?)\s*([kKMGT]?i?B?)$/.exec(text.trim());
  if (!found) return undefined;
  const unit = found[2]!.toUpperCase().replace("B", "");
  const step = unit.endsWith("I") ? 1024 : 1000;
  const power = ["", "K", "M", "G", "T"].indexOf(unit.replace("I", ""));
  const value = Math.round(Number(found[1]) * step ** power);
  return power >= 0 && value > 0 ? value : undefined;
}

function requestOf(kind: Kind, form: Form, capabilities: Capabilities, at: number): Request {
  const { filter } = fromTyped(form.filter);
  const request: Request = { system: "magic-transit", type: kind === "full" ? "full" : "simple", time_limit: Number(form.seconds) };
  const packets = whole(form.packets);
  if (packets) request.packet_limit = packets;
  if (Object.keys(filter).length > 0) request.filter_v1 = filter as Record<string, string | number>;
  if (kind === "back") request.offset_time = new Date(at - form.ago * 1000).toISOString();
  if (kind === "full") {
    const limit = size(form.bytes);
    if (limit) request.byte_limit = limit;
    request.colo_name = capabilities.colo;
    request.destination_conf = form.destination;
    if (form.format) request.format = form.format;
    if (form.compression) request.compression = form.compression;
  }
  return request;
}

/** Whether all places of this kind are taken by captures of the account. */
function isTaken(kind: Kind, { full, history }: Capabilities): boolean {
  if (kind === "full") return full.active >= full.per_account;
  return kind === "back" && history != null && history.active >= history.active_max;
}

interface Blocks {
  fields: Partial<Record<"seconds" | "packets" | "bytes" | "destination" | keyof Typed, string>>;
  /** Why the host would refuse although the form is right. */
  host: string[];
}

function blocksOf(kind: Kind, form: Form, capabilities: Capabilities, waitedMs: number): Blocks {
  const fields: Blocks["fields"] = {};
  const host: string[] = [];
  const { faults } = fromTyped(form.filter);
  for (const [name, fault] of Object.entries(faults)) fields[name as keyof Typed] = t(`fault.${fault as Fault}`);
  const rules = kind === "full" ? capabilities.full : capabilities.simple;
  const seconds = Number(form.seconds);
  if (!(seconds >= 1) || seconds > rules.time_limit_max) fields.seconds = t("start.range", { from: 1, to: rules.time_limit_max });
  const packetsMax = rules.packet_limit_max ?? undefined;
  const packets = whole(form.packets);
  if (form.packets.trim() !== "" || kind !== "full") if (!packets || (packetsMax && packets > packetsMax)) fields.packets = packetsMax ? t("start.range", { from: 1, to: packetsMax }) : t("start.positive");
  if (kind === "full") {
    const limit = size(form.bytes);
    const max = capabilities.full.byte_limit_max ?? undefined;
    if (form.bytes.trim() !== "" && (!limit || (max && limit > max))) fields.bytes = max ? t("start.bytes.max", { max: bytes(max) }) : t("start.bytes.bad");
    if (form.destination.trim() === "") fields.destination = t("start.destination.need");
    if (isTaken(kind, capabilities)) host.push(t("start.full.busy", { count: capabilities.full.per_account }));
  } else if (kind === "simple") {
    const wait = Math.ceil(timeLeft(capabilities.simple.seconds_until_next, waitedMs));
    if (wait > 0) host.push(t("start.wait", { span: duration(wait) }));
  } else if (isTaken(kind, capabilities)) host.push(t("start.back.busy"));
  if (!capabilities.accepting) host.push(t("start.ending"));
  return { fields, host };
}

function KindCards({ capabilities, choose }: { capabilities: Capabilities; choose: (kind: Kind) => void }) {
  const cards: { kind: Kind; off?: string; facts: string[] }[] = [
    {
      kind: "simple",
      facts: [t("kind.simple.one"), t("kind.simple.limits", { seconds: duration(capabilities.simple.time_limit_max), packets: capabilities.simple.packet_limit_max }), t("kind.simple.keep", { span: duration(capabilities.simple.retention_seconds) })],
    },
    {
      kind: "back",
      off: capabilities.history ? undefined : t("kind.back.off"),
      facts: [
        t("kind.back.one"),
        ...(capabilities.history ? [t("kind.back.reach", { span: duration((instant(capabilities.history.to) - instant(capabilities.history.from)) / 1000) }), t("kind.back.sample", { n: capabilities.history.sample_one_in })] : []),
      ],
    },
    {
      kind: "full",
      facts: [t("kind.full.one"), t("kind.full.limits", { seconds: duration(capabilities.full.time_limit_max) }), capabilities.require_validation ? t("kind.full.proof") : t("kind.full.noproof")],
    },
  ];
  return (
    <div class="kinds">
      {cards.map(({ kind, off, facts }) => (
        <button key={kind} type="button" class="kind" aria-disabled={off !== undefined} onClick={() => off === undefined && choose(kind)}>
          <span class="kind-head">
            <Icon name={kind === "full" ? "bucket" : kind === "back" ? "clock" : "down"} />
            <b>{t(`kind.${kind}`)}</b>
            <Icon name="right" />
          </span>
          <ul>
            {facts.map((fact) => (
              <li key={fact}>{fact}</li>
            ))}
          </ul>
          {off && <span class="chip">{off}</span>}
        </button>
      ))}
    </div>
  );
}

function Field({ label, hint, error, children, id }: { label: string; hint?: string; error?: string; id: string; children: ComponentChildren }) {
  return (
    <div class={error ? "field wrong" : "field"}>
      <label for={id}>{label}</label>
      {children}
      {error ? <small id={`${id}-note`} class="field-error">{error}</small> : hint && <small id={`${id}-note`}>{hint}</small>}
    </div>
  );
}

function FilterFields({ typed, set, faults }: { typed: Typed; set: (change: Partial<Typed>) => void; faults: Blocks["fields"] }) {
  const input = (name: keyof Typed, label: string, placeholder: string, narrow?: boolean) => (
    <Field id={name} label={label} error={faults[name]}>
      <input id={name} class={narrow ? "narrow num" : "mono"} inputMode={narrow ? "numeric" : undefined} spellcheck={false} autocomplete="off" placeholder={placeholder} value={typed[name]} aria-invalid={faults[name] !== undefined || undefined} aria-describedby={`${name}-note`} onInput={(event) => set({ [name]: event.currentTarget.value })} />
    </Field>
  );
  return (
    <div class="filter-fields">
      {input("source_address", t("filter.source"), t("filter.any.address"))}
      {input("source_port", t("filter.port"), t("filter.any"), true)}
      {input("destination_address", t("filter.destination"), t("filter.any.address"))}
      {input("destination_port", t("filter.port"), t("filter.any"), true)}
      <Field id="protocol" label={t("filter.protocol")} error={faults.protocol}>
        <input id="protocol" list="protocols" class="num" autocomplete="off" inputMode="numeric" placeholder={t("filter.any")} value={typed.protocol} aria-describedby="protocol-note" onInput={(event) => set({ protocol: event.currentTarget.value })} />
        <datalist id="protocols">
          {PROTOCOLS.map(([value, name]) => (
            <option key={value} value={String(value)}>{name}</option>
          ))}
        </datalist>
      </Field>
    </div>
  );
}

function EstimateView({ account, form, kind, ok, capabilities }: { account: string; form: Form; kind: Kind; ok: boolean; capabilities: Capabilities }) {
  const [state, setState] = useState<{ estimate?: Estimate; error?: unknown; busy?: boolean }>({});
  const { filter } = fromTyped(form.filter);
  const key = JSON.stringify(filter);
  useEffect(() => setState({}), [key]);
  if (!capabilities.history) return <p class="faint">{t("estimate.none")}</p>;
  const ask = () => {
    setState({ busy: true });
    call<Estimate>(paths(account).estimate, { method: "POST", body: { filter_v1: filter, seconds: OBSERVED_SECONDS } })
      .then((answer) => {
        setState({ estimate: answer?.result });
        live(t("estimate.done"));
      })
      .catch((error: unknown) => setState({ error }));
  };
  const { estimate } = state;
  const error = estimate ? (estimate.packets_high - estimate.packets_low) / 2 : 0;
  const ahead = estimate && kind !== "back" ? outlook(estimate, OBSERVED_SECONDS, Number(form.seconds) || 0, whole(form.packets), size(form.bytes)) : undefined;
  return (
    <div class="stack tight">
      {estimate && (
        <>
          <p class="strong num">{t("estimate.packets", { seconds: OBSERVED_SECONDS, packets: rounded(estimate.packets, error), error: rounded(error, error / 10) })}</p>
          <p class="faint num">{t("estimate.basis", { bytes: bytes(estimate.bytes), n: estimate.sample_one_in })}</p>
          {ahead && <p class="num">{t("estimate.ahead", { span: duration(Number(form.seconds) || 0), low: number(ahead.low), high: number(ahead.high) })}</p>}
          {ahead?.packetLimitAfter !== undefined && <Notice tone="info">{t("estimate.limit.packets", { span: duration(ahead.packetLimitAfter) })}</Notice>}
          {ahead?.byteLimitAfter !== undefined && <Notice tone="info">{t("estimate.limit.bytes", { span: duration(ahead.byteLimitAfter) })}</Notice>}
        </>
      )}
      {state.error !== undefined && <ErrorBox error={state.error} />}
      <div>
        <button type="button" class="button small" aria-disabled={!ok || state.busy} onClick={() => ok && !state.busy && ask()}>
          {state.busy ? t("loading") : estimate ? t("estimate.again") : t("estimate.ask")}
        </button>
      </div>
    </div>
  );
}

function LookBack({ form, set, capabilities, at }: { form: Form; set: Change; capabilities: Capabilities; at: number }) {
  const history = capabilities.history;
  if (!history) return null;
  const reach = Math.max(60, Math.floor((at - instant(history.from)) / 1000));
  const end = at - form.ago * 1000;
  return (
    <div class="field">
      <label for="ago">{t("back.slider")}</label>
      <input id="ago" type="range" min={0} max={reach} step={reach > 7200 ? 60 : 1} value={reach - form.ago} aria-valuetext={t("back.ago", { span: duration(form.ago) })} onInput={(event) => set({ ago: reach - Number(event.currentTarget.value) })} />
      <div class="row between small faint">
        <Time at={instant(history.from)} />
        <span>{t("back.now")}</span>
      </div>
      <p class="num">
        {t("back.window")} <Time at={end - (Number(form.seconds) || 0) * 1000} zone={false} /> – <Time at={end} />
      </p>
    </div>
  );
}

function Destination({ account, form, set, capabilities, error }: { account: string; form: Form; set: Change; capabilities: Capabilities; error?: string }) {
  const buckets = useLoad<Bucket[]>(async (signal) => (await get<Bucket[]>(paths(account).buckets, signal)).result, [account]);
  const usable = (buckets.data ?? []).filter(({ status }) => status === "success" || !capabilities.require_validation);
  const waiting = (buckets.data ?? []).filter((bucket) => !usable.includes(bucket));
  const free = !capabilities.require_validation || capabilities.destinations.includes("file");
  const [other, setOther] = useState(false);
  useEffect(() => {
    if (form.destination === "" && usable.length > 0) set({ destination: usable[0]!.destination_conf });
  }, [buckets.data]);
  if (buckets.error !== undefined && !buckets.data) return <ErrorBox error={buckets.error} retry={buckets.reload} />;
  const typed = other || (free && usable.length === 0) || (form.destination !== "" && !usable.some(({ destination_conf }) => destination_conf === form.destination));
  return (
    <Field id="destination" label={t("start.destination")} error={error} hint={typed ? t("start.destination.hint") : undefined}>
      {typed ? (
        <input id="destination" class="mono" spellcheck={false} value={form.destination} placeholder="s3://bucket/directory?region=eu-central-1" aria-describedby="destination-note" onInput={(event) => set({ destination: event.currentTarget.value })} />
      ) : (
        <select id="destination" value={form.destination} aria-describedby="destination-note" onChange={(event) => {
          if (event.currentTarget.value === "\u0000other") { setOther(true); set({ destination: "" }); }
          else set({ destination: event.currentTarget.value });
        }}>
          {usable.length === 0 && <option value="">{t("start.destination.nothing")}</option>}
          {usable.map(({ id, destination_conf }) => (
            <option key={id} value={destination_conf}>{visible(destination_conf)}</option>
          ))}
          {free && <option value={"\u0000other"}>{t("start.destination.other")}</option>}
        </select>
      )}
      {waiting.length > 0 && <small>{t("start.destination.unproven", { count: waiting.length })}</small>}
      <small><Link to={pages.buckets(account)}>{t("start.destination.add")}</Link></small>
    </Field>
  );
}

function Commands({ account, request }: { account: string; request: Request }) {
  const [tab, setTab] = useState<"curl" | "cli" | "python">("curl");
  const origin = location.origin;
  const text = { curl: asCurl, cli: asCli, python: asPython }[tab](origin, account, request);
  return (
    <section class="card">
      <div class="row between wrap">
        <h2>{t("start.as")}</h2>
        <Tabs label={t("start.as")} value={tab} set={setTab} tabs={[["curl", "curl"], ["cli", "trawl"], ["python", "Python"]]} />
      </div>
      <Code text={text} />
    </section>
  );
}

function template(capture: Capture, progress: Progress | undefined): { kind: Kind; form: Form } {
  return {
    kind: capture.type === "full" ? "full" : "simple",
    form: {
      ...BLANK,
      filter: toTyped(capture.filter_v1),
      seconds: String(capture.time_limit),
      packets: progress?.packet_limit ? String(progress.packet_limit) : capture.type === "full" ? "" : BLANK.packets,
      bytes: capture.byte_limit ? String(capture.byte_limit) : "",
      destination: capture.destination_conf ?? "",
    },
  };
}

const KINDS: readonly Kind[] = ["simple", "back", "full"];

export function StartPage({ account }: { account: string }) {
  useTitle(t("start.title"));
  const query = place.value.query;
  const from = query.get("from") ?? "";
  const kind = KINDS.find((known) => known === query.get("type"));
  const capabilities = useLoad<Capabilities>(async (signal) => (await get<Capabilities>(paths(account).capabilities, signal)).result, [account]);
  const [form, setForm] = useState<Form>(() => {
    const typed = { ...EMPTY };
    for (const name of Object.keys(EMPTY) as (keyof Typed)[]) typed[name] = query.get(name) ?? "";
    return { ...BLANK, ...firstOf(kind), filter: typed };
  });
  const [error, setError] = useState<unknown>(undefined);
  const [busy, setBusy] = useState(false);
  // The next step begins at its top, before anybody can type into it.
  useLayoutEffect(() => document.getElementById("main")?.focus({ preventScroll: true }), [kind]);
  useEffect(() => {
    if (from === "") return;
    void Promise.all([get<Capture>(paths(account).capture(from)), get<Progress>(paths(account).progress(from)).catch(() => undefined)]).then(([capture, progress]) => {
      const made = template(capture.result, progress?.result);
      setForm(made.form);
      setQuery({ from: undefined, type: made.kind });
    }, setError);
  }, [from]);
  const change: Change = (fields) => setForm((before) => ({ ...before, ...fields }));
  const data = capabilities.data;
  // What another capture keeps from starting can start when that one has ended: the page finds out by itself.
  const waits = data !== undefined && kind !== undefined && (isTaken(kind, data) || !data.accepting);
  useEffect(() => {
    if (!waits) return undefined;
    const timer = setInterval(() => document.visibilityState !== "hidden" && capabilities.reload(), 2000);
    return () => clearInterval(timer);
  }, [waits]);
  const waited = now.value - capabilities.at;
  const at = useMemo(() => Date.now(), [Math.floor(now.value / 10000)]);
  if (!mayWrite(account)) return <div class="page narrow"><h1>{t("start.title")}</h1><Notice tone="info">{t("role.read.text")}</Notice></div>;
  if (!data) return <div class="page narrow"><h1>{t("start.title")}</h1>{capabilities.error === undefined ? <Skeleton rows={5} /> : <ErrorBox error={capabilities.error} retry={capabilities.reload} />}</div>;
  const choose = (next: Kind) => {
    setQuery({ type: next });
    const first = firstOf(next);
    change({ ...first, packets: first.packets && String(Math.min(Number(first.packets), data.simple.packet_limit_max)) });
  };
  if (!kind)
    return (
      <div class="page narrow">
        <div class="page-head"><h1>{t("start.title")}</h1><span class="chip">{t("start.step", { n: 1 })}</span></div>
        <p class="faint">{t("start.choose")}</p>
        {error !== undefined && <ErrorBox error={error} />}
        <KindCards capabilities={data} choose={choose} />
      </div>
    );
  const blocks = blocksOf(kind, form, data, waited);
  const request = requestOf(kind, form, data, at);
  const blocked = Object.keys(blocks.fields).length + blocks.host.length > 0;
  const words = inWords(fromTyped(form.filter).filter, t("filter.any")) ?? t("filter.all");
  const rules = kind === "full" ? data.full : data.simple;
  const submit = (event: Event) => {
    event.preventDefault();
    if (blocked || busy) return;
    setBusy(true);
    setError(undefined);
    call<Capture>(paths(account).captures, { method: "POST", body: request })
      .then((answer) => answer && go(pages.capture(account, answer.result.id)))
      .catch((failure: unknown) => {
        setError(failure);
        if (failure instanceof ApiError && (failure.status === 429 || failure.status === 409)) capabilities.reload();
      })
      .finally(() => setBusy(false));
  };
  return (
    <div class="page">
      <div class="page-head"><h1>{t(`kind.${kind}.start`)}</h1><span class="chip">{t("start.step", { n: 2 })}</span></div>
      <form class="grid-start" onSubmit={submit} noValidate>
        <div class="stack">
          <section class="card">
            <h2>{t("start.what")}</h2>
            <p class="faint">{t("start.what.text")}</p>
            <FilterFields typed={form.filter} set={(filter) => setForm((before) => ({ ...before, filter: { ...before.filter, ...filter } }))} faults={blocks.fields} />
            <p class="words"><span class="faint">{t("start.takes")}</span> <b><bdi>{visible(words)}</bdi></b></p>
            {data.prefixes.length > 0 && <p class="faint small">{t("start.prefixes")} <Foreign text={data.prefixes.join(", ")} mono /></p>}
            <details><summary>{t("filter.json")}</summary><Code text={JSON.stringify(fromTyped(form.filter).filter)} /></details>
          </section>
          <section class="card">
            <h2>{t("start.until")}</h2>
            <div class="filter-fields three">
              <Field id="seconds" label={t("start.seconds")} error={blocks.fields.seconds} hint={t("start.max", { max: duration(rules.time_limit_max) })}>
                <input id="seconds" class="num" inputMode="decimal" value={form.seconds} aria-describedby="seconds-note" aria-invalid={blocks.fields.seconds !== undefined || undefined} onInput={(event) => change({ seconds: event.currentTarget.value })} />
              </Field>
              <Field id="packets" label={t("start.packets")} error={blocks.fields.packets} hint={rules.packet_limit_max ? t("start.max", { max: number(rules.packet_limit_max) }) : t("start.optional")}>
                <input id="packets" class="num" inputMode="numeric" value={form.packets} aria-describedby="packets-note" aria-invalid={blocks.fields.packets !== undefined || undefined} onInput={(event) => change({ packets: event.currentTarget.value })} />
              </Field>
              {kind === "full" && (
                <Field id="bytes" label={t("start.bytes")} error={blocks.fields.bytes} hint={data.full.byte_limit_max ? t("start.max", { max: bytes(data.full.byte_limit_max) }) : t("start.optional.bytes")}>
                  <input id="bytes" class="num" value={form.bytes} placeholder="100 MB" aria-describedby="bytes-note" aria-invalid={blocks.fields.bytes !== undefined || undefined} onInput={(event) => change({ bytes: event.currentTarget.value })} />
                </Field>
              )}
            </div>
            {kind === "back" && <LookBack form={form} set={change} capabilities={data} at={at} />}
          </section>
          {kind === "full" && (
            <section class="card">
              <h2>{t("start.where")}</h2>
              <Destination account={account} form={form} set={change} capabilities={data} error={blocks.fields.destination} />
              <div class="filter-fields three">
                <Field id="format" label={t("start.format")}>
                  <select id="format" value={form.format} onChange={(event) => change({ format: event.currentTarget.value })}>
                    <option value="">{t("start.default")}</option>
                    {data.formats.map((name) => <option key={name} value={name}>{visible(name)}</option>)}
                  </select>
                </Field>
                <Field id="compression" label={t("start.compression")}>
                  <select id="compression" value={form.compression} onChange={(event) => change({ compression: event.currentTarget.value })}>
                    <option value="">{t("start.default")}</option>
                    {data.compressions.map((name) => <option key={name} value={name}>{visible(name)}</option>)}
                  </select>
                </Field>
              </div>
            </section>
          )}
        </div>
        <div class="stack side">
          <section class="card">
            <h2>{t("estimate.title")}</h2>
            <EstimateView account={account} form={form} kind={kind} capabilities={data} ok={Object.keys(fromTyped(form.filter).faults).length === 0} />
          </section>
          <section class="card">
            {blocks.host.map((reason) => <Notice key={reason} tone="warn">{reason}{kind === "full" && isTaken(kind, data) && <> <Link to={`${pages.captures(account)}?status=progress`}>{t("start.see")}</Link></>}</Notice>)}
            {error !== undefined && <ErrorBox error={error} />}
            <button type="submit" class="button primary wide" aria-disabled={blocked || busy} aria-describedby="start-why">{busy ? t("start.busy") : t("start.start")}</button>
            <p id="start-why" class="faint small">{Object.keys(blocks.fields).length > 0 ? t("start.fix", { count: Object.keys(blocks.fields).length }) : blocks.host.length > 0 ? t("start.notyet") : kind === "full" ? t("start.ready.full") : t("start.ready.simple", { span: duration(data.simple.retention_seconds) })}</p>
            <button type="button" class="button quiet wide" onClick={() => setQuery({ type: undefined })}>{t("start.back")}</button>
          </section>
        </div>
      </form>
      <Commands account={account} request={request} />
    </div>
  );
}
