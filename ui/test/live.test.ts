// Who leads, and when polling begins and ends.
import assert from "node:assert/strict";
import test from "node:test";
import { type Locks, stand } from "../src/live/leader.ts";
import { FAILURES_MAX, INITIAL, next, STREAM_AGAIN_MS } from "../src/live/policy.ts";

/** Locks as the standard describes them, for one name, in the order of requests. The browser's own are used in `e2e`. */
function locksOfOneBrowser(): Locks {
  let last: Promise<unknown> = Promise.resolve();
  return {
    request(_name, { signal }, held) {
      const mine = last.then(() => (signal.aborted ? undefined : held()));
      last = mine.catch(() => undefined);
      return mine;
    },
  };
}

const turn = () => new Promise((done) => setImmediate(done));

test("of seven tabs one leads, and each that goes hands on to the next", async () => {
  const locks = locksOfOneBrowser();
  const leading = new Set<number>();
  const stops = Array.from({ length: 7 }, (_, tab) =>
    stand("acme", locks, (until) => {
      leading.add(tab);
      until.addEventListener("abort", () => leading.delete(tab));
    }),
  );
  for (let tab = 0; tab < 7; tab += 1) {
    await turn();
    await turn();
    assert.deepEqual([...leading], [tab]);
    stops[tab]!();
    assert.equal(leading.size, 0);
  }
});

test("a tab that gave up before it led never leads", async () => {
  const locks = locksOfOneBrowser();
  const leading: string[] = [];
  const first = stand("acme", locks, () => leading.push("first"));
  const second = stand("acme", locks, () => leading.push("second"));
  stand("acme", locks, () => leading.push("third"));
  await turn();
  second();
  first();
  for (let turns = 0; turns < 5; turns += 1) await turn();
  assert.deepEqual(leading, ["first", "third"]);
});

test("failures in a row lead to polling, one that was followed by a message does not", () => {
  let state = INITIAL;
  for (let failures = 1; failures < FAILURES_MAX; failures += 1) state = next(state, { kind: "failure", refused: false, now: 0 });
  state = next(state, { kind: "message" });
  for (let failures = 1; failures < FAILURES_MAX; failures += 1) state = next(state, { kind: "failure", refused: false, now: 0 });
  assert.equal(state.mode, "stream");
  state = next(state, { kind: "failure", refused: false, now: 1000 });
  assert.deepEqual(state, { mode: "poll", failures: 0, streamAgainAt: 1000 + STREAM_AGAIN_MS });
});

test("a refusal leads to polling at once, and a stream is tried again after its time", () => {
  let state = next(INITIAL, { kind: "failure", refused: true, now: 500 });
  assert.equal(state.mode, "poll");
  state = next(state, { kind: "failure", refused: false, now: 600 });
  state = next(state, { kind: "tick", now: 500 + STREAM_AGAIN_MS - 1 });
  assert.equal(state.mode, "poll");
  assert.equal(next(state, { kind: "tick", now: 500 + STREAM_AGAIN_MS }).mode, "stream");
});
