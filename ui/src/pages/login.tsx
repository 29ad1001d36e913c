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
          done={(session) => {
            const first = session.accounts[0];
            go(next ?? (first ? pages.captures(first.id) : pages.host), true);
          }}
        />
        <p class="faint small">{t("login.read")}</p>
      </div>
    </main>
  );
}
