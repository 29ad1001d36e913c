// Buckets: which ones are proven, adding one, proving it, forgetting it. Owns the steps of the proof.
//
// Invariant: keys of an R2 bucket are in the form until it is sent, and nowhere afterwards.

import { useEffect, useState } from "preact/hooks";
import { call, get, paths, type Problem } from "../api.ts";
import { destinationOf, type Fields, missingOf, NO_FIELDS, objectAddress, ownershipOf, s3Policy, type Service, serviceOf } from "../logic/destination.ts";
import { shellWord, visible } from "../logic/text.ts";
import { Code, Dialog, Empty, ErrorBox, Foreign, Icon, Notice, Skeleton, Tabs, Time } from "../parts/basic.tsx";
import { useLoad, useTitle } from "../parts/hooks.ts";
import { live } from "../parts/announce.tsx";
import { mayWrite } from "../session.ts";
import type { Bucket, Capabilities } from "../types.ts";
import { t } from "../words/words.ts";

const TONES = { success: "ok", pending: "warn", failed: "bad" } as const;
const ICONS = { success: "check", pending: "clock", failed: "cross" } as const;

function BucketStatus({ status }: { status: Bucket["status"] }) {
  return (
    <span class={`status ${TONES[status] ?? "idle"}`} title={`status: ${status}`}>
      <Icon name={ICONS[status] ?? "clock"} />
      <span>{t(`bucket.${status}`)}</span>
    </span>
  );
}

function AddDialog({ account, capabilities, close, added }: { account: string; capabilities?: Capabilities; close: () => void; added: (bucket: Bucket) => void }) {
  const [fields, setFields] = useState<Fields>(NO_FIELDS);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  const [tried, setTried] = useState(false);
  const change = (some: Partial<Fields>) => setFields((before) => ({ ...before, ...some }));
  const missing = missingOf(fields);
  const services: [Service, string][] = ([["s3", "Amazon S3"], ["gs", "Google Cloud Storage"], ["r2", "Cloudflare R2"], ["file", t("bucket.file")]] as [Service, string][]).filter(
    ([service]) => !capabilities || capabilities.destinations.includes(service),
  );
  const submit = (event: Event) => {
    event.preventDefault();
    setTried(true);
    if (missing.length > 0 || busy) return;
    setBusy(true);
    setError(undefined);
    call<Bucket>(paths(account).buckets, { method: "POST", body: { destination_conf: ownershipOf(fields) } })
      .then((answer) => answer && added(answer.result))
      .catch(setError)
      .finally(() => {
        setBusy(false);
        setFields((before) => ({ ...before, secretAccessKey: "" }));
      });
  };
  const input = (name: keyof Fields, label: string, hint?: string, type: "text" | "password" = "text") => {
    const wrong = tried && missing.includes(name);
    return (
      <label class={wrong ? "field wrong" : "field"}>
        <span>{label}</span>
        {type === "password" ? (
          <input type="password" autocomplete="off" class="mono" value={fields[name]} onInput={(event) => change({ [name]: event.currentTarget.value })} />
        ) : (
          <input autocomplete="off" spellcheck={false} class="mono" value={fields[name]} aria-invalid={wrong || undefined} onInput={(event) => change({ [name]: event.currentTarget.value })} />
        )}
        {wrong ? <small class="field-error">{t("bucket.need")}</small> : hint && <small>{hint}</small>}
      </label>
    );
  };
  return (
    <Dialog title={t("bucket.add")} close={close}>
      <form class="fields" onSubmit={submit}>
        <Tabs label={t("bucket.service")} tabs={services} value={fields.service} set={(service) => change({ service })} />
        {fields.service !== "file" && input("bucket", t("bucket.name"))}
        {input("directory", t("bucket.directory"), fields.service === "file" ? undefined : t("start.optional"))}
        {fields.service === "s3" && input("region", t("bucket.region"), "eu-central-1")}
        {fields.service === "s3" && input("owner", t("bucket.owner"), t("bucket.owner.hint"))}
        {fields.service === "r2" && input("accountId", t("bucket.account"))}
        {fields.service === "r2" && input("accessKeyId", t("bucket.key"))}
        {fields.service === "r2" && input("secretAccessKey", t("bucket.secret"), t("bucket.secret.hint"), "password")}
        <p class="words"><span class="faint">{t("bucket.will")}</span> <Foreign text={destinationOf(fields)} mono /></p>
        {fields.service === "s3" && (
          <details>
            <summary>{t("bucket.policy")}</summary>
            <p class="faint">{t("bucket.policy.text")}</p>
            <Code text={s3Policy(fields)} />
          </details>
        )}
        {error !== undefined && <ErrorBox error={error} />}
        <div class="row end">
          <button type="button" class="button" onClick={close}>{t("cancel")}</button>
          <button type="submit" class="button primary" aria-disabled={busy}>{busy ? t("bucket.adding") : t("bucket.next")}</button>
        </div>
      </form>
    </Dialog>
  );
}

/** The command that reads the challenge with the customer's own credentials. */
function readCommand(bucket: Bucket): string | undefined {
  const address = objectAddress(bucket.destination_conf, bucket.filename.split("/").pop() ?? bucket.filename);
  const service = serviceOf(bucket.destination_conf);
  if (service === "s3") return `aws s3 cp ${shellWord(address)} -`;
  if (service === "gs") return `gcloud storage cat ${shellWord(address)}`;
  if (service === "file") return `cat ${shellWord(address.replace(/^file:\/\//, ""))}`;
  if (service === "r2") {
    const id = new URLSearchParams(bucket.destination_conf.split("?")[1] ?? "").get("account-id") ?? "ACCOUNT_ID";
    return `aws s3 cp ${shellWord(address.replace(/^r2:/, "s3:"))} - --endpoint-url ${shellWord(`https://${id}.r2.cloudflarestorage.com`)}`;
  }
  return undefined;
}

function ProveDialog({ account, bucket, close, proven }: { account: string; bucket: Bucket; close: () => void; proven: () => void }) {
  const [answer, setAnswer] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  const command = readCommand(bucket);
  const submit = (event: Event) => {
    event.preventDefault();
    if (answer.trim() === "" || busy) return;
    setBusy(true);
    setError(undefined);
    call<Bucket>(paths(account).prove, { method: "POST", body: { destination_conf: bucket.destination_conf, ownership_challenge: answer.trim() } })
      .then(() => {
        live(t("bucket.success"));
        proven();
      })
      .catch(setError)
      .finally(() => setBusy(false));
  };
  return (
    <Dialog title={t("bucket.prove")} close={close}>
      <form class="fields" onSubmit={submit}>
        <p>{t("bucket.prove.text")} <Foreign text={bucket.filename} mono /></p>
        {command && (
          <>
            <p class="faint">{t("bucket.prove.read")}</p>
            <Code text={command} />
          </>
        )}
        <label class="field">
          <span>{t("bucket.token")}</span>
          <input class="mono" autocomplete="off" spellcheck={false} value={answer} placeholder={t("bucket.token.hint")} onInput={(event) => setAnswer(event.currentTarget.value)} />
        </label>
        {error !== undefined && <ErrorBox error={error} />}
        <div class="row end">
          <button type="button" class="button" onClick={close}>{t("bucket.later")}</button>
          <button type="submit" class="button primary" aria-disabled={busy || answer.trim() === ""}>{busy ? t("loading") : t("bucket.prove.do")}</button>
        </div>
      </form>
    </Dialog>
  );
}

function ForgetDialog({ account, bucket, close, gone }: { account: string; bucket: Bucket; close: () => void; gone: () => void }) {
  const [error, setError] = useState<unknown>(undefined);
  return (
    <Dialog title={t("bucket.forget")} close={close}>
      <p><Foreign text={bucket.destination_conf} mono /></p>
      <p>{t("bucket.forget.text")}</p>
      {error !== undefined && <ErrorBox error={error} />}
      <div class="row end">
        <button type="button" class="button" onClick={close}>{t("cancel")}</button>
        <button type="button" class="button danger" onClick={() => void call(paths(account).bucket(bucket.id), { method: "DELETE" }).then(gone, setError)}>{t("bucket.forget.do")}</button>
      </div>
    </Dialog>
  );
}

type Open = { what: "add" } | { what: "prove" | "forget"; bucket: Bucket };

export function BucketsPage({ account }: { account: string }) {
  useTitle(t("buckets.title"));
  const buckets = useLoad<{ list: Bucket[]; messages: Problem[] }>(async (signal) => {
    const { result, messages } = await get<Bucket[]>(paths(account).buckets, signal);
    return { list: result, messages };
  }, [account]);
  const capabilities = useLoad<Capabilities>(async (signal) => (await get<Capabilities>(paths(account).capabilities, signal)).result, [account]);
  const [open, setOpen] = useState<Open | undefined>(undefined);
  const write = mayWrite(account);
  const close = () => setOpen(undefined);
  const done = () => {
    close();
    buckets.reload();
  };
  useEffect(() => {
    if (!buckets.data?.list.some(({ status }) => status === "pending")) return undefined;
    const timer = setInterval(buckets.reload, 30_000);
    return () => clearInterval(timer);
  }, [buckets.data]);
  const list = buckets.data?.list ?? [];
  return (
    <div class="page">
      <div class="page-head">
        <h1>{t("buckets.title")}</h1>
        {write && <button type="button" class="button primary" onClick={() => setOpen({ what: "add" })}><Icon name="plus" />{t("bucket.add")}</button>}
      </div>
      <p class="faint">{capabilities.data && !capabilities.data.require_validation ? t("buckets.noproof") : t("buckets.text")}</p>
      {!write && <Notice tone="info">{t("role.read.text")}</Notice>}
      {buckets.error !== undefined && <ErrorBox error={buckets.error} retry={buckets.reload} />}
      {(buckets.data?.messages ?? []).map(({ code, message }) => <Notice key={message} tone="warn"><Foreign text={message} /> <span class="faint nowrap">({t("error.code", { code: String(code) })})</span></Notice>)}
      {!buckets.data && buckets.error === undefined && <Skeleton rows={4} />}
      {buckets.data && list.length === 0 && (
        <Empty title={t("buckets.none")} icon="bucket">
          <p>{t("buckets.none.text")}</p>
          {write && <button type="button" class="button primary" onClick={() => setOpen({ what: "add" })}>{t("bucket.add")}</button>}
        </Empty>
      )}
      {list.length > 0 && (
        <div class="card flush">
          <table class="list buckets">
            <thead>
              <tr>
                <th scope="col">{t("col.status")}</th>
                <th scope="col">{t("col.destination")}</th>
                <th scope="col">{t("buckets.added")}</th>
                <th scope="col">{t("buckets.proven")}</th>
                <th scope="col"><span class="visually-hidden">{t("col.actions")}</span></th>
              </tr>
            </thead>
            <tbody>
              {list.map((bucket) => (
                <tr key={bucket.id}>
                  <td class="cell-status"><BucketStatus status={bucket.status} /></td>
                  <th scope="row" class="cell-what"><bdi class="mono clip" title={visible(bucket.destination_conf)}>{visible(bucket.destination_conf)}</bdi></th>
                  <td class="cell-started"><Time at={Date.parse(bucket.submitted)} /></td>
                  <td class="cell-time">{bucket.validated ? <Time at={Date.parse(bucket.validated)} /> : <span class="faint">–</span>}</td>
                  <td class="cell-actions">
                    <span class="actions shown">
                      {write && bucket.status === "pending" && <button type="button" class="button small" onClick={() => setOpen({ what: "prove", bucket })}>{t("bucket.prove.do")}</button>}
                      {write && <button type="button" class="button quiet small" aria-label={t("bucket.forget")} title={t("bucket.forget")} onClick={() => setOpen({ what: "forget", bucket })}><Icon name="trash" /></button>}
                    </span>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {open?.what === "add" && <AddDialog account={account} capabilities={capabilities.data} close={close} added={(bucket) => { buckets.reload(); setOpen(bucket.status === "pending" ? { what: "prove", bucket } : undefined); }} />}
      {open?.what === "prove" && <ProveDialog account={account} bucket={open.bucket} close={close} proven={done} />}
      {open?.what === "forget" && <ForgetDialog account={account} bucket={open.bucket} close={close} gone={done} />}
    </div>
  );
}
