// Which tab reads the stream: the one that holds a lock of the browser. Owns the election; not what the leader does.
//
// Invariant: at most one tab of a browser leads a topic, and only while it can be seen. A tab that closes, crashes or is hidden
// gives the lock back by itself, and the next one leads.

export interface Locks {
  request(name: string, options: { signal: AbortSignal }, held: () => Promise<void>): Promise<unknown>;
}

/**
 * Stands for election until `stop` is called. `lead` is called when this tab leads, with a signal that ends when it leads no more.
 */
export function stand(topic: string, locks: Locks, lead: (until: AbortSignal) => void): () => void {
  const asking = new AbortController();
  const leading = new AbortController();
  locks
    .request(`trawl-live:${topic}`, { signal: asking.signal }, () => {
      if (asking.signal.aborted) return Promise.resolve();
      lead(leading.signal);
      return new Promise<void>((release) => leading.signal.addEventListener("abort", () => release(), { once: true }));
    })
    .catch((error: unknown) => {
      if (!asking.signal.aborted) throw error;
    });
  return () => {
    leading.abort();
    asking.abort();
  };
}
