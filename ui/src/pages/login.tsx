// The login page.

import { LoginForm } from "../parts/loginform.tsx";
import { useTitle } from "../parts/hooks.ts";
import { go, pages, place, route, safeNext } from "../router.ts";
import { t } from "../words/words.ts";

export function LoginPage() {
  useTitle(t("login.title"));
  const next = safeNext(place.value.query.get("next"));
  const wanted = next ? route(next.split("?")[0]!) : undefined;
  return (
    <main id="main" class="login" tabIndex={-1}>
      <div class="login-card">
        <svg class="login-mark" viewBox="0 0 32 32" width="36" height="36" aria-hidden="true">
          <rect width="32" height="32" rx="8" />
          <path d="M7 10h18M9.5 15h13M12 20h8M16 20v4" />
        </svg>
        <h1>{t("login.heading")}</h1>
        <p class="faint">{t("login.sub")}</p>
        <LoginForm
          account={wanted && "account" in wanted ? wanted.account : undefined}
          done={(session, account) => {
            // The account that was typed, though the session has others from before.
            const first = session.accounts.find(({ id }) => id === account) ?? session.accounts[0];
            go(next ?? (account === undefined && session.operator ? pages.host : first ? pages.captures(first.id) : pages.host), true);
          }}
        />
        <p class="faint small">{t("login.read")}</p>
      </div>
    </main>
  );
}
