// Which feed the bar tells the state of. Owns that one signal.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Feed } from "../live/live.ts";

export const connectionShown = signal<Pick<Feed<unknown>, "connection" | "goodAt"> | undefined>(undefined);

export function useConnection(feed: Pick<Feed<unknown>, "connection" | "goodAt">): void {
  useEffect(() => {
    connectionShown.value = feed;
    return () => {
      if (connectionShown.value === feed) connectionShown.value = undefined;
    };
  }, [feed]);
}
