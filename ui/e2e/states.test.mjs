// Each page in each of its states, in both themes, wide and narrow: axe finds nothing, nothing scrolls sideways, and where
// TRAWL_UI_PICTURES names a folder a picture is left there. The host is real; what a real host cannot be made to do at will (to
// answer late, with an error, or with 4 KiB of text) is put in the way of its answers.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before } from "node:test";
import { broken, close, context, end, login as logInto, open, test, violations } from "./browser.mjs";
import { ended as endedOn, startHost } from "./host.mjs";

const FOLDER = process.env.TRAWL_UI_PICTURES;
const LOOKS = [
  { theme: "light", width: 1440, lang: "en" },
  { theme: "dark", width: 390, lang: "en-XA" },
  { theme: "dark", width: 1440, lang: "de" },
  { theme: "light", width: 390, lang: "de" },
  { theme: "dark", width: 768, lang: "en" },
  { theme: "light", width: 768, lang: "de" },
];
/** Without pictures two looks suffice: between them they have both themes, both widths and the longest words. */
const USED = FOLDER ? LOOKS : LOOKS.slice(0, 2);

let host;
/** Captures by what they show. */
const made = {};

before(async () => {
  host = await startHost({ history: 'enabled = true\nsample = 1000\nbytes_max = "256MiB"\nsegment_seconds = 2' });
  await open(host.origin);
  const full = (more) => host.api("/pcaps", { method: "POST", body: JSON.stringify({ system: "magic-transit", type: "full", time_limit: 3, colo_name: "ord02", destination_conf: `file://${host.bucket}`, ...more }) });
  const run = async (more) => {
    const { id } = await full(more);
    await endedOn(host, id);
    return id;
  };
  made.complete = await run({ filter_v1: { protocol: 17 }, packet_limit: 100_000 });
  made.zero = await run({ time_limit: 1, filter_v1: { source_address: "198.51.100.77" } });
  made.lost = await run({ time_limit: 3 });
  made.long = await run({ time_limit: 1, packet_limit: 5, filter_v1: { protocol: 6 }, destination_conf: `file://${host.bucket}/${"a-long-name.".repeat(15)}` });
  const { id: back } = await host.api("/pcaps", { method: "POST", body: JSON.stringify({ system: "magic-transit", type: "simple", time_limit: 20, packet_limit: 10_000, offset_time: new Date().toISOString() }) });
  await endedOn(host, back);
  made.back = back;
  made.running = (await full({ time_limit: 3000, filter_v1: { protocol: 17, source_port: 53 } })).id;
});
after(async () => {
  await close();
  await host?.stop();
});

const api = "**/client/v4/accounts/**";
const error = (status, code, message) => ({ status, contentType: "application/json", body: JSON.stringify({ result: null, success: false, errors: [{ code, message }], messages: [] }) });
const fail = (pattern, ...what) => async (page) => page.route(pattern, (route) => route.fulfill(error(...what)));
/** Changes the answer of the host. */
const change = (pattern, edit) => async (page) =>
  page.route(pattern, async (route) => {
    // The browser says by itself that the page asks; a request of the test's must say so too.
    const response = await route.fetch({ headers: { ...(await route.request().allHeaders()), "sec-fetch-site": "same-origin", origin: host.origin } });
    const body = await response.json();
    edit(body);
    await route.fulfill({ response, json: body });
  });
const heading = (page) => page.locator("h1").first().waitFor();

/** name, path, what is put in the way beforehand, what is waited for or done, and who looks. */
const STATES = [
  { name: "login", path: "/ui/login", who: null, then: heading },
  { name: "login-wrong", path: "/ui/login", who: null, then: (page) => send(page) },
  { name: "login-limited", path: "/ui/login", who: null, first: async (page) => page.route("**/ui/session", (route) => (route.request().method() === "POST" ? route.fulfill({ ...error(429, 1027, "too many"), headers: { "Retry-After": "8" } }) : route.continue())), then: (page) => send(page) },
  { name: "login-plain-http", path: "/ui/login", who: null, first: async (page) => page.route("**/ui/session", (route) => (route.request().method() === "POST" ? route.fulfill(error(403, 1062, "a login needs TLS: set api.tls_cert and api.tls_key, or name the proxy in ui.origin")) : route.continue())), then: (page) => send(page) },
  { name: "list", path: "captures", then: (page) => page.locator(".list tbody tr").nth(5).waitFor() },
  { name: "list-empty", path: "captures", who: "globex", then: (page) => page.locator(".empty").waitFor() },
  { name: "list-nothing-found", path: "captures?status=failure&type=simple", then: (page) => page.locator(".empty").waitFor() },
  { name: "list-loading", path: "captures", first: async (page) => page.route("**/pcaps?*", () => undefined), then: (page) => page.locator(".skeleton").first().waitFor() },
  { name: "list-error", path: "captures", first: fail("**/pcaps?*", 500, 7003, "the store of captures does not answer: disk I/O error"), then: (page) => page.getByRole("alert").first().waitFor() },
  { name: "list-read-role", path: "captures", who: "read", then: (page) => page.locator(".list tbody tr").nth(4).waitFor() },
  { name: "list-stale", path: "captures", first: async (page) => { await page.route("**/pcaps/events", (route) => route.abort()); await page.route("**/pcaps/live*", (route) => route.abort()); }, then: (page) => page.locator(".connection.away, .stale").first().waitFor() },
  { name: "capture", path: () => `captures/${made.complete}`, then: (page) => page.locator(".plot-box canvas").first().waitFor() },
  { name: "capture-running", path: () => `captures/${made.running}`, then: (page) => page.locator(".plot-box canvas").first().waitFor() },
  { name: "capture-lost", path: () => `captures/${made.lost}`, then: (page) => page.locator(".equation").nth(2).waitFor() },
  { name: "capture-many-files", path: () => `captures/${made.complete}?files=3`, first: change("**/progress?*", (body) => { const from = 100; body.result.delivered = { objects: 400_000, bytes: 26_843_545_600_000, packets: 51_200_000_000 }; body.result.objects = Array.from({ length: 50 }, (_, n) => ({ name: `pcap_${made.complete}_${String(from + n).padStart(4, "0")}.pcap`, bytes: 67_108_864, packets: 128_000, first_ns: 1_795_500_000_000_000_000 + n * 1_000_000, last_ns: 1_795_500_000_900_000_000 + n * 1_000_000, sha256: "ab".repeat(32) })); }), then: (page) => page.locator(".pager").waitFor() },
  { name: "capture-look-back", path: () => `captures/${made.back}`, then: (page) => page.locator(".plot-box canvas").first().waitFor() },
  { name: "capture-zero", path: () => `captures/${made.zero}`, then: (page) => page.locator(".notice").first().waitFor() },
  { name: "capture-long", path: () => `captures/${made.long}`, first: change(/\/pcaps\/[0-9a-f]{32}$/, (body) => body.result && Object.assign(body.result, { error_message: `s3://${"x".repeat(4000)} ${"could not be written ".repeat(20)}`, status: "failed" })), then: (page) => page.locator(".details").waitFor() },
  { name: "capture-gone", path: `captures/${"0".repeat(32)}`, then: (page) => page.locator(".empty").waitFor() },
  { name: "capture-stop", path: () => `captures/${made.running}`, then: async (page) => { await page.locator(".page-head button.danger").click(); await page.getByRole("dialog").waitFor(); } },
  { name: "start", path: "captures/new", then: (page) => page.locator(".kind").nth(2).waitFor() },
  { name: "start-simple", path: "captures/new?type=simple", then: (page) => page.locator("#packets").waitFor() },
  { name: "start-wrong", path: "captures/new?type=simple", then: async (page) => { await page.locator("#protocol").fill("999"); await page.locator("#packets").fill("0"); await page.locator(".field-error, .wrong").first().waitFor(); } },
  { name: "start-full-taken", path: "captures/new?type=full", then: (page) => page.locator(".notice").first().waitFor() },
  { name: "start-back", path: "captures/new?type=back", then: (page) => page.locator("#ago").waitFor() },
  { name: "start-ending", path: "captures/new?type=simple", first: change("**/capabilities", (body) => Object.assign(body.result, { accepting: false })), then: (page) => page.locator(".notice").first().waitFor() },
  { name: "start-refused", path: "captures/new?type=simple", first: async (page) => page.route("**/pcaps", (route) => route.fulfill(error(400, 1005, "filter_v1 asks for packets that are not yours: the account has 192.0.2.0/24"))), then: async (page) => { await page.locator("button[type=submit]").click(); await page.getByRole("alert").first().waitFor(); } },
  { name: "buckets-empty", path: "buckets", then: (page) => page.locator(".empty").waitFor() },
  { name: "buckets", path: "buckets", first: change("**/pcaps/ownership", (body) => { body.result = ["success", "pending", "failed"].map((status, n) => ({ id: String(n).repeat(32), status, submitted: "2026-01-02T03:04:05Z", validated: status === "success" ? "2026-01-02T03:05:05Z" : "", destination_conf: `s3://traces-${n}/edge?region=eu-central-1`, filename: "ownership-challenge-1.txt" })); }), then: (page) => page.locator(".buckets tbody tr").nth(2).waitFor() },
  { name: "buckets-add", path: "buckets", then: async (page) => { await page.locator(".page-head button").click(); await page.getByRole("dialog").waitFor(); } },
  { name: "help", path: "/ui/help", then: heading },
  { name: "nowhere", path: "/ui/there-is-no-such-page", then: (page) => page.locator(".empty").waitFor() },
  { name: "session-over", path: "captures/new?type=simple", then: async (page) => { await page.locator("#packets").waitFor(); await page.route(api, (route) => route.fulfill(error(401, 10000, "Authentication error"))); await page.locator("button[type=submit]").click(); await page.getByRole("dialog").waitFor(); } },
  { name: "host", path: "/ui/host", who: "operator", then: (page) => page.locator(".plot-box canvas").first().waitFor() },
  { name: "host-no-engine", path: "/ui/host", who: "operator", first: change("**/ui/host", (body) => { (body.result ?? body).captures = null; }), then: (page) => page.locator(".verdict").waitFor() },
  { name: "host-error", path: "/ui/host", who: "operator", first: async (page) => { await page.route("**/ui/host", (route) => (route.request().resourceType() === "document" ? route.continue() : route.fulfill(error(503, 1000, "the host is starting")))); await page.route("**/ui/host/events", (route) => route.abort()); }, then: (page) => page.getByRole("alert").or(page.locator(".skeleton")).first().waitFor() },
  { name: "host-captures", path: "/ui/host/captures", who: "operator", then: (page) => page.locator("tbody tr").first().waitFor() },
  { name: "host-log", path: "/ui/host/log", who: "operator", then: (page) => page.locator(".log tbody tr").first().waitFor() },
];

async function send(page) {
  await page.locator("input[name=account]").fill("acme");
  await page.locator("input[name=secret]").fill("wrong");
  await page.locator("button[type=submit]").click();
  await page.getByRole("alert").first().waitFor();
}

/** Logs in as `who`, without the form. */
async function enter(browsing, who) {
  const credential = who === "operator" ? { operator_token: host.tokens.operator } : { account: who === "globex" ? "globex" : "acme", token: { globex: host.tokens.other, read: host.tokens.read }[who] ?? host.tokens.write };
  const answer = await browsing.request.post(`${host.origin}/ui/session`, { data: credential, headers: { Origin: host.origin, "Sec-Fetch-Site": "same-origin", "X-Trawl-UI": "1" } });
  assert.equal(answer.status(), 200, await answer.text());
}

for (const { theme, width, lang } of USED)
  test(`every page in every state: ${theme}, ${width} px, ${lang}`, async () => {
    const found = [];
    for (const { name, path, who = "acme", first, then } of STATES) {
      const browsing = await context({ colorScheme: theme, viewport: { width, height: 900 } });
      if (who) await enter(browsing, who);
      const page = await browsing.newPage();
      await first?.(page);
      const given = typeof path === "function" ? path() : path;
      const where = given.startsWith("/") ? given : `/ui/a/${who === "globex" ? "globex" : "acme"}/${given}`;
      try {
        await page.goto(`${host.origin}${where}${where.includes("?") ? "&" : "?"}lang=${lang}`);
        await then(page);
        if (FOLDER) {
          await mkdir(FOLDER, { recursive: true });
          // The one that the README shows.
          if (name === "capture-lost" && theme === "light" && width === 1440) await page.screenshot({ path: join(FOLDER, "dashboard.png"), clip: { x: 60, y: 0, width: 1320, height: 1060 }, fullPage: true });
          await page.screenshot({ path: join(FOLDER, `${name}-${theme}-${width}.png`), fullPage: !["capture-stop", "session-over", "buckets-add"].includes(name) });
        }
        found.push(...(await violations(page)).map((one) => `${name}: ${one}`));
        const wide = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        if (wide[0] > wide[1]) found.push(`${name}: ${wide[0]} px wide in ${wide[1]}`);
      } catch (failure) {
        found.push(`${name}: ${failure.message.split("\n")[0]}; the page says: ${(await page.innerText("body").catch(String)).slice(0, 300).replaceAll("\n", " | ")}`);
      }
      await end(browsing);
    }
    assert.deepEqual(found, []);
  });

test("over all of this no page broke its policy, threw, or asked another origin", () => {
  assert.deepEqual(broken, []);
});
