// The pure logic of the dashboard: sums, words, escapes, times, estimates, commands.
import assert from "node:assert/strict";
import test from "node:test";
import { asCli, asCurl, asPython, type Request } from "../src/logic/commands.ts";
import { destinationOf, missingOf, NO_FIELDS, objectAddress, ownershipOf } from "../src/logic/destination.ts";
import { outlook, rounded } from "../src/logic/estimate.ts";
import { EMPTY, fromTyped, inWords } from "../src/logic/filter.ts";
import { fullIn, isLoss, lastLoss, least, losses, rate } from "../src/logic/host.ts";
import { causes, equations, type Ledger, lost, missing, portLost, waterfall } from "../src/logic/ledger.ts";
import { ended, shown, stoppable } from "../src/logic/states.ts";
import { cut, shellWord, visible } from "../src/logic/text.ts";
import type { HostState } from "../src/types.ts";
import { instant, share, span, timeLeft } from "../src/logic/time.ts";

const LEDGER: Ledger = {
  offered: 1112,
  port: { imissed: 100, rx_nombuf: 12, ierrors: 0, discarded: 0 },
  rx: 1000,
  unmatched: 600,
  matched: 400,
  captured: 350,
  captured_bytes: 35000,
  dropped: { no_block: 30, spool: 0, io: 4, limit: 16, sampled: 0 },
};

test("the equations of a ledger name every part and hold exactly when their sums do", () => {
  const [offered, rx, matched] = equations(LEDGER);
  assert.deepEqual(offered!.parts.map(({ name, packets }) => [name, packets]), [["rx", 1000], ["port.imissed", 100], ["port.rx_nombuf", 12]]);
  assert.deepEqual([offered!.holds, rx!.holds, matched!.holds], [true, true, true]);
  assert.equal(equations({ ...LEDGER, captured: 349 })[2]!.holds, false);
});

test("what a limit or a sample left out is not lost, and what a port lost is told apart", () => {
  assert.deepEqual([lost(LEDGER), portLost(LEDGER), missing(LEDGER)], [34, 112, 146]);
  assert.deepEqual(causes(LEDGER).map(({ cause }) => cause), ["imissed", "no_block", "limit", "rx_nombuf", "io"]);
});

test("a waterfall goes from the whole to the rest without a gap", () => {
  for (const steps of Object.values(waterfall(LEDGER))) {
    const totals = steps.filter(({ kind }) => kind === "total");
    const between = steps.filter(({ kind }) => kind !== "total").reduce((sum, { packets }) => sum + packets, 0);
    assert.equal(totals[0]!.packets - between, totals[1]!.packets);
    for (const { from, to } of steps) assert.ok(from >= 0 && to <= 1 && from <= to);
  }
  const empty = { ...LEDGER, offered: 0, rx: 0, unmatched: 0, matched: 0, captured: 0, port: {}, dropped: {} };
  assert.deepEqual(waterfall(empty).lower.map(({ from, to }) => [from, to]), [[0, 0], [0, 0]]);
});

test("a capture that lost packets is never plainly complete", () => {
  assert.deepEqual(shown("success", LEDGER), { word: "complete", tone: "warn", lost: 146 });
  assert.deepEqual(shown("success", { ...LEDGER, port: {}, dropped: { limit: 50 } }), { word: "complete", tone: "ok", lost: 0 });
});

test("every status of the API has a word, and those at work a step", () => {
  for (const [status, step] of [["pending", "waiting"], ["running", "capturing"], ["conversion_pending", "writing"], ["conversion_running", "uploading"]]) {
    assert.equal(shown(status!).word, "progress");
    assert.equal(shown(status!).step, step);
    assert.equal(ended(status!), false);
  }
  assert.equal(shown("failed").word, "failure");
  assert.deepEqual(["pending", "running", "conversion_running", "success"].map(stoppable), [true, true, false, false]);
});

test("what cannot be seen is shown as an escape and nothing is dropped", () => {
  assert.equal(visible("a\u0000b\u001bc\u007f\u0085"), "a\\x00b\\x1bc\\x7f\\x85");
  assert.equal(visible("exe.\u202Egnp\u2066\u2069\u200B\uFEFF"), "exe.\\u{202e}gnp\\u{2066}\\u{2069}\\u{200b}\\u{feff}");
  assert.equal(visible("\ud800x\udc00"), "\\u{d800}x\\u{dc00}");
  assert.equal(visible("<img src=x onerror=alert(1)> ü 😀"), "<img src=x onerror=alert(1)> ü 😀");
});

test("long text is cut between characters and says how much is left", () => {
  assert.deepEqual(cut("😀".repeat(5), 3), { shown: "😀😀😀", rest: 2 });
  assert.deepEqual(cut("abc", 3), { shown: "abc", rest: 0 });
});

test("time left never grows, ends at zero, and a clock that went back changes nothing", () => {
  assert.equal(timeLeft(10, 4000), 6);
  assert.equal(timeLeft(10, 40_000), 0);
  assert.equal(timeLeft(10, -5000), 10);
});

test("instants are read from texts, nanoseconds, milliseconds and seconds", () => {
  const at = Date.parse("2026-11-27T06:00:00Z");
  assert.deepEqual(["2026-11-27T06:00:00Z", at * 1e6, at, at / 1000].map(instant), [at, at, at, at]);
  assert.ok(Number.isNaN(instant(undefined)));
});

test("spans have at most two units and promise no more than there is", () => {
  assert.deepEqual([0, 0.4, 59.9, 60, 3725, 90061].map(span), ["0 s", "< 1 s", "59 s", "1 min", "1 h 2 min", "1 d 1 h"]);
  assert.equal(span(Number.NaN), "–");
  assert.deepEqual([share(5, 10), share(20, 10), share(1, null)], [0.5, 1, 0]);
});

test("a filter is checked as the host checks it", () => {
  const of = (typed: Partial<typeof EMPTY>) => fromTyped({ ...EMPTY, ...typed });
  assert.deepEqual(of({ source_address: " 192.0.2.0/24 ", destination_port: "443", protocol: "6" }), {
    filter: { source_address: "192.0.2.0/24", destination_port: 443, protocol: 6 },
    faults: {},
  });
  assert.equal(of({ source_address: "10.0.0.1/8" }).faults.source_address, "host_bits");
  assert.equal(of({ source_address: "0.0.0.0/0" }).faults.source_address, undefined);
  assert.equal(of({ source_address: "256.1.1.1" }).faults.source_address, "address");
  assert.equal(of({ source_address: "::1", destination_address: "192.0.2.1" }).faults.destination_address, "versions");
  assert.equal(of({ source_port: "80", protocol: "1" }).faults.protocol, "ports_need");
  assert.equal(of({ source_port: "65536" }).faults.source_port, "port");
});

test("a filter in words names both ends, and IPv6 ports are not ambiguous", () => {
  assert.equal(inWords({}, "any"), undefined);
  assert.equal(inWords({ protocol: 6, destination_port: 443 }, "any"), "TCP any → :443");
  assert.equal(inWords({ source_address: "2001:db8::1", source_port: 53, protocol: 17 }, "any"), "UDP [2001:db8::1]:53 → any");
  assert.equal(inWords({ protocol: 99 }, "any"), "protocol 99");
});

test("an estimate scales with its bounds and says which limit would end the capture", () => {
  const estimate = { from: "", to: "", packets: 6000, packets_low: 5400, packets_high: 6600, bytes: 600_000, sample_one_in: 10 };
  assert.deepEqual(outlook(estimate, 60, 120, 3000, 2_000_000), { packets: 12000, low: 10800, high: 13200, bytes: 1_200_000, packetLimitAfter: 30, byteLimitAfter: undefined });
  assert.deepEqual([rounded(41027, 413), rounded(41027, 0), rounded(7, 3)], [41000, 41027, 7]);
});

const REQUEST: Request = {
  system: "magic-transit",
  type: "full",
  time_limit: 300,
  byte_limit: 100,
  colo_name: "ord02",
  destination_conf: "s3://b/it's?region=us-east-1",
  filter_v1: { protocol: 6, source_address: "192.0.2.1" },
  format: "pcapng",
};

test("commands quote what they are given and hold no credential", () => {
  assert.equal(shellWord("it's"), "'it'\\''s'");
  const curl = asCurl("https://h", "a b", REQUEST);
  assert.match(curl, /accounts\/a%20b\/pcaps/);
  assert.match(curl, /it'\\''s/);
  assert.match(asCli("https://h", "acme", REQUEST), /--type full .*--time-limit 300 .*--source-address 192\.0\.2\.1 .*--protocol 6/s);
  const python = asPython("https://h", "acme", REQUEST);
  assert.match(python, /filter_v1=\{"protocol": 6, "source_address": "192\.0\.2\.1"\}/);
  assert.match(python, /extra_body=\{"format": "pcapng"\}/);
  for (const text of [curl, python]) assert.match(text, /TRAWL_TOKEN/);
});

test("a destination never has the secrets that its proof is asked for with", () => {
  const fields = { ...NO_FIELDS, service: "r2" as const, bucket: "b", directory: "/d/", accountId: "0a", accessKeyId: "k", secretAccessKey: "s/+" };
  assert.equal(destinationOf(fields), "r2://b/d?account-id=0a");
  assert.equal(ownershipOf(fields), "r2://b/d?account-id=0a&access-key-id=k&secret-access-key=s%2F%2B");
  assert.deepEqual(missingOf(NO_FIELDS), ["bucket", "region"]);
  assert.equal(objectAddress("s3://b/d?region=x", "o.txt"), "s3://b/d/o.txt");
});

test("a counter that was reset gives no rate, and what does not grow never fills up", () => {
  assert.deepEqual([rate(10, 30, 2), rate(30, 10, 2), rate(undefined, 3, 1), rate(1, 2, 0)], [10, undefined, undefined, undefined]);
  assert.deepEqual([fullIn(100, 10), fullIn(100, 0), fullIn(100, undefined)], [10, undefined, undefined]);
  assert.deepEqual([least({ second: 9, minute: 4 }), least(3), least(null)], [4, 3, undefined]);
  assert.deepEqual([lastLoss([0, 5, null, 0], 5), lastLoss([0, null], 5)], [10, undefined]);
});

test("losses of ports, of captures at work and of captures that ended are all told, and each once", () => {
  const state = {
    ports: [{ device: "0000:03:00.0", imissed: 5, rx_nombuf: 0, ierrors: 0, discarded: 2 }],
    captures: [{ id: "aa", account: "acme", ledger: { ...LEDGER, dropped: { no_block: 7, limit: 90 } } }],
    ended: [
      { id: "cc", account: "acme", ended_ns: 1, ledger: { ...LEDGER, dropped: { io: 9, sampled: 8 } } },
      { id: "aa", account: "acme", ended_ns: 1, ledger: { ...LEDGER, dropped: { no_block: 8 } } },
    ],
  } as unknown as HostState;
  const series = new Map([
    ["captures.aa.no_block", [1, null, 2]],
    ["captures.bb.spool", [40, null, 2]],
    ["captures.bb.limit", [99]],
    // What the points add up to is less than the last count.
    ["captures.cc.io", [8]],
  ]);
  assert.deepEqual(losses(state, series).map(({ name, cause, packets }) => [name, cause, packets]), [["bb", "spool", 42], ["cc", "io", 9], ["aa", "no_block", 7], ["0000:03:00.0", "imissed", 5], ["0000:03:00.0", "discarded", 2]]);
  assert.deepEqual(["ports.0000:03:00.0.imissed", "captures.bb.io", "captures.bb.limit", "spool.used", "ports.x.rx"].map(isLoss), [true, true, false, false, false]);
});
