// What the dashboard costs a browser, on this machine: the list's first paint with an empty cache and a CPU four times slower, the
// requests and bytes for it, and the heap of a page that stays open while captures change. Medians of five, as a table.
import { close, context, login, open } from "./browser.mjs";
import { startHost } from "./host.mjs";

const ROUNDS = 5;
/** How long a page stays open; its timers run twenty times as fast, so that ten minutes are a bit more than three hours. */
const OPEN_MINUTES = Number(process.env.TRAWL_UI_OPEN_MINUTES ?? 10);
const FASTER = 20;
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

const host = await startHost();
await open(host.origin);
const { id } = await host.api("/pcaps", { method: "POST", body: JSON.stringify({ system: "magic-transit", type: "full", time_limit: 3600, colo_name: "ord02", destination_conf: `file://${host.bucket}`, filter_v1: { protocol: 17, source_port: 53 } }) });

async function firstPaint() {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page, host, host.tokens.write, "acme");
  const devtools = await browsing.newCDPSession(page);
  await devtools.send("Network.enable");
  await devtools.send("Network.clearBrowserCache");
  await devtools.send("Emulation.setCPUThrottlingRate", { rate: 4 });
  const sizes = [];
  devtools.on("Network.loadingFinished", ({ encodedDataLength }) => sizes.push(encodedDataLength));
  let requests = 0;
  page.on("request", () => (requests += 1));
  await page.goto(`${host.origin}/ui/a/acme/captures`);
  await page.locator(".list tbody tr").first().waitFor();
  // When the row was there, by the page's own clock, which begins with the navigation.
  const rows = await page.evaluate(() => performance.now());
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  const result = { rows, paint, requests, kilobytes: sizes.reduce((sum, size) => sum + size, 0) / 1000 };
  await browsing.close();
  return result;
}

async function heap() {
  const browsing = await context();
  await browsing.addInitScript((faster) => {
    const [interval, timeout] = [window.setInterval, window.setTimeout];
    window.setInterval = (run, ms, ...more) => interval(run, ms / faster, ...more);
    window.setTimeout = (run, ms, ...more) => timeout(run, ms / faster, ...more);
  }, FASTER);
  const page = await browsing.newPage();
  await login(page, host, host.tokens.write, "acme");
  await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
  await page.locator(".plot-box canvas").first().waitFor();
  const devtools = await browsing.newCDPSession(page);
  const used = async () => {
    await devtools.send("HeapProfiler.collectGarbage");
    return (await devtools.send("Runtime.getHeapUsage")).usedSize / 1e6;
  };
  await page.waitForTimeout(20_000);
  const before = await used();
  await page.waitForTimeout(OPEN_MINUTES * 60_000);
  return { before, after: await used() };
}

const rounds = [];
for (let round = 0; round < ROUNDS; round += 1) rounds.push(await firstPaint());
const of = (name) => median(rounds.map((round) => round[name]));
const { before, after } = await heap();
console.log(`| what | budget | measured |
|---|---|---|
| first paint of the list, cold, CPU throttled 4 × | 1500 ms | ${of("paint").toFixed(0)} ms |
| its first row | – | ${of("rows").toFixed(0)} ms |
| requests for it | 25 | ${of("requests")} |
| bytes for it | – | ${of("kilobytes").toFixed(0)} kB |
| heap of a page that stays open for ${OPEN_MINUTES} min, timers ${FASTER} × as fast | grows 5 MB at most | ${before.toFixed(1)} MB, then ${after.toFixed(1)} MB |`);
await close();
await host.stop();
