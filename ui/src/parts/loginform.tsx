// The login form, on its page and in the dialog over a page whose session ended. Owns the fields; the request is `session.ts`.
//
// Invariant: what was typed as a secret is forgotten when the form is sent, whatever the answer.

import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api.ts";
import type { Session } from "../types.ts";
import { type Credential, login } from "../session.ts";
import { duration, t } from "../words/words.ts";
import { ErrorBox, Notice, Tabs } from "./basic.tsx";

type Kind = "token" | "key" | "operator";

export function LoginForm({ done, account: given }: { done: (session: Session, account: string | undefined) => void; account?: string }) {
  const [kind, setKind] = useState<Kind>("token");
  const [account, setAccount] = useState(given ?? "");
  const [email, setEmail] = useState("");
  const [secret, setSecret] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  const [wait, setWait] = useState(0);
  useEffect(() => {
    if (wait <= 0) return undefined;
    const timer = setTimeout(() => setWait(wait - 1), 1000);
    return () => clearTimeout(timer);
  }, [wait]);

  const submit = async (event: Event) => {
    event.preventDefault();
    if (busy || wait > 0) return;
    setBusy(true);
    setError(undefined);
    const credential: Credential =
      kind === "operator" ? { operator_token: secret } : kind === "key" ? { account: account.trim(), email: email.trim(), key: secret } : { account: account.trim(), token: secret };
    setSecret("");
    try {
      done(await login(credential), "account" in credential ? credential.account : undefined);
    } catch (failure) {
      setError(failure);
      if (failure instanceof ApiError && failure.status === 429) setWait(Math.ceil(failure.retryAfterSeconds ?? 10));
    } finally {
      setBusy(false);
    }
  };
  const wrong = error instanceof ApiError && error.status === 401;
  const limited = error instanceof ApiError && error.status === 429;
  return (
    <form class="fields" onSubmit={submit}>
      <Tabs
        label={t("login.kind")}
        value={kind}
        set={setKind}
        tabs={[
          ["token", t("login.token")],
          ["key", t("login.key")],
          ["operator", t("login.operator")],
        ]}
      />
      {kind !== "operator" && (
        <label class="field">
          <span>{t("login.account")}</span>
          <input name="account" required autocomplete="username" spellcheck={false} autocapitalize="none" value={account} onInput={(event) => setAccount(event.currentTarget.value)} />
        </label>
      )}
      {kind === "key" && (
        <label class="field">
          <span>{t("login.email")}</span>
          <input name="email" type="email" required autocomplete="email" value={email} onInput={(event) => setEmail(event.currentTarget.value)} />
        </label>
      )}
      <label class="field">
        <span>{kind === "key" ? t("login.key.secret") : kind === "operator" ? t("login.operator.secret") : t("login.token.secret")}</span>
        <input
          name="secret"
          type="password"
          required
          autocomplete="current-password"
          aria-describedby="secret-hint"
          aria-invalid={wrong || undefined}
          value={secret}
          onInput={(event) => setSecret(event.currentTarget.value)}
        />
        <small id="secret-hint">{t("login.hint")}</small>
      </label>
      {wrong && (
        <div role="alert">
          <Notice tone="bad">{t("login.wrong")}</Notice>
        </div>
      )}
      {limited && wait > 0 && (
        <div role="alert">
          <Notice tone="warn">{t("login.limited", { span: duration(wait) })}</Notice>
        </div>
      )}
      {error !== undefined && !wrong && !limited && <ErrorBox error={error} />}
      <button type="submit" class="button primary wide" aria-disabled={busy || wait > 0}>
        {busy ? t("login.busy") : t("login.submit")}
      </button>
    </form>
  );
}
