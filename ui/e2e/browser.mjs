// Chromium for the browser tests: contexts that notice what no page may ever do, a test that leaves a picture when it fails, and
// what pages are asked for. Owns the browser.
//
// Invariant: whatever a page of any test does against its policy stands in `broken`.
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { test as plainTest } from "node:test";
import { chromium } from "playwright-core";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
export const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Where pictures of failures go. */
const PICTURES = new URL("../../target/test-logs/ui/", import.meta.url);

let browser;
let origin;
/** What no page may ever do: break its policy, throw, or ask another origin. */
export const broken = [];

export async function open(of) {
  origin = of;
  browser = await chromium.launch({ executablePath: process.env.TRAWL_CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
  return browser;
}

export const close = () => browser?.close();

/** Ends a context. What its pages were still asking for is nobody's any more: an answer that a test changes is not waited for. */
export async function end(one) {
  for (const page of one.pages()) await page.unrouteAll({ behavior: "ignoreErrors" });
  await one.close();
}

export async function context(options = {}) {
  const made = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-GB", ...options });
  await made.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  made.setDefaultTimeout(15_000);
  made.on("console", (message) => /^policy:/.test(message.text()) && broken.push(message.text()));
  made.on("weberror", (error) => broken.push(String(error.error())));
  made.on("request", (request) => request.url().startsWith(origin) || /^(data|blob):/.test(request.url()) || broken.push(`asked ${request.url()}`));
  return made;
}

/** A test that, when it fails, says what each open page shows, and leaves a picture of it. Its pages are closed. */
export function test(name, body) {
  plainTest(name, async () => {
    try {
      await body();
    } catch (error) {
      await mkdir(PICTURES, { recursive: true });
      for (const page of browser.contexts().flatMap((one) => one.pages())) {
        const picture = new URL(`${Date.now()}.png`, PICTURES).pathname;
        console.error(`${page.url()} (${picture}):\n${await page.innerText("body").catch(String)}`);
        await page.screenshot({ path: picture, fullPage: true }).catch(console.error);
      }
      throw error;
    } finally {
      for (const one of browser.contexts()) await end(one);
    }
  });
}

export async function login(page, host, token, account) {
  await page.goto(`${host.origin}/ui/login`);
  await page.getByLabel("Account").fill(account);
  await page.getByLabel("API token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Captures", level: 1 }).waitFor();
}

export const digits = (text) => Number(text.replace(/[^0-9]/g, ""));

/** The number that a page shows under this label. */
export async function figure(page, label) {
  const value = page.locator(".figure", { has: page.locator("dt", { hasText: new RegExp(`^${label}$`) }) }).locator(".figure-value");
  return digits(await value.innerText());
}

/** What axe finds wrong. */
export async function violations(page) {
  // By the protocol and not by a script element, which the page's policy would refuse.
  await page.evaluate(AXE);
  const found = await page.evaluate((rules) => window.axe.run({ runOnly: rules }), RULES);
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
}
