// What stands around every page: the bar with accounts, pages, the state of the connection, settings; the end of the session.
//
// Invariant: a page is never taken away because the session ended: a dialog asks to log in again over it.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { bindings, keysOn, setKeys } from "../keys.ts";
import { duration, type Key, locale, LOCALES, localTime, remember, setLocale, t, type Locale } from "../words/words.ts";
import { go, lastAccount, pages, place, route } from "../router.ts";
import { load, logout, over, remaining, session } from "../session.ts";
import { Dialog, Icon, Link } from "./basic.tsx";
import { LiveRegion, live } from "./announce.tsx";
import { now, useKeys } from "./hooks.ts";
import { setTheme, theme, THEMES } from "./theme.ts";
import { LoginForm } from "./loginform.tsx";
import { connectionShown } from "./connection.ts";

const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" } as const;

function Brand() {
  return (
    <Link to="/ui/" class="brand" aria-label="trawl">
      <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
        <rect width="32" height="32" rx="8" />
        <path d="M7 10h18M9.5 15h13M12 20h8M16 20v4" />
      </svg>
      <span>trawl</span>
    </Link>
  );
}

function AccountSwitch({ account }: { account: string | undefined }) {
  const accounts = session.value?.accounts ?? [];
  if (accounts.length === 0) return null;
  if (accounts.length === 1 && account === accounts[0]!.id)
    return (
      <span class="account" title={t("nav.account")}>
        <bdi>{account}</bdi>
      </span>
    );
  return (
    <label class="account-select">
      <span class="visually-hidden">{t("nav.account")}</span>
      <select value={account ?? ""} onChange={(event) => go(pages.captures(event.currentTarget.value))}>
        {!account && <option value="">{t("nav.account.choose")}</option>}
        {accounts.map(({ id }) => (
          <option key={id} value={id}>
            {id}
          </option>
        ))}
      </select>
    </label>
  );
}

function Connection() {
  const shown = connectionShown.value;
  if (!shown) return null;
  const state = shown.connection.value;
  const seconds = Math.floor(Math.max(0, now.value - shown.goodAt.value) / 1000);
  const words = {
    connecting: t("live.connecting"),
    stream: t("live.stream"),
    poll: t("live.poll"),
    away: t("live.stale", { span: duration(Math.max(1, seconds)) }),
  }[state];
  return (
    <span class={`connection ${state}`} title={words}>
      <i aria-hidden="true" />
      <span>{words}</span>
    </span>
  );
}

function Settings() {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button type="button" class="button quiet small" aria-haspopup="dialog" aria-label={t("nav.settings")} title={t("nav.settings")} onClick={() => setOpen(true)}>
        <Icon name={THEME_ICONS[theme.value]} />
      </button>
      {open && (
        <Dialog title={t("nav.settings")} close={() => setOpen(false)}>
          <div class="fields">
            <label class="field">
              <span>{t("settings.theme")}</span>
              <select value={theme.value} onChange={(event) => setTheme(event.currentTarget.value as (typeof THEMES)[number])}>
                {THEMES.map((name) => (
                  <option key={name} value={name}>
                    {t(`theme.${name}`)}
                  </option>
                ))}
              </select>
            </label>
            <label class="field">
              <span>{t("settings.language")}</span>
              <select value={locale.value} onChange={(event) => void setLocale(event.currentTarget.value as Locale)}>
                {LOCALES.filter((name) => name !== "en-XA" || locale.value === "en-XA").map((name) => (
                  <option key={name} value={name}>
                    {{ en: "English", de: "Deutsch", "en-XA": "Pseudo" }[name]}
                  </option>
                ))}
              </select>
            </label>
            <label class="field">
              <span>{t("settings.clock")}</span>
              <select
                value={localTime.value ? "local" : "utc"}
                onChange={(event) => {
                  localTime.value = event.currentTarget.value === "local";
                  remember("trawl.clock", event.currentTarget.value);
                }}
              >
                <option value="utc">UTC</option>
                <option value="local">{t("settings.clock.local")}</option>
              </select>
            </label>
            <label class="check">
              <input type="checkbox" checked={keysOn.value} onChange={(event) => setKeys(event.currentTarget.checked)} />
              <span>{t("settings.keys")}</span>
            </label>
          </div>
          <div class="row end">
            <button type="button" class="button primary" onClick={() => setOpen(false)}>
              {t("done")}
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

function SessionEnd() {
  const at = route(place.value.path);
  const { idle, absolute } = (now.value, remaining());
  const left = Math.min(idle, absolute);
  const soon = session.value !== undefined && !over.value && left < 120;
  useEffect(() => {
    if (soon) live(t("session.soon", { span: duration(left) }));
  }, [soon]);
  if (over.value)
    return (
      <Dialog title={t("session.over")} keep>
        <p>{t("session.over.text")}</p>
        <LoginForm done={() => undefined} account={"account" in at ? at.account : undefined} />
      </Dialog>
    );
  if (!soon) return null;
  return (
    <div class="notice warn session-soon" role="alert">
      <Icon name="clock" />
      <span class="grow">{t("session.soon", { span: duration(left) })}</span>
      {idle < absolute && (
        <button type="button" class="button small" onClick={() => void load()}>
          {t("session.stay")}
        </button>
      )}
    </div>
  );
}

function KeysDialog({ close }: { close: () => void }) {
  return (
    <Dialog title={t("keys.title")} close={close}>
      <KeysTable />
      <div class="row end">
        <button type="button" class="button primary" onClick={close}>
          {t("done")}
        </button>
      </div>
    </Dialog>
  );
}

/** Every key that works now, from the registry. */
export function KeysTable() {
  return <KeyRows list={[...bindings.value.values()].flat()} />;
}

const CAPS: Record<string, string> = { ArrowDown: "↓", ArrowUp: "↑", PageDown: "PgDn", PageUp: "PgUp" };

/** Keys with what they do; those that do the same are one row. */
export function KeyRows({ list }: { list: readonly { keys: string; label: Key }[] }) {
  const labels = [...new Set(list.map(({ label }) => label))];
  return (
    <table class="keys">
      <tbody>
        {labels.map((label) => (
          <tr key={label}>
            <th scope="row">
              {list
                .filter((one) => one.label === label)
                .flatMap(({ keys }) => keys.split(" "))
                .map((key) => (
                  <kbd key={key}>{CAPS[key] ?? key}</kbd>
                ))}
            </th>
            <td>{t(label)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Shell({ children }: { children: ComponentChildren }) {
  const at = route(place.value.path);
  const accounts = session.value?.accounts ?? [];
  // Help and the host's pages have no account of their own: they keep the one that was chosen.
  const kept = (accounts.find(({ id }) => id === lastAccount.value) ?? (accounts.length === 1 ? accounts[0] : undefined))?.id;
  const account = "account" in at ? at.account : kept;
  const home = account ?? accounts[0]?.id;
  const operator = session.value?.operator ?? false;
  const [keys, setKeysShown] = useState(false);
  useKeys(
    "global",
    () => [
      { keys: "?", label: "keys.help", run: () => setKeysShown(true) },
      ...(home
        ? [
            { keys: "g c", label: "keys.captures" as const, run: () => go(pages.captures(home)) },
            { keys: "g b", label: "keys.buckets" as const, run: () => go(pages.buckets(home)) },
            { keys: "n", label: "keys.new" as const, run: () => go(pages.start(home)) },
          ]
        : []),
      ...(operator ? [{ keys: "g h", label: "keys.host" as const, run: () => go(pages.host) }] : []),
    ],
    [home, operator],
  );
  const current = (name: string) => (at.name === name ? ("page" as const) : undefined);
  return (
    <>
      <a class="skip" href="#main">
        {t("nav.skip")}
      </a>
      <header class="top">
        <div class="top-inner">
          <Brand />
          <AccountSwitch account={account} />
          <nav aria-label={t("nav.pages")}>
            {home && (
              <>
                <Link to={pages.captures(home)} aria-current={current("captures") ?? current("capture") ?? current("start")}>
                  {t("nav.captures")}
                </Link>
                <Link to={pages.buckets(home)} aria-current={current("buckets")}>
                  {t("nav.buckets")}
                </Link>
              </>
            )}
            {operator && (
              <Link to={pages.host} aria-current={current("host") ?? current("hostCaptures") ?? current("hostLog")}>
                {t("nav.host")}
              </Link>
            )}
            <Link to={pages.help} aria-current={current("help")}>
              {t("nav.help")}
            </Link>
          </nav>
          <span class="grow" />
          <Connection />
          <Settings />
          <button type="button" class="button quiet small" onClick={() => void logout().then(() => go(pages.login()))}>
            {t("nav.logout")}
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <SessionEnd />
      <LiveRegion />
      {keys && <KeysDialog close={() => setKeysShown(false)} />}
    </>
  );
}
