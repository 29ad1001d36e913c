// The dashboard against a real S3 server, with losses forced, with a history, and through crashes: every number on a page is the
// API's and the manifest's, to the packet, and what goes wrong stands there in words.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before } from "node:test";
import { broken, close, context, digits, figure, login as logInto, open, test, violations } from "./browser.mjs";
import { ended as endedOn, startHost } from "./host.mjs";
import { startWeed } from "./weed.mjs";

const DESTINATION = "s3://traces/edge?region=us-east-1";
/** As many files as a page shows at once. */
const FILES_PER_PAGE = 50;
/** How long the test of forced losses looks; a minute in a long run. */
const LOSSES_MS = Number(process.env.TRAWL_UI_LOSSES_MS ?? 1_200);

let weed;
let host;

before(async () => {
  weed = await startWeed();
  await weed.createBucket("traces");
  host = await startHost({
    blocks: 24,
    spoolGiB: LOSSES_MS > 10_000 ? 40 : 8,
    capture: "full_per_account = 1",
    history: 'enabled = true\nsample = 1000\nbytes_max = "256MiB"\nsegment_seconds = 2',
    upload: "retry_pause_ms_max = 500\nretry_seconds_max = 2\nattempt_seconds_max = 2",
    s3: `endpoint = "${weed.endpoint}"\npath_style = true`,
    env: weed.env,
  });
  await open(host.origin);
});
after(async () => {
  await close();
  await host?.stop();
  await weed?.stop();
});

const login = (page, token = host.tokens.write, account = "acme") => logInto(page, host, token, account);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const full = (more) => host.api("/pcaps", { method: "POST", body: JSON.stringify({ system: "magic-transit", type: "full", time_limit: 60, colo_name: "ord02", destination_conf: DESTINATION, ...more }) });
const ended = (id) => endedOn(host, id);
const manifest = async (id) => JSON.parse(await weed.object("traces", `edge/pcap_${id}.json`));

/** All that the page of an ended capture says in numbers, held against the API and the manifest in the bucket. */
async function holds(page, id) {
  const { ledger, objects } = await host.api(`/pcaps/${id}/progress`);
  const written = await manifest(id);
  const shown = [await figure(page, "Captured"), await figure(page, "Matched")];
  assert.deepEqual(shown, [ledger.captured, ledger.matched]);
  assert.deepEqual(shown, [written.ledger.captured, written.ledger.matched]);
  const rows = page.locator(".files tbody tr");
  assert.equal(written.objects.length, objects.length);
  let packets = 0;
  for (let from = 0; from < objects.length; from += FILES_PER_PAGE) {
    const here = objects.slice(from, from + FILES_PER_PAGE);
    await rows.nth(here.length - 1).filter({ hasText: here.at(-1).name }).waitFor();
    assert.equal(await rows.count(), here.length);
    for (const [index, object] of here.entries()) {
      const row = rows.nth(index);
      packets += digits(await row.locator("td").nth(1).innerText());
      assert.equal(await row.locator("th").innerText(), object.name);
      assert.equal(await row.locator(".mono[title]").last().getAttribute("title"), written.objects[from + index].sha256);
    }
    if (from + FILES_PER_PAGE < objects.length) await page.getByRole("button", { name: "Next", exact: true }).click();
  }
  assert.equal(packets, ledger.captured);
  return { ledger, objects };
}

test("e-mail and key open the account, too many wrong ones have to wait by the clock, and two tabs hold two accounts", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await page.goto(`${host.origin}/ui/login`);
  await page.getByRole("radio", { name: "E-mail and key" }).click();
  await page.getByLabel("Account").fill("acme");
  await page.getByLabel("E-mail", { exact: true }).fill("ops@acme.example");
  await page.getByLabel("API key").fill(host.tokens.key);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Captures", level: 1 }).waitFor();

  const second = await browsing.newPage();
  await login(second, host.tokens.other, "globex");
  await second.getByText("No captures yet").waitFor();
  // The first tab still shows its own account, and the session holds both.
  assert.match(page.url(), /\/a\/acme\/captures$/);
  await page.reload();
  await page.getByRole("heading", { name: "Captures", level: 1 }).waitFor();
  await second.goto(`${host.origin}/ui/a/acme/captures`);
  await second.getByRole("heading", { name: "Captures", level: 1 }).waitFor();

  const stranger = await (await context()).newPage();
  await stranger.goto(`${host.origin}/ui/login`);
  const limited = stranger.getByText(/Too many wrong credentials from this address\. Try again in/);
  for (let tries = 0; tries < 15 && (await limited.count()) === 0; tries += 1) {
    await stranger.getByLabel("Account").fill("acme");
    await stranger.getByLabel("API token").fill(`wrong ${tries}`);
    await stranger.getByRole("button", { name: "Log in" }).click();
    await stranger.getByRole("alert").waitFor();
    await stranger.getByRole("button", { name: "Log in" }).waitFor();
  }
  await limited.waitFor();
  assert.equal(await stranger.getByRole("button", { name: "Log in" }).getAttribute("aria-disabled"), "true");
  assert.deepEqual(await violations(stranger), []);
  // A right credential is never refused for others' wrong ones.
  await login(await (await context()).newPage());
});

test("a bucket is proven in the browser with what stands in the store, and a full capture goes there and back, to the packet", async () => {
  const browsing = await context({ acceptDownloads: true });
  const page = await browsing.newPage();
  await login(page);
  await page.getByRole("link", { name: "Buckets" }).click();
  await page.getByText("No buckets yet").waitFor();
  await page.getByRole("button", { name: "Add a bucket" }).first().click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Bucket", { exact: true }).fill("traces");
  await dialog.getByLabel("Directory").fill("edge");
  await dialog.getByLabel("Region").fill("us-east-1");
  assert.deepEqual(await violations(page), []);
  await dialog.getByRole("button", { name: "Next" }).click();
  await dialog.getByText("The host wrote this object into the bucket:").waitFor();
  const [{ filename }] = await host.api("/pcaps/ownership");
  assert.ok((await dialog.innerText()).includes(filename));
  assert.deepEqual(await violations(page), []);
  await dialog.getByLabel("Ownership token").fill("0".repeat(64));
  await dialog.getByRole("button", { name: "Prove", exact: true }).click();
  await dialog.getByRole("alert").waitFor();
  await dialog.getByLabel("Ownership token").fill((await weed.object("traces", `edge/${filename}`)).toString());
  await dialog.getByRole("button", { name: "Prove", exact: true }).click();
  await page.locator(".buckets .status.ok, .buckets tr", { hasText: "Proven" }).first().waitFor();
  await dialog.waitFor({ state: "detached" });

  await page.goto(`${host.origin}/ui/a/acme/captures/new?type=full`);
  await page.getByLabel("Send to").or(page.locator("#destination")).first().waitFor();
  await page.waitForFunction((wanted) => document.querySelector("#destination")?.value === wanted, DESTINATION);
  await page.getByLabel("IP protocol").fill("17");
  await page.getByLabel("Packets").fill("20000");
  // Another tab has the same form ready: when both are pressed, one of them is refused, in words.
  const rival = await browsing.newPage();
  await rival.goto(`${host.origin}/ui/a/acme/captures/new?type=full`);
  await rival.waitForFunction((wanted) => document.querySelector("#destination")?.value === wanted, DESTINATION);
  await rival.getByLabel("Seconds").fill("60");
  const start = (of) => of.getByRole("button", { name: "Start", exact: true });
  assert.equal(await start(rival).getAttribute("aria-disabled"), "false");
  await page.route("**/pcaps", async (route) => {
    // The rival is answered first, so that it is clear who is refused.
    await start(rival).click();
    await rival.waitForURL(/captures\/[0-9a-f]{32}$/);
    await route.continue();
  });
  await start(page).click();
  await page.getByRole("alert").filter({ hasText: /code \d+/ }).waitFor();
  await page.unroute("**/pcaps");
  await host.api(`/pcaps/${rival.url().slice(-32)}/stop`, { method: "PUT" });
  await ended(rival.url().slice(-32));
  await page.waitForFunction(() => document.querySelector("button[type=submit]")?.getAttribute("aria-disabled") === "false");
  await start(page).click();
  await page.waitForURL(/captures\/[0-9a-f]{32}$/);
  const id = page.url().slice(-32);
  assert.equal((await ended(id)).status, "success");
  await page.getByText("The packet limit was reached").waitFor();
  await page.locator(".status", { hasText: /^Complete/ }).waitFor();
  const { ledger, objects } = await holds(page, id);
  assert.equal(ledger.captured, 20_000);
  assert.deepEqual(await violations(page), []);
  const arriving = page.waitForEvent("download");
  await page.locator(".files").getByRole("link", { name: "Download" }).first().click();
  const file = await readFile(await (await arriving).path());
  assert.equal(sha256(file), objects[0].sha256);
  assert.equal(sha256(await weed.object("traces", `edge/${objects[0].name}`)), objects[0].sha256);
});

test("what the history holds is found by a look back, and the estimate before it is of the same packets", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page);
  await page.goto(`${host.origin}/ui/a/acme/captures/new?type=back`);
  await page.getByRole("slider", { name: "Look back to" }).waitFor();
  await page.getByLabel("IP protocol").fill("17");
  await page.getByLabel("Seconds").fill("5");
  await page.getByRole("slider", { name: "Look back to" }).press("ArrowLeft");
  assert.deepEqual(await violations(page), []);
  await page.getByRole("button", { name: "Start", exact: true }).click();
  await page.waitForURL(/captures\/[0-9a-f]{32}$/);
  const id = page.url().slice(-32);
  const capture = await ended(id);
  assert.equal(capture.status, "success");
  await page.locator(".status", { hasText: /^Complete/ }).waitFor();
  const { ledger } = await host.api(`/pcaps/${id}/progress`);
  assert.ok(ledger.captured > 0);
  assert.equal(await figure(page, "Captured"), ledger.captured);
  await page.getByText("Window from").waitFor();
  assert.deepEqual(await violations(page), []);
});

test("with losses forced, each frame of the page adds up, the end names the loss and nothing is plain green", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page);
  const { id } = await full({ time_limit: 300 });
  await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
  await page.locator(".equation").nth(2).waitFor();
  // In the page, at every change of the equations: each whole is the sum of its parts as they stand there.
  await page.evaluate(() => {
    window.sums = { looked: 0, wrong: [] };
    const look = () => {
      for (const line of document.querySelectorAll(".equation")) {
        const [whole, ...parts] = [...line.querySelectorAll("b")].map((one) => Number(one.textContent.replace(/[^0-9]/g, "")));
        window.sums.looked += 1;
        if (parts.reduce((sum, part) => sum + part, 0) !== whole) window.sums.wrong.push(line.textContent);
      }
    };
    new MutationObserver(look).observe(document.querySelector(".equations"), { subtree: true, characterData: true, childList: true });
  });
  await page.locator(".causes").getByText("no free block").waitFor();
  assert.deepEqual(await violations(page), []);
  await page.waitForTimeout(LOSSES_MS);
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByRole("button", { name: "Stop and keep" }).click();
  await ended(id);
  await page.locator(".status.warn", { hasText: /^Complete, .* lost$/ }).waitFor();
  const sums = await page.evaluate(() => window.sums);
  assert.ok(sums.looked >= 3, `only ${sums.looked} were looked at`);
  assert.deepEqual(sums.wrong, []);
  await page.reload();
  const { ledger } = await holds(page, id);
  assert.ok(ledger.dropped.no_block > 0);
  assert.equal(digits(await page.locator(".causes dt", { hasText: "no free block" }).innerText()), ledger.dropped.no_block);
  // The operator of the host sees the same count, to the packet.
  const operator = await (await context()).newPage();
  await operator.goto(`${host.origin}/ui/login`);
  await operator.getByRole("radio", { name: "Operator" }).click();
  await operator.getByLabel("Operator token").fill(host.tokens.operator);
  await operator.getByRole("button", { name: "Log in" }).click();
  const row = operator.locator("tr", { hasText: id.slice(0, 8) }).filter({ hasText: "no free block" });
  assert.equal(digits(await row.locator("td, th").first().innerText()), ledger.dropped.no_block);
});

test("a store that does not answer is named on the page while it is tried again, and the capture is complete when it does", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page);
  const { id } = await full({ time_limit: 2, filter_v1: { protocol: 1 } });
  weed.pause();
  try {
    await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
    await page.locator(".notice", { hasText: "could not be reached" }).filter({ hasText: "The host tries again" }).waitFor({ timeout: 40_000 });
    assert.deepEqual(await violations(page), []);
  } finally {
    weed.resume();
  }
  assert.equal((await ended(id)).status, "success");
  await page.locator(".status", { hasText: /^Complete/ }).waitFor();
  await holds(page, id);
});

test("after a crash the page goes on by itself, says that the capture was interrupted, and its counts balance", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page);
  const { id } = await full({ time_limit: 300, filter_v1: { protocol: 17 } });
  await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
  await page.waitForFunction(() => Number(document.querySelector(".figure-value")?.textContent?.replace(/[^0-9]/g, "")) > 1000);
  // At least one segment is published: what a crash leaves are whole segments.
  await page.waitForTimeout(2500);
  await host.kill("SIGKILL");
  await page.getByText(/Last update .* ago, reconnecting/).waitFor();
  await host.start();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("Your session has ended").waitFor();
  await dialog.getByLabel("API token").fill(host.tokens.write);
  await dialog.getByRole("button", { name: "Log in" }).click();
  await ended(id);
  await page.getByText("The host stopped in the middle of this capture").waitFor();
  await page.reload();
  await page.locator(".equation").nth(2).waitFor();
  await holds(page, id);
  for (const line of await page.locator(".equation").all()) {
    const [whole, ...parts] = (await line.locator("b").allInnerTexts()).map(digits);
    assert.equal(parts.reduce((sum, part) => sum + part, 0), whole);
  }
});

test("a page of an older version that is still open says so when a part of it is gone", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page);
  await page.route("**/assets/buckets-*.js", (route) => route.fulfill({ status: 404, body: "" }));
  await page.getByRole("link", { name: "Buckets" }).click();
  await page.getByRole("button", { name: /Load|Reload/ }).waitFor();
  assert.deepEqual(await violations(page), []);
});

test("forced colours, the zoom of 400 % and reduced motion change nothing that is needed", async () => {
  const browsing = await context({ forcedColors: "active", reducedMotion: "reduce", viewport: { width: 320, height: 256 } });
  const page = await browsing.newPage();
  await login(page);
  const [{ id }] = await host.api("/pcaps");
  for (const path of ["captures", `captures/${id}`, "captures/new?type=full", "captures/new?type=back", "buckets"]) {
    await page.goto(`${host.origin}/ui/a/acme/${path}`);
    await page.locator("h1").first().waitFor();
    await page.waitForLoadState("load");
    assert.deepEqual(await violations(page), [], path);
    const wide = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide[0] <= wide[1], `${path}: ${wide}`);
  }
});

test("over all of this no page broke its policy, threw, or asked another origin", () => {
  assert.deepEqual(broken, []);
});
