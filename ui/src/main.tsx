// The beginning: theme, language, session, then the page that the address names. Owns nothing else.
//
// Invariant: without a session only the login page is shown; pages beyond the first load are fetched when they are opened.

import { render } from "preact";
import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import type { ComponentType } from "preact";
import { listen } from "./keys.ts";
import { ErrorBox, Skeleton, Empty, Link } from "./parts/basic.tsx";
import { Shell } from "./parts/shell.tsx";
import { apply } from "./parts/theme.ts";
import { CapturesPage } from "./pages/captures.tsx";
import { LoginPage } from "./pages/login.tsx";
import { choose, go, lastAccount, pages, place, type Route, route } from "./router.ts";
import { load, session } from "./session.ts";
import { preferredLocale, setLocale, t } from "./words/words.ts";
import "./style/tokens.css";
import "./style/base.css";
import "./style/parts.css";
import "./style/pages.css";

/** A page that is a file of its own. After a new version was installed under an open tab the file may be gone: then say so. */
function lazy<P extends object>(from: () => Promise<ComponentType<P>>) {
  let made: ComponentType<P> | undefined;
  return function Lazy(props: P) {
    const [, setTurn] = useState(0);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      if (made) return;
      from().then(
        (component) => {
          made = component;
          setTurn((turn) => turn + 1);
        },
        () => setFailed(true),
      );
    }, []);
    if (failed)
      return (
        <div class="page narrow">
          <Empty title={t("version.changed")}>
            <p>{t("version.changed.text")}</p>
            <button type="button" class="button primary" onClick={() => location.reload()}>{t("version.reload")}</button>
          </Empty>
        </div>
      );
    const Page = made;
    return Page ? <Page {...props} /> : <div class="page"><Skeleton /></div>;
  };
}

const CapturePage = lazy(() => import("./pages/capture.tsx").then((module) => module.CapturePage));
const StartPage = lazy(() => import("./pages/start.tsx").then((module) => module.StartPage));
const BucketsPage = lazy(() => import("./pages/buckets.tsx").then((module) => module.BucketsPage));
const HelpPage = lazy(() => import("./pages/help.tsx").then((module) => module.HelpPage));
const HostPage = lazy(() => import("./pages/host.tsx").then((module) => module.HostPage));
const HostCapturesPage = lazy(() => import("./pages/hostmore.tsx").then((module) => module.HostCapturesPage));
const HostLogPage = lazy(() => import("./pages/hostmore.tsx").then((module) => module.HostLogPage));

function Page({ at }: { at: Route }) {
  if ("account" in at && !session.value?.accounts.some(({ id }) => id === at.account))
    return (
      <div class="page narrow">
        <Empty title={t("account.closed")}>
          <p>{t("account.closed.text")}</p>
          <Link class="button primary" to={pages.login(place.value.path)}>{t("login.submit")}</Link>
        </Empty>
      </div>
    );
  switch (at.name) {
    case "captures":
      return <CapturesPage key={at.account} account={at.account} />;
    case "start":
      return <StartPage key={at.account} account={at.account} />;
    case "capture":
      return <CapturePage key={at.id} account={at.account} id={at.id} />;
    case "buckets":
      return <BucketsPage key={at.account} account={at.account} />;
    case "host":
      return <HostPage />;
    case "hostCaptures":
      return <HostCapturesPage />;
    case "hostLog":
      return <HostLogPage />;
    case "help":
      return <HelpPage />;
    default:
      return (
        <div class="page narrow">
          <Empty title={t("nowhere")}>
            <Link class="button" to="/ui/">{t("nowhere.home")}</Link>
          </Empty>
        </div>
      );
  }
}

function App() {
  const at = route(place.value.path);
  const accounts = session.value?.accounts ?? [];
  const first = accounts.find(({ id }) => id === lastAccount.value)?.id ?? accounts[0]?.id;
  const name = at.name;
  useEffect(() => {
    if (name !== "login" && !session.value) go(pages.login(name === "root" ? undefined : place.value.path + location.search), true);
    else if (name === "root") go(first ? pages.captures(first) : pages.host, true);
  }, [name, first, session.value]);
  const account = "account" in at ? at.account : undefined;
  useEffect(() => {
    if (account !== undefined && accounts.some(({ id }) => id === account)) choose(account);
  }, [account, session.value]);
  // A new page begins at its top, for eyes and for screen readers.
  useLayoutEffect(() => {
    if (name !== "login") document.getElementById("main")?.focus({ preventScroll: true });
  }, [place.value.path]);
  if (name === "login") return <LoginPage />;
  if (!session.value || name === "root") return null;
  return (
    <Shell>
      <Page at={at} />
    </Shell>
  );
}

function Start() {
  const [state, setState] = useState<{ ready: boolean; error?: unknown }>({ ready: false });
  const begin = () => {
    setState({ ready: false });
    load().then(
      () => setState({ ready: true }),
      (error: unknown) => setState({ ready: false, error }),
    );
  };
  useEffect(begin, []);
  if (state.error !== undefined) return <main class="page narrow"><h1>trawl</h1><ErrorBox error={state.error} retry={begin} /></main>;
  return state.ready ? <App /> : null;
}

apply();
listen();
void setLocale(preferredLocale()).finally(() => {
  const root = document.getElementById("app");
  if (root) render(<Start />, root);
});
