// Asking before a capture is stopped, and saying what is kept.

import { useState } from "preact/hooks";
import { call, paths } from "../api.ts";
import { t } from "../words/words.ts";
import { Dialog, ErrorBox } from "./basic.tsx";
import { live } from "./announce.tsx";

export function StopDialog({ account, id, close, done }: { account: string; id: string; close: () => void; done: () => void }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  const stop = () => {
    setBusy(true);
    call(paths(account).stop(id), { method: "PUT" })
      .then(() => {
        live(t("stop.asked"));
        done();
        close();
      })
      .catch(setError)
      .finally(() => setBusy(false));
  };
  return (
    <Dialog title={t("stop.title")} close={close}>
      <p>{t("stop.text")}</p>
      {error !== undefined && <ErrorBox error={error} />}
      <div class="row end">
        <button type="button" class="button" onClick={close}>
          {t("stop.no")}
        </button>
        <button type="button" class="button danger" aria-disabled={busy} onClick={stop}>
          {t("stop.yes")}
        </button>
      </div>
    </Dialog>
  );
}
