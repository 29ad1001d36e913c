// What single pages show and do: times, plots that end where their capture did, pages of files, keys without a focus, help, the
// operator's log. Against the real binary with real packets and a history.
import assert from "node:assert/strict";
import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { broken, close, context, digits, figure, FLAGS, login as logInto, open, test, violations } from "./browser.mjs";
import { ended as endedOn, startHost } from "./host.mjs";

let host;
/** A capture of some milliseconds, one of two seconds and a bit, and one whose files are many. */
const made = {};

before(async () => {
  host = await startHost({ capture: "full_per_account = 2", history: 'enabled = true\nsample = 100\nbytes_max = "256MiB"\nsegment_seconds = 2' });
  await open(host.origin);
  const full = async (more) => {
    const { id } = await host.api("/pcaps", { method: "POST", body: JSON.stringify({ system: "magic-transit", type: "full", time_limit: 3, colo_name: "ord02", destination_conf: `file://${host.bucket}`, ...more }) });
    await endedOn(host, id);
    return id;
  };
  made.short = await full({ filter_v1: { protocol: 17 }, packet_limit: 50 });
  made.seconds = await full({ filter_v1: { protocol: 17, source_port: 53 }, time_limit: 2.4 });
});
after(async () => {
  await close();
  await host?.stop();
});

const login = (page, token = host.tokens.write, account = "acme") => logInto(page, host, token, account);
const detail = (page, name) => page.locator(".details > div", { has: page.locator("dt", { hasText: new RegExp(`^${name}$`) }) }).locator("dd");

test("a capture's page says when it was submitted, when it began and ended, and how long it took", async () => {
  const page = await (await context()).newPage();
  await login(page);
  for (const id of [made.short, made.seconds]) {
    await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
    const { started, ended } = await host.api(`/pcaps/${id}/progress`);
    const { submitted } = await host.api(`/pcaps/${id}`);
    for (const [name, at] of [["Submitted", submitted], ["Started", started], ["Ended", ended]])
      assert.equal(Date.parse(await detail(page, name).locator("time").getAttribute("datetime")), Date.parse(at), name);
    const seconds = (Date.parse(ended) - Date.parse(started)) / 1000;
    const shown = await detail(page, "Duration").innerText();
    assert.equal(shown.endsWith(" ms") ? Number.parseInt(shown, 10) / 1000 : Number.parseFloat(shown), seconds < 1 ? seconds : Math.floor(seconds * 10) / 10);
    assert.ok(seconds > 0 && seconds < 30 && Date.parse(submitted) <= Date.parse(started));
  }
  // The list says it too.
  await page.goto(`${host.origin}/ui/a/acme/captures`);
  await page.locator(".list tbody tr", { hasText: made.short.slice(0, 8) }).locator(".cell-time", { hasText: /ms|s/ }).waitFor();
});

test("the plot of a short capture ends with it and does not fall to zero before", async () => {
  const page = await (await context()).newPage();
  await login(page);
  for (const id of [made.short, made.seconds]) {
    await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
    await page.locator(".plot-box canvas").first().waitFor();
    const series = await host.api(`/pcaps/${id}/series`);
    await page.getByRole("button", { name: "Table" }).first().click();
    const rows = page.locator(".plot-table tbody tr");
    assert.equal(await rows.count(), series.captured.length);
    const shown = [];
    for (const row of await rows.all()) shown.push(Number.parseFloat((await row.locator("td").nth(1).innerText()).replace("k", "e3").replace("M", "e6")));
    const rates = series.captured.map((count, index) => count / (Math.min(series.step_ns, series.to_ns - series.from_ns - index * series.step_ns) / 1e9));
    for (const [index, rate] of rates.entries()) assert.ok(rate > 0 && Math.abs(shown[index] / rate - 1) < 0.2, `${id}: ${shown} and ${rates}`);
    // The source sends evenly: the part of a step at the end has the rate of the others.
    if (id === made.seconds) assert.ok(shown.at(-1) > Math.max(...shown) / 4, `${shown}`);
  }
});

test("a look back shows when its packets passed", async () => {
  const page = await (await context()).newPage();
  await login(page);
  // What is in the ring is some seconds old.
  const at = new Date(Date.now() - 1000).toISOString();
  const { id } = await host.api("/pcaps", { method: "POST", body: JSON.stringify({ system: "magic-transit", type: "simple", time_limit: 5, packet_limit: 1000, offset_time: at }) });
  await endedOn(host, id);
  await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
  await page.locator(".plot-box canvas").first().waitFor();
  const { captured } = await host.api(`/pcaps/${id}/series`);
  assert.equal(captured.reduce((sum, count) => sum + count, 0), await figure(page, "Captured"));
  assert.equal(Date.parse(await detail(page, "Window to").locator("time").getAttribute("datetime")), Date.parse(at));
  assert.deepEqual(await violations(page), []);
});

test("the estimate of a new capture is of real packets: its numbers are the host's, and what is captured then is of that size", async () => {
  const page = await (await context()).newPage();
  await login(page);
  await page.goto(`${host.origin}/ui/a/acme/captures/new?type=simple`);
  await page.getByLabel("IP protocol").fill("17");
  const ask = page.getByRole("button", { name: /^Estimate/ });
  let estimate;
  // What the ring has is some seconds old: until then the host says that there is none.
  for (let tries = 0; tries < 20 && !estimate; tries += 1) {
    const [answer] = await Promise.all([page.waitForResponse("**/pcaps/estimate"), ask.click()]);
    if (answer.ok()) estimate = (await answer.json()).result;
    else await page.waitForTimeout(2000);
  }
  const words = await page.getByText(/^The last .* such packets\.$/).innerText();
  const [, seconds, packets, error] = /^The last ([\d\u202f]+) s had about ([\d\u202f]+) ± ([\d\u202f]+) such packets\.$/.exec(words).map(digits);
  assert.ok(estimate.packets_low > 0 && estimate.packets_low <= estimate.packets && estimate.packets <= estimate.packets_high, words);
  const half = (estimate.packets_high - estimate.packets_low) / 2;
  assert.ok(Math.abs(packets - estimate.packets) <= half && Math.abs(error / half - 1) < 0.2, words);
  assert.ok(seconds >= 1 && seconds <= 60);
  assert.deepEqual(await violations(page), []);
});

test("four hundred thousand files are shown a page at a time, with their sum, and the page is in the address", async () => {
  const page = await (await context()).newPage();
  await login(page);
  const all = 400_000;
  const asked = [];
  await page.route("**/progress?*", async (route) => {
    const query = new URL(route.request().url()).searchParams;
    const [limit, from] = [Number(query.get("limit")), Number(query.get("from"))];
    asked.push([limit, from]);
    const response = await route.fetch({ headers: { ...(await route.request().allHeaders()), "sec-fetch-site": "same-origin", origin: host.origin } });
    const body = await response.json();
    const object = (n) => ({ name: `pcap_${made.short}_${n}.pcap`, bytes: 1000, packets: 3, first_ns: 1e18 + n, last_ns: 1e18 + n, sha256: "ab".repeat(32) });
    body.result.delivered = { objects: all, bytes: all * 1000, packets: all * 3 };
    body.result.objects = Array.from({ length: Math.min(limit, all - from) }, (_, n) => object(from + n));
    await route.fulfill({ response, json: body });
  });
  await page.goto(`${host.origin}/ui/a/acme/captures/${made.short}`);
  const files = page.locator(".files tbody tr");
  await files.nth(49).waitFor();
  assert.equal(await files.count(), 50);
  await page.getByText("400\u202f000 files · 400\u00a0MB · 1\u202f200\u202f000 packets").waitFor();
  assert.deepEqual(await violations(page), []);
  await page.getByRole("button", { name: "Last", exact: true }).click();
  await page.getByText("399\u202f951–400\u202f000 of 400\u202f000").waitFor();
  await files.filter({ hasText: "_399999.pcap" }).waitFor();
  assert.match(page.url(), /[?&]files=8000$/);
  assert.equal(await files.last().locator("a").getAttribute("href"), `/client/v4/accounts/acme/pcaps/${made.short}/objects/399999`);
  await page.getByRole("button", { name: "Previous", exact: true }).click();
  await files.filter({ hasText: "_399949.pcap" }).waitFor();
  await page.reload();
  await files.filter({ hasText: "_399949.pcap" }).waitFor();
  assert.ok(asked.every(([limit]) => limit <= 50), JSON.stringify(asked));
});

test("keys move through the list where nothing has the focus, and are the focused element's own elsewhere", async () => {
  const page = await (await context()).newPage();
  await login(page);
  const rows = page.locator(".list tbody tr");
  await rows.nth(1).waitFor();
  const focused = () => page.evaluate(() => [...document.querySelectorAll(".list tbody tr")].indexOf(document.activeElement));
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press("j");
  assert.equal(await focused(), 0);
  await page.keyboard.press("j");
  assert.equal(await focused(), 1);
  await page.keyboard.press("k");
  assert.equal(await focused(), 0);
  await page.keyboard.press("End");
  assert.equal(await focused(), (await rows.count()) - 1);
  // In the search field letters are text, and on a button Enter presses it.
  await page.keyboard.press("/");
  await page.keyboard.type("jk");
  assert.equal(await page.getByRole("searchbox").inputValue(), "jk");
  await page.getByRole("searchbox").fill("");
  await page.getByRole("button", { name: "Settings" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press("j");
  await page.evaluate(() => document.activeElement?.blur());
  await page.locator(".list tbody tr.current").waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL(/captures\/[0-9a-f]{32}$/);
});

test("help has buckets, look back and verification, and keeps the account that was chosen", async () => {
  const page = await (await context()).newPage();
  await login(page);
  await login(page, host.tokens.other, "globex");
  // A login leads to the account that was typed, also where the session has another one from before.
  assert.match(page.url(), /\/a\/globex\/captures$/);
  await page.getByRole("link", { name: "Help" }).click();
  for (const title of ["Buckets", "Look back", "Verify", "What each loss means"]) await page.getByRole("heading", { name: title, level: 2 }).waitFor();
  const chosen = page.locator(".account-select select");
  assert.equal(await chosen.inputValue(), "globex");
  await page.reload();
  assert.equal(await chosen.inputValue(), "globex");
  await page.getByRole("link", { name: "Captures" }).click();
  await page.waitForURL(/\/a\/globex\/captures$/);
  assert.deepEqual(await violations(page), []);
});

test("ids of captures in the operator's log lead to the capture, and each number of one thing is in the singular", async () => {
  const page = await (await context()).newPage();
  await page.goto(`${host.origin}/ui/login`);
  await page.getByRole("radio", { name: "Operator" }).click();
  await page.getByLabel("Operator token").fill(host.tokens.operator);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText(/connections, one live stream$/).waitFor();
  await page.getByRole("link", { name: "Warnings and audit" }).click();
  await page.getByRole("link", { name: made.short }).first().click();
  await page.waitForURL(new RegExp(`/ui/host/captures\\?q=${made.short}$`));
  await page.locator("tr", { hasText: made.short.slice(0, 8) }).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 1);
  await page.getByRole("searchbox").fill("nobody");
  await page.getByText("has this ID or account").waitFor();
  assert.deepEqual(await violations(page), []);
});

test("with classic scrollbars the bar with the pages shows none at 390 px, in any language", async () => {
  // Headless Chromium hides them otherwise.
  const classic = await chromium.launch({ executablePath: process.env.TRAWL_CHROMIUM ?? "/usr/bin/chromium", args: FLAGS, ignoreDefaultArgs: ["--hide-scrollbars"] });
  try {
    const page = await classic.newPage({ viewport: { width: 390, height: 800 } });
    await logInto(page, host, host.tokens.write, "acme");
    for (const lang of ["en", "de", "en-XA"])
      for (const path of ["captures", `captures/${made.short}`]) {
        await page.goto(`${host.origin}/ui/a/acme/${path}?lang=${lang}`);
        await page.locator("h1").first().waitFor();
        const nav = await page.locator(".top nav").evaluate((one) => [one.offsetHeight - one.clientHeight, one.scrollHeight - one.clientHeight]);
        assert.deepEqual(nav, [0, 0], `${lang} ${path}`);
        const wide = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(wide[0] <= wide[1], `${lang} ${path}: ${wide}`);
      }
  } finally {
    await classic.close();
  }
});

test("over all of this no page broke its policy, threw, or asked another origin", () => {
  assert.deepEqual(broken, []);
});
