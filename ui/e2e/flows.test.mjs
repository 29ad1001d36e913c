// The dashboard in a real browser against the real binary with real packets: what a person does, and that every number on a page
// is the API's.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before } from "node:test";
import { broken, close, context, digits, figure, login as logInto, open, test, violations } from "./browser.mjs";
import { ended as endedOn, startHost } from "./host.mjs";

let host;
let browser;

before(async () => {
  host = await startHost();
  browser = await open(host.origin);
});
after(async () => {
  await close();
  await host?.stop();
});

const login = (page, token = host.tokens.write, account = "acme") => logInto(page, host, token, account);
const ended = (id) => endedOn(host, id);

/** Starts a capture by the API as a script would, for pages that show one. */
const start = (body) => host.api("/pcaps", { method: "POST", body: JSON.stringify({ system: "magic-transit", ...body }) });
const full = (seconds, more = {}) => start({ type: "full", time_limit: seconds, colo_name: "ord02", destination_conf: `file://${host.bucket}`, ...more });

test("a wrong credential is refused in words, and a right one is nowhere in the page afterwards", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await page.goto(`${host.origin}/ui/`);
  await page.getByLabel("Account").fill("acme");
  await page.getByLabel("API token").fill("wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("This credential does not open this account.").waitFor();
  assert.deepEqual(await violations(page), []);
  await login(page);
  const kept = await page.evaluate(() => JSON.stringify([document.documentElement.outerHTML, { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state]));
  assert.ok(!kept.includes(host.tokens.write));
  assert.ok(!(await host.log()).includes(host.tokens.write));
  const [cookie] = await browsing.cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, "Strict"]);
});

test("an empty list says what to do next, and a simple capture goes from the form to a checked file by the keyboard alone", async () => {
  const browsing = await context({ acceptDownloads: true });
  const page = await browsing.newPage();
  await login(page);
  await page.getByText("No captures yet").waitFor();
  assert.deepEqual(await violations(page), []);
  await page.keyboard.press("n");
  await page.getByRole("button", { name: /^Simple capture/ }).focus();
  await page.keyboard.press("Enter");
  await page.getByLabel("IP protocol").focus();
  await page.keyboard.type("6");
  await page.getByLabel("Packets").focus();
  await page.keyboard.press("Control+a");
  await page.keyboard.type("50");
  await page.getByText("Takes:").waitFor();
  assert.deepEqual(await violations(page), []);
  const start = page.getByRole("button", { name: "Start", exact: true });
  assert.equal(await start.getAttribute("aria-disabled"), "false");
  await start.focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/captures\/[0-9a-f]{32}$/);
  const id = page.url().slice(-32);
  await page.getByText("The packet limit was reached").waitFor();
  const { ledger } = await host.api(`/pcaps/${id}/progress`);
  assert.equal(ledger.captured, 50);
  assert.deepEqual([await figure(page, "Captured"), await figure(page, "Matched")], [ledger.captured, ledger.matched]);
  assert.deepEqual(await violations(page), []);
  const button = page.locator(".page-head").getByRole("link", { name: "Download", exact: true });
  await button.waitFor();
  const arriving = page.waitForEvent("download");
  await button.click();
  const file = await readFile(await (await arriving).path());
  const direct = await fetch(`${host.origin}/client/v4/accounts/acme/pcaps/${id}/download`, { headers: { Authorization: `Bearer ${host.tokens.write}` } });
  assert.equal(direct.headers.get("etag"), `"${createHash("sha256").update(file).digest("hex")}"`);
});

test("counts move while a full capture runs, a second one is refused before it is asked for, and a stop keeps what there is", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page);
  const { id } = await full(300, { filter_v1: { protocol: 17 } });
  await page.getByRole("button", { name: "One new capture" }).click();
  await page.getByText("Capturing").waitFor();
  await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
  await page.getByRole("heading", { name: "UDP" }).waitFor();
  const first = await figure(page, "Captured");
  await page.waitForFunction((before) => Number(document.querySelector(".figure-value")?.textContent?.replace(/[^0-9]/g, "")) > before, first);
  assert.deepEqual(await violations(page), []);
  const second = await browsing.newPage();
  await second.goto(`${host.origin}/ui/a/acme/captures/new?type=full`);
  await second.getByText("A full capture is already running").waitFor();
  assert.equal(await second.getByRole("button", { name: "Start", exact: true }).getAttribute("aria-disabled"), "true");
  await page.bringToFront();
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByRole("button", { name: "Stop and keep" }).click();
  await page.getByText("Stopped on request").waitFor();
  await ended(id);
  await page.locator(".status", { hasText: /^Complete/ }).waitFor();
  const progress = await host.api(`/pcaps/${id}/progress`);
  await page.waitForFunction((captured) => Number(document.querySelector(".figure-value")?.textContent?.replace(/[^0-9]/g, "")) === captured, progress.ledger.captured);
  await page.waitForFunction((objects) => document.querySelectorAll('[aria-label="Files"] tbody tr').length === objects, progress.objects.length);
  const terms = await page.locator(".equation").first().locator("b").allInnerTexts();
  assert.equal(digits(terms[0]), progress.ledger.offered);
  assert.equal(terms.slice(1).reduce((sum, text) => sum + digits(text), 0), progress.ledger.offered);
});

test("text that others wrote is text: no element, no dialog, and what cannot be seen is an escape", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  let dialogs = 0;
  page.on("dialog", (dialog) => {
    dialogs += 1;
    void dialog.dismiss();
  });
  await login(page);
  const hostile = `file://${host.bucket}/<img src=x onerror=alert(1)>\u202egnp`;
  const { id } = await full(1, { destination_conf: hostile, packet_limit: 10 });
  await ended(id);
  const shown = hostile.replace("\u202e", "\\u{202e}");
  await page.goto(`${host.origin}/ui/a/acme/captures/${id}`);
  assert.equal(await page.locator(".details .foreign", { hasText: "<img" }).innerText(), shown);
  await page.goto(`${host.origin}/ui/a/acme/captures`);
  assert.equal(await page.locator(".clip", { hasText: "<img" }).first().textContent(), shown);
  assert.deepEqual([await page.locator("img").count(), dialogs], [0, 0]);
});

test("a read credential sees everything, and no button that it may not press", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page, host.tokens.read);
  await page.getByText("This credential may only read").waitFor();
  assert.equal(await page.getByRole("link", { name: "New capture" }).count(), 0);
  assert.deepEqual(await violations(page), []);
});

test("logging out in one tab ends the session in the other, whose page stays under a dialog", async () => {
  const browsing = await context();
  const first = await browsing.newPage();
  await login(first);
  const second = await browsing.newPage();
  await second.goto(`${host.origin}/ui/a/acme/captures/new?type=simple`);
  await second.getByLabel("Source", { exact: true }).fill("192.0.2.7");
  await first.bringToFront();
  await first.getByRole("button", { name: "Log out" }).click();
  await first.getByRole("heading", { name: "Log in to trawl" }).waitFor();
  await second.bringToFront();
  await second.getByRole("dialog").getByText("Your session has ended").waitFor();
  assert.equal(await second.getByLabel("Source", { exact: true }).inputValue(), "192.0.2.7");
  assert.deepEqual(await violations(second), []);
});

test("seven tabs work, and all of them together read one stream", async () => {
  const browsing = await context();
  const pages = [await browsing.newPage()];
  let streams = 0;
  browsing.on("request", (request) => {
    if (request.url().endsWith("/pcaps/events")) streams += 1;
  });
  await login(pages[0]);
  for (let tab = 1; tab < 7; tab += 1) {
    const page = await browsing.newPage();
    pages.push(page);
    await page.goto(`${host.origin}/ui/a/acme/captures`);
    await page.locator(".list tbody tr").first().waitFor();
    await page.locator(".connection.stream").waitFor();
  }
  // Tabs of a headless browser are all visible: the first one leads, and the others hear of it.
  assert.equal(streams, 1);
});

test("where streams are refused the page polls and shows the same", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await page.route("**/pcaps/events", (route) => route.abort());
  await login(page);
  await page.locator(".connection.poll").waitFor();
  const { id } = await full(2, { filter_v1: { protocol: 1 } });
  await page.getByRole("button", { name: "One new capture" }).click();
  await ended(id);
  await page.locator(".list tbody tr").first().locator(".status.ok, .status.warn").waitFor();
});

test("an operator sees whether packets are lost, every account's captures and who did what, and a customer sees none of it", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await page.goto(`${host.origin}/ui/login`);
  await page.getByRole("radio", { name: "Operator" }).click();
  await page.getByLabel("Operator token").fill(host.tokens.operator);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator(".verdict").waitFor();
  await page.locator(".plot-box canvas").first().waitFor();
  assert.deepEqual(await violations(page), []);
  await page.getByRole("link", { name: "Warnings and audit" }).click();
  await page.locator(".log tbody tr", { hasText: "login" }).first().waitFor();
  assert.deepEqual(await violations(page), []);
  const other = await context();
  const customer = await other.newPage();
  await login(customer, host.tokens.other, "globex");
  assert.equal(await customer.locator(".list tbody tr").count(), 0);
  await customer.goto(`${host.origin}/ui/host`);
  await customer.getByText("This page needs an operator's token.").waitFor();
  await customer.goto(`${host.origin}/ui/a/acme/captures`);
  await customer.getByText("You are not logged in to this account").waitFor();
  await other.close();
});

test("the host is killed and comes back: the page says how old it is, then goes on", async () => {
  const browsing = await context();
  const page = await browsing.newPage();
  await login(page);
  await page.locator(".connection.stream").waitFor();
  await host.kill("SIGKILL");
  await page.getByText(/Last update .* ago, reconnecting/).waitFor();
  assert.ok((await page.locator(".list tbody tr").count()) > 0);
  await host.start();
  // Sessions live in memory: the page stays, and asks to log in again.
  await page.getByRole("dialog").getByText("Your session has ended").waitFor();
  assert.equal(await page.getByRole("dialog").getByLabel("Account").inputValue(), "acme");
  await page.getByRole("dialog").getByLabel("API token").fill(host.tokens.write);
  await page.getByRole("dialog").getByRole("button", { name: "Log in" }).click();
  await page.locator(".connection.stream, .connection.poll").waitFor();
});

test("the tests would see a broken policy: an inline script, innerHTML and a foreign image are refused and noticed", async () => {
  const browsing = await browser.newContext();
  const page = await browsing.newPage();
  await page.goto(`${host.origin}/ui/login`);
  const seen = await page.evaluate(async () => {
    const heard = [];
    addEventListener("securitypolicyviolation", (event) => heard.push(event.effectiveDirective));
    let refused = false;
    try {
      document.body.innerHTML = "<b>x</b>";
    } catch {
      refused = true;
    }
    const image = new Image();
    image.src = "https://192.0.2.1/x.png";
    const style = document.createElement("style");
    style.textContent = "body { color: red }";
    document.head.append(style);
    await new Promise((done) => setTimeout(done, 300));
    return { heard, refused };
  });
  assert.equal(seen.refused, true);
  for (const directive of ["require-trusted-types-for", "img-src", "style-src-elem"]) assert.ok(seen.heard.includes(directive), directive);
});

test("over all of this no page broke its policy, threw, or asked another origin", () => {
  assert.deepEqual(broken, []);
});
