// Loading and ticking. Owns requests that belong to a page's life, and one clock for all countdowns.
//
// Invariant: an answer to an old question is dropped; a failure keeps what was there, with its age.

import { signal } from "@preact/signals";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { bind, type Binding } from "../keys.ts";

export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  /** Milliseconds on the monotonic clock at which `data` came. */
  at: number;
  reload: () => void;
  set: (data: T) => void;
}

export function useLoad<T>(load: (signal: AbortSignal) => Promise<T>, dependencies: unknown[]): Loaded<T> {
  const [state, setState] = useState<{ data?: T; error?: unknown; at: number }>({ at: 0 });
  const [turn, setTurn] = useState(0);
  const key = JSON.stringify(dependencies);
  const keyBefore = useRef(key);
  useEffect(() => {
    const abort = new AbortController();
    if (keyBefore.current !== key) {
      keyBefore.current = key;
      setState({ at: 0 });
    }
    load(abort.signal)
      .then((data) => {
        if (!abort.signal.aborted) setState({ data, at: performance.now() });
      })
      .catch((error: unknown) => {
        if (!abort.signal.aborted) setState((before) => ({ ...before, error }));
      });
    return () => abort.abort();
  }, [key, turn]);
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  const set = useCallback((data: T) => setState({ data, at: performance.now() }), []);
  return { data: state.data, error: state.error, at: state.at, reload, set };
}

/** Milliseconds on the monotonic clock, renewed each second while a page can be seen. */
export const now = signal(performance.now());
setInterval(() => {
  if (document.visibilityState !== "hidden") now.value = performance.now();
}, 1000);

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · trawl`;
  }, [title]);
}

/** Keys of a page or a part of it. They are there as soon as it is shown: an effect after the paint would be late under load. */
export function useKeys(scope: string, list: () => Binding[], inputs: readonly unknown[]): void {
  useLayoutEffect(() => bind(scope, list()), inputs);
}
