// The small parts that every page is made of: links, icons, times, foreign text, copying, states of loading. Owns their markup.
//
// Invariant: text that others wrote goes through `Foreign` or `visible`, never into markup, an address or a style.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api.ts";
import { cut, visible } from "../logic/text.ts";
import { go } from "../router.ts";
import { dateTime, duration, number, t, zoneName } from "../words/words.ts";
import { live } from "./announce.tsx";

const PATHS = {
  check: "M3.5 8.5l3 3 6-7",
  warn: "M8 2.5l6 11H2zM8 6.5v3.2M8 11.6v.2",
  cross: "M4 4l8 8M12 4l-8 8",
  busy: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5",
  clock: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M8 5v3.2l2.2 1.3",
  down: "M8 2.5v8M4.5 7.5L8 11l3.5-3.5M3 13.5h10",
  stop: "M4.5 4.5h7v7h-7z",
  repeat: "M3 8a5 5 0 0 1 8.7-3.4L13 6M13 2.8V6H9.8M13 8a5 5 0 0 1-8.7 3.4L3 10M3 13.2V10h3.2",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  plus: "M8 3v10M3 8h10",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3L14 14",
  right: "M6 3.5L10.5 8 6 12.5",
  bucket: "M2.5 4.5h11l-1.4 9H3.9zM2.5 4.5C2.5 3 5 2.3 8 2.3s5.5.7 5.5 2.2",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3l8 5-8 5z",
  info: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M8 7.3v3.4M8 5.1v.2",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.5z",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6M8 1.5v1.4M8 13.1v1.4M1.5 8h1.4M13.1 8h1.4M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1",
  auto: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  trash: "M3 4.5h10M6.3 4.5v-2h3.4v2M4.3 4.5l.6 9h6.2l.6-9",
} as const;
export type IconName = keyof typeof PATHS;

export function Icon({ name, spin }: { name: IconName; spin?: boolean }) {
  return (
    <svg class={spin ? "icon spin" : "icon"} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface AnchorProps {
  to: string;
  children?: ComponentChildren;
  class?: string;
  tabIndex?: number;
  title?: string;
  "aria-label"?: string;
  "aria-current"?: "page" | undefined;
}

/** A link to a page of the dashboard, which does not load the program again. */
export function Link({ to, ...rest }: AnchorProps) {
  return (
    <a
      {...rest}
      href={to}
      onClick={(event) => {
        if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        go(to);
      }}
    />
  );
}

/** Text that a packet, a bucket or another machine wrote. */
export function Foreign({ text, mono, max }: { text: string; mono?: boolean; max?: number }) {
  const [all, setAll] = useState(false);
  const { shown, rest } = cut(text, max);
  return (
    <bdi class={mono ? "foreign mono" : "foreign"}>
      {visible(all ? text : shown)}
      {rest > 0 && !all && (
        <button type="button" class="linklike" onClick={() => setAll(true)}>
          {t("text.more", { count: rest })}
        </button>
      )}
    </bdi>
  );
}

export function Time({ at, zone = true, exact }: { at: number; zone?: boolean; exact?: boolean }) {
  if (!Number.isFinite(at)) return <span class="faint">–</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={new Date(at).toISOString()} class="num nowrap">
      {dateTime(at, exact)}
      {zone && <span class="unit"> {zoneName()}</span>}
    </time>
  );
}

export function Copy({ text, label }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1600);
    return () => clearTimeout(timer);
  }, [done]);
  return (
    <button
      type="button"
      class="button quiet small"
      aria-label={label ?? t("copy")}
      title={label ?? t("copy")}
      onClick={() => {
        void navigator.clipboard?.writeText(text).then(() => {
          setDone(true);
          live(t("copied"));
        });
      }}
    >
      <Icon name={done ? "check" : "copy"} />
      {label && <span>{done ? t("copied") : label}</span>}
    </button>
  );
}

export function Code({ text }: { text: string }) {
  return (
    <div class="code">
      <pre tabIndex={0}>
        <code>{visible(text).replaceAll("\\x0a", "\n")}</code>
      </pre>
      <Copy text={text} />
    </div>
  );
}

/** True once `waited` milliseconds have passed: nothing blinks for what is quick. */
function useLater(waited: number): boolean {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), waited);
    return () => clearTimeout(timer);
  }, [waited]);
  return late;
}

export function Skeleton({ rows = 6 }: { rows?: number }) {
  const late = useLater(150);
  return (
    <div class={late ? "skeleton on" : "skeleton"} role="status" aria-label={t("loading")}>
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} class="skeleton-row">
          <i />
          <i />
          <i />
          <i />
        </div>
      ))}
    </div>
  );
}

export function ErrorBox({ error, retry }: { error: unknown; retry?: () => void }) {
  const api = error instanceof ApiError ? error : undefined;
  const details = api
    ? JSON.stringify({ status: api.status, errors: api.problems, page: location.pathname, at: new Date().toISOString() })
    : String(error);
  return (
    <div class="notice bad" role="alert">
      <Icon name="warn" />
      <div class="grow">
        <p class="strong">{api?.offline ? t("error.offline") : t("error.title")}</p>
        {api?.offline ? (
          <p>{t("error.offline.do")}</p>
        ) : (
          (api?.problems ?? []).map((problem) => (
            <p key={problem.code}>
              <Foreign text={problem.message} /> <span class="faint nowrap">({t("error.code", { code: String(problem.code) })})</span>
            </p>
          ))
        )}
        {!api && <p><Foreign text={String(error)} /></p>}
        <div class="row tight">
          {retry && (
            <button type="button" class="button small" onClick={retry}>
              <Icon name="repeat" />
              {t("retry")}
            </button>
          )}
          <Copy text={details} label={t("error.copy")} />
        </div>
      </div>
    </div>
  );
}

export function Notice({ tone, children }: { tone: "info" | "warn" | "bad" | "ok"; children: ComponentChildren }) {
  const icon = { info: "info", warn: "warn", bad: "warn", ok: "check" } as const;
  return (
    <div class={`notice ${tone}`}>
      <Icon name={icon[tone]} />
      <div class="grow">{children}</div>
    </div>
  );
}

export function Empty({ title, children, icon = "info" }: { title: string; children?: ComponentChildren; icon?: IconName }) {
  return (
    <div class="empty">
      <span class="empty-icon">
        <Icon name={icon} />
      </span>
      <p class="strong">{title}</p>
      {children}
    </div>
  );
}

/** A modal dialog: the browser holds the focus in it and gives it back. */
export function Dialog({ title, close, children, keep }: { title: string; close?: () => void; children: ComponentChildren; keep?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    dialog?.showModal();
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        if (!keep) close?.();
      }}
      onClick={(event) => {
        if (event.target === ref.current && !keep) close?.();
      }}
    >
      <div class="dialog">
        <h2 id="dialog-title">{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

/** A part of a whole as a bar. The words beside it say the same. */
export function Bar({ share, tone = "accent", label }: { share: number; tone?: string; label: string }) {
  const width = Math.max(0, Math.min(100, share * 100));
  return (
    <svg class={`bar ${tone}`} width="100%" height="6" role="img" aria-label={label}>
      <rect class="bar-back" width="100%" height="6" rx="3" />
      {width > 0 && <rect class="bar-front" width={`${width}%`} height="6" rx="3" />}
    </svg>
  );
}

export function Tabs<T extends string>({ tabs, value, set, label }: { tabs: [T, string][]; value: T; set: (value: T) => void; label: string }) {
  return (
    <div class="tabs" role="radiogroup" aria-label={label}>
      {tabs.map(([key, name]) => (
        <button
          key={key}
          type="button"
          role="radio"
          aria-checked={key === value}
          tabIndex={key === value ? 0 : -1}
          onClick={() => set(key)}
          onKeyDown={(event) => {
            const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
            if (!step) return;
            event.preventDefault();
            const index = (tabs.findIndex(([other]) => other === value) + step + tabs.length) % tabs.length;
            set(tabs[index]![0]);
            const group = event.currentTarget.parentElement;
            requestAnimationFrame(() => (group?.children[index] as HTMLElement | undefined)?.focus());
          }}
        >
          {name}
        </button>
      ))}
    </div>
  );
}

export function Figure({ label, children, sub, tone }: { label: string; children: ComponentChildren; sub?: ComponentChildren; tone?: string }) {
  return (
    <div class={`figure ${tone ?? ""}`}>
      <dt>{label}</dt>
      <dd>
        <span class="figure-value num">{children}</span>
        {sub && <span class="figure-sub">{sub}</span>}
      </dd>
    </div>
  );
}

/** How old what is shown is, where the connection is away. */
export function Age({ seconds }: { seconds: number }) {
  return <>{t("live.stale", { span: duration(Math.max(1, seconds)) })}</>;
}

export const Count = ({ value }: { value: number }) => <span class="num">{number(value)}</span>;
